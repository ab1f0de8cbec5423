package tree

import (
	"context"

	"hearth/log"
)

// Walk visits every page of the tree in key order, a page before its children.
// If visit returns false the page is not read and nothing below it visited;
// if it returns an error, Walk returns that. When visit descends into a page,
// also a leaf, Walk reads it and checks all that can be checked: its structure,
// its height and that its keys are within the range its parent gives it.
// A page that is referred to twice is visited twice.
func (t *Tree) Walk(ctx context.Context, visit func(ref log.Ref, height uint8) (descend bool, err error)) error {
	if t.root.Height == 0 {
		return nil
	}
	if t.root.Height > MaxHeight {
		_, err := t.topNode()
		return err
	}
	return t.walk(ctx, t.root.Ref, t.root.Height, nil, nil, visit)
}

func (t *Tree) walk(ctx context.Context, ref log.Ref, height uint8, lo, hi []byte,
	visit func(log.Ref, uint8) (bool, error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	descend, err := visit(ref, height)
	if err != nil || !descend {
		return err
	}
	n, err := t.load(ref, height)
	if err != nil {
		return err
	}
	if err := n.within(ref, lo, hi); err != nil {
		return err
	}
	for i := 0; n.height > 1 && i < n.count; i++ {
		clo, chi := lo, hi
		if i > 0 {
			clo = n.appendKey(nil, i)
		}
		if i+1 < n.count {
			chi = n.appendKey(nil, i+1)
		}
		if err := t.walk(ctx, n.child(i), height-1, clo, chi, visit); err != nil {
			return err
		}
	}
	return nil
}

// Leaf calls fn for every entry of the leaf at ref, in key order: with Walk, a
// way to see each entry once however many roots share its page. key is valid
// during the call only; value aliases the cached page.
func (t *Tree) Leaf(ref log.Ref, fn func(key, value []byte) error) error {
	n, err := t.load(ref, 1)
	if err != nil {
		return err
	}
	var buf [MaxKey]byte
	copy(buf[:], n.prefix)
	for i := range n.count {
		suffix, value := n.entry(i)
		if err := fn(append(buf[:len(n.prefix)], suffix...), value); err != nil {
			return err
		}
	}
	return nil
}
