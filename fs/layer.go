package fs

import (
	"bytes"

	"github.com/tidwall/btree"

	"hearth/fs/tree"
)

// layer is an ordered set of changes over what lies below it. A nil value is
// a deletion. It is not safe for concurrent use while it is written.
type layer struct {
	m     btree.Map[string, []byte]
	bytes int64 // keys, values and their overhead, for the memory bound
}

// entryOverhead is what a map entry costs beside its key and value.
const entryOverhead = 64

func (l *layer) put(key, value []byte) {
	old, had := l.m.Set(string(key), value)
	if had {
		l.bytes += int64(len(value) - len(old))
	} else {
		l.bytes += int64(len(key) + len(value) + entryOverhead)
	}
}

func (l *layer) del(key []byte) { l.put(key, nil) }

func (l *layer) empty() bool { return l.m.Len() == 0 }

// changes returns the layer's content in key order.
func (l *layer) changes() []tree.Change {
	out := make([]tree.Change, 0, l.m.Len())
	l.m.Scan(func(k string, v []byte) bool {
		out = append(out, tree.Change{Key: []byte(k), Value: v, Delete: v == nil})
		return true
	})
	return out
}

// view is a state of the drive: layers, newest first, over a tree.
type view struct {
	layers []*layer
	tree   *tree.Tree
}

// get returns the value of a key, nil if it is absent. The value must not be
// modified.
func (v *view) get(key []byte) ([]byte, error) {
	for _, l := range v.layers {
		if val, ok := l.m.Get(string(key)); ok {
			return val, nil
		}
	}
	if v.tree == nil {
		return nil, nil
	}
	val, found, err := v.tree.Get(key)
	if err != nil || !found {
		return nil, err
	}
	return val, nil
}

// layerIter walks one layer.
type layerIter struct {
	it btree.MapIter[string, []byte]
	ok bool
}

// iter merges the layers of a view and its tree in key order, newest first
// where they overlap, leaving out what is deleted.
type iter struct {
	hi     []byte
	layers []layerIter
	tree   *tree.Iter
	treeOK bool
	key    []byte
	value  []byte
	err    error
}

// scan returns an iterator over [lo, hi). The layers must not change while it
// is in use.
func (v *view) scan(lo, hi []byte) *iter {
	it := &iter{hi: hi}
	for _, l := range v.layers {
		if l.m.Len() == 0 {
			continue
		}
		li := layerIter{it: l.m.Iter()}
		li.ok = li.it.Seek(string(lo))
		if li.ok && less(hi, li.it.Key()) {
			li.ok = false
		}
		if li.ok {
			it.layers = append(it.layers, li)
		}
	}
	if v.tree != nil {
		it.tree = v.tree.Scan(lo, hi)
		it.advanceTree()
	}
	return it
}

// less reports hi <= key, for a bound hi (nil: none).
func less(hi []byte, key string) bool { return hi != nil && string(hi) <= key }

func (it *iter) advanceTree() {
	it.treeOK = it.tree.Next()
	if !it.treeOK {
		if err := it.tree.Err(); err != nil && it.err == nil {
			it.err = err
		}
	}
}

// next moves to the next live record.
func (it *iter) next() bool {
	for it.err == nil {
		// The least key among all sources; the first (newest) source wins a tie.
		var least string
		src := -1
		for i := range it.layers {
			l := &it.layers[i]
			if l.ok && (src < 0 || l.it.Key() < least) {
				src, least = i, l.it.Key()
			}
		}
		var treeKey []byte
		if it.treeOK {
			treeKey = it.tree.Key()
			if src < 0 || string(treeKey) < least {
				it.key, it.value = treeKey, it.tree.Value()
				// The iterator's key may be overwritten by the advance.
				it.key = append([]byte(nil), it.key...)
				it.advanceTree()
				return true
			}
		}
		if src < 0 {
			return false
		}
		value := it.layers[src].it.Value()
		for i := range it.layers {
			l := &it.layers[i]
			if l.ok && l.it.Key() == least {
				l.ok = l.it.Next() && !less(it.hi, l.it.Key())
			}
		}
		if it.treeOK && string(treeKey) == least {
			it.advanceTree()
		}
		if value != nil {
			it.key, it.value = []byte(least), value
			return true
		}
	}
	return false
}

// overlay returns a layer holding the changes of bottom with those of top
// over them.
func overlay(top, bottom *layer) *layer {
	if bottom == nil || bottom.empty() {
		return top
	}
	if top == nil || top.empty() {
		return bottom
	}
	out := &layer{bytes: bottom.bytes}
	out.m = *bottom.m.Copy()
	top.m.Scan(func(k string, v []byte) bool {
		out.put([]byte(k), v)
		return true
	})
	return out
}

// diffViews reports every record that differs between two views within
// [lo, hi), in key order. It costs the size of their layers and of what
// differs between their trees.
func diffViews(a, b *view, lo, hi []byte, fn func(key, old, new []byte) error) error {
	// Keys named in a layer are compared through the views; all others are
	// the trees' own difference.
	seen := new(btree.Set[string])
	for _, v := range []*view{a, b} {
		for _, l := range v.layers {
			l.m.Ascend(string(lo), func(k string, _ []byte) bool {
				if less(hi, k) {
					return false
				}
				seen.Insert(k)
				return true
			})
		}
	}
	layered := seen.Iter()
	more := layered.First()
	emitLayered := func(before []byte) error { // all layered keys < before
		for more && (before == nil || layered.Key() < string(before)) {
			k := []byte(layered.Key())
			more = layered.Next()
			x, err := a.get(k)
			if err != nil {
				return err
			}
			y, err := b.get(k)
			if err != nil {
				return err
			}
			if (x == nil) != (y == nil) || !bytes.Equal(x, y) {
				if err := fn(k, x, y); err != nil {
					return err
				}
			}
		}
		return nil
	}
	err := tree.Diff(a.tree, b.tree, lo, hi, func(key, old, new []byte) error {
		if err := emitLayered(key); err != nil {
			return err
		}
		if seen.Contains(string(key)) {
			return nil // its turn comes with the layered keys
		}
		return fn(key, old, new)
	})
	if err != nil {
		return err
	}
	return emitLayered(nil)
}
