package tree

import (
	"bytes"
	"encoding/binary"
)

// This file makes new pages from old ones by copying bytes, for the changes
// that allow it: nearly all. The result is what encode would have made.

// edit is a change that alters a leaf, and where.
type edit struct {
	*Change
	pos   int
	found bool // entry pos has the key; otherwise it belongs before pos
}

// ready returns a finished page that starts at lo as the only item.
func ready(n *node, lo []byte) []item {
	return []item{{sep: lo, height: n.height, page: &pending{height: n.height, ready: n}}}
}

// patch writes the pages that replace children of n one for one, and returns n
// with their references.
func (w *rewriter) patch(n *node, repl []replacement) (*node, error) {
	data := bytes.Clone(n.data)
	for i := range repl {
		it := &repl[i].items[0]
		if err := w.write(it); err != nil {
			return nil, err
		}
		b := data[n.start(repl[i].child):]
		binary.BigEndian.PutUint16(b, uint16(it.ref.Writer))
		binary.BigEndian.PutUint64(b[2:], it.ref.Index)
	}
	return n.like(data, n.count), nil
}

// like returns the node of a page that differs from n in its entries, but not
// in its prefix and height.
func (n *node) like(data []byte, count int) *node {
	base := headerSize + 2*count + len(n.prefix)
	return &node{data: data, prefix: data[base-len(n.prefix) : base : base], base: base, count: count, height: n.height}
}

// splice makes changes in a leaf. It reports whether any of them alters it,
// and whether page is the result. It is not where the page would have to be
// split or merged or would get another prefix.
func (w *rewriter) splice(n *node, changes []Change) (page *node, changed, ok bool) {
	w.edits = w.edits[:0]
	count, size, pos, same := n.count, len(n.data), 0, n.count > 1
	for i := range changes {
		c := &changes[i]
		e := edit{Change: c}
		e.pos, e.found = n.findFrom(pos, c.Key)
		pos = e.pos
		switch {
		case c.Delete && !e.found, !c.Delete && e.found && bytes.Equal(n.value(pos), c.Value):
			continue
		case c.Delete:
			// The first and the last key determine the prefix.
			same = same && pos > 0 && pos < n.count-1
			size -= 2 + n.end(pos) - n.start(pos)
			count--
		case e.found:
			size += len(c.Value) - len(n.value(pos))
		default:
			same = same && bytes.HasPrefix(c.Key, n.prefix)
			suffix := len(c.Key) - len(n.prefix)
			size += 2 + 1 + suffix + len(c.Value)
			if suffix >= 0x80 {
				size++
			}
			count++
		}
		w.edits = append(w.edits, e)
	}
	if len(w.edits) == 0 {
		return nil, false, false
	}
	if !same || size > MaxPage || size < minPage && size < len(n.data) {
		return nil, true, false
	}

	b := make([]byte, headerSize+2*count+len(n.prefix), size)
	b[0], b[1] = pageFormat, 1
	binary.BigEndian.PutUint16(b[2:], uint16(count))
	binary.BigEndian.PutUint16(b[4:], uint16(len(n.prefix)))
	copy(b[headerSize+2*count:], n.prefix)
	to, from := 0, 0 // entries of the new and of the old page that are done
	copyTo := func(end int) {
		if from == end {
			return
		}
		shift := len(b) - n.start(from)
		b = append(b, n.data[n.start(from):n.end(end-1)]...)
		for ; from < end; from++ {
			binary.BigEndian.PutUint16(b[headerSize+2*to:], uint16(n.end(from)+shift))
			to++
		}
	}
	for _, e := range w.edits {
		copyTo(e.pos)
		if e.found {
			from++
		}
		if e.Delete {
			continue
		}
		suffix := e.Key[len(n.prefix):]
		b = binary.AppendUvarint(b, uint64(len(suffix)))
		b = append(append(b, suffix...), e.Value...)
		binary.BigEndian.PutUint16(b[headerSize+2*to:], uint16(len(b)))
		to++
	}
	copyTo(n.count)
	return n.like(b, count), true, true
}
