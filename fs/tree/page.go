package tree

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"hearth/log"
)

const (
	pageFormat = 1
	headerSize = 6
	refSize    = 10
)

// node is a validated page. It is immutable.
type node struct {
	data   []byte
	prefix []byte // common prefix of the keys; aliases data
	base   int    // where the first entry starts
	count  int
	height uint8
}

// Check validates the structure of a page, as it is done when one is loaded:
// bounds, order, limits and the one permitted encoding. What only its parent
// knows (its height and the range of its keys) is checked by [Tree.Walk].
func Check(page []byte) error {
	if n, reason := parse(page); n == nil {
		return fmt.Errorf("%w: %s", ErrDamaged, reason)
	}
	return nil
}

// parse validates a page. On failure it returns no node and says why.
func parse(data []byte) (*node, string) {
	if len(data) < headerSize || len(data) > MaxPage {
		return nil, fmt.Sprintf("%d bytes long", len(data))
	}
	if data[0] != pageFormat {
		return nil, fmt.Sprintf("page format %d, this program reads %d", data[0], pageFormat)
	}
	n := &node{data: data, height: data[1], count: int(binary.BigEndian.Uint16(data[2:]))}
	p := int(binary.BigEndian.Uint16(data[4:]))
	n.base = headerSize + 2*n.count + p
	switch {
	case n.height == 0 || n.height > MaxHeight:
		return nil, fmt.Sprintf("height %d", n.height)
	case n.count == 0 || n.count == 1 && n.height > 1:
		return nil, fmt.Sprintf("%d entries at height %d", n.count, n.height)
	case p > MaxKey || n.base > len(data):
		return nil, "header out of bounds"
	}
	n.prefix = data[n.base-p : n.base : n.base]
	first := 0 // the first entry that has a key
	if n.height > 1 {
		first = 1
	}
	var head, last []byte
	start := n.base
	for i := range n.count {
		end := n.end(i)
		if end < start || end > len(data) {
			return nil, fmt.Sprintf("entry %d out of bounds", i)
		}
		var suffix []byte
		if n.height > 1 {
			if end-start < refSize {
				return nil, fmt.Sprintf("entry %d too short", i)
			}
			suffix = data[start+refSize : end]
			if i == 0 && len(suffix) != 0 {
				return nil, "first child has a separator"
			}
		} else {
			k, s, ok := shortUvarint(data[start:end])
			if !ok || start+k+s > end {
				return nil, fmt.Sprintf("key of entry %d out of bounds", i)
			}
			suffix = data[start+k : start+k+s]
			if end-start-k-s > MaxValue {
				return nil, fmt.Sprintf("value of entry %d too long", i)
			}
		}
		if i >= first {
			if p+len(suffix) > MaxKey {
				return nil, fmt.Sprintf("key of entry %d too long", i)
			}
			if i == first {
				head = suffix
			} else if bytes.Compare(last, suffix) >= 0 {
				return nil, fmt.Sprintf("entry %d out of order", i)
			}
			last = suffix
		}
		start = end
	}
	switch {
	case start != len(data):
		return nil, "bytes after the last entry"
	case first == n.count-1 && len(head) != 0,
		first < n.count-1 && len(head) > 0 && head[0] == last[0]:
		return nil, "common prefix is not the longest"
	case n.height > 1 && p+len(head) == 0:
		return nil, "empty separator"
	}
	return n, ""
}

// shortUvarint decodes a key length: the number of bytes it takes, the length,
// and whether it is there in its shortest form. Two bytes cover every key.
func shortUvarint(b []byte) (k, v int, ok bool) {
	if len(b) == 0 {
		return 0, 0, false
	}
	if b[0] < 0x80 {
		return 1, int(b[0]), true
	}
	if len(b) < 2 || b[1] == 0 || b[1] >= 0x80 {
		return 0, 0, false
	}
	return 2, int(b[0]&0x7f) | int(b[1])<<7, true
}

// end returns where entry i ends.
func (n *node) end(i int) int {
	return int(binary.BigEndian.Uint16(n.data[headerSize+2*i:]))
}

// start returns where entry i starts.
func (n *node) start(i int) int {
	if i == 0 {
		return n.base
	}
	return n.end(i - 1)
}

// child returns the reference in entry i of a branch.
func (n *node) child(i int) log.Ref {
	b := n.data[n.start(i):]
	return log.Ref{
		Writer: log.Writer(binary.BigEndian.Uint16(b)),
		Index:  binary.BigEndian.Uint64(b[2:]),
	}
}

// entry returns what follows the common prefix in the key of entry i of a
// leaf, and its value.
func (n *node) entry(i int) (suffix, value []byte) {
	return n.entryAt(n.start(i), n.end(i))
}

// entryAt is entry for one that is known to span [o, end).
func (n *node) entryAt(o, end int) (suffix, value []byte) {
	d := n.data
	s := int(d[o])
	o++
	if s >= 0x80 {
		s = s&0x7f | int(d[o])<<7
		o++
	}
	return d[o : o+s : o+s], d[o+s : end : end]
}

// value returns the value of entry i of a leaf.
func (n *node) value(i int) []byte {
	_, v := n.entry(i)
	return v
}

// suffix returns what follows the common prefix in the key of entry i; in a
// branch it must not be asked for entry 0, which has no key.
func (n *node) suffix(i int) []byte {
	if n.height > 1 {
		e := n.end(i)
		return n.data[n.start(i)+refSize : e : e]
	}
	s, _ := n.entry(i)
	return s
}

// appendKey appends the key or separator of entry i to dst. For entry 0 of a
// branch it appends nothing.
func (n *node) appendKey(dst []byte, i int) []byte {
	if n.height > 1 && i == 0 {
		return dst
	}
	return append(append(dst, n.prefix...), n.suffix(i)...)
}

// cmp compares the key or separator of entry i with key.
func (n *node) cmp(i int, key []byte) int {
	p := len(n.prefix)
	if len(key) < p {
		return bytes.Compare(n.prefix, key)
	}
	if c := bytes.Compare(n.prefix, key[:p]); c != 0 {
		return c
	}
	return bytes.Compare(n.suffix(i), key[p:])
}

// split compares key with the common prefix: 0 means that key starts with it
// and rest is what follows; otherwise every key of the page is greater (-1) or
// less (1) than key.
func (n *node) split(key []byte) (rest []byte, side int) {
	p := len(n.prefix)
	if len(key) >= p && string(key[:p]) == string(n.prefix) {
		return key[p:], 0
	}
	return nil, bytes.Compare(key, n.prefix)
}

// find returns the position of the first key of a leaf that is not less than
// key, and whether it is key.
func (n *node) find(key []byte) (int, bool) { return n.findFrom(0, key) }

// findFrom is find when the position is known to be lo or later.
func (n *node) findFrom(lo int, key []byte) (int, bool) {
	rest, side := n.split(key)
	if side < 0 {
		return lo, false
	} else if side > 0 {
		return n.count, false
	}
	hi := n.count
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		s, _ := n.entry(m)
		switch c := bytes.Compare(s, rest); {
		case c < 0:
			lo = m + 1
		case c == 0:
			return m, true
		default:
			hi = m
		}
	}
	return lo, false
}

// childFor returns the position of the child of a branch that covers key.
func (n *node) childFor(key []byte) int {
	rest, side := n.split(key)
	if side < 0 {
		return 0
	} else if side > 0 {
		return n.count - 1
	}
	lo, hi := 1, n.count // the first separator greater than key
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		e := n.end(m)
		if bytes.Compare(n.data[n.end(m-1)+refSize:e], rest) <= 0 {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo - 1
}

// within checks that the keys of the page lie in [lo, hi); a nil hi is no
// limit. Separators may not equal lo either: the child between would be empty.
func (n *node) within(ref log.Ref, lo, hi []byte) error {
	first, least := 0, 0
	if n.height > 1 {
		first, least = 1, 1
	}
	if n.cmp(first, lo) < least || hi != nil && n.cmp(n.count-1, hi) >= 0 {
		return &DamageError{ref, "keys outside the range given by its parent"}
	}
	return nil
}

// commonPrefix returns how many leading bytes a and b share.
func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		if binary.LittleEndian.Uint64(a[i:]) != binary.LittleEndian.Uint64(b[i:]) {
			break
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}
