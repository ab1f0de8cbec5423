package replicate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"golang.org/x/sync/errgroup"

	"hearth/fs"
	"hearth/log"
)

const (
	// probeEntries is how many entries are asked about at once, all within
	// maxProbe, and probeDepth how many such requests a peer has at a time.
	probeEntries = 64
	probeDepth   = 3
	// evictEntries is how many entries are evicted at once, soon after they were
	// proved.
	evictEntries = 8192
)

// Evicted says what an eviction did.
type Evicted struct {
	Gone  fs.Blocks // that are not here any more
	Stay  fs.Blocks // that are here, as nobody has proved to have them
	Freed int64     // bytes of disk
	Asked int       // how many peers were asked
}

// Evict frees the space of those blocks that are here, are other devices' and
// of which a connected device has proved to have a copy. Others stay. progress
// is told of blocks that were proved, and holds the work up. After an error, also
// that of ctx, the result says what was done.
func (n *Node) Evict(ctx context.Context, store *log.Store, blocks fs.Blocks, progress func(done, total uint64)) (Evicted, error) {
	e := Evicted{Gone: fs.Blocks{}, Stay: fs.Blocks{}}
	d := n.shared(store.DriveID())
	if d == nil {
		return e, fmt.Errorf("drive %v is not shared: %w", store.DriveID(), log.ErrMissing)
	}
	if err := d.evictAlone(ctx); err != nil {
		return e, err
	}
	defer func() { <-d.evicting }()
	logs := map[log.Writer]*log.Log{}
	for w, set := range blocks {
		l, err := store.Log(w)
		if err != nil {
			return e, err
		}
		if !l.IsReplica() {
			continue
		}
		logs[w] = l
		e.Stay[w] = here(l, set)
		e.Gone[w] = roaring64.New()
	}
	// From here on nobody can rely on this device: see the package comment.
	d.leave(e.Stay)
	defer d.leave(nil)
	p := &probing{n: n, d: d, total: e.Stay.Count(), progress: progress}
	for _, s := range n.awaitSharing(ctx, store.DriveID()) {
		if e.Stay.Count() == 0 || ctx.Err() != nil {
			break
		}
		e.Asked++
		for w, set := range e.Stay {
			if err := p.evict(ctx, s, logs[w], set, &e); err != nil {
				return e, err
			}
		}
	}
	if ctx.Err() != nil {
		return e, context.Cause(ctx)
	}
	return e, nil
}

// evictAlone waits until nothing else of the drive is evicted; to take from evicting
// ends that.
func (d *shared) evictAlone(ctx context.Context) error {
	select {
	case d.evicting <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// here returns those blocks of a set that are on this device. What others write
// may name numbers that no log has.
func here(l *log.Log, set *roaring64.Bitmap) *roaring64.Bitmap {
	out := roaring64.New()
	for it := set.Iterator(); it.HasNext(); {
		if i := it.Next(); l.Holds(i) && !l.IsControl(i) {
			out.Add(i)
		}
	}
	return out
}

// leave says which blocks are being evicted; nil: none any more.
func (d *shared) leave(b fs.Blocks) {
	var all fs.Blocks
	if b != nil {
		all = fs.Blocks{}
		for w, set := range b {
			all[w] = set.Clone()
		}
	}
	d.mu.Lock()
	d.leaving = all
	d.mu.Unlock()
}

// has reports whether others can rely on this device for an entry.
func (d *shared) has(l *log.Log, index uint64) bool {
	d.mu.Lock()
	set := d.leaving[l.Writer()]
	leaving := d.going || set != nil && set.Contains(index)
	d.mu.Unlock()
	return !leaving && l.Holds(index)
}

// awaitSharing returns who shares a drive, after a wait if it is nobody: the
// connections of a daemon that has just started take a moment.
func (n *Node) awaitSharing(ctx context.Context, id log.DriveID) []*session {
	timer := time.NewTimer(findTime)
	defer timer.Stop()
	for {
		changed := n.waitChange()
		if all := n.sharing(id); len(all) > 0 {
			return all
		}
		select {
		case <-changed:
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// probing asks peers to prove what they have.
type probing struct {
	n        *Node
	d        *shared
	total    uint64
	done     uint64 // proved
	progress func(done, total uint64)
}

// evict evicts those blocks of a set that a peer proves to have, and takes them
// out of the set.
func (p *probing) evict(ctx context.Context, s *session, l *log.Log, set *roaring64.Bitmap, e *Evicted) error {
	return p.prove(ctx, s, l, set, func(proved *roaring64.Bitmap) error {
		freed, err := l.Evict(context.WithoutCancel(ctx), proved)
		e.Freed += freed
		if err != nil && l.Held(proved.Minimum(), 1) > 0 {
			return err // nothing has happened
		}
		e.Gone[l.Writer()].Or(proved)
		set.AndNot(proved)
		return err
	})
}

// prove calls each with those blocks of a set that a peer proves to have, some at
// a time and soon after. What the peer does not prove is no error.
func (p *probing) prove(ctx context.Context, s *session, l *log.Log, set *roaring64.Bitmap, each func(*roaring64.Bitmap) error) error {
	var parts []*roaring64.Bitmap
	for it := set.ManyIterator(); ; {
		some := make([]uint64, evictEntries)
		some = some[:it.NextMany(some)]
		if len(some) == 0 {
			break
		}
		parts = append(parts, roaring64.BitmapOf(some...))
	}
	for _, part := range parts {
		proved, err := p.ask(ctx, s, l, part)
		if err != nil && ctx.Err() == nil {
			p.n.logger.Warn("a peer was asked which blocks it has", "peer", s.conn.Peer(), "drive", p.d.id, "err", err)
		}
		if !proved.IsEmpty() {
			if err := each(proved); err != nil {
				return err
			}
		}
		if err != nil {
			return nil // the next peer may do better
		}
	}
	return nil
}

// proofs collects which blocks were proved. An answer may come when nobody waits
// for it any more.
type proofs struct {
	mu     sync.Mutex
	proved *roaring64.Bitmap
	closed bool
}

func (c *proofs) add(p *probing, index uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.proved.Add(index)
	p.done++
	if p.progress != nil {
		p.progress(p.done, p.total)
	}
}

// ask returns those blocks of a set that a peer has proved to have, also beside
// an error.
func (p *probing) ask(ctx context.Context, s *session, l *log.Log, set *roaring64.Bitmap) (*roaring64.Bitmap, error) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(probeDepth)
	c := &proofs{proved: roaring64.New()}
	for part := range slices.Chunk(set.ToArray(), probeEntries) {
		var whole []slice
		for _, i := range part {
			if b, ok := wholly(l, i); ok {
				whole = append(whole, b)
			}
		}
		if len(whole) > 0 && ctx.Err() == nil {
			group.Go(func() error { return p.one(ctx, s, l, whole, c) })
		}
	}
	err := group.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return c.proved, err
}

// one makes one request.
func (p *probing) one(ctx context.Context, s *session, l *log.Log, whole []slice, c *proofs) error {
	err := s.probe(ctx, s.bulk, p.d.id, l, whole, func(b slice, is proved) error {
		switch is {
		case provedHeld:
			c.add(p, b.index)
		case provedElse:
			err := fmt.Errorf("%w: block %v, which it says it has, has another hash", log.ErrProof, log.Ref{Writer: l.Writer(), Index: b.index})
			p.n.ban(s, err)
			return err
		}
		return nil
	})
	if errors.Is(err, errCannot) {
		return nil // it shares the drive, and has nothing of this log
	}
	return err
}

// spansOf cuts a set into ranges for requests of at most most entries each.
func spansOf(set *roaring64.Bitmap, most uint64) func(func([]span) bool) {
	return func(yield func([]span) bool) {
		var spans []span
		var n uint64
		it := set.Iterator()
		for it.HasNext() {
			i := it.Next()
			if k := len(spans); k > 0 && spans[k-1].first+spans[k-1].n == i {
				spans[k-1].n++
			} else {
				spans = append(spans, span{i, 1})
			}
			if n++; n == most || len(spans) == maxRanges {
				if !yield(spans) {
					return
				}
				spans, n = nil, 0
			}
		}
		if len(spans) > 0 {
			yield(spans)
		}
	}
}

// have answers a HAVE.
func (a *answering) have(d *shared, l *log.Log, q *request) error {
	var run span
	tell := func() error {
		if run.n == 0 {
			return nil
		}
		a.begin(msgHas)
		a.w.Uvarint(run.first)
		a.w.Uvarint(run.n)
		return a.send(false)
	}
	err := eachEntry(q.ranges, l.Head().Size, func(i uint64) error {
		switch {
		case !d.has(l, i):
			return nil
		case run.n > 0 && run.first+run.n == i:
			run.n++
			return nil
		}
		err := tell()
		run = span{i, 1}
		return err
	})
	return cmp.Or(err, tell())
}

// eachEntry calls fn for the entries in ranges, below size.
func eachEntry(ranges []span, size uint64, fn func(uint64) error) error {
	for _, r := range ranges {
		for i := r.first; i < min(r.first+r.n, size); i++ {
			if err := fn(i); err != nil {
				return err
			}
		}
	}
	return nil
}

// Holder is a connected device that shares a drive, and what it says it has of
// some blocks.
type Holder struct {
	Key  [32]byte
	Name string
	Has  fs.Blocks
	Err  error // why that is not all, or not known
}

// Holders asks all connected devices that share a drive which of some blocks
// they have. It believes them: see [Node.Evict] for more than that.
func (n *Node) Holders(ctx context.Context, store *log.Store, blocks fs.Blocks) []Holder {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	sessions := n.sharing(store.DriveID())
	out := make([]Holder, len(sessions))
	var group errgroup.Group
	for k, s := range sessions {
		group.Go(func() error {
			about := s.describe()
			h := Holder{Key: about.Key, Name: about.Name, Has: fs.Blocks{}}
			for w, set := range blocks {
				h.Has[w] = roaring64.New()
				h.Err = cmp.Or(h.Err, s.askHave(ctx, logName{store.DriveID(), w}, set, h.Has[w]))
			}
			out[k] = h
			return nil
		})
	}
	_ = group.Wait() // each has its own error
	slices.SortFunc(out, func(a, b Holder) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), slices.Compare(a.Key[:], b.Key[:]))
	})
	return out
}

// askHave adds to has what a peer says it has of a set.
func (s *session) askHave(ctx context.Context, name logName, set, has *roaring64.Bitmap) error {
	said := roaring64.New()
	for spans := range spansOf(set, maxHave) {
		err := s.urgent().do(ctx, &request{typ: msgHave, log: name, ranges: spans}, func(a part) error {
			if a.typ != msgHas || a.span.n > maxHave || a.span.first+a.span.n < a.span.first {
				return fmt.Errorf("%w: no answer to which blocks it has", ErrProtocol)
			}
			said.AddRange(a.span.first, a.span.first+a.span.n)
			return nil
		})
		if errors.Is(err, errCannot) {
			break
		}
		if err != nil {
			return err
		}
	}
	has.Or(roaring64.And(said, set))
	return nil
}
