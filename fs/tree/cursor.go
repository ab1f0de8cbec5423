package tree

import (
	"bytes"

	"hearth/log"
)

// position is what a cursor stands before.
type position uint8

const (
	atEnd position = iota
	atSubtree
	atEntry
)

// cursor walks over a range of a tree in ascending order and leaves it to its
// user which subtrees to open.
type cursor struct {
	t      *Tree
	lo, hi []byte
	path   [MaxHeight]frame
	depth  int
	whole  bool // before the tree as a whole, unopened
	end    bool

	// The subtree in front, when front said atSubtree.
	child  log.Ref
	height uint8

	buf   []byte // the key in front
	fresh bool   // buf is set
}

// frame is an opened page: the position in it and the range of its keys.
type frame struct {
	n      *node
	i      int
	lo, hi []byte
}

func newCursor(t *Tree, lo, hi []byte) *cursor {
	return &cursor{
		t: t, lo: lo, hi: hi,
		whole: true,
		end:   t.root.Height == 0 || hi != nil && bytes.Compare(lo, hi) >= 0,
	}
}

// front tells what is next.
func (c *cursor) front() position {
	if c.end {
		return atEnd
	}
	if c.whole {
		c.child, c.height = c.t.root.Ref, c.t.root.Height
		return atSubtree
	}
	f := &c.path[c.depth-1]
	// Entry 0 of a branch has no separator; where that page starts was looked
	// at before it was opened.
	if c.hi != nil && (f.i > 0 || f.n.height == 1) && f.n.cmp(f.i, c.hi) >= 0 {
		c.end = true
		return atEnd
	}
	if f.n.height == 1 {
		return atEntry
	}
	c.child, c.height = f.n.child(f.i), f.n.height-1
	return atSubtree
}

// advance moves past what is in front.
func (c *cursor) advance() {
	c.fresh = false
	if c.whole {
		c.end = true
		return
	}
	for c.depth > 0 {
		f := &c.path[c.depth-1]
		f.i++
		if f.i < f.n.count {
			return
		}
		c.depth--
	}
	c.end = true
}

// bounds returns the range of the keys of the subtree in front.
func (c *cursor) bounds() (lo, hi []byte) {
	if c.whole {
		return nil, nil
	}
	f := &c.path[c.depth-1]
	lo, hi = f.lo, f.hi
	if f.i > 0 {
		lo = f.n.appendKey(nil, f.i)
	}
	if f.i+1 < f.n.count {
		hi = f.n.appendKey(nil, f.i+1)
	}
	return lo, hi
}

// reaches reports whether the subtree in front may hold keys up to key.
func (c *cursor) reaches(key []byte) bool {
	if c.whole {
		return true
	}
	f := &c.path[c.depth-1]
	if f.i > 0 {
		return f.n.cmp(f.i, key) <= 0
	}
	return bytes.Compare(f.lo, key) <= 0
}

// expand opens the subtree in front.
func (c *cursor) expand() error {
	lo, hi := c.bounds()
	var n *node
	var err error
	if c.whole {
		n, err = c.t.topNode()
	} else {
		n, err = c.t.load(c.child, c.height)
	}
	if err != nil {
		return err
	}
	if err := n.within(c.child, lo, hi); err != nil {
		return err
	}
	c.whole, c.fresh = false, false
	f := &c.path[c.depth]
	c.depth++
	*f = frame{n: n, lo: lo, hi: hi}
	if bytes.Compare(c.lo, lo) <= 0 {
		return nil
	}
	if n.height > 1 {
		f.i = n.childFor(c.lo)
	} else if f.i, _ = n.find(c.lo); f.i == n.count {
		f.i--
		c.advance()
	}
	return nil
}

// key returns the key of the entry in front.
func (c *cursor) key() []byte {
	if !c.fresh {
		f := &c.path[c.depth-1]
		c.buf = f.n.appendKey(c.buf[:0], f.i)
		c.fresh = true
	}
	return c.buf
}

// value returns the value of the entry in front.
func (c *cursor) value() []byte {
	f := &c.path[c.depth-1]
	return f.n.value(f.i)
}
