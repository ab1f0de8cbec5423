package tree

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"hearth/log"
)

func TestCacheBounds(t *testing.T) {
	const limit = 8 << 20
	tr, mem := newTree(limit)
	tr = mustApply(t, tr, bulk(0, 300_000))
	for it := tr.Scan(nil, nil); it.Next(); {
	}
	c := tr.cache
	if c.Bytes() > limit || c.Bytes() < limit*8/10 {
		t.Errorf("%d bytes cached, limit %d", c.Bytes(), limit)
	}
	if n := c.Len(); int64(n)*(MaxPage+slotCost) < c.Bytes() || n >= mem.written() {
		t.Errorf("%d pages cached of %d, %d bytes", n, mem.written(), c.Bytes())
	}
}

// TestCacheKeepsUsed checks that pages in use outlive a scan that does not fit.
func TestCacheKeepsUsed(t *testing.T) {
	tr, mem := newTree(4 << 20)
	tr = mustApply(t, tr, bulk(0, 300_000))
	hot := func() {
		for i := 0; i < 1000; i += 100 {
			if _, ok, err := tr.Get(numbered(i * 100).Key); !ok || err != nil {
				t.Fatal(ok, err)
			}
		}
	}
	hot()
	it := tr.Scan(numbered(150_000).Key, nil)
	for it.Next() {
		hot()
		for range 2000 { // some ten pages
			it.Next()
		}
	}
	mem.reads = 0
	hot()
	if mem.reads != 0 {
		t.Errorf("%d pages in use were evicted", mem.reads)
	}
}

func TestCacheTooSmall(t *testing.T) {
	for _, size := range []int64{-1, 0, 300} {
		tr, _ := newTree(size)
		tr = mustApply(t, tr, bulk(0, 1000))
		if _, ok, err := tr.Get(numbered(5).Key); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if tr.cache.Len() != 0 || tr.cache.Bytes() != 0 {
			t.Errorf("cache of %d bytes holds %d pages", size, tr.cache.Len())
		}
	}
}

// gate is Pages whose reads wait until they are let through.
type gate struct {
	Pages
	reads atomic.Int32
	began chan struct{}
	open  chan struct{}
	abort bool
}

func (g *gate) ReadPage(ref log.Ref) ([]byte, error) {
	g.reads.Add(1)
	g.began <- struct{}{}
	<-g.open
	if g.abort {
		panic("read failed badly")
	}
	return g.Pages.ReadPage(ref)
}

// TestOneRead checks that concurrent misses of a page share one read.
func TestOneRead(t *testing.T) {
	tr, mem := newTree(1 << 20)
	tr = mustApply(t, tr, bulk(0, 10))
	g := &gate{Pages: mem, began: make(chan struct{}, 100), open: make(chan struct{})}
	cache := NewCache(1 << 20)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, ok, err := New(g, cache, tr.root).Get(numbered(3).Key); !ok || err != nil {
				t.Error(ok, err)
			}
		})
	}
	<-g.began
	close(g.open)
	wg.Wait()
	if n := g.reads.Load(); n != 1 {
		t.Errorf("%d reads of one page", n)
	}
}

// TestAbortedRead checks that a read which panics does not leave others
// waiting, nor the page unreadable.
func TestAbortedRead(t *testing.T) {
	tr, mem := newTree(1 << 20)
	tr = mustApply(t, tr, bulk(0, 10))
	g := &gate{Pages: mem, began: make(chan struct{}, 100), open: make(chan struct{}), abort: true}
	close(g.open)
	cache := NewCache(1 << 20)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		_, _, _ = New(g, cache, tr.root).Get(nil)
	}()
	if _, ok, err := New(mem, cache, tr.root).Get(numbered(3).Key); !ok || err != nil {
		t.Fatal(ok, err)
	}
}

// TestReadErrors checks that an error of the pages is passed on, names the
// page, and is not remembered.
func TestReadErrors(t *testing.T) {
	tr, mem := newTree(1 << 20)
	tr = mustApply(t, tr, bulk(0, 10))
	pages := mem.pages
	mem.pages = nil
	u := New(mem, NewCache(1<<20), tr.root)
	if _, _, err := u.Get(nil); err == nil || errors.Is(err, ErrDamaged) || !bytes.Contains([]byte(err.Error()), []byte("7:0")) {
		t.Fatalf("%v", err)
	}
	mem.pages = pages
	if _, _, err := u.Get(nil); err != nil {
		t.Fatal(err)
	}
}

// TestConcurrent reads old and new roots beside an Apply.
func TestConcurrent(t *testing.T) {
	tr, _ := newTree(1 << 20) // too small: pages come and go
	tr = mustApply(t, tr, bulk(0, 20_000))
	var latest atomic.Pointer[Tree]
	latest.Store(tr)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for r := range 4 {
		wg.Go(func() {
			for i := r; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				u := latest.Load()
				if _, ok, err := u.Get(numbered(i % 20_000).Key); !ok || err != nil {
					t.Errorf("get: %v %v", ok, err)
					return
				}
				it := u.Scan(numbered(i%20_000).Key, nil)
				for n := 0; n < 300 && it.Next(); n++ {
				}
				if it.Err() != nil {
					t.Error(it.Err())
					return
				}
				n := 0
				if err := Diff(tr, u, nil, nil, func(_, old, _ []byte) error { n++; return nil }); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 60 {
		var cs []Change
		for j := range 50 {
			cs = append(cs, Change{Key: numbered((i*50 + j) % 20_000).Key, Value: fmt.Appendf(nil, "%d", i)})
		}
		latest.Store(mustApply(t, latest.Load(), sorted(cs)))
	}
	close(done)
	wg.Wait()
}
