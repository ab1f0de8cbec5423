package tree

import (
	"bytes"
	"sort"

	"hearth/log"
)

// Reseparate returns the root of a tree with the same entries in which no
// separator is the beginning of one of keys, which are sorted, unless the
// entries around it demand that. A separator is made of a key that was there
// when a page was split, and stays when the key is deleted: who must not leave
// a trace of deleted keys asks for this.
//
// skip, if not nil, is asked of each branch page whether it need not be looked
// at, with all below it, because clean was told of it before, for this tree or
// another one, with the same keys.
func (t *Tree) Reseparate(keys [][]byte, skip func(log.Ref) bool, clean func(log.Ref)) (Root, error) {
	if t.root.Height < 2 || len(keys) == 0 {
		return t.root, nil
	}
	top, err := t.topNode()
	if err != nil {
		return Root{}, err
	}
	s := &separating{rewriter: rewriter{t: t}, keys: keys, skip: skip, clean: clean}
	items, changed, err := s.branch(t.root.Ref, top, nil)
	if err != nil {
		return Root{}, err
	} else if !changed {
		return t.root, nil
	}
	return s.grow(items)
}

// separating is one Reseparate at work.
type separating struct {
	rewriter
	keys  [][]byte
	skip  func(log.Ref) bool
	clean func(log.Ref)
}

// begins reports whether sep is the beginning of one of the keys.
func (s *separating) begins(sep []byte) bool {
	i := sort.Search(len(s.keys), func(i int) bool { return bytes.Compare(s.keys[i], sep) >= 0 })
	return i < len(s.keys) && bytes.HasPrefix(s.keys[i], sep)
}

// branch goes through the branch page n at ref, which starts at lo. It returns
// what replaces it, if anything does; below that all is written.
func (s *separating) branch(ref log.Ref, n *node, lo []byte) (items []item, changed bool, err error) {
	if s.skip != nil && s.skip(ref) {
		return nil, false, nil
	}
	p := &pending{height: n.height}
	for _, it := range n.appendItems(nil, 0, n.count, lo) {
		if i := len(p.items); i > 0 && s.begins(it.sep) {
			left := n.child(i - 1)
			sep, err := s.between(left, it.ref, n.height-1)
			if err != nil {
				return nil, false, err
			}
			changed = changed || !bytes.Equal(sep, it.sep)
			it.sep = sep
		}
		p.items = append(p.items, it)
	}
	if n.height > 2 {
		out := make([]item, 0, len(p.items))
		for i := range p.items {
			it := p.items[i]
			child, err := s.t.load(it.ref, it.height)
			if err != nil {
				return nil, false, err
			}
			below, ch, err := s.branch(it.ref, child, it.sep)
			if err != nil {
				return nil, false, err
			}
			if !ch {
				below = []item{it}
			}
			changed = changed || ch
			out = append(out, below...)
		}
		p.items = out
	}
	if !changed {
		if s.clean != nil {
			s.clean(ref)
		}
		return nil, false, nil
	}
	if err := s.writeAll(p.items); err != nil {
		return nil, false, err
	}
	return p.pack(lo), true, nil
}

// between returns the separator that the entries of two neighbours make.
func (s *separating) between(left, right log.Ref, height uint8) ([]byte, error) {
	last, err := s.edge(left, height, true)
	if err != nil {
		return nil, err
	}
	first, err := s.edge(right, height, false)
	if err != nil {
		return nil, err
	}
	if bytes.Compare(last, first) >= 0 {
		return nil, &DamageError{right, "keys outside the range given by its parent"}
	}
	return separator(last, first), nil
}

// edge returns the first or the last key below a page.
func (s *separating) edge(ref log.Ref, height uint8, last bool) ([]byte, error) {
	n, err := s.t.load(ref, height)
	for err == nil && n.height > 1 {
		i := 0
		if last {
			i = n.count - 1
		}
		n, err = s.t.load(n.child(i), n.height-1)
	}
	if err != nil {
		return nil, err
	}
	if last {
		return n.appendKey(nil, n.count-1), nil
	}
	return n.appendKey(nil, 0), nil
}
