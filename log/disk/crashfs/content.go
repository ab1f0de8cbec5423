package crashfs

import (
	"bytes"
	"math/bits"
)

// SectorSize is the unit a disk writes whole or not at all; a write is torn
// only between sectors. BlockSize is the unit of allocation.
const (
	SectorSize = 512
	BlockSize  = 4096

	leafBlocks = 64
	leafSize   = leafBlocks * BlockSize
)

var zeroBlock [BlockSize]byte

// owner is the identity of the content that may change a page or leaf in
// place; everybody else copies first. It has a size so that two of them never
// share an address.
type owner struct{ _ byte }

type page struct {
	owner *owner
	data  [BlockSize]byte
}

// leaf is a run of blocks. A block is a hole (bit clear), allocated and zero
// (bit set, nil page) or allocated with bytes.
type leaf struct {
	owner *owner
	alloc uint64
	pages [leafBlocks]*page
}

// content is what a file holds: copy-on-write, so that a clone costs one
// pointer for every 256 KiB. Bytes beyond size are zero in every page.
type content struct {
	owner  *owner
	size   int64
	blocks int64 // allocated
	leaves []*leaf
}

func newContent() *content { return &content{owner: new(owner)} }

// clone returns an independent copy. Both give up ownership of what they now
// share.
func (c *content) clone() *content {
	c.owner = new(owner)
	return &content{
		owner:  new(owner),
		size:   c.size,
		blocks: c.blocks,
		leaves: append([]*leaf(nil), c.leaves...),
	}
}

// peek returns the leaf that holds block b, or nil.
func (c *content) peek(b int64) *leaf {
	if i := b / leafBlocks; i < int64(len(c.leaves)) {
		return c.leaves[i]
	}
	return nil
}

// edit returns the leaf that holds block b, owned by c.
func (c *content) edit(b int64) *leaf {
	i := b / leafBlocks
	for int64(len(c.leaves)) <= i {
		c.leaves = append(c.leaves, nil)
	}
	l := c.leaves[i]
	switch {
	case l == nil:
		l = &leaf{owner: c.owner}
	case l.owner != c.owner:
		own := *l
		own.owner = c.owner
		l = &own
	}
	c.leaves[i] = l
	return l
}

// allocated reports whether block b has space of its own.
func (c *content) allocated(b int64) bool {
	l := c.peek(b)
	return l != nil && l.alloc>>(b%leafBlocks)&1 != 0
}

// missing counts the blocks of [off, off+n) that are holes.
func (c *content) missing(off, n int64) int64 {
	var holes int64
	for b := off / BlockSize; b*BlockSize < off+n; b++ {
		if !c.allocated(b) {
			holes++
		}
	}
	return holes
}

// take allocates block b.
func (c *content) take(b int64) *leaf {
	l := c.edit(b)
	if bit := uint64(1) << (b % leafBlocks); l.alloc&bit == 0 {
		l.alloc |= bit
		c.blocks++
	}
	return l
}

// give frees block b.
func (c *content) give(b int64) {
	if !c.allocated(b) {
		return
	}
	l := c.edit(b)
	l.alloc &^= 1 << (b % leafBlocks)
	l.pages[b%leafBlocks] = nil
	c.blocks--
}

// read fills p from off; holes and what lies beyond the last leaf are zero.
// The caller minds the size.
func (c *content) read(p []byte, off int64) {
	for len(p) > 0 {
		b, in := off/BlockSize, int(off%BlockSize)
		n := min(len(p), BlockSize-in)
		if l := c.peek(b); l != nil && l.pages[b%leafBlocks] != nil {
			copy(p[:n], l.pages[b%leafBlocks].data[in:])
		} else {
			clear(p[:n])
		}
		p, off = p[n:], off+int64(n)
	}
}

// write puts p at off, allocating blocks as needed, and grows the size.
func (c *content) write(p []byte, off int64) {
	c.put(p, off)
	if len(p) > 0 {
		c.size = max(c.size, off+int64(len(p)))
	}
}

// put is write without the size.
func (c *content) put(p []byte, off int64) {
	for len(p) > 0 {
		b, in := off/BlockSize, int(off%BlockSize)
		n := min(len(p), BlockSize-in)
		l := c.take(b)
		slot := &l.pages[b%leafBlocks]
		switch {
		case *slot == nil && bytes.Equal(p[:n], zeroBlock[:n]):
			// zeroed space costs no memory
		case *slot == nil:
			pg := &page{owner: c.owner}
			copy(pg.data[in:], p[:n])
			*slot = pg
		case (*slot).owner != c.owner:
			pg := &page{owner: c.owner}
			if n < BlockSize {
				pg.data = (*slot).data
			}
			copy(pg.data[in:], p[:n])
			*slot = pg
		default:
			copy((*slot).data[in:], p[:n])
		}
		p, off = p[n:], off+int64(n)
	}
}

// blank makes [off, off+n), which lies within one block, zero without freeing
// the block or allocating one.
func (c *content) blank(off, n int64) {
	b := off / BlockSize
	if l := c.peek(b); n > 0 && l != nil && l.pages[b%leafBlocks] != nil {
		c.put(zeroBlock[:n], off)
	}
}

// allocate gives every block of [off, off+n) space.
func (c *content) allocate(off, n int64) {
	for b := off / BlockSize; b*BlockSize < off+n; b++ {
		if !c.allocated(b) {
			c.take(b)
		}
	}
}

// free makes the blocks [first, last) holes.
func (c *content) free(first, last int64) {
	last = min(last, int64(len(c.leaves))*leafBlocks)
	for b := first; b < last; {
		if l := c.peek(b); l == nil || l.alloc == 0 {
			b = (b/leafBlocks + 1) * leafBlocks
			continue
		}
		c.give(b)
		b++
	}
}

// truncate sets the size; what is cut off is freed and reads as zeros if the
// file grows again.
func (c *content) truncate(size int64) {
	if size < c.size {
		c.trim(size)
	}
	c.size = size
}

// trim drops every byte from size on, whatever c.size says.
func (c *content) trim(size int64) {
	first := (size + BlockSize - 1) / BlockSize
	if in := size % BlockSize; in != 0 {
		c.blank(size, BlockSize-in)
	}
	keep := (first + leafBlocks - 1) / leafBlocks
	for i := keep; i < int64(len(c.leaves)); i++ {
		if l := c.leaves[i]; l != nil {
			c.blocks -= int64(bits.OnesCount64(l.alloc))
		}
	}
	if keep < int64(len(c.leaves)) {
		c.leaves = c.leaves[:keep:keep]
	}
	c.free(first, keep*leafBlocks)
}
