package disktest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"hearth/log/disk"
)

func testReadWrite(t *testing.T, d disk.FS, dir string) {
	name := filepath.Join(dir, "a")
	f := create(t, d, name)
	defer f.Close()
	write(t, f, "tail", 10000)
	want := append(make([]byte, 10000), "tail"...)
	holds(t, f, want)

	p := make([]byte, 8)
	n, err := f.ReadAt(p, 10000)
	if n != 4 || err != io.EOF || string(p[:4]) != "tail" {
		t.Fatalf("read over the end: %d, %v, %q", n, err, p[:n])
	}
	n, err = f.ReadAt(p[:4], 10000)
	if n != 4 || err != nil && err != io.EOF {
		t.Fatalf("read up to the end: %d, %v", n, err)
	}
	if n, err = f.ReadAt(p, 20000); n != 0 || err != io.EOF {
		t.Fatalf("read beyond the end: %d, %v", n, err)
	}
	if n, err = f.ReadAt(nil, 3); n != 0 || err != nil {
		t.Fatalf("read of nothing: %d, %v", n, err)
	}
	if n, err = f.WriteAt(nil, 90000); n != 0 || err != nil {
		t.Fatalf("write of nothing: %d, %v", n, err)
	}
	_, err = f.ReadAt(p, -1)
	fails(t, err, nil, name)
	_, err = f.WriteAt(p, -1)
	fails(t, err, nil, name)
	holds(t, f, want)
}

func testTruncate(t *testing.T, d disk.FS, dir string) {
	f := create(t, d, filepath.Join(dir, "a"))
	defer f.Close()
	data := bytes.Repeat([]byte{7}, 9000)
	write(t, f, string(data), 0)
	ok(t, f.Truncate(4500))
	holds(t, f, data[:4500])
	ok(t, f.Truncate(9000))
	holds(t, f, append(data[:4500:4500], make([]byte, 4500)...))
	ok(t, f.Truncate(0))
	write(t, f, "x", 5)
	holds(t, f, []byte("\x00\x00\x00\x00\x00x"))
	fails(t, f.Truncate(-1), nil, "a")
}

func testAllocate(t *testing.T, d disk.FS, dir string) {
	f := create(t, d, filepath.Join(dir, "a"))
	defer f.Close()
	write(t, f, "hello", 0)
	ok(t, f.Allocate(0, 100000))
	holds(t, f, append([]byte("hello"), make([]byte, 99995)...))
	ok(t, f.Allocate(3, 10))
	holds(t, f, append([]byte("hello"), make([]byte, 99995)...))
	write(t, f, "there", 70000)
	ok(t, f.Allocate(60000, 20000))
	want := append([]byte("hello"), make([]byte, 99995)...)
	copy(want[70000:], "there")
	holds(t, f, want)
	ok(t, f.Allocate(200000, 0))
	holds(t, f, want)
	fails(t, f.Allocate(-1, 5), nil, "a")
}

func testPunchHole(t *testing.T, d disk.FS, dir string) {
	f := create(t, d, filepath.Join(dir, "a"))
	defer f.Close()
	data := bytes.Repeat([]byte{9}, 40000)
	write(t, f, string(data), 0)
	for _, r := range []struct{ off, n int }{{100, 50}, {4000, 200}, {8192, 4096}, {13000, 9000}, {39000, 500}} {
		ok(t, f.PunchHole(int64(r.off), int64(r.n)))
		clear(data[r.off : r.off+r.n])
		holds(t, f, data)
	}
	ok(t, f.PunchHole(39900, 4000)) // over the end: the size stays
	clear(data[39900:])
	holds(t, f, data)
	ok(t, f.PunchHole(100000, 4096))
	ok(t, f.PunchHole(500, 0))
	holds(t, f, data)
	write(t, f, "again", 9000)
	copy(data[9000:], "again")
	holds(t, f, data)
}

func testClosed(t *testing.T, d disk.FS, dir string) {
	f := create(t, d, filepath.Join(dir, "a"))
	ok(t, f.Close())
	fails(t, f.Close(), iofs.ErrClosed, "a")
	_, err := f.WriteAt([]byte("x"), 0)
	fails(t, err, iofs.ErrClosed, "a")
	_, err = f.ReadAt(make([]byte, 1), 0)
	fails(t, err, iofs.ErrClosed, "a")
	_, err = f.Size()
	fails(t, err, iofs.ErrClosed, "a")
	fails(t, f.Truncate(0), iofs.ErrClosed, "a")
	fails(t, f.Allocate(0, 1), nil, "a")
	fails(t, f.PunchHole(0, 1), nil, "a")
	fails(t, f.Datasync(), nil, "a")
}

func testSync(t *testing.T, d disk.FS, dir string) {
	f := create(t, d, filepath.Join(dir, "a"))
	defer f.Close()
	ok(t, f.Datasync())
	write(t, f, "hello", 3)
	ok(t, f.Datasync())
	ok(t, f.Datasync())
	holds(t, f, []byte("\x00\x00\x00hello"))
	ok(t, d.SyncDir(dir))
	fails(t, d.SyncDir(filepath.Join(dir, "none")), iofs.ErrNotExist, "none")
}

func testParallel(t *testing.T, d disk.FS, dir string) {
	const workers, each = 8, 50
	shared := create(t, d, filepath.Join(dir, "shared"))
	defer shared.Close()
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				p := bytes.Repeat([]byte{byte(w + 1)}, 700)
				if _, err := shared.WriteAt(p, int64(i*workers+w)*700); err != nil {
					errs[w] = err
					return
				}
				name := filepath.Join(dir, fmt.Sprintf("w%d-%d", w, i))
				if err := d.WriteFile(name, p); err != nil {
					errs[w] = err
					return
				}
			}
			errs[w] = shared.Datasync()
		})
	}
	wg.Wait()
	ok(t, errors.Join(errs...))
	var want []byte
	for range each {
		for w := range workers {
			want = append(want, bytes.Repeat([]byte{byte(w + 1)}, 700)...)
		}
	}
	holds(t, shared, want)
	names, err := d.List(dir)
	ok(t, err)
	if len(names) != workers*each+1 {
		t.Fatalf("%d names", len(names))
	}
}

// testRandomWrites compares a file with a slice through a thousand changes.
func testRandomWrites(t *testing.T, d disk.FS, dir string) {
	seed := rand.Uint64()
	if s := os.Getenv("HEARTH_DISKTEST_SEED"); s != "" {
		if _, err := fmt.Sscan(s, &seed); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("HEARTH_DISKTEST_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	name := filepath.Join(dir, "a")
	f := create(t, d, name)
	var want []byte
	grow := func(n int) {
		if n > len(want) {
			want = append(want, make([]byte, n-len(want))...)
		}
	}
	const most = 600 << 10
	for range 1000 {
		off, n := rng.IntN(most), 1+rng.IntN(1<<(1+rng.IntN(17)))
		switch rng.IntN(8) {
		case 0:
			ok(t, f.Truncate(int64(off)))
			grow(off)
			want = want[:off:off]
		case 1:
			ok(t, f.Allocate(int64(off), int64(n)))
			grow(off + n)
		case 2:
			ok(t, f.PunchHole(int64(off), int64(n)))
			if off < len(want) {
				clear(want[off:min(off+n, len(want))])
			}
		case 3:
			ok(t, f.Datasync())
			ok(t, f.Close())
			var err error
			f, err = d.Open(name)
			ok(t, err)
		default:
			p := make([]byte, n)
			if rng.IntN(4) > 0 {
				for i := range p {
					p[i] = byte(rng.Uint32())
				}
			}
			write(t, f, string(p), int64(off))
			grow(off + n)
			copy(want[off:], p)
		}
		if rng.IntN(20) == 0 {
			holds(t, f, want)
		}
	}
	holds(t, f, want)
	ok(t, f.Close())
}
