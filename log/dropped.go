package log

import (
	"encoding/binary"

	"hearth/log/wire"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
)

const (
	// maxDroppedBlocks is how many blocks one Dropped entry may name. A range
	// is a few bytes, so without a limit one entry could make a bitmap larger
	// than memory.
	maxDroppedBlocks = 1 << 26
	// maxDroppedBody leaves room for the entry's two bytes and the writer.
	maxDroppedBody = MaxEntry - 2 - 2
)

// Dropped names blocks that were dropped on purpose. A writer says it of its
// own blocks; one with [CapDrop] of any.
//
// Body: the writer u16, then for each range of blocks, in order, the distance
// from the end of the range before (at least 1 after the first) and the
// length less 1, both as the shortest uvarint.
type Dropped struct {
	Writer Writer // whose blocks
	Set    *roaring64.Bitmap
}

// SplitDropped returns entries that together name the blocks in set, each
// within the limits of an entry; none for an empty set.
func SplitDropped(writer Writer, set *roaring64.Bitmap) []*Dropped {
	var all []*Dropped
	var d *Dropped
	var size int
	var blocks, last uint64
	forRanges(set, func(start, n uint64) {
		for n > 0 {
			part := min(n, maxDroppedBlocks)
			need := rangeSize(start-last, part)
			if d == nil || size+need > maxDroppedBody || blocks+part > maxDroppedBlocks {
				d = &Dropped{Writer: writer, Set: roaring64.New()}
				all = append(all, d)
				size, blocks = 0, 0
				need = rangeSize(start, part)
			}
			d.Set.AddRange(start, start+part)
			size, blocks, last = size+need, blocks+part, start+part
			start, n = start+part, n-part
		}
	})
	return all
}

// rangeSize returns the encoded size of a range.
func rangeSize(gap, n uint64) int {
	var b [2 * binary.MaxVarintLen64]byte
	return len(binary.AppendUvarint(binary.AppendUvarint(b[:0], gap), n-1))
}

func (c *Dropped) appendBody(w *wire.Writer) {
	w.U16(uint16(c.Writer))
	var last uint64
	forRanges(c.Set, func(start, n uint64) {
		w.Uvarint(start - last)
		w.Uvarint(n - 1)
		last = start + n
	})
}

// decodeDropped decodes the body of a Dropped entry, all that is left in r.
func decodeDropped(r *wire.Reader) *Dropped {
	c := &Dropped{Writer: Writer(r.U16()), Set: roaring64.New()}
	if r.Err() == nil && r.Len() == 0 {
		r.Fail("no block was dropped")
	}
	var last, blocks uint64
	for first := true; r.Len() > 0; first = false {
		gap := shortUvarint(r)
		more := shortUvarint(r)
		switch {
		case r.Err() != nil:
			return c
		case gap == 0 && !first:
			r.Fail("adjacent ranges of dropped blocks")
			return c
		case gap > maxTreeSize-last || more >= maxTreeSize-last-gap:
			r.Fail("range of dropped blocks beyond any log")
			return c
		case more >= maxDroppedBlocks-blocks:
			r.Fail("more than %d blocks dropped in one entry", maxDroppedBlocks)
			return c
		}
		start := last + gap
		last = start + more + 1
		blocks += more + 1
		c.Set.AddRange(start, last)
	}
	return c
}

// shortUvarint consumes a uvarint that must be in its shortest form.
func shortUvarint(r *wire.Reader) uint64 {
	before := r.Len()
	v := r.Uvarint()
	var b [binary.MaxVarintLen64]byte
	if r.Err() == nil && before-r.Len() != binary.PutUvarint(b[:], v) {
		r.Fail("uvarint that is longer than needed")
	}
	return v
}

// forRanges calls fn with the start and length of each maximal range of
// consecutive numbers in set. A nil set is empty.
func forRanges(set *roaring64.Bitmap, fn func(start, n uint64)) {
	if set == nil {
		return
	}
	it := set.ManyIterator()
	buf := make([]uint64, 1024)
	var start, n uint64
	for {
		got := it.NextMany(buf)
		if got == 0 {
			break
		}
		for _, v := range buf[:got] {
			if n > 0 && v == start+n {
				n++
				continue
			}
			if n > 0 {
				fn(start, n)
			}
			start, n = v, 1
		}
	}
	if n > 0 {
		fn(start, n)
	}
}
