package tree

import (
	"bytes"
	"fmt"
	"sort"

	"hearth/log"
)

// Change is one key's new state.
type Change struct {
	Key    []byte
	Value  []byte // ignored when Delete is set; nil is the empty value
	Delete bool
}

// minPage is the size below which a page that shrinks is merged.
const minPage = MaxPage / 4

// Apply returns the root of the tree with the changes made. They must be in
// strictly ascending order of their keys. Pages that the changes do not alter
// are shared with the old tree, which stays as it is, and are not written
// again; if nothing is altered, the old root is returned and nothing written.
//
// After an error nothing has changed; pages already appended belong to no tree.
// Apply keeps none of the slices it is given.
func (t *Tree) Apply(changes []Change) (Root, error) {
	for i := range changes {
		c := &changes[i]
		if len(c.Key) > MaxKey || !c.Delete && len(c.Value) > MaxValue {
			return Root{}, fmt.Errorf("%w: %d and %d bytes, at most %d and %d",
				ErrTooLarge, len(c.Key), len(c.Value), MaxKey, MaxValue)
		}
		if i > 0 && bytes.Compare(changes[i-1].Key, c.Key) >= 0 {
			return Root{}, fmt.Errorf("%w: %x before %x", ErrUnsorted, changes[i-1].Key, c.Key)
		}
	}
	if len(changes) == 0 {
		return t.root, nil
	}
	w := &rewriter{t: t}
	if t.root.Height == 0 {
		return w.grow(mergeLeaf(nil, changes).pack(nil))
	}
	top, err := t.topNode()
	if err != nil {
		return Root{}, err
	}
	items, changed, err := w.apply(t.root.Ref, top, nil, nil, changes)
	if err != nil {
		return Root{}, err
	} else if !changed {
		return t.root, nil
	}
	return w.grow(items)
}

// rewriter is one Apply at work.
type rewriter struct {
	t     *Tree
	edits []edit // scratch of splice
}

// grow makes one root of the pages that replace the old one: a tree of as many
// levels more as it takes, or as many fewer as have only one child.
func (w *rewriter) grow(items []item) (Root, error) {
	for len(items) > 1 {
		if err := w.writeAll(items); err != nil {
			return Root{}, err
		}
		p := &pending{height: items[0].height + 1, items: items, added: run{1, len(items), len(items) - 1}}
		if p.height > MaxHeight {
			return Root{}, fmt.Errorf("tree would be higher than %d", MaxHeight)
		}
		items = p.pack(nil)
	}
	if len(items) == 0 {
		return Root{}, nil
	}
	it := &items[0]
	for it.page != nil && it.page.height > 1 && len(it.page.items) == 1 {
		it = &it.page.items[0]
	}
	if err := w.write(it); err != nil {
		return Root{}, err
	}
	// A branch that is written never has a single child: this is the top.
	return Root{Ref: it.ref, Height: it.height}, nil
}

// item is a child of a branch that is being rewritten: a page that is stored
// (ref) or one still to be written (page).
type item struct {
	sep    []byte // the low end of its range; nil at the left edge of the tree
	ref    log.Ref
	page   *pending
	height uint8
}

// entry is a key and a value of a leaf that is being rewritten. The slices
// alias old pages and changes.
type entry struct{ key, val []byte }

// run describes where new entries stand among the others: count of them
// between positions first and end.
type run struct{ first, end, count int }

func (r *run) add(pos int) {
	if r.count == 0 {
		r.first = pos
	}
	r.end = pos + 1
	r.count++
}

// pending is a page, or what will become several, still to be written.
type pending struct {
	height  uint8
	ready   *node   // the page itself, when it could be made from the old one
	entries []entry // of a leaf
	items   []item  // of a branch
	shrunk  bool    // smaller than it was: to be merged if below minPage
	added   run
}

// under reports whether the item should be merged with a neighbour.
func (it *item) under() bool {
	p := it.page
	return p != nil && p.ready == nil && (p.shrunk && p.size() < minPage || p.height > 1 && len(p.items) == 1)
}

// apply makes changes, at least one, below the page n at ref, which holds
// the keys in [lo, hi). It returns what replaces the page in its parent; none
// of it is written yet.
func (w *rewriter) apply(ref log.Ref, n *node, lo, hi []byte, changes []Change) (items []item, changed bool, err error) {
	if err := n.within(ref, lo, hi); err != nil {
		return nil, false, err
	}
	if n.height == 1 {
		page, changed, ok := w.splice(n, changes)
		if !changed {
			return nil, false, nil
		} else if ok {
			return ready(page, lo), true, nil
		}
		return mergeLeaf(n, changes).pack(lo), true, nil
	}

	repl, err := w.applyBelow(n, lo, hi, changes)
	if err != nil || len(repl) == 0 {
		return nil, false, err
	}
	simple := true
	for i := range repl {
		simple = simple && len(repl[i].items) == 1 && !repl[i].items[0].under()
	}
	if simple {
		page, err := w.patch(n, repl)
		if err != nil {
			return nil, false, err
		}
		return ready(page, lo), true, nil
	}
	p := n.replace(repl, lo)
	if err := w.settle(p, lo); err != nil {
		return nil, false, err
	}
	p.shrunk = p.size() < len(n.data)
	return p.pack(lo), true, nil
}

// replacement is what takes the place of one child of a branch.
type replacement struct {
	child int
	items []item
}

// applyBelow makes changes below the branch n, which holds the keys in [lo,
// hi), and returns which of its children are replaced by what.
func (w *rewriter) applyBelow(n *node, lo, hi []byte, changes []Change) ([]replacement, error) {
	var repl []replacement
	for len(changes) > 0 {
		i := n.childFor(changes[0].Key)
		clo, chi, mine := lo, hi, len(changes)
		if i > 0 {
			clo = n.appendKey(nil, i)
		}
		if i < n.count-1 {
			chi = n.appendKey(nil, i+1)
			mine = sort.Search(len(changes), func(j int) bool { return bytes.Compare(changes[j].Key, chi) >= 0 })
		}
		ref := n.child(i)
		child, err := w.t.load(ref, n.height-1)
		if err != nil {
			return nil, err
		}
		items, changed, err := w.apply(ref, child, clo, chi, changes[:mine])
		if err != nil {
			return nil, err
		}
		if changed {
			repl = append(repl, replacement{i, items})
		}
		changes = changes[mine:]
	}
	return repl, nil
}

// replace returns the branch n, which starts at lo, with children replaced.
func (n *node) replace(repl []replacement, lo []byte) *pending {
	p := &pending{height: n.height}
	next := 0 // the first child not yet taken over
	for _, r := range repl {
		p.items = n.appendItems(p.items, next, r.child, lo)
		next = r.child + 1
		for j := range r.items {
			if j > 0 {
				p.added.add(len(p.items))
			}
			p.items = append(p.items, r.items[j])
		}
	}
	p.items = n.appendItems(p.items, next, n.count, lo)
	return p
}

// appendItems appends the children [from, to) of a branch, which starts at lo.
func (n *node) appendItems(items []item, from, to int, lo []byte) []item {
	if from >= to {
		return items
	}
	arena := make([]byte, 0, n.end(to-1)-n.start(from)+(to-from)*len(n.prefix))
	for i := from; i < to; i++ {
		sep := lo
		if i > 0 {
			start := len(arena)
			arena = n.appendKey(arena, i)
			sep = arena[start:len(arena):len(arena)]
		}
		items = append(items, item{sep: sep, ref: n.child(i), height: n.height - 1})
	}
	return items
}

// mergeLeaf merges a leaf, which may be nil, with changes.
func mergeLeaf(n *node, changes []Change) *pending {
	p := &pending{height: 1}
	if n == nil {
		n = &node{height: 1}
	}
	arena := make([]byte, 0, len(n.data)+n.count*len(n.prefix))
	p.entries = make([]entry, 0, n.count+len(changes))
	take := func(to, i int) int {
		for ; i < to; i++ {
			suffix, val := n.entry(i)
			start := len(arena)
			arena = append(append(arena, n.prefix...), suffix...)
			p.entries = append(p.entries, entry{arena[start:len(arena):len(arena)], val})
		}
		return to
	}
	i, deleted := 0, false
	for j := range changes {
		c := &changes[j]
		pos, found := n.find(c.Key)
		i = take(pos, i)
		if found {
			i++
		}
		switch {
		case c.Delete:
			deleted = deleted || found
			continue
		case !found:
			p.added.add(len(p.entries))
		}
		p.entries = append(p.entries, entry{c.Key, c.Value})
	}
	take(n.count, i)
	p.shrunk = deleted || p.size() < len(n.data)
	return p
}

// settle merges those children of p that shrank too far with a neighbour, and
// writes all that are not written. A page with a single small child is left
// with that unwritten: p itself will be merged, and the child after it.
func (w *rewriter) settle(p *pending, lo []byte) error {
	out := p.items[:0:0]
	for i := range p.items {
		it := p.items[i]
		last := len(out) - 1
		// An underfull page is better merged with a neighbour that has to be
		// written anyway than with one that must be read for it.
		wait := it.under() && i+1 < len(p.items) && p.items[i+1].page != nil &&
			(last < 0 || out[last].page == nil)
		if last >= 0 && (out[last].under() || it.under() && !wait) {
			joined, err := w.join(out[last], it)
			if err != nil {
				return err
			}
			out = append(out[:last], joined...)
			continue
		}
		out = append(out, it)
	}
	for len(out) > 1 && out[len(out)-1].under() {
		last := len(out) - 1
		joined, err := w.join(out[last-1], out[last])
		if err != nil {
			return err
		}
		out = append(out[:last-1], joined...)
	}
	if len(out) != len(p.items) {
		p.added = run{} // positions have moved
	}
	p.items = out
	if len(out) > 0 {
		out[0].sep = lo
	}
	if len(out) == 1 && out[0].under() {
		return nil
	}
	return w.writeAll(out)
}

// join makes one or two pages of two neighbours.
func (w *rewriter) join(a, b item) ([]item, error) {
	pa, err := w.open(a)
	if err != nil {
		return nil, err
	}
	pb, err := w.open(b)
	if err != nil {
		return nil, err
	}
	p := &pending{height: a.height, shrunk: true}
	if p.height == 1 {
		p.entries = append(append(p.entries, pa.entries...), pb.entries...)
		if n := len(pa.entries); bytes.Compare(p.entries[n-1].key, p.entries[n].key) >= 0 {
			return nil, &DamageError{a.ref, "keys outside the range given by its parent"}
		}
	} else {
		p.items = append(append(p.items, pa.items...), pb.items...)
		if n := len(pa.items); bytes.Compare(p.items[n-1].sep, p.items[n].sep) >= 0 {
			return nil, &DamageError{a.ref, "keys outside the range given by its parent"}
		}
		if err := w.settle(p, a.sep); err != nil {
			return nil, err
		}
	}
	return p.pack(a.sep), nil
}

// open returns the contents of an item, to be rewritten.
func (w *rewriter) open(it item) (*pending, error) {
	if it.page != nil && it.page.ready == nil {
		return it.page, nil
	}
	var n *node
	var err error
	if it.page != nil {
		n = it.page.ready
	} else if n, err = w.t.load(it.ref, it.height); err != nil {
		return nil, err
	} else if err = n.within(it.ref, it.sep, nil); err != nil {
		return nil, err
	}
	if n.height == 1 {
		return mergeLeaf(n, nil), nil
	}
	return &pending{height: n.height, items: n.appendItems(nil, 0, n.count, it.sep)}, nil
}

// writeAll writes the pages among items that are not written.
func (w *rewriter) writeAll(items []item) error {
	for i := range items {
		if err := w.write(&items[i]); err != nil {
			return err
		}
	}
	return nil
}

// write appends the item's page, if it is not written.
func (w *rewriter) write(it *item) error {
	if it.page == nil {
		return nil
	}
	n := it.page.encode()
	ref, err := w.t.pages.AppendPage(n.data)
	if err != nil {
		return fmt.Errorf("append tree page: %w", err)
	}
	w.t.cache.put(ref, n)
	it.ref, it.page = ref, nil
	return nil
}
