package fs

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/tidwall/btree"

	"hearth/fs/tree"
	"hearth/log"
)

// Waste is what no version needs.
type Waste struct {
	Blocks int64
	Bytes  int64 // stored bytes of these blocks
}

// readerGrace is how long blocks stay after they were found to be waste: who
// looked up where a file's contents are just before they were replaced reads
// them within that time.
const readerGrace = time.Second

// SweepOptions say how a sweep goes on.
type SweepOptions struct {
	// Grace, if not 0, replaces the second that readers of what was just
	// overwritten are given; negative: none.
	Grace time.Duration
	// Progress may be nil. It is called with pages gone through; how many there
	// are is not known before.
	Progress func(pages int64)
}

// Measure finds what no kept version needs, and drops nothing. Versions for
// which nothing was said to Keep count as gone.
func (u *Upkeep) Measure(ctx context.Context, o SweepOptions) (Waste, error) {
	u.keepNewest()
	set, err := u.waste(ctx, o)
	if err != nil {
		return Waste{}, err
	}
	return u.weigh(ctx, set)
}

// Drop drops the blocks that no kept version needs. The versions to go were
// thinned before. Programs go on meanwhile. The log gives back the space when
// asked: see [log.Log.Reclaim].
func (u *Upkeep) Drop(ctx context.Context, o SweepOptions) (Waste, error) {
	d := u.d
	// A block can only go once the version that does without it cannot be lost
	// any more.
	if d.newest().index >= d.own.Head().Size {
		if err := d.commitUpkeep(true, func() error { return nil }); err != nil {
			return Waste{}, err
		}
	}
	begun := time.Now()
	set, err := u.waste(ctx, o)
	if err != nil {
		return Waste{}, fmt.Errorf("sweeping drive %s: %w", d.store.ID(), err)
	}
	w, err := u.condemn(ctx, set, begun, o)
	if err != nil {
		return w, fmt.Errorf("sweeping drive %s: %w", d.store.ID(), err)
	}
	return w, nil
}

// weigh adds up what blocks take.
func (u *Upkeep) weigh(ctx context.Context, set *roaring64.Bitmap) (Waste, error) {
	w := Waste{Blocks: int64(set.GetCardinality())}
	for it := set.Iterator(); it.HasNext(); {
		if err := ctx.Err(); err != nil {
			return w, err
		}
		if desc, err := u.d.own.Descriptor(it.Next()); err == nil {
			w.Bytes += int64(desc.Length)
		}
	}
	return w, nil
}

// waste marks, and returns the blocks up to the newest version that are left.
// What was committed since the upkeep began is kept as a whole.
func (u *Upkeep) waste(ctx context.Context, o SweepOptions) (*roaring64.Bitmap, error) {
	d := u.d
	if err := u.catchUp(); err != nil {
		return nil, err
	}
	var tick func()
	m := u.newMarker(nil)
	if o.Progress != nil {
		tick = func() { o.Progress(m.pages) }
	}
	m.tick = tick
	if err := m.markAll(ctx); err != nil {
		return nil, err
	}
	end := u.all[len(u.all)-1].index
	set := roaring64.New()
	set.AddRange(0, end)
	set.AndNot(m.live)
	set.AndNot(d.own.Dropped())
	for it := set.Clone().Iterator(); it.HasNext(); {
		if i := it.Next(); d.own.IsControl(i) {
			set.Remove(i)
		}
	}
	return set, nil
}

// catchUp adds the versions that were committed since the list was made. They
// stay.
func (u *Upkeep) catchUp() error {
	d := u.d
	head := d.newest()
	last := u.all[len(u.all)-1]
	for seq := last.seq + 1; seq <= head.seq; seq++ {
		v, err := d.version(seq)
		if err != nil {
			return err
		}
		u.all = append(u.all, &kept{seq: seq, index: v.index, time: v.time, hidden: v.reason == ReasonUpkeep, held: true, keep: AllClasses})
	}
	return nil
}

// condemn drops a set of blocks, but for those that come into use meanwhile.
func (u *Upkeep) condemn(ctx context.Context, set *roaring64.Bitmap, begun time.Time, o SweepOptions) (Waste, error) {
	d := u.d
	if set.IsEmpty() {
		return Waste{}, nil
	}
	d.index.expect()
	d.upkeep.condemned.Store(set.Clone())
	defer d.upkeep.condemned.Store(nil)
	d.index.update(&indexUpdate{blocks: set.Clone()})
	defer d.index.update(&indexUpdate{last: true})

	// Who found such a block before it was condemned has put it into a layer
	// when these locks have been free once.
	pass(&d.sealMu)
	pass(&d.upkeep.placing)

	grace := readerGrace
	if o.Grace != 0 {
		grace = o.Grace
	}
	if wait := grace - time.Since(begun); wait > 0 {
		select {
		case <-ctx.Done():
			return Waste{}, ctx.Err()
		case <-time.After(wait):
		}
	}
	r := &recheck{d: d, set: set, at: u.all[len(u.all)-1].seq}
	if err := r.run(ctx); err != nil {
		return Waste{}, err
	}
	w, err := u.weigh(ctx, set)
	if err != nil || set.IsEmpty() {
		return w, err
	}
	if err := d.own.Drop(ctx, set); err != nil {
		return Waste{}, err
	}
	// For who holds this drive elsewhere. It comes second: what is dropped here
	// is told by the log's own record, and a statement about blocks that are
	// still in use would be worse than one that is missing.
	for _, c := range log.SplitDropped(d.writer, set) {
		if _, err := d.store.AppendControl(c); err != nil {
			return w, noSpace(err)
		}
	}
	return w, d.commitUpkeep(true, func() error { return nil })
}

// pass waits until everybody who holds a lock now has given it back.
func pass(l sync.Locker) {
	l.Lock()
	defer l.Unlock()
}

// recheck takes out of a set of condemned blocks what versions after the one
// that was marked, or changes that are in no version yet, refer to.
type recheck struct {
	d    *Drive
	set  *roaring64.Bitmap
	at   uint64 // versions up to here were looked at
	root *tree.Tree
}

// openEntries is how many uncommitted records a recheck looks at without
// making a version of them first.
const openEntries = 1 << 16

func (r *recheck) run(ctx context.Context) error {
	d := r.d
	for range 1000 {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.versions(d.newest()); err != nil {
			return err
		}
		layers, ok := r.freezeFrame()
		if !ok { // it went on meanwhile
			continue
		}
		if layers[0].Len() > openEntries {
			if err := d.commit(ctx, false); err != nil {
				return err
			}
			continue
		}
		for _, l := range layers {
			if err := r.layer(l); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("the drive is too busy: %w", ErrBusy)
}

// versions looks at the versions up to the newest.
func (r *recheck) versions(newest version) error {
	d := r.d
	if r.root == nil {
		first, err := d.version(r.at)
		if err != nil {
			return err
		}
		r.root = tree.New(&d.pages, d.cache, first.root)
	}
	for r.at < newest.seq {
		v, err := d.version(r.at + 1)
		if err != nil {
			return err
		}
		if root := tree.New(&d.pages, d.cache, v.root); root.Root() != r.root.Root() {
			err := tree.Diff(r.root, root, nil, nil, func(key, _, now []byte) error { return r.record(key, now) })
			if err != nil {
				return err
			}
			r.root = root
		}
		for _, ch := range v.buffer {
			if err := r.record(ch.Key, ch.Value); err != nil {
				return err
			}
		}
		r.at++
	}
	return nil
}

// freezeFrame returns what is in no version, as it is at one moment at which
// the newest version was looked at; the open layer first.
func (r *recheck) freezeFrame() (layers []*btree.Map[string, []byte], ok bool) {
	d := r.d
	d.commitMu.Lock()
	defer d.commitMu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.head.seq != r.at {
		return nil, false
	}
	layers = append(layers, d.open.m.Copy())
	for _, o := range d.orphans {
		layers = append(layers, o.layer.m.Copy())
	}
	return layers, true
}

func (r *recheck) layer(m *btree.Map[string, []byte]) error {
	var err error
	m.Scan(func(k string, v []byte) bool {
		err = r.record([]byte(k), v)
		return err == nil
	})
	return err
}

func (r *recheck) record(key, value []byte) error {
	if value == nil {
		return nil
	}
	ref, ok, err := blockOf(key, value)
	if ok && ref.Writer == r.d.writer {
		r.set.Remove(ref.Index)
	}
	return err
}

// Reclaim gives the space of dropped blocks back to the disk.
func (u *Upkeep) Reclaim(ctx context.Context) (freed int64, err error) {
	return u.d.own.Reclaim(ctx, 0)
}
