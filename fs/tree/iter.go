package tree

import (
	"bytes"
	"errors"

	"hearth/log"
)

// Iter walks over a range of a tree in ascending or descending order. It is
// for one goroutine. It holds nothing that needs closing.
type Iter struct {
	t      *Tree
	lo, hi []byte
	desc   bool

	// path holds the branches above the current leaf, topmost first, and which
	// child of each is being read.
	path  [MaxHeight]step
	depth int

	leaf *node
	// The entries of leaf still to come: [pos, end) ascending, (end, pos]
	// descending.
	pos, end int
	started  bool
	final    bool // no leaf after this one is in the range
	entered  bool // leaf is new: its prefix is not yet in buf

	key  []byte // the key returned last, in buf; nil before the first
	val  []byte
	err  error
	done bool
	buf  [MaxKey]byte
}

type step struct {
	n *node
	i int
}

// Scan returns an iterator over the keys from lo to hi, without hi, ascending.
// A nil lo is the start of the tree, a nil hi its end.
func (t *Tree) Scan(lo, hi []byte) *Iter { return &Iter{t: t, lo: lo, hi: hi} }

// ScanDesc returns an iterator over the same keys as Scan, descending.
func (t *Tree) ScanDesc(lo, hi []byte) *Iter {
	return &Iter{t: t, lo: lo, hi: hi, desc: true}
}

// Next moves to the next entry and reports whether there is one. After false,
// Err tells whether the end was reached.
func (it *Iter) Next() bool {
	for it.pos == it.end {
		if !it.nextLeaf() {
			return false
		}
	}
	n, i := it.leaf, it.pos
	if it.entered {
		copy(it.buf[:], n.prefix)
		it.entered = false
	}
	suffix, val := n.entryAt(n.start(i), n.end(i))
	it.key = append(it.buf[:len(n.prefix)], suffix...)
	it.val = val
	if it.desc {
		it.pos--
	} else {
		it.pos++
	}
	return true
}

// Key returns the key of the current entry. It is valid until the next call of
// Next or Seek.
func (it *Iter) Key() []byte { return it.key }

// Value returns the value of the current entry. It aliases the cached page: it
// may be kept, but not modified.
func (it *Iter) Value() []byte { return it.val }

// Err returns the error that ended the iteration, if any.
func (it *Iter) Err() error { return it.err }

// Seek skips forward, in the direction of the iteration, so that the next call
// of Next finds the first entry that is not before key: ascending the least key
// not less than key, descending the greatest not greater. It never moves back:
// entries that were passed stay passed. It is cheap when the target is close.
func (it *Iter) Seek(key []byte) {
	if it.done {
		return
	}
	var c int // where key is from the last entry, or the start of the range
	switch {
	case it.key != nil:
		c = bytes.Compare(key, it.key)
	case !it.desc:
		c = bytes.Compare(key, it.lo)
	case it.hi != nil:
		c = bytes.Compare(key, it.hi)
	default:
		c = -1
	}
	if it.desc && c < 0 {
		it.seekDesc(key)
	} else if !it.desc && c > 0 {
		it.seekAsc(key)
	}
}

func (it *Iter) seekAsc(key []byte) {
	if !it.started {
		it.lo = bytes.Clone(key)
		return
	}
	if it.leaf != nil && it.leaf.cmp(it.leaf.count-1, key) >= 0 {
		i, _ := it.leaf.find(key)
		it.pos = min(max(it.pos, i), it.end)
		return
	}
	if it.final {
		it.pos = it.end
		return
	}
	if d, ok := it.climb(key); ok && it.descend(d, key, false) && it.leaf != nil {
		i, _ := it.leaf.find(key)
		it.pos = min(max(it.pos, i), it.end)
	}
}

func (it *Iter) seekDesc(key []byte) {
	if !it.started {
		// The least string greater than key makes the bound inclusive.
		it.hi = append(bytes.Clone(key), 0)
		return
	}
	if it.leaf != nil && it.leaf.cmp(0, key) <= 0 {
		it.pos = max(min(it.pos, it.leaf.floor(key)), it.end)
		return
	}
	if it.final {
		it.pos = it.end
		return
	}
	if d, ok := it.climb(key); ok && it.descend(d, key, false) && it.leaf != nil {
		it.pos = max(min(it.pos, it.leaf.floor(key)), it.end)
	}
}

// floor returns the position of the last key of a leaf that is not greater
// than key, or -1.
func (n *node) floor(key []byte) int {
	i, found := n.find(key)
	if found {
		return i
	}
	return i - 1
}

// climb finds the lowest branch of the path that is certain to have key below
// it, or the topmost, and moves its position forward to the child that covers
// key. It returns the branch's depth.
func (it *Iter) climb(key []byte) (int, bool) {
	for d := it.depth - 1; d >= 0; d-- {
		s := &it.path[d]
		i := s.n.childFor(key)
		if it.desc {
			// Entry 0 is open to the left: the key may be in an earlier page.
			if i > 0 || d == 0 {
				s.i = min(s.i, i)
				return d, true
			}
		} else if i < s.n.count-1 || d == 0 {
			s.i = max(s.i, i)
			return d, true
		}
	}
	it.pos = it.end // the only page is a leaf
	it.final = true
	return 0, false
}

// nextLeaf moves to the leaf after the current one, or to the first.
func (it *Iter) nextLeaf() bool {
	if it.done {
		return false
	}
	if !it.started {
		return it.first()
	}
	if it.final {
		return it.finish(nil)
	}
	for d := it.depth - 1; d >= 0; d-- {
		s := &it.path[d]
		switch {
		case it.desc && s.i > 0:
			if s.n.cmp(s.i, it.lo) <= 0 {
				return it.finish(nil)
			}
			s.i--
		case !it.desc && s.i < s.n.count-1:
			if it.hi != nil && s.n.cmp(s.i+1, it.hi) >= 0 {
				return it.finish(nil)
			}
			s.i++
		default:
			continue
		}
		return it.descend(d, nil, true)
	}
	return it.finish(nil)
}

// finish ends the iteration.
func (it *Iter) finish(err error) bool {
	it.err, it.done = err, true
	it.leaf, it.key, it.val = nil, nil, nil
	it.pos, it.end = 0, 0
	return false
}

// first moves to the leaf where the range starts.
func (it *Iter) first() bool {
	it.started = true
	if it.t.root.Height == 0 || it.hi != nil && bytes.Compare(it.lo, it.hi) >= 0 {
		return it.finish(nil)
	}
	n, err := it.t.topNode()
	if errors.Is(err, ErrSkip) {
		return it.finish(nil)
	}
	if err != nil {
		return it.finish(err)
	}
	bound, edge := it.lo, false
	if it.desc {
		bound, edge = it.hi, it.hi == nil
	}
	if n.height == 1 {
		return it.enter(it.t.root.Ref, n, edge)
	}
	it.path[0] = step{n, it.pick(n, bound, edge)}
	it.depth = 1
	return it.descend(0, bound, edge)
}

// pick returns which child to read: the first in the direction of the
// iteration (edge), or the one that covers key.
func (it *Iter) pick(n *node, key []byte, edge bool) int {
	if !edge {
		return n.childFor(key)
	} else if it.desc {
		return n.count - 1
	}
	return 0
}

// descend goes from the current child of the branch at depth d down to a leaf:
// to the first in the direction of the iteration (edge) or to the one that
// covers key.
func (it *Iter) descend(d int, key []byte, edge bool) bool {
	for {
		s := it.path[d]
		ref := s.n.child(s.i)
		n, err := it.t.load(ref, s.n.height-1)
		if errors.Is(err, ErrSkip) {
			it.depth, it.leaf, it.final = d+1, nil, false
			it.pos, it.end = 0, 0 // nothing here: Next goes on with the page after it
			return true
		}
		if err != nil {
			return it.finish(err)
		}
		d++
		it.depth = d
		if n.height == 1 {
			return it.enter(ref, n, edge)
		}
		it.path[d] = step{n, it.pick(n, key, edge)}
	}
}

// enter makes n the current leaf and finds which of its entries are in the
// range. In stepping from page to page, one whose keys do not continue those
// before it is refused; together with Seek never going back, a scan is in
// strict order whatever the pages say.
func (it *Iter) enter(ref log.Ref, n *node, edge bool) bool {
	if edge && it.key != nil {
		if it.desc && n.cmp(n.count-1, it.key) >= 0 || !it.desc && n.cmp(0, it.key) <= 0 {
			return it.finish(&DamageError{ref, "keys out of order between pages"})
		}
	}
	from, to := 0, n.count
	if n.cmp(0, it.lo) < 0 {
		from, _ = n.find(it.lo)
	}
	if it.hi != nil && n.cmp(n.count-1, it.hi) >= 0 {
		to, _ = n.find(it.hi)
	}
	it.leaf, it.entered = n, true
	if it.desc {
		it.pos, it.end = to-1, from-1
		it.final = from > 0
	} else {
		it.pos, it.end = from, to
		it.final = to < n.count
	}
	return true
}
