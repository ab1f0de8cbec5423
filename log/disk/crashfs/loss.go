package crashfs

import "math/rand/v2"

// chooser decides what of a file's unsynced operations reached the disk.
type chooser interface {
	// sectors returns which units (sectors of a write, blocks of a punch) of
	// operation i of n are kept: all, none, or as the function says.
	sectors(i, n int, units int64) (all bool, some func(unit int64) bool)
	// size reports whether the size that operation i of n sets is kept. Only
	// part of the growth may be: then grown is less than 1.
	size(i, n int) (keep bool, grown float64)
}

// keepAll is an orderly sync.
type keepAll struct{}

func (keepAll) sectors(int, int, int64) (bool, func(int64) bool) { return true, nil }
func (keepAll) size(int, int) (bool, float64)                    { return true, 1 }

// loss is what one crash does to one file.
type loss struct {
	rng  *rand.Rand
	mode Mode
	odds float64
	cut  float64 // where in the file's operations an ordered crash is
	// journal: sizes, truncations and allocations are lost from a moment on,
	// not each on its own
	journal bool
	moment  float64
}

func newLoss(rng *rand.Rand, m Mode) *loss {
	if m == Mixed {
		m = []Mode{DropAll, KeepAll, Ordered, Ordered, AnyOps, AnyOps, AnySectors, AnySectors}[rng.IntN(8)]
	}
	return &loss{
		rng:     rng,
		mode:    m,
		odds:    []float64{0.05, 0.3, 0.5, 0.7, 0.95}[rng.IntN(5)],
		cut:     rng.Float64(),
		journal: rng.IntN(2) == 0,
		moment:  rng.Float64(),
	}
}

func (l *loss) sectors(i, n int, units int64) (bool, func(int64) bool) {
	switch l.mode {
	case KeepAll:
		return true, nil
	case Ordered:
		at := int(l.cut * float64(n))
		if i == at {
			return false, l.tear(units)
		}
		return i < at, nil
	case AnyOps:
		if l.rng.Float64() >= l.odds {
			return false, nil
		}
		if l.rng.IntN(3) == 0 {
			return false, l.tear(units)
		}
		return true, nil
	case AnySectors:
		return false, l.each
	}
	return false, nil
}

func (l *loss) each(int64) bool { return l.rng.Float64() < l.odds }

// tear keeps the first units, the last, a hole in the middle, or any.
func (l *loss) tear(units int64) func(int64) bool {
	a, b := l.rng.Int64N(units+1), l.rng.Int64N(units+1)
	switch l.rng.IntN(4) {
	case 0:
		return func(u int64) bool { return u < a }
	case 1:
		return func(u int64) bool { return u >= a }
	case 2:
		return func(u int64) bool { return u < min(a, b) || u >= max(a, b) }
	}
	return l.each
}

func (l *loss) size(i, n int) (bool, float64) {
	grown := 1.0
	if l.rng.IntN(8) == 0 {
		grown = l.rng.Float64()
	}
	switch l.mode {
	case KeepAll:
		return true, 1
	case DropAll:
		return false, 0
	case Ordered:
		return i <= int(l.cut*float64(n)), grown
	}
	if l.journal {
		return i < int(l.moment*float64(n+1)), grown
	}
	return l.rng.Float64() < l.odds, grown
}

// replay returns what is on the disk when it had base and ch says what of ops
// reached it. Sectors hold whole states of the cache, so taking the kept ones
// in the order of the operations gives every state that reordering could.
func replay(base *content, ops []fileOp, ch chooser) *content {
	c := base.clone()
	for i, op := range ops {
		switch op.kind {
		case fileWrite:
			replayWrite(c, op, i, len(ops), ch)
		case fileTruncate:
			if keep, _ := ch.size(i, len(ops)); keep {
				c.trim(op.size)
				c.size = op.size
			}
		case fileAllocate:
			keep, grown := ch.size(i, len(ops))
			if keep {
				n := max(1, int64(grown*float64(op.len)))
				c.allocate(op.off, n)
				c.size = max(c.size, op.off+n)
			}
		case filePunch:
			replayPunch(c, op, i, len(ops), ch)
		}
	}
	c.trim(c.size)
	return c
}

func replayWrite(c *content, op fileOp, i, n int, ch chooser) {
	put := func(from, to int64) {
		if op.img != nil {
			c.put(op.img[from:to], op.off+from)
			return
		}
		for from < to {
			step := min(to-from, BlockSize)
			c.put(zeroBlock[:step], op.off+from)
			from += step
		}
	}
	all, some := ch.sectors(i, n, op.len/SectorSize)
	switch {
	case all:
		put(0, op.len)
	case some != nil:
		for s := range op.len / SectorSize {
			if some(s) {
				put(s*SectorSize, (s+1)*SectorSize)
			}
		}
	}
	if op.size <= c.size {
		return
	}
	if keep, grown := ch.size(i, n); keep {
		size := op.size
		if part := op.off + int64(grown*float64(op.len))/SectorSize*SectorSize; grown < 1 {
			size = min(size, max(part, c.size))
		}
		c.size = size
	}
}

func replayPunch(c *content, op fileOp, i, n int, ch chooser) {
	first, blocks := op.off/BlockSize, op.len/BlockSize
	all, some := ch.sectors(i, n, blocks)
	switch {
	case all:
		c.free(first, first+blocks)
	case some != nil:
		blocks = min(blocks, int64(len(c.leaves))*leafBlocks-first)
		for b := range max(blocks, 0) {
			if some(b) {
				c.free(first+b, first+b+1)
			}
		}
	}
}
