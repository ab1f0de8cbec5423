package tree

import (
	"sync"
	"testing"

	"hearth/log"
)

var large struct {
	sync.Once
	t *Tree
}

// million returns a warm tree of a million entries, height 3.
func million(b *testing.B) *Tree {
	large.Do(func() {
		t, m := newTree(1 << 30)
		m.lax = true
		large.t = mustApply(b, t, bulk(0, 1_000_000))
	})
	return large.t
}

func BenchmarkGet(b *testing.B) {
	t := million(b)
	keys := make([][]byte, 1<<16)
	for i := range keys {
		keys[i] = numbered(i * 7919 % 1_000_000).Key
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; b.Loop(); i++ {
		if _, ok, err := t.Get(keys[i&(1<<16-1)]); !ok || err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(t.root.Height), "height")
}

func BenchmarkGetParallel(b *testing.B) {
	t := million(b)
	keys := make([][]byte, 1<<16)
	for i := range keys {
		keys[i] = numbered(i * 7919 % 1_000_000).Key
	}
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, ok, err := t.Get(keys[i&(1<<16-1)]); !ok || err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkScan(b *testing.B) {
	t := million(b)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		it := t.Scan(nil, nil)
		for it.Next() {
			n++
		}
		if it.Err() != nil {
			b.Fatal(it.Err())
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds()/1e6, "Mentries/s")
}

func BenchmarkScanDesc(b *testing.B) {
	t := million(b)
	n := 0
	for b.Loop() {
		for it := t.ScanDesc(nil, nil); it.Next(); {
			n++
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds()/1e6, "Mentries/s")
}

// BenchmarkScanShort is a lookup of the newest few of one file's records.
func BenchmarkScanShort(b *testing.B) {
	t := million(b)
	lo, hi := numbered(500_000).Key, numbered(500_500).Key
	b.ReportAllocs()
	for b.Loop() {
		it := t.ScanDesc(lo, hi)
		if !it.Next() {
			b.Fatal(it.Err())
		}
	}
}

func spread(n int) []Change {
	cs := make([]Change, 0, n)
	for i := range n {
		c := numbered(i * (1_000_000 / n))
		c.Value[0] = 'x'
		cs = append(cs, c)
	}
	return cs
}

func benchmarkApply(b *testing.B, cs []Change) {
	t := million(b)
	m := t.pages.(*memory)
	kept := m.written()
	b.ReportAllocs()
	for b.Loop() {
		mustApply(b, t, cs)
		b.ReportMetric(float64(m.written()-kept), "pages")
		m.mu.Lock()
		m.pages = m.pages[:kept]
		m.mu.Unlock()
	}
}

func BenchmarkApply1(b *testing.B)            { benchmarkApply(b, spread(1)) }
func BenchmarkApplySpread100(b *testing.B)    { benchmarkApply(b, spread(100)) }
func BenchmarkApplySpread100k(b *testing.B)   { benchmarkApply(b, spread(100_000)) }
func BenchmarkApplyAppended100k(b *testing.B) { benchmarkApply(b, bulk(1_000_000, 1_100_000)) }

func BenchmarkDiffOne(b *testing.B) {
	t := million(b)
	u := mustApply(b, t, spread(1))
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		if err := Diff(t, u, nil, nil, func(_, _, _ []byte) error { n++; return nil }); err != nil || n != 1 {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	t := million(b)
	page, err := t.pages.ReadPage(t.Scan(nil, nil).firstRef(b))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := Check(page); err != nil {
			b.Fatal(err)
		}
	}
}

func (it *Iter) firstRef(b *testing.B) log.Ref {
	if !it.Next() {
		b.Fatal(it.Err())
	}
	s := it.path[it.depth-1]
	return s.n.child(s.i)
}
