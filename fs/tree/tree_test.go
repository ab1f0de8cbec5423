package tree

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// genKey makes keys that collide, share prefixes and are at times very long.
func genKey() *rapid.Generator[[]byte] {
	return rapid.Custom(func(t *rapid.T) []byte {
		prefix := rapid.SampledFrom([]string{"", "a", "dir/", strings.Repeat("p", 120), strings.Repeat("q", 290)}).Draw(t, "prefix")
		tail := rapid.SampledFrom([]string{"", "", "", strings.Repeat("t", 3), strings.Repeat("u", 130)}).Draw(t, "tail")
		n := rapid.IntRange(0, 400).Draw(t, "n")
		k := append([]byte(prefix), byte(n>>8), byte(n))
		return append(k, tail...)[:min(MaxKey, len(k)+len(tail))]
	})
}

func genValue(t *rapid.T) []byte {
	size := rapid.OneOf(rapid.IntRange(0, 8), rapid.IntRange(0, 300), rapid.IntRange(0, MaxValue)).Draw(t, "size")
	return bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, size)
}

func genChanges(t *rapid.T, have []string) []Change {
	var cs []Change
	switch mode := rapid.IntRange(0, 4).Draw(t, "mode"); {
	case mode == 0 && len(have) > 0: // delete or overwrite a stretch
		from := rapid.IntRange(0, len(have)-1).Draw(t, "from")
		to := rapid.IntRange(from, len(have)).Draw(t, "to")
		step := rapid.IntRange(1, 4).Draw(t, "step")
		for i := from; i < to; i += step {
			cs = append(cs, Change{Key: []byte(have[i]), Delete: true})
		}
	case mode == 1: // a sequential run
		prefix := rapid.SampledFrom([]string{"", "a", "dir/", "z"}).Draw(t, "prefix")
		from := rapid.IntRange(0, 5000).Draw(t, "first")
		v := genValue(t)
		for i := range rapid.IntRange(1, 300).Draw(t, "length") {
			cs = append(cs, Change{Key: fmt.Appendf(nil, "%s%08d", prefix, from+i), Value: v})
		}
	default:
		n := rapid.IntRange(0, 60).Draw(t, "count")
		for range n {
			c := Change{Key: genKey().Draw(t, "key")}
			if c.Delete = rapid.IntRange(0, 3).Draw(t, "op") == 0; !c.Delete {
				c.Value = genValue(t)
			}
			cs = append(cs, c)
		}
	}
	return sorted(cs)
}

// TestModel applies random changes and compares with a sorted map; every
// earlier root must still read the same at the end.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		cache := rapid.SampledFrom([]int64{0, 100_000, 1 << 24}).Draw(rt, "cache")
		tr, _ := newTree(cache)
		m := model{}
		var trees []*Tree
		var models []model
		for range rapid.IntRange(1, 12).Draw(rt, "rounds") {
			cs := genChanges(rt, m.keys())
			root, err := tr.Apply(cs)
			if err != nil {
				rt.Fatalf("apply: %v", err)
			}
			tr = New(tr.pages, tr.cache, root)
			m = m.clone()
			m.apply(cs)
			trees, models = append(trees, tr), append(models, m)
			if again, err := tr.Apply(cs); err != nil || again != root {
				rt.Fatalf("repeated changes: root %v, then %v, %v", root, again, err)
			}
		}
		for i := range trees {
			verify(rt, New(tr.pages, tr.cache, trees[i].Root()), models[i])
		}
		// The tree can be emptied again.
		var cs []Change
		for _, k := range m.keys() {
			cs = append(cs, Change{Key: []byte(k), Delete: true})
		}
		if root, err := tr.Apply(cs); err != nil || root != (Root{}) {
			rt.Fatalf("emptied tree has root %v, %v", root, err)
		}
	})
}

// TestRanges compares scans of random ranges, with seeks, against the model.
func TestRanges(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		tr, _ := newTree(1 << 24)
		m := model{}
		for range rapid.IntRange(1, 6).Draw(rt, "rounds") {
			cs := genChanges(rt, m.keys())
			root, err := tr.Apply(cs)
			if err != nil {
				rt.Fatalf("apply: %v", err)
			}
			tr = New(tr.pages, tr.cache, root)
			m.apply(cs)
		}
		for range 20 {
			lo, hi := genKey().Draw(rt, "lo"), genKey().Draw(rt, "hi")
			if rapid.Bool().Draw(rt, "open end") {
				hi = nil
			}
			want := m.in(lo, hi)
			desc := rapid.Bool().Draw(rt, "desc")
			it := tr.Scan(lo, hi)
			if desc {
				it = tr.ScanDesc(lo, hi)
				for i, j := 0, len(want)-1; i < j; i, j = i+1, j-1 {
					want[i], want[j] = want[j], want[i]
				}
			}
			before := func(k, target string) bool { return k < target != desc && k != target }
			for {
				if rapid.IntRange(0, 9).Draw(rt, "seek") == 0 {
					target := genKey().Draw(rt, "target")
					it.Seek(target)
					for len(want) > 0 && before(want[0], string(target)) {
						want = want[1:]
					}
				}
				if !it.Next() {
					break
				}
				if len(want) == 0 || string(it.Key()) != want[0] || string(it.Value()) != m[want[0]] {
					rt.Fatalf("have %x, want %x", it.Key(), want)
				}
				want = want[1:]
			}
			if len(want) != 0 || it.Err() != nil {
				rt.Fatalf("missing %x, %v", want, it.Err())
			}
		}
	})
}

// TestDiff compares Diff between random pairs of roots with brute force.
func TestDiff(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		tr, _ := newTree(1 << 24)
		trees, models := []*Tree{tr}, []model{{}}
		for range rapid.IntRange(1, 8).Draw(rt, "rounds") {
			// Derived from any earlier root, so that roots also diverge.
			from := rapid.IntRange(0, len(trees)-1).Draw(rt, "from")
			m := models[from].clone()
			cs := genChanges(rt, m.keys())
			root, err := trees[from].Apply(cs)
			if err != nil {
				rt.Fatalf("apply: %v", err)
			}
			m.apply(cs)
			trees, models = append(trees, New(tr.pages, tr.cache, root)), append(models, m)
		}
		for range 10 {
			i, j := rapid.IntRange(0, len(trees)-1).Draw(rt, "a"), rapid.IntRange(0, len(trees)-1).Draw(rt, "b")
			var lo, hi []byte
			if rapid.Bool().Draw(rt, "ranged") {
				lo, hi = genKey().Draw(rt, "lo"), genKey().Draw(rt, "hi")
			}
			checkDiff(rt, trees[i], trees[j], models[i], models[j], lo, hi)
		}
	})
}

func checkDiff(tb fataler, a, b *Tree, ma, mb model, lo, hi []byte) {
	tb.Helper()
	both := ma.clone()
	for k, v := range mb {
		both[k] = v
	}
	var want, have []string
	for _, k := range both.in(lo, hi) {
		old, inA := ma[k]
		now, inB := mb[k]
		if inA != inB || old != now {
			want = append(want, fmt.Sprintf("%x %v %x %v %x", k, inA, old, inB, now))
		}
	}
	err := Diff(a, b, lo, hi, func(key, old, now []byte) error {
		have = append(have, fmt.Sprintf("%x %v %x %v %x", key, old != nil, old, now != nil, now))
		return nil
	})
	if err != nil || strings.Join(have, "\n") != strings.Join(want, "\n") {
		tb.Fatalf("diff: %v\nhave %.600q\nwant %.600q", err, have, want)
	}
}

// TestDiffCost checks that a diff reads pages in proportion to the changes,
// also when the trees differ in height or in where their pages begin.
func TestDiffCost(t *testing.T) {
	base, mem := newTree(1 << 28)
	base = mustApply(t, base, bulk(0, 200_000))
	for _, c := range []struct {
		name    string
		changes []Change
		reads   int
	}{
		{"one", []Change{{Key: numbered(77_777).Key, Value: []byte("new")}}, 6},
		{"insert run", []Change{
			{Key: []byte("i0000000000010000x"), Value: []byte("a")},
			{Key: []byte("i0000000000010000y"), Value: []byte("b")},
		}, 12},
		{"delete page", deletes(100_000, 100_300), 14},
		{"delete first", deletes(0, 300), 14},
	} {
		next := mustApply(t, base, c.changes)
		for _, pair := range [][2]*Tree{{base, next}, {next, base}} {
			a := New(mem, nil, pair[0].Root())
			b := New(mem, nil, pair[1].Root())
			mem.reads = 0
			n := 0
			if err := Diff(a, b, nil, nil, func(_, _, _ []byte) error { n++; return nil }); err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: %d differences, %d pages read, heights %d and %d", c.name, n, mem.reads, a.root.Height, b.root.Height)
			if mem.reads > c.reads {
				t.Errorf("%s: %d pages read, at most %d expected", c.name, mem.reads, c.reads)
			}
		}
	}
}

// TestDiffGrown checks that the pages of a tree are skipped in one that has
// grown by a level: only what was added is read.
func TestDiffGrown(t *testing.T) {
	low, mem := newTree(1 << 28)
	low = mustApply(t, low, bulk(0, 60_000))
	high := mustApply(t, low, bulk(60_000, 200_000))
	if low.root.Height != 2 || high.root.Height != 3 {
		t.Fatalf("heights %d and %d", low.root.Height, high.root.Height)
	}
	pages, _, _ := stats(t, high)
	shared, _, _ := stats(t, low)
	limit := pages[1] - shared[1] + pages[2] + 5
	for _, pair := range [][2]*Tree{{low, high}, {high, low}} {
		mem.reads = 0
		n := 0
		err := Diff(New(mem, nil, pair[0].root), New(mem, nil, pair[1].root), nil, nil, func(_, _, _ []byte) error { n++; return nil })
		if err != nil || n != 140_000 || mem.reads > limit {
			t.Errorf("%d differences, %d pages read of %d, %v", n, mem.reads, limit, err)
		}
	}
}

func deletes(from, to int) []Change {
	cs := bulk(from, to)
	for i := range cs {
		cs[i].Delete = true
	}
	return cs
}

func TestDiffStopsOnError(t *testing.T) {
	tr, _ := newTree(1 << 20)
	a := mustApply(t, tr, bulk(0, 10))
	stop := errors.New("stop")
	n := 0
	if err := Diff(tr, a, nil, nil, func(_, _, _ []byte) error { n++; return stop }); err != stop || n != 1 {
		t.Fatalf("%v after %d calls", err, n)
	}
}

func TestApplyRefuses(t *testing.T) {
	tr, mem := newTree(1 << 20)
	for name, c := range map[string]struct {
		changes []Change
		want    error
	}{
		"long key":   {[]Change{{Key: make([]byte, MaxKey+1)}}, ErrTooLarge},
		"long value": {[]Change{{Value: make([]byte, MaxValue+1)}}, ErrTooLarge},
		"disorder":   {[]Change{{Key: []byte("b")}, {Key: []byte("a")}}, ErrUnsorted},
		"twice":      {[]Change{{Key: []byte("b")}, {Key: []byte("b")}}, ErrUnsorted},
	} {
		if _, err := tr.Apply(c.changes); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if mem.written() != 0 {
		t.Errorf("%d pages written", mem.written())
	}
	tr = mustApply(t, tr, []Change{{Key: make([]byte, MaxKey), Value: make([]byte, MaxValue)}, {Key: bytes.Repeat([]byte{1}, MaxKey)}})
	verify(t, tr, model{string(make([]byte, MaxKey)): string(make([]byte, MaxValue)), strings.Repeat("\x01", MaxKey): ""})
}

// TestNoop checks that changes which change nothing write nothing, and that a
// change writes one page per level.
func TestNoop(t *testing.T) {
	tr, mem := newTree(1 << 24)
	tr = mustApply(t, tr, bulk(0, 100_000))
	before := mem.written()
	same := append(bulk(500, 600), deletes(200_000, 200_100)...)
	if root, err := tr.Apply(same); err != nil || root != tr.Root() {
		t.Fatalf("root %v, %v", root, err)
	}
	if root, err := tr.Apply(nil); err != nil || root != tr.Root() {
		t.Fatalf("root %v, %v", root, err)
	}
	if n := mem.written() - before; n != 0 {
		t.Errorf("%d pages written for nothing", n)
	}
	mustApply(t, tr, append(same[:100:100], Change{Key: same[100].Key, Value: []byte("new")}))
	if n := mem.written() - before; n != int(tr.root.Height) {
		t.Errorf("%d pages written for one change at height %d", n, tr.root.Height)
	}
}

// TestAppendFails checks that a failed Apply leaves the tree as it was.
func TestAppendFails(t *testing.T) {
	tr, mem := newTree(1 << 24)
	tr = mustApply(t, tr, bulk(0, 20_000))
	m := model{}
	m.apply(bulk(0, 20_000))
	mem.fail = errors.New("disk full")
	for quota := range 20 {
		mem.quota = quota
		if _, err := tr.Apply(bulk(10_000, 40_000)); !errors.Is(err, mem.fail) {
			t.Fatalf("quota %d: %v", quota, err)
		}
	}
	verify(t, tr, m)
}
