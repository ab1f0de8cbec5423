package tree

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"testing"

	"hearth/log"
)

func leafPage(kv ...string) []byte {
	var cs []Change
	for i := 0; i < len(kv); i += 2 {
		cs = append(cs, Change{Key: []byte(kv[i]), Value: []byte(kv[i+1])})
	}
	return mergeLeaf(nil, cs).encode().data
}

// branchPage makes a branch of children 7:first and up, with separators between.
func branchPage(height uint8, first uint64, seps ...string) []byte {
	p := &pending{height: height, items: []item{{ref: log.Ref{Writer: 7, Index: first}}}}
	for i, s := range seps {
		p.items = append(p.items, item{sep: []byte(s), ref: log.Ref{Writer: 7, Index: first + 1 + uint64(i)}})
	}
	return p.encode().data
}

// TestFormatExample holds the format to the bytes in the package comment.
func TestFormatExample(t *testing.T) {
	for _, c := range []struct {
		page []byte
		want string
	}{
		{leafPage("a1", "x", "a2", "yz"), "01 01 0002 0001 000e 0012 61 01 31 78 01 32 797a"},
		{branchPage(2, 5, "a2"), "01 02 0002 0002 0016 0020 6132 0007 0000000000000005 0007 0000000000000006"},
	} {
		want, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(c.want), []byte(" "), nil)))
		if err != nil || !bytes.Equal(c.page, want) {
			t.Errorf("have %x, want %s", c.page, c.want)
		}
		if err := Check(c.page); err != nil {
			t.Error(err)
		}
	}
}

// TestCheckRefuses changes good pages in ways that each rule must notice.
func TestCheckRefuses(t *testing.T) {
	edit := func(page []byte, at int, b ...byte) []byte {
		page = bytes.Clone(page)
		copy(page[at:], b)
		return page
	}
	leaf := leafPage("a1", "x", "a2", "yz")
	branch := branchPage(2, 5, "ab", "ac")
	one := leafPage("abc", "v")
	for name, page := range map[string][]byte{
		"empty":               {},
		"short":               leaf[:5],
		"too long":            append(bytes.Clone(leaf), make([]byte, MaxPage)...),
		"newer format":        edit(leaf, 0, 2),
		"height 0":            edit(leaf, 1, 0),
		"height 13":           edit(branch, 1, 13),
		"leaf as branch":      edit(leaf, 1, 2),
		"no entries":          edit(leaf, 2, 0, 0),
		"many entries":        edit(leaf, 2, 0xff, 0xff),
		"long prefix":         edit(leaf, 4, 1, 45),
		"prefix to the end":   edit(leaf, 4, 0, 9),
		"end before start":    edit(leaf, 6, 0, 3),
		"end after page":      edit(leaf, 8, 0x40, 0),
		"bytes left over":     append(bytes.Clone(leaf), 0),
		"cut":                 leaf[:len(leaf)-1],
		"key too long":        edit(leaf, 11, 9),
		"long form of length": edit(leaf, 11, 0x81, 0),
		"order":               edit(leaf, 12, '3'),
		"equal keys":          edit(leaf, 12, '2'),
		"one key, no prefix":  {1, 1, 0, 1, 0, 0, 0, 10, 1, 'a'},
		"prefix too short":    {1, 1, 0, 2, 0, 0, 0, 13, 0, 16, 2, 'a', '1', 2, 'a', '2'},
		"separator on first":  edit(branch, 6, 0, 24),
		"order in branch":     edit(branch, len(branch)-1, 'a'),
		"key over limit":      append([]byte{1, 1, 0, 1, 1, 45, 2, 54}, make([]byte, 302)...),
		"truncated one":       one[:len(one)-2],
	} {
		if err := Check(page); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDamagedTrees reads trees whose pages are each in order but do not belong
// together.
func TestDamagedTrees(t *testing.T) {
	for name, c := range map[string]struct {
		pages  [][]byte
		height uint8
		scans  bool // only a scan is certain to notice
	}{
		"child of the wrong height": {[][]byte{leafPage("a", ""), leafPage("b", ""), branchPage(3, 0, "b")}, 3, true},
		"cycle":                     {[][]byte{branchPage(2, 0, "b"), branchPage(2, 0, "b")}, 2, true},
		"root higher than its page": {[][]byte{leafPage("a", "")}, 4, true},
		"root too high":             {[][]byte{leafPage("a", "")}, 200, true},
		"leaves swapped":            {[][]byte{leafPage("b", ""), leafPage("a", ""), branchPage(2, 0, "b")}, 2, true},
		"leaf twice":                {[][]byte{leafPage("b", ""), leafPage("b", ""), branchPage(2, 0, "b")}, 2, true},
		"leaf outside its range":    {[][]byte{leafPage("a", "", "c", ""), leafPage("d", ""), branchPage(2, 0, "b")}, 2, false},
		"rotten leaf":               {[][]byte{leafPage("a", ""), {1, 2, 3}, branchPage(2, 0, "b")}, 2, true},
	} {
		mem := &memory{}
		var ref log.Ref
		for _, p := range c.pages {
			ref = mem.add(p)
		}
		tr := New(mem, NewCache(1<<20), Root{ref, c.height})
		up, down := tr.Scan(nil, nil), tr.ScanDesc(nil, nil)
		for up.Next() {
		}
		for down.Next() {
		}
		errs := map[string]error{
			"walk": tr.Walk(context.Background(), func(log.Ref, uint8) (bool, error) { return true, nil }),
			"diff": Diff(New(mem, nil, Root{}), tr, nil, nil, func(_, _, _ []byte) error { return nil }),
		}
		if c.scans {
			errs["scan"], errs["scan down"] = up.Err(), down.Err()
		}
		_, errs["apply"] = tr.Apply([]Change{{Key: []byte("a"), Delete: true}, {Key: []byte("b"), Delete: true}, {Key: []byte("e")}})
		for op, err := range errs {
			var where *DamageError
			if !errors.Is(err, ErrDamaged) || !errors.As(err, &where) {
				t.Errorf("%s: %s: %v", name, op, err)
			}
		}
	}
}

// FuzzPage gives outside bytes to the decoder; whatever it accepts must be
// encoded in exactly that way, and be safe to use as a page of a tree.
func FuzzPage(f *testing.F) {
	f.Add(leafPage("a1", "x", "a2", "yz"))
	f.Add(leafPage("only", "value"))
	f.Add(leafPage(string(bytes.Repeat([]byte("k"), 300)), "v", "l", ""))
	f.Add(leafPage("a", "", string(bytes.Repeat([]byte("a"), 200)), ""))
	f.Add(branchPage(2, 5, "ab", "ac"))
	f.Add(branchPage(12, 0, "x"))
	f.Fuzz(func(t *testing.T, page []byte) {
		n, reason := parse(page)
		if n == nil {
			if reason == "" || !errors.Is(Check(page), ErrDamaged) {
				t.Fatal("refused without a reason")
			}
			return
		}
		p := &pending{height: n.height}
		if n.height > 1 {
			p.items = n.appendItems(nil, 0, n.count, nil)
		} else {
			p = mergeLeaf(n, nil)
		}
		if again := p.encode().data; !bytes.Equal(again, page) {
			t.Fatalf("another encoding: %x", again)
		}
		if p.size() < len(page) {
			t.Fatalf("size %d of a page of %d bytes", p.size(), len(page))
		}
		// The page as a child of itself, among others: no operation may panic
		// or run for ever, and scans stay in order.
		mem := &memory{lax: true}
		ref := mem.add(page)
		for range 8 {
			mem.add(page)
		}
		tr := New(mem, nil, Root{ref, n.height})
		var last []byte
		it := tr.Scan(nil, nil)
		for i := 0; it.Next(); i++ {
			if i > 0 && bytes.Compare(last, it.Key()) >= 0 {
				t.Fatalf("%x before %x", last, it.Key())
			}
			last = append(last[:0], it.Key()...)
			if n.height == 1 {
				if v, ok, err := tr.Get(it.Key()); err != nil || !ok || !bytes.Equal(v, it.Value()) {
					t.Fatalf("get %x: %x, %v, %v", it.Key(), v, ok, err)
				}
			}
		}
		for it = tr.ScanDesc(nil, nil); it.Next(); {
			it.Seek([]byte("b"))
		}
		_, _ = tr.Apply([]Change{{Key: []byte("a"), Delete: true}, {Key: []byte("b"), Value: []byte("x")}})
	})
}

// FuzzTree builds a tree of outside pages and uses it.
func FuzzTree(f *testing.F) {
	f.Add(leafPage("a", ""), leafPage("b", "x"), branchPage(2, 0, "b"), []byte("a"))
	f.Add(branchPage(2, 0, "b"), leafPage("b", "x"), branchPage(3, 0, "b"), []byte("c"))
	f.Fuzz(func(t *testing.T, p0, p1, p2, key []byte) {
		mem := &memory{lax: true}
		mem.add(p0)
		mem.add(p1)
		ref := mem.add(p2)
		height := uint8(2)
		if n, _ := parse(p2); n != nil {
			height = n.height
		}
		tr := New(mem, NewCache(1<<16), Root{ref, height})
		_, _, _ = tr.Get(key)
		for _, it := range []*Iter{tr.Scan(nil, nil), tr.ScanDesc(nil, nil), tr.Scan(key, nil), tr.ScanDesc(nil, key)} {
			var last []byte
			for n := 0; it.Next(); n++ {
				if c := bytes.Compare(last, it.Key()); n > 0 && (c == 0 || c > 0 != it.desc) {
					t.Fatalf("out of order: %x, %x", last, it.Key())
				}
				last = append(last[:0], it.Key()...)
				if n%3 == 2 {
					it.Seek(key)
				}
			}
		}
		whole := tr.Walk(context.Background(), func(log.Ref, uint8) (bool, error) { return true, nil })
		low := New(mem, nil, Root{log.Ref{Writer: 7}, height - 1})
		_ = Diff(low, tr, nil, nil, func(_, _, _ []byte) error { return nil })
		if len(key) > MaxKey {
			return
		}
		for _, c := range []Change{{Key: key}, {Key: key, Delete: true}, {Key: key, Value: make([]byte, MaxValue)}} {
			root, err := tr.Apply([]Change{c})
			if err != nil {
				continue
			}
			// Apply reads no child that it has no reason to read. One with keys
			// outside its range may come to light when its neighbour goes.
			v, ok, err := New(mem, nil, root).Get(key)
			if whole == nil && err != nil {
				t.Fatalf("after a change of %x: %v", key, err)
			}
			if whole == nil && (ok == c.Delete || !bytes.Equal(v, c.Value)) {
				t.Fatalf("after a change of %x: %x, %v", key, v, ok)
			}
		}
	})
}
