package tree

import (
	"fmt"
	"testing"
)

func fill(pages, size map[uint8]int) float64 {
	return float64(size[1]) / float64(pages[1]) / MaxPage
}

// TestFill checks how full leaves become under the loads that matter.
func TestFill(t *testing.T) {
	rng := seeded(t)
	perm := rng.Perm(60_000)
	for _, c := range []struct {
		name string
		want float64
		load func(tr *Tree) *Tree
	}{
		{"bulk", 0.93, func(tr *Tree) *Tree { return mustApply(t, tr, bulk(0, 60_000)) }},
		{"sequential by 100", 0.92, func(tr *Tree) *Tree {
			for i := 0; i < 60_000; i += 100 {
				tr = mustApply(t, tr, bulk(i, i+100))
			}
			return tr
		}},
		{"sequential by 1", 0.92, func(tr *Tree) *Tree {
			for i := range 10_000 {
				tr = mustApply(t, tr, bulk(i, i+1))
			}
			return tr
		}},
		{"two sequential streams", 0.90, func(tr *Tree) *Tree {
			for i := 0; i < 30_000; i += 50 {
				cs := bulk(i, i+50)
				for j := range 50 {
					cs = append(cs, Change{Key: fmt.Appendf(nil, "x%08d", i+j), Value: make([]byte, 90)})
				}
				tr = mustApply(t, tr, cs)
			}
			return tr
		}},
		{"random by 200", 0.60, func(tr *Tree) *Tree {
			for i := 0; i < len(perm); i += 200 {
				var cs []Change
				for _, n := range perm[i : i+200] {
					cs = append(cs, numbered(n))
				}
				tr = mustApply(t, tr, sorted(cs))
			}
			return tr
		}},
	} {
		tr, mem := newTree(1 << 26)
		mem.lax = true
		tr = c.load(tr)
		pages, size, _ := stats(t, tr)
		t.Logf("%s: %d leaves %.1f %% full, height %d", c.name, pages[1], 100*fill(pages, size), tr.root.Height)
		if f := fill(pages, size); f < c.want {
			t.Errorf("%s: leaves %.1f %% full, want %.0f", c.name, 100*f, 100*c.want)
		}
	}
}

// TestShrink checks that deleting merges pages and lowers the tree.
func TestShrink(t *testing.T) {
	rng := seeded(t)
	tr, _ := newTree(1 << 26)
	tr = mustApply(t, tr, bulk(0, 100_000))
	m := model{}
	m.apply(bulk(0, 100_000))
	perm := rng.Perm(100_000)
	for i := 0; i < 99_000; i += 3000 {
		var cs []Change
		for _, n := range perm[i : i+3000] {
			cs = append(cs, Change{Key: numbered(n).Key, Delete: true})
		}
		cs = sorted(cs)
		tr = mustApply(t, tr, cs)
		m.apply(cs)
		pages, size, least := stats(t, tr)
		if f := fill(pages, size); f < 0.27 && pages[1] > 1 || least < minPage {
			t.Errorf("%d keys: %d leaves %.1f %% full, smallest page %d bytes", len(m), pages[1], 100*f, least)
		}
	}
	verify(t, tr, m)
	if tr.root.Height > 2 {
		t.Errorf("height %d with %d keys", tr.root.Height, len(m))
	}
}

// TestChurn mixes inserts, overwrites and deletes in a tree of several levels.
// Every version must differ from the one before it by its changes, and the
// oldest must read the same in the end.
func TestChurn(t *testing.T) {
	rng := seeded(t)
	key := func() []byte {
		return fmt.Appendf(nil, "%0150d", rng.IntN(30_000))
	}
	tr, _ := newTree(8 << 20)
	var first *Tree
	m, oldest := model{}, model{}
	for round := range 40 {
		var cs []Change
		deletes := 1 + round/4%9 // in ten: the tree grows and shrinks in turn
		at := key()
		for range rng.IntN(3000) {
			if rng.IntN(100) == 0 {
				at = key()
			}
			c := Change{Key: append(at[:len(at)-2:len(at)-2], key()[148:]...), Delete: rng.IntN(10) < deletes}
			if rng.IntN(2) == 0 {
				c.Key = key()
			}
			if !c.Delete {
				c.Value = make([]byte, rng.IntN(2500))
			}
			cs = append(cs, c)
		}
		cs = sorted(cs)
		next := mustApply(t, tr, cs)
		before := m.clone()
		m.apply(cs)
		checkDiff(t, tr, next, before, m, nil, nil)
		if tr = next; round == 3 {
			first, oldest = tr, m.clone()
		}
	}
	t.Logf("height %d, %d keys", tr.root.Height, len(m))
	verify(t, tr, m)
	verify(t, New(tr.pages, NewCache(1<<20), first.root), oldest)
	checkDiff(t, first, tr, oldest, m, nil, nil)
	checkDiff(t, tr, first, m, oldest, []byte(m.keys()[len(m)/3]), []byte(m.keys()[len(m)/2]))
}
