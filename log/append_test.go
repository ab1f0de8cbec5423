package log

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"hearth/log/disk"
	"hearth/log/disk/crashfs"
	"hearth/log/seal"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
)

// tinyLog returns a log on an empty machine.
func tinyLog(t testing.TB) (*Log, *crashfs.FS) {
	t.Helper()
	d := crashfs.New(1)
	return mustCreate(t, tinyOptions(d)), d
}

func tinyOptions(d disk.FS) Options {
	o := testOptions(d, "/log")
	o.Inline, o.Tiny = true, true
	return o
}

// TestParallel has appenders, readers and a committer at work at once, with
// background work going on.
func TestParallel(t *testing.T) {
	d := crashfs.New(1)
	o := testOptions(d, "/log")
	o.Tiny = true
	l := mustCreate(t, o)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var mu sync.Mutex
	blocks := make(map[uint64]string)
	var all, writers sync.WaitGroup
	for w := range 3 {
		writers.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(w)))
			for i := range 200 {
				plain := fmt.Sprintf("%d/%d %s", w, i, bytes.Repeat([]byte{byte(i)}, rng.IntN(6000)))
				stored, err := l.keys.Seal(nil, seal.Data, []byte(plain))
				if err != nil {
					t.Error(err)
					return
				}
				index, err := l.Append(stored)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				blocks[index] = plain
				mu.Unlock()
			}
		})
	}
	commit, err := l.keys.Seal(nil, seal.Commit, []byte("commit"))
	if err != nil {
		t.Fatal(err)
	}
	all.Go(func() {
		for ctx.Err() == nil {
			index, head, err := l.Commit(commit, true)
			if err != nil || head.Size != index+1 {
				t.Error(head.Size, index, err)
				return
			}
			if root, err := l.Root(head.Size); err != nil || root != head.Root {
				t.Error("a head with another root", err)
				return
			}
		}
	})
	all.Go(func() {
		for n := uint64(0); ctx.Err() == nil; n++ {
			set := roaring64.BitmapOf(1<<40 + n%50)
			if err := l.Drop(ctx, set); err == nil {
				t.Error("dropped what is not there")
			}
			if _, err := l.Reclaim(ctx, 0); err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
			if err := l.Settle(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 2 {
		all.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				var slices []Slice
				want := make(map[uint64]string)
				for index, plain := range blocks { // a random choice
					slices = append(slices, Slice{Index: index, Off: 1, Dst: make([]byte, len(plain)-1)})
					want[index] = plain
					if len(slices) == 5 {
						break
					}
				}
				mu.Unlock()
				if err := l.ReadData(slices); err != nil {
					t.Error(err)
					return
				}
				for _, s := range slices {
					if string(s.Dst) != want[s.Index][1:] {
						t.Errorf("block %d is another", s.Index)
						return
					}
				}
			}
		})
	}
	writers.Wait()
	stop()
	all.Wait()
	mustCommit(t, l, "last")
	mustClose(t, l)
	l = mustOpen(t, o)
	for index, plain := range blocks {
		wantBlock(t, l, index, seal.Data, plain)
	}
	mustClose(t, l)
}

// TestReadData reads ranges of blocks of all sizes, from memory and from disk.
func TestReadData(t *testing.T) {
	l, _ := tinyLog(t)
	rng := rand.New(rand.NewPCG(1, 1))
	var plains [][]byte
	for i := range 40 {
		b := make([]byte, 1+rng.IntN(seal.MaxPlain))
		for j := range b {
			if b[j] = byte(j / 100); i%2 == 0 {
				b[j] = byte(rng.Uint32())
			}
		}
		plains = append(plains, b)
		mustAppend(t, l, string(b))
		if i == 30 {
			mustCommit(t, l, "c")
			plains = append(plains, nil)
		}
	}
	for range 300 {
		var slices []Slice
		for range 1 + rng.IntN(6) {
			i := rng.IntN(len(plains))
			if plains[i] == nil {
				continue
			}
			off := rng.IntN(len(plains[i]))
			n := min(rng.IntN(len(plains[i])-off)+1, 1+rng.IntN(100_000))
			slices = append(slices, Slice{Index: uint64(i), Off: off, Dst: make([]byte, n)})
		}
		if err := l.ReadData(slices); err != nil {
			t.Fatal(err)
		}
		for _, s := range slices {
			if !bytes.Equal(s.Dst, plains[s.Index][s.Off:][:len(s.Dst)]) {
				t.Fatalf("block %d at %d is wrong", s.Index, s.Off)
			}
		}
	}
	one := make([]byte, 1)
	if err := l.ReadData([]Slice{{Index: 31, Dst: one}}); !errors.Is(err, ErrDamaged) {
		t.Fatalf("a commit was read as data: %v", err)
	}
	if err := l.ReadData([]Slice{{Index: uint64(len(plains)), Dst: one}}); !errors.Is(err, ErrAbsent) {
		t.Fatal(err)
	}
	mustClose(t, l)
}

// TestFullDisk fills the disk: what was acknowledged stays, deleting works,
// and work goes on.
func TestFullDisk(t *testing.T) {
	d := crashfs.New(1)
	d.SetCapacity(4 << 20)
	o := tinyOptions(d)
	o.Reserve = "/reserve"
	l := mustCreate(t, o)
	want := make(map[uint64][]byte)
	rng := rand.New(rand.NewPCG(1, 1))
	fill := func() {
		t.Helper()
		for {
			b := make([]byte, 50<<10)
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			index, err := l.Append(b)
			if errors.Is(err, syscall.ENOSPC) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			want[index] = b
			if len(want)%10 == 9 {
				mustCommit(t, l, "c")
			}
			if len(want) > 5000 {
				t.Fatal("the disk does not fill")
			}
		}
	}
	check := func() {
		t.Helper()
		for index, b := range want {
			got, err := l.ReadStored(nil, index)
			if err != nil || !bytes.Equal(got, b) {
				t.Fatalf("block %d: %v", index, err)
			}
		}
	}
	fill()
	mustCommit(t, l, "on a full disk")
	if !l.Health().Low {
		t.Fatal("the reserve was not used")
	}
	if _, err := l.Append(make([]byte, 10)); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("data was taken into the reserve: %v", err)
	}
	for range 20 {
		if _, err := l.AppendMeta(make([]byte, 9000)); err != nil {
			t.Fatal(err)
		}
		mustCommit(t, l, "deleting")
	}
	check()
	mustClose(t, l)
	l = mustOpen(t, o)
	check()
	set := roaring64.New()
	for index := range want {
		if index%10 != 0 {
			set.Add(index)
			delete(want, index)
		}
	}
	if err := l.Drop(context.Background(), set); err != nil {
		t.Fatal(err)
	}
	freed, err := l.Reclaim(context.Background(), 0)
	if err != nil || freed < 1<<20 {
		t.Fatal(freed, err)
	}
	check()
	if l.Health().Low {
		t.Fatal("the reserve was not taken again")
	}
	fill()
	mustCommit(t, l, "again")
	check()
	mustClose(t, l)
}

// TestWriteErrors injects single failures, in both halves, into commits.
func TestWriteErrors(t *testing.T) {
	for _, tt := range []struct {
		name     string
		kind     crashfs.Kind
		fault    crashfs.Fault
		poisoned bool
	}{
		{"write lost", crashfs.OpWriteAt, crashfs.FailLost(syscall.EIO), true},
		{"write done", crashfs.OpWriteAt, crashfs.FailDone(syscall.EIO), true},
		{"write in part", crashfs.OpWriteAt, crashfs.Partial(100, syscall.EIO), true},
		{"full, lost", crashfs.OpWriteAt, crashfs.FailLost(syscall.ENOSPC), false},
		{"full, done", crashfs.OpWriteAt, crashfs.FailDone(syscall.ENOSPC), false},
		{"full, in part", crashfs.OpWriteAt, crashfs.Partial(100, syscall.ENOSPC), false},
		{"sync lost", crashfs.OpDatasync, crashfs.FailLost(syscall.EIO), true},
		{"sync done", crashfs.OpDatasync, crashfs.FailDone(syscall.EIO), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, d := tinyLog(t)
			mustAppend(t, l, "a")
			before := mustCommit(t, l, "c")
			mustAppend(t, l, "b")
			d.SetPolicy(crashfs.Nth(0, crashfs.Kinds(tt.kind), tt.fault))
			stored := mustSeal(t, l, seal.Commit, "d")
			_, _, err := l.Commit(stored, true)
			if err == nil || errors.Is(err, ErrPoisoned) != tt.poisoned {
				t.Fatal(err)
			}
			if h := l.Head(); h.Size != before.Size {
				t.Fatalf("head of %d", h.Size)
			}
			d.SetPolicy(nil)
			wantBlock(t, l, 0, seal.Data, "a") // reading goes on
			if tt.poisoned {
				if _, err := l.Append(stored); !errors.Is(err, ErrPoisoned) {
					t.Fatal(err)
				}
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				l = mustOpen(t, tinyOptions(d))
				wantBlock(t, l, 0, seal.Data, "a")
			} else {
				if l.Size() != before.Size+1 {
					t.Fatalf("%d entries", l.Size())
				}
				wantBlock(t, l, 2, seal.Data, "b")
			}
			mustCommit(t, l, "e")
			mustClose(t, l)
			l = mustOpen(t, tinyOptions(d))
			wantBlock(t, l, 0, seal.Data, "a")
			wantBlock(t, l, l.Size()-1, seal.Commit, "e")
			mustClose(t, l)
		})
	}
}
