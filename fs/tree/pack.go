package tree

import "encoding/binary"

// fillTarget is how full a page is packed when its entries take several pages:
// the slack keeps the first record that grows a little from splitting it again.
const fillTarget = MaxPage - MaxPage/20

// gauge computes the size of a page from the keys given to it in order.
type gauge struct {
	count   int
	payload int // values, or references
	keys    int // bytes of all keys
	longest int
	first   []byte // the first key
	prefix  int    // length of the common prefix so far
	keyed   int    // entries that have a key
	leaf    bool
}

// add accounts for an entry. The first entry of a branch has no key.
func (g *gauge) add(e entry) {
	g.count++
	g.payload += len(e.val)
	if !g.leaf {
		g.payload += refSize
		if g.count == 1 {
			return
		}
	}
	g.keyed++
	g.keys += len(e.key)
	g.longest = max(g.longest, len(e.key))
	if g.keyed == 1 {
		g.first, g.prefix = e.key, len(e.key)
	} else if p := g.prefix; len(e.key) < p || string(e.key[:p]) != string(g.first[:p]) {
		g.prefix = commonPrefix(g.first[:p], e.key)
	}
}

// size returns the size of a page, or a few bytes more: it takes every key of a
// leaf to need as many bytes for its length as the longest.
func (g *gauge) size() int {
	s := headerSize + 2*g.count + g.prefix + g.payload + g.keys - g.keyed*g.prefix
	if g.leaf {
		s += g.keyed
		if g.longest-g.prefix >= 0x80 {
			s += g.keyed
		}
	}
	return s
}

// len returns the number of entries of a pending page.
func (p *pending) len() int {
	if p.height == 1 {
		return len(p.entries)
	}
	return len(p.items)
}

// at returns entry i of a leaf, or the separator of item i as one.
func (p *pending) at(i int) entry {
	if p.height == 1 {
		return p.entries[i]
	}
	return entry{key: p.items[i].sep}
}

// size returns the size of the page that p would be, or a few bytes more.
func (p *pending) size() int {
	g := gauge{leaf: p.height == 1}
	for i := range p.len() {
		g.add(p.at(i))
	}
	return g.size()
}

// pack divides p into pages that are within the limit and returns them as
// items, of which the first starts at lo. Nothing is left of an empty page.
func (p *pending) pack(lo []byte) []item {
	n := p.len()
	if n == 0 {
		return nil
	}
	if p.size() <= MaxPage {
		return []item{{sep: lo, page: p, height: p.height}}
	}
	var cuts []int
	if r := p.added; r.count == r.end-r.first && (r.count > 1 || r.count == 1 && r.end == n) {
		cuts = p.cutAfter(r.end)
	} else {
		cuts = p.cutEven()
	}
	if p.height > 1 {
		cuts = noSingles(cuts, n)
	}
	items := make([]item, 0, len(cuts)+1)
	start := 0
	for _, end := range append(cuts, n) {
		it := item{sep: lo, height: p.height, page: &pending{height: p.height}}
		if p.height == 1 {
			it.page.entries = p.entries[start:end:end]
			if start > 0 {
				it.sep = separator(p.entries[start-1].key, p.entries[start].key)
			}
		} else {
			it.page.items = p.items[start:end:end]
			if start > 0 {
				it.sep = p.items[start].sep
			}
		}
		items = append(items, it)
		start = end
	}
	return items
}

// cutAfter divides a page whose new entries are a run that ends at end. More
// are expected there: what precedes is packed densely, and what follows is put
// out of the way, unless it fits behind the last of them.
func (p *pending) cutAfter(end int) []int {
	cuts, _ := p.cutFull(0, end)
	n := p.len()
	if end == n {
		return cuts
	}
	if len(cuts) > 0 {
		if more, _ := p.cutFull(cuts[len(cuts)-1], n); len(more) == 0 {
			return cuts
		}
	}
	more, _ := p.cutFull(end, n)
	return append(append(cuts, end), more...)
}

// cutFull returns where to cut entries [from, to) so that every page is filled
// to the target, but the last, and the sum of the pages' sizes.
func (p *pending) cutFull(from, to int) (cuts []int, total int) {
	g := gauge{leaf: p.height == 1}
	size := 0
	for i := from; i < to; i++ {
		before := g
		g.add(p.at(i))
		if s := g.size(); s <= fillTarget || before.count == 0 {
			size = s
			continue
		}
		cuts = append(cuts, i)
		total += size
		g = gauge{leaf: g.leaf}
		g.add(p.at(i))
		size = g.size()
	}
	return cuts, total + size
}

// cutEven returns where to cut p into pages of about the same size.
func (p *pending) cutEven() []int {
	n := p.len()
	full, total := p.cutFull(0, n)
	pages := max(2, len(full)+1)
	share := total / pages
	cuts := make([]int, 0, pages)
	g := gauge{leaf: p.height == 1}
	done, size := 0, 0 // bytes in closed pages, and in the open one
	for i := range n {
		g.add(p.at(i))
		s := g.size()
		goal := (len(cuts) + 1) * share
		// Close the page where the sum is nearest to the goal.
		closer := len(cuts) < pages-1 && done+s > goal && done+s-goal > goal-done-size
		if i > 0 && g.count > 1 && (s > MaxPage || closer) {
			cuts = append(cuts, i)
			done += size
			g = gauge{leaf: g.leaf}
			g.add(p.at(i))
			s = g.size()
		}
		size = s
	}
	return cuts
}

// noSingles moves cuts so that every branch has two children. All pages but
// the last hold dozens, as a reference and a separator are at most 312 bytes.
func noSingles(cuts []int, n int) []int {
	for i := len(cuts) - 1; i >= 0; i-- {
		end := n
		if i+1 < len(cuts) {
			end = cuts[i+1]
		}
		if end-cuts[i] < 2 {
			cuts[i]--
		}
	}
	return cuts
}

// separator returns the shortest string greater than a and not greater than b,
// where a < b.
func separator(a, b []byte) []byte { return b[:commonPrefix(a, b)+1] }

// encode returns the page, decoded. Its size must be within the limit.
func (p *pending) encode() *node {
	if p.ready != nil {
		return p.ready
	}
	n := p.len()
	first := 0
	if p.height > 1 {
		first = 1
	}
	prefix := p.at(first).key
	prefix = prefix[:commonPrefix(prefix, p.at(n-1).key)]
	base := headerSize + 2*n + len(prefix)

	b := make([]byte, 0, p.size())
	b = append(b, pageFormat, p.height)
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	b = binary.BigEndian.AppendUint16(b, uint16(len(prefix)))
	b = append(b[:headerSize+2*n], prefix...)
	for i := range n {
		if p.height == 1 {
			e := &p.entries[i]
			suffix := e.key[len(prefix):]
			b = binary.AppendUvarint(b, uint64(len(suffix)))
			b = append(append(b, suffix...), e.val...)
		} else {
			it := &p.items[i]
			b = binary.BigEndian.AppendUint16(b, uint16(it.ref.Writer))
			b = binary.BigEndian.AppendUint64(b, it.ref.Index)
			if i > 0 {
				b = append(b, it.sep[len(prefix):]...)
			}
		}
		binary.BigEndian.PutUint16(b[headerSize+2*i:], uint16(len(b)))
	}
	return &node{data: b, prefix: b[base-len(prefix) : base : base], base: base, count: n, height: p.height}
}
