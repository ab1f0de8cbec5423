package seal

import "encoding/binary"

// Lengths of chunks. Below normalChunk a boundary is 16 times less likely than
// above (FastCDC's normalized chunking, level 2), which keeps most chunks close
// to 64 KiB, their mean.
const (
	MinChunk    = 16 << 10
	normalChunk = 52 << 10
	MaxChunk    = MaxPlain
	gearWindow  = 64 // bytes that the hash depends on
	gearHard    = 1 << 46
	gearEasy    = 1 << 50
)

type gearTable [256]uint64

func newGearTable(secret []byte) *gearTable {
	t := new(gearTable)
	for i := range t {
		t[i] = binary.BigEndian.Uint64(secret[8*i:])
	}
	return t
}

// Chunker cuts one stream into chunks by its contents, so that an insertion
// changes only the chunks around it. It remembers how far it has looked at the
// present chunk: feeding a growing buffer costs one look at each byte. It is
// for one goroutine; many may be in use.
type Chunker struct {
	gear *gearTable
	seen int    // bytes of the present chunk already looked at
	hash uint64 // the hash after them
}

// Chunker returns a new Chunker. Its table is secret: that of the oldest epoch
// held, so that a new epoch does not end deduplication. It is nil while the
// Keyring holds no key.
func (k *Keyring) Chunker() *Chunker {
	keys := *k.keys.Load()
	if len(keys) == 0 {
		return nil
	}
	return &Chunker{gear: keys[len(keys)-1].gear()}
}

// Next returns the length of the first chunk of data, or 0 if more data is
// needed to tell. data starts where the chunk before it ended and, after an
// answer of 0, holds what it held then and more. final says that the stream
// ends with data: then the answer is 0 only if there is none. Where chunks end
// does not depend on how much of the stream each call shows.
func (c *Chunker) Next(data []byte, final bool) int {
	n := c.scan(data[:min(len(data), MaxChunk)])
	if n == 0 && final {
		n = len(data)
	}
	if n > 0 {
		c.Reset()
	}
	return n
}

// Reset forgets what Next has seen of the present chunk: the next call starts
// another stream.
func (c *Chunker) Reset() { c.seen, c.hash = 0, 0 }

// scan looks for the end of the chunk in what of data it has not seen.
func (c *Chunker) scan(data []byte) int {
	pos, h := c.seen, c.hash
	if pos > len(data) { // another stream without Reset
		pos, h = 0, 0
	}
	if pos == 0 {
		if len(data) <= MinChunk {
			return 0
		}
		for _, b := range data[MinChunk-gearWindow : MinChunk] {
			h = h<<1 + c.gear[b]
		}
		pos = MinChunk
	}
	if pos < normalChunk {
		n, sum := c.gear.find(h, data[pos:min(len(data), normalChunk)], gearHard)
		if n > 0 {
			return pos + n
		}
		pos, h = min(len(data), normalChunk), sum
	}
	n, h := c.gear.find(h, data[pos:], gearEasy)
	if n > 0 {
		return pos + n
	}
	if len(data) == MaxChunk {
		return MaxChunk
	}
	c.seen, c.hash = len(data), h
	return 0
}

// find rolls the hash over p until it is below limit. It returns the number of
// bytes up to there, 0 if there is none, and the hash. Four bytes a turn: the
// chain from one hash to the next is what bounds the speed, and this way it is
// one shift and one addition for four bytes.
func (t *gearTable) find(h uint64, p []byte, limit uint64) (int, uint64) {
	n := len(p)
	for len(p) >= 4 {
		g0, g1, g2, g3 := t[p[0]], t[p[1]], t[p[2]], t[p[3]]
		g1 += g0 << 1
		g2 += g1 << 1
		g3 += g2 << 1
		h0, h1, h2 := h<<1+g0, h<<2+g1, h<<3+g2
		h = h<<4 + g3
		if h0 < limit || h1 < limit || h2 < limit || h < limit {
			for i, sum := range [...]uint64{h0, h1, h2, h} {
				if sum < limit {
					return n - len(p) + i + 1, sum
				}
			}
		}
		p = p[4:]
	}
	for i, b := range p {
		h = h<<1 + t[b]
		if h < limit {
			return n - len(p) + i + 1, h
		}
	}
	return 0, h
}
