package tree

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sort"
	"sync"
	"testing"

	"hearth/log"
)

// memory is Pages in memory. It checks that a page is valid, is encoded as its
// entries always are and refers only to pages written before it.
type memory struct {
	mu    sync.RWMutex
	pages [][]byte
	lax   bool // skip the checks: for benchmarks
	reads int
	fail  error // what AppendPage returns once quota is used up
	quota int
}

func (m *memory) ReadPage(ref log.Ref) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	if ref.Writer != 7 || ref.Index >= uint64(len(m.pages)) {
		return nil, fmt.Errorf("no page %s", ref)
	}
	return m.pages[ref.Index], nil
}

func (m *memory) AppendPage(plain []byte) (log.Ref, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		if m.quota == 0 {
			return log.Ref{}, m.fail
		}
		m.quota--
	}
	if !m.lax {
		m.check(plain)
	}
	m.pages = append(m.pages, bytes.Clone(plain))
	return log.Ref{Writer: 7, Index: uint64(len(m.pages) - 1)}, nil
}

func (m *memory) check(plain []byte) {
	n, reason := parse(plain)
	if n == nil {
		panic("bad page written: " + reason)
	}
	again := &pending{height: n.height}
	if n.height > 1 {
		again.items = n.appendItems(nil, 0, n.count, nil)
	} else {
		again = mergeLeaf(n, nil)
	}
	if !bytes.Equal(again.encode().data, plain) {
		panic("two encodings of one page")
	}
	for i := 0; n.height > 1 && i < n.count; i++ {
		if n.child(i).Index >= uint64(len(m.pages)) {
			panic("page written before its child")
		}
	}
}

func (m *memory) written() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.pages)
}

// add stores a page unchecked.
func (m *memory) add(plain []byte) log.Ref {
	m.pages = append(m.pages, plain)
	return log.Ref{Writer: 7, Index: uint64(len(m.pages) - 1)}
}

// model is a sorted map.
type model map[string]string

func (m model) clone() model {
	c := make(model, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

func (m model) keys() []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// in returns the keys in [lo, hi); nil hi is the end.
func (m model) in(lo, hi []byte) []string {
	var keys []string
	for _, k := range m.keys() {
		if k >= string(lo) && (hi == nil || k < string(hi)) {
			keys = append(keys, k)
		}
	}
	return keys
}

// apply makes the changes in the model.
func (m model) apply(changes []Change) {
	for _, c := range changes {
		if c.Delete {
			delete(m, string(c.Key))
		} else {
			m[string(c.Key)] = string(c.Value)
		}
	}
}

// sorted makes changes fit for Apply: the last of equal keys wins.
func sorted(changes []Change) []Change {
	byKey := map[string]Change{}
	for _, c := range changes {
		byKey[string(c.Key)] = c
	}
	out := make([]Change, 0, len(byKey))
	for _, c := range byKey {
		out = append(out, c)
	}
	sort.Slice(out, func(i, j int) bool { return bytes.Compare(out[i].Key, out[j].Key) < 0 })
	return out
}

// mustApply applies changes and returns the new tree.
func mustApply(tb testing.TB, t *Tree, changes []Change) *Tree {
	tb.Helper()
	root, err := t.Apply(changes)
	if err != nil {
		tb.Fatalf("Apply: %v", err)
	}
	return New(t.pages, t.cache, root)
}

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// verify checks a tree against a model in every way of reading it.
func verify(tb fataler, t *Tree, m model) {
	tb.Helper()
	keys := m.keys()
	it := t.Scan(nil, nil)
	for _, k := range keys {
		if !it.Next() || string(it.Key()) != k || string(it.Value()) != m[k] {
			tb.Fatalf("scan: want %x=%.20q, have %x=%.20q, %v", k, m[k], it.Key(), it.Value(), it.Err())
		}
	}
	if it.Next() || it.Err() != nil || it.Next() {
		tb.Fatalf("scan: too long or failed: %x, %v", it.Key(), it.Err())
	}
	it = t.ScanDesc(nil, nil)
	for i := len(keys) - 1; i >= 0; i-- {
		if !it.Next() || string(it.Key()) != keys[i] || string(it.Value()) != m[keys[i]] {
			tb.Fatalf("scan down: want %x, have %x, %v", keys[i], it.Key(), it.Err())
		}
	}
	if it.Next() || it.Err() != nil {
		tb.Fatalf("scan down: too long or failed: %x, %v", it.Key(), it.Err())
	}
	for _, k := range keys {
		if v, ok, err := t.Get([]byte(k)); err != nil || !ok || v == nil || string(v) != m[k] {
			tb.Fatalf("get %x: %.20q, %v, %v", k, v, ok, err)
		}
	}
	total := 0
	err := t.Walk(context.Background(), func(ref log.Ref, height uint8) (bool, error) {
		page, err := t.pages.ReadPage(ref)
		if err != nil {
			return false, err
		}
		if height == 1 {
			err := t.Leaf(ref, func(k, v []byte) error {
				if total >= len(keys) || string(k) != keys[total] || string(v) != m[keys[total]] {
					return fmt.Errorf("leaf %s: entry %x", ref, k)
				}
				total++
				return nil
			})
			if err != nil {
				return false, err
			}
		}
		return true, Check(page)
	})
	if err != nil || total != len(keys) {
		tb.Fatalf("walk: %d of %d entries, %v", total, len(keys), err)
	}
}

// stats counts a tree's pages and their bytes, by height.
func stats(tb testing.TB, t *Tree) (pages, size map[uint8]int, least int) {
	tb.Helper()
	pages, size, least = map[uint8]int{}, map[uint8]int{}, MaxPage
	err := t.Walk(context.Background(), func(ref log.Ref, height uint8) (bool, error) {
		page, err := t.pages.ReadPage(ref)
		pages[height]++
		size[height] += len(page)
		if ref != t.root.Ref {
			least = min(least, len(page))
		}
		return true, err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return pages, size, least
}

func newTree(cache int64) (*Tree, *memory) {
	m := &memory{}
	return New(m, NewCache(cache), Root{}), m
}

// numbered returns a key and value like those of an inode record.
func numbered(i int) Change {
	return Change{
		Key:   fmt.Appendf(nil, "i%016x", i),
		Value: fmt.Appendf(nil, "%080d", i),
	}
}

func bulk(from, to int) []Change {
	cs := make([]Change, 0, to-from)
	for i := from; i < to; i++ {
		cs = append(cs, numbered(i))
	}
	return cs
}

func seeded(tb testing.TB) *rand.Rand {
	seed := rand.Uint64()
	tb.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}
