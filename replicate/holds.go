package replicate

import (
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"hearth/log"
)

const (
	// holdsDelay gathers what arrived before others are told of it.
	holdsDelay = 100 * time.Millisecond
	// maxHoldsRanges is how many ranges of one log a peer is told at a time, and
	// maxHoldsFirst how many of them when it is told first: what a reader picked
	// up here and there in a big drive is then not told whole.
	maxHoldsRanges = 4096
	maxHoldsFirst  = 16 * maxHoldsRanges
	// maxHoldsMemory bounds what is remembered of what one peer has, in bytes.
	maxHoldsMemory = 4 << 20
)

// holdings are the entries that a peer is known to have, log by log: what it
// said, less what it then could not give. They are hints of whom to ask, and
// nothing is believed for them. Safe for concurrent use.
type holdings struct {
	mu   sync.Mutex
	logs map[logName]*roaring64.Bitmap
	gone map[logName]*roaring64.Bitmap // of these, what it could not give of late
	grew map[logName]time.Time         // when a peer last said that it has more
}

func newHoldings() holdings {
	return holdings{logs: map[logName]*roaring64.Bitmap{}, gone: map[logName]*roaring64.Bitmap{}, grew: map[logName]time.Time{}}
}

// add takes in what a peer says that it has. What would need more memory than
// a peer is worth is passed over.
func (h *holdings) add(name logName, ranges []span) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var used uint64
	for _, b := range h.logs {
		used += b.GetSizeInBytes()
	}
	b := h.logs[name]
	if b == nil {
		if len(h.logs) >= maxOffer {
			return
		}
		b = roaring64.New()
		h.logs[name] = b
	}
	for _, r := range ranges {
		// At most a container at each end, and one for 2^16 entries between.
		if used += 128 + r.n>>10; used > maxHoldsMemory {
			break
		}
		b.AddRange(r.first, r.first+r.n)
		if gone := h.gone[name]; gone != nil {
			gone.RemoveRange(r.first, r.first+r.n)
		}
	}
	b.RunOptimize()
	h.grew[name] = time.Now()
}

// growing reports whether a peer gets more of a log all the time.
func (h *holdings) growing(name logName) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Since(h.grew[name]) < tiredTime
}

// lacks takes in that a peer could not give these, until it says that it has
// them or forgive is called: it may be behind with the tiles that verify them.
func (h *holdings) lacks(name logName, indexes []uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gone[name] == nil {
		h.gone[name] = roaring64.New()
	}
	h.gone[name].AddMany(indexes)
}

// forgive lets the peer be asked again for what it could not give.
func (h *holdings) forgive() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.gone)
}

// knows reports whether a peer is believed to have an entry. With mu held.
func (h *holdings) knows(name logName, index uint64) bool {
	b, gone := h.logs[name], h.gone[name]
	return b != nil && b.Contains(index) && (gone == nil || !gone.Contains(index))
}

func (h *holdings) has(name logName, index uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.knows(name, index)
}

// hasAll reports whether a peer is known to have all of these.
func (h *holdings) hasAll(name logName, indexes []uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, i := range indexes {
		if !h.knows(name, i) {
			return false
		}
	}
	return true
}

// count returns how many of a log's first size entries a peer is known to have.
func (h *holdings) count(name logName, size uint64) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.logs[name]
	if b == nil || size == 0 {
		return 0
	}
	return b.Rank(size - 1)
}

// countWithout is count of those that are not dropped: a set of entries below size.
func (h *holdings) countWithout(name logName, size uint64, dropped *roaring64.Bitmap) uint64 {
	all := h.count(name, size)
	h.mu.Lock()
	defer h.mu.Unlock()
	if b := h.logs[name]; b != nil {
		all -= min(all, b.AndCardinality(dropped))
	}
	return all
}

// holds counts what the peer says that it has of a drive.
func (s *session) holds(id log.DriveID) (h Held) {
	d := s.node.shared(id)
	if d == nil {
		return h
	}
	store, _, _ := d.state()
	if store == nil {
		return h
	}
	for w, l := range store.Logs() {
		size, dropped := l.Head().Size, l.Dropped()
		h.Of += size - min(size, dropped.GetCardinality())
		h.Entries += s.have.countWithout(logName{id, w}, size, dropped)
	}
	return h
}

// heldRanges returns the entries of a log that are here, from one on: the
// first ranges of them, up to most.
func heldRanges(l *log.Log, from uint64, most int) []span {
	var held []span
	size := l.Head().Size
	for from < size && len(held) < most {
		first, n := l.NextMissing(from, size)
		end := min(first, size)
		if n == 0 {
			end = size
		}
		if end > from {
			held = append(held, span{from, end - from})
		}
		from = max(first+n, end)
	}
	return held
}

// arrived notes entries that are new here, for the others to be told.
func (s *session) arrived(name logName, index uint64) {
	for _, s := range s.node.sharing(name.drive) {
		s.mu.Lock()
		b := s.fresh[name]
		if b == nil {
			b = roaring64.New()
			s.fresh[name] = b
		}
		b.Add(index)
		s.mu.Unlock()
		select {
		case s.gathered <- struct{}{}:
		default:
		}
	}
}

// tellFresh tells the other side what arrived here since the last time.
func (s *session) tellFresh() error {
	s.mu.Lock()
	fresh := s.fresh
	s.fresh = map[logName]*roaring64.Bitmap{}
	s.mu.Unlock()
	for name, b := range fresh {
		var ranges []span
		for it := b.Iterator(); it.HasNext(); {
			i := it.Next()
			if k := len(ranges) - 1; k >= 0 && ranges[k].first+ranges[k].n == i {
				ranges[k].n++
			} else {
				ranges = append(ranges, span{i, 1})
			}
		}
		if err := s.tellHolds(name, ranges); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) tellHolds(name logName, ranges []span) error {
	for len(ranges) > 0 {
		n := min(len(ranges), maxHoldsRanges)
		h := holds{log: name, ranges: ranges[:n]}
		if err := s.write(h.encode()); err != nil {
			return err
		}
		ranges = ranges[n:]
	}
	return nil
}

// pushHolds tells the other side what is here of a log: when it is first told
// of it all, and then what was written since; what arrived is told apart.
func (s *session) pushHolds(name logName, l *log.Log, size uint64) error {
	s.mu.Lock()
	told, begun := s.owned[name]
	if begun && (l.IsReplica() || told == size) {
		s.mu.Unlock()
		return nil
	}
	s.owned[name] = size
	s.mu.Unlock()
	return s.tellHolds(name, heldRanges(l, told, maxHoldsFirst))
}
