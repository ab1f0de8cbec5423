package log

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"hearth/log/disk/crashfs"
	"hearth/log/seal"
)

// filled returns a replica that has all of an author's log; plain: one without
// control entries.
func filled(t *testing.T, n int, plain bool) (*author, *Log) {
	t.Helper()
	a := newAuthor(t, filepath.Join(t.TempDir(), "a"))
	t.Cleanup(func() { a.Close() })
	a.plain = plain
	a.grow(t, rand.New(rand.NewPCG(3, 4)), n)
	l, err := createReplica(replicaOptions(a, filepath.Join(t.TempDir(), "r")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := a.follow(l); err != nil {
		t.Fatal(err)
	}
	for i := range l.Size() {
		if err := a.send(l, i); err != nil {
			t.Fatal(err)
		}
	}
	return a, l
}

// The space is free again, whether little is left of a segment or much, and
// what stays can be read, also by who opens the log next.
func TestEvictFreesSpace(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		evict func(index, size uint64) bool
		left  float64 // at most, of the space
		plain bool
	}{
		"all":                     {func(uint64, uint64) bool { return true }, 0.01, true},
		"all blocks":              {func(uint64, uint64) bool { return true }, 0.15, false},
		"the first half":          {func(i, n uint64) bool { return i < n/2 }, 0.6, false},
		"the end":                 {func(i, n uint64) bool { return i > n/3 }, 0.5, false},
		"nine of ten":             {func(i, _ uint64) bool { return i%10 > 0 }, 0.25, false},
		"a part of each segment":  {func(i, _ uint64) bool { return i%160 < 40 }, 0.8, true},
		"nothing":                 {func(uint64, uint64) bool { return false }, 1, false},
		"more than half, in bits": {func(i, _ uint64) bool { return i%3 > 0 }, 0.5, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, l := filled(t, 2500, c.plain)
			if err := l.Settle(); err != nil {
				t.Fatal(err)
			}
			set := roaring64.New()
			for i := range l.Size() {
				if c.evict(i, l.Size()) {
					set.Add(i)
				}
			}
			before, err := l.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			freed, err := l.Evict(context.Background(), set)
			if err != nil {
				t.Fatal(err)
			}
			after, err := l.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			if after > int64(c.left*float64(before)) || freed != before-after {
				t.Errorf("%d bytes of %d are left, %d said to be free", after, before, freed)
			}
			check := func(l *Log) {
				t.Helper()
				for i := range l.Size() {
					gone := set.Contains(i) && !a.control[i]
					b, err := l.ReadStored(nil, i)
					if l.Holds(i) == gone || gone && !errors.Is(err, ErrMissing) || !gone && (err != nil || !bytes.Equal(b, a.entries[i])) {
						t.Fatalf("entry %d: evicted %v, held %v, %v", i, gone, l.Holds(i), err)
					}
				}
				if err := l.Verify(context.Background(), func(d Damage) { t.Error(d) }, nil); err != nil {
					t.Fatal(err)
				}
			}
			check(l)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			o := replicaOptions(a, l.dir)
			o.Known = l.Head()
			again, err := openReplica(o)
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			check(again)
			if len(again.Health().Damage) > 0 {
				t.Fatal(again.Health().Damage)
			}
			// And it can be had again.
			for i := range again.Size() {
				if err := a.send(again, i); err != nil {
					t.Fatal(err)
				}
			}
			if _, n := again.NextMissing(0, 1); n > 0 {
				t.Fatal("something is missing")
			}
			if _, err := again.Evict(context.Background(), set); err != nil {
				t.Fatal(err)
			}
			check(again)
		})
	}
}

// Whoever reads while blocks are evicted gets what was written, and no damage.
func TestEvictBesideReaders(t *testing.T) {
	t.Parallel()
	const rounds = 12
	a, l := filled(t, 600, false)
	l.SetSource(sourceFunc(func(l *Log, indexes []uint64) error {
		for _, i := range indexes {
			if err := a.send(l, i); err != nil {
				return err
			}
		}
		return nil
	}))
	plain := make([][]byte, l.Size())
	for i := range plain {
		if !a.control[i] {
			b, err := a.keys.Open(nil, kindOf(a, uint64(i)), a.entries[i])
			if err != nil {
				t.Fatal(err)
			}
			plain[i] = b
		}
	}
	done := make(chan struct{})
	var readers sync.WaitGroup
	for n := range 4 {
		readers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(n), 0))
			for {
				select {
				case <-done:
					return
				default:
				}
				var want []Slice
				for range 1 + r.IntN(8) {
					i := r.Uint64N(l.Size())
					if !a.control[i] && kindOf(a, i) == seal.Data {
						want = append(want, Slice{Index: i, Dst: make([]byte, len(plain[i]))})
					}
				}
				if err := l.ReadData(want); err != nil {
					t.Errorf("reading: %v", err)
					return
				}
				for _, s := range want {
					if !bytes.Equal(s.Dst, plain[s.Index]) {
						t.Errorf("block %d has other contents", s.Index)
						return
					}
				}
				if _, err := l.ReadBlock(nil, l.Size()-1, seal.Commit); err != nil {
					t.Errorf("reading a block: %v", err)
					return
				}
			}
		})
	}
	r := rand.New(rand.NewPCG(9, 9))
	for range rounds {
		if _, err := l.Evict(context.Background(), someOf(r, l.Size())); err != nil {
			t.Error(err)
			break
		}
	}
	close(done)
	readers.Wait()
	if err := l.Verify(context.Background(), func(d Damage) { t.Error(d) }, nil); err != nil {
		t.Fatal(err)
	}
}

// kindOf is the kind of a block that grow appended: the last of each time is a
// commit.
func kindOf(a *author, index uint64) seal.Kind {
	if index == uint64(len(a.entries))-1 {
		return seal.Commit
	}
	return seal.Data
}

// On a full disk space comes back all the same.
func TestEvictOnFullDisk(t *testing.T) {
	t.Parallel()
	a := newAuthor(t, filepath.Join(t.TempDir(), "a"))
	defer a.Close()
	a.grow(t, rand.New(rand.NewPCG(3, 4)), 3000)
	d := crashfs.New(1)
	o := replicaOptions(a, "/r")
	o.FS, o.Inline = d, true
	l, err := createReplica(o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { l.Close() }()
	if err := a.follow(l); err != nil {
		t.Fatal(err)
	}
	if err := l.Settle(); err != nil {
		t.Fatal(err)
	}
	d.SetCapacity(2 << 20)
	for i := uint64(0); err == nil; i++ {
		if i == l.Size() {
			t.Fatal("the disk does not fill")
		}
		err = a.send(l, i)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	had := l.Held(0, l.Size())
	before := d.Used()
	set := roaring64.New()
	set.AddRange(50, l.Size())
	if _, err := l.Evict(context.Background(), set); err != nil {
		t.Fatal(err)
	}
	if after := d.Used(); after > before/2 {
		t.Fatalf("%d bytes of %d are left", after, before)
	}
	for i := range uint64(50) {
		if b, err := l.ReadStored(nil, i); err != nil || !bytes.Equal(b, a.entries[i]) {
			t.Fatalf("entry %d: %v", i, err)
		}
	}
	if now := l.Held(0, l.Size()); now > had/2 {
		t.Fatalf("%d of %d entries are still here", now, had)
	}
	if l.Health().Low {
		t.Fatal("the reserve was not taken again")
	}
}

// What this device wrote is not evicted.
func TestEvictOwn(t *testing.T) {
	t.Parallel()
	a := newAuthor(t, filepath.Join(t.TempDir(), "a"))
	defer a.Close()
	a.grow(t, rand.New(rand.NewPCG(1, 2)), 20)
	set := roaring64.New()
	set.AddRange(0, 20)
	if _, err := a.Evict(context.Background(), set); !errors.Is(err, errWritten) {
		t.Fatal(err)
	}
	for i := range uint64(20) {
		if !a.Holds(i) {
			t.Fatal(fmt.Sprint(i, " is gone"))
		}
	}
}
