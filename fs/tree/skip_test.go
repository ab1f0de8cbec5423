package tree

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"hearth/log"
)

// leavingOut is pages of which some are left out.
type leavingOut struct {
	Pages
	out map[log.Ref]bool
}

func (p leavingOut) ReadPage(ref log.Ref) ([]byte, error) {
	if p.out[ref] {
		return nil, ErrSkip
	}
	return p.Pages.ReadPage(ref)
}

// A scan passes over the pages that are left out, and finds all others.
func TestSkip(t *testing.T) {
	tr, _ := newTree(0)
	var cs []Change
	long := strings.Repeat("x", 250) // in the keys that separate pages, too
	for i := range 12_000 {
		cs = append(cs, Change{Key: fmt.Appendf(nil, "k%05d%s%05d", i/40, long, i), Value: bytes.Repeat([]byte{byte(i)}, 800)})
	}
	root, err := tr.Apply(cs)
	if err != nil {
		t.Fatal(err)
	}
	tr = New(tr.pages, nil, root)
	if root.Height < 3 {
		t.Fatalf("a tree of height %d", root.Height)
	}
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 0))
		p := leavingOut{tr.pages, map[log.Ref]bool{}}
		share := r.IntN(101)
		var want []string
		err := tr.Walk(context.Background(), func(ref log.Ref, height uint8) (bool, error) {
			if r.IntN(100) < share && height < root.Height {
				p.out[ref] = true
				return false, nil
			}
			if height > 1 {
				return true, nil
			}
			return false, tr.Leaf(ref, func(key, _ []byte) error { want = append(want, string(key)); return nil })
		})
		if err != nil {
			t.Fatal(err)
		}
		lo, hi := cs[r.IntN(100)].Key, cs[len(cs)-1-r.IntN(100)].Key
		got := 0
		it := New(p, nil, root).Scan(lo, hi)
		for _, key := range want {
			if key < string(lo) || key >= string(hi) {
				continue
			}
			if !it.Next() || string(it.Key()) != key {
				t.Fatalf("seed %d: after %d entries not %s but %q, %v", seed, got, key, it.Key(), it.Err())
			}
			got++
		}
		if it.Next() || it.Err() != nil {
			t.Fatalf("seed %d: more than %d entries, %v", seed, got, it.Err())
		}
		// With seeks, and in the other direction, it goes on as well.
		seeking := New(p, nil, root).Scan(nil, nil)
		last := ""
		for range 200 {
			if !seeking.Next() {
				break
			}
			if last = string(seeking.Key()); r.IntN(2) == 0 {
				seeking.Seek(cs[r.IntN(len(cs))].Key)
			}
		}
		desc, n := New(p, nil, root).ScanDesc(nil, nil), 0
		for desc.Next() {
			n++
		}
		if seeking.Err() != nil || desc.Err() != nil || n != len(want) {
			t.Fatalf("seed %d: %v at %s, %v, %d of %d entries", seed, seeking.Err(), last, desc.Err(), n, len(want))
		}
	}
	p := leavingOut{tr.pages, map[log.Ref]bool{root.Ref: true}}
	if it := New(p, nil, root).Scan(nil, nil); it.Next() || it.Err() != nil {
		t.Fatal("a tree without its top", it.Err())
	}
}
