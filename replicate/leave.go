package replicate

import (
	"context"
	"fmt"
	"math"
	"sync"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"hearth/fs"
	"hearth/log"
)

// Leaving says what of a drive would go with this device.
type Leaving struct {
	Here  uint64 // entries that are on this device
	Only  uint64 // of these, those that no connected device has proved to have
	Asked int    // how many devices were asked
}

// Leave finds out what would be lost if this device forgot a drive, as [Node.Evict]
// does: connected devices have to prove what they have. From before it asks until
// stay is called this device says that it has nothing of the drive, so that of
// several that leave it at once the last to begin learns that nobody else has it.
// stay has to be called, after Remove if the drive was forgotten. progress is told
// of entries that were proved, and holds the work up. After an error stay is nil.
func (n *Node) Leave(ctx context.Context, store *log.Store, progress func(done, total uint64)) (l Leaving, stay func(), err error) {
	d := n.shared(store.DriveID())
	if d == nil {
		return l, nil, fmt.Errorf("drive %v is not shared: %w", store.DriveID(), log.ErrMissing)
	}
	if err := d.evictAlone(ctx); err != nil {
		return l, nil, err
	}
	logs := store.Logs()
	d.setGoing(true)
	stay = sync.OnceFunc(func() {
		d.setGoing(false)
		<-d.evicting
	})
	begun, only := held(logs), held(logs)
	l.Here = only.Count()
	p := &probing{n: n, d: d, total: l.Here, progress: progress}
	if l.Here > 0 {
		for _, s := range n.awaitSharing(ctx, store.DriveID()) {
			l.Asked++
			for w, set := range only {
				_ = p.prove(ctx, s, logs[w], set, func(proved *roaring64.Bitmap) error { // which is the only error
					set.AndNot(proved)
					return nil
				})
			}
		}
	}
	if ctx.Err() != nil {
		stay()
		return l, nil, context.Cause(ctx)
	}
	for w, now := range held(logs) { // what turned out to be damaged is not here
		came := roaring64.AndNot(now, begun[w]) // meanwhile, and nobody was asked
		l.Only += came.GetCardinality() + roaring64.And(now, only[w]).GetCardinality()
	}
	return l, stay, nil
}

// setGoing says whether all of a drive may go from this device.
func (d *shared) setGoing(yes bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.going = yes
}

// held returns what is on this device.
func held(logs map[log.Writer]*log.Log) fs.Blocks {
	all := fs.Blocks{}
	for w, l := range logs {
		all[w] = roaring64.New()
		for _, r := range heldRanges(l, 0, math.MaxInt) {
			all[w].AddRange(r.first, r.first+r.n)
		}
	}
	return all
}
