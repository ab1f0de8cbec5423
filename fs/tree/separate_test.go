package tree

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"

	"hearth/log"

	"pgregory.net/rapid"
)

// TestReseparate deletes keys, and looks for them in every page.
func TestReseparate(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		pages := &memory{}
		tr := New(pages, NewCache(1<<20), Root{})
		n := rapid.IntRange(500, 6000).Draw(rt, "n")
		var changes []Change
		var secret [][]byte
		for i := range n {
			key := fmt.Appendf(nil, "%06d/%s", i/7, bytes.Repeat([]byte{byte('a' + i%7)}, 40))
			c := Change{Key: key, Value: make([]byte, i%90)}
			changes = append(changes, c)
			if rapid.IntRange(0, 3).Draw(rt, "secret") == 0 {
				secret = append(secret, key)
			}
		}
		apply := func(tr *Tree, changes []Change) *Tree {
			root, err := tr.Apply(changes)
			if err != nil {
				rt.Fatal(err)
			}
			return New(pages, tr.cache, root)
		}
		tr = apply(tr, changes)
		var gone []Change
		for _, k := range secret {
			gone = append(gone, Change{Key: k, Delete: true})
		}
		without := apply(tr, gone)
		seen := map[log.Ref]bool{}
		root, err := without.Reseparate(secret, func(r log.Ref) bool { return seen[r] }, func(r log.Ref) { seen[r] = true })
		if err != nil {
			rt.Fatal(err)
		}
		got := New(pages, tr.cache, root)
		if err := Diff(without, got, nil, nil, func(key, _, _ []byte) error { return fmt.Errorf("key %s differs", key) }); err != nil {
			rt.Fatal(err)
		}
		err = got.Walk(context.Background(), func(ref log.Ref, height uint8) (bool, error) {
			page, err := got.load(ref, height)
			if err != nil {
				return false, err
			}
			for i := 1; height > 1 && i < page.count; i++ {
				sep := page.appendKey(nil, i)
				at, _ := slices.BinarySearchFunc(secret, sep, bytes.Compare)
				if at == len(secret) || !bytes.HasPrefix(secret[at], sep) {
					continue
				}
				it := got.Scan(sep, nil)
				if !it.Next() || !bytes.HasPrefix(it.Key(), sep) {
					return false, fmt.Errorf("separator %s is left of a key that is gone", sep)
				}
			}
			return true, nil
		})
		if err != nil {
			rt.Fatal(err)
		}
	})
}
