package fs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"hearth/log"
)

// testDrive is a drive in a temporary directory that can be reopened.
type testDrive struct {
	*Drive
	t    testing.TB
	dir  string
	opts Options
}

var ctx = context.Background()

var me = Caller{Uid: 1000, Gid: 1000}

func newTestDrive(t testing.TB, o Options) *testDrive {
	t.Helper()
	td := &testDrive{t: t, dir: t.TempDir() + "/drive", opts: o}
	s, err := log.CreateStore(log.StoreOptions{Dir: td.dir}, "test")
	if err != nil {
		t.Fatal(err)
	}
	o.Store = s
	if td.Drive, err = Create(ctx, o, me); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(td.shut)
	return td
}

func (td *testDrive) shut() {
	if td.Drive == nil {
		return
	}
	s := td.Drive.Store()
	if err := td.Drive.Close(ctx); err != nil {
		td.t.Errorf("closing: %v", err)
	}
	if err := s.Close(); err != nil {
		td.t.Errorf("closing the store: %v", err)
	}
	td.Drive = nil
}

func (td *testDrive) reopen() {
	td.t.Helper()
	td.shut()
	s, err := log.OpenStore(log.StoreOptions{Dir: td.dir})
	if err != nil {
		td.t.Fatal(err)
	}
	o := td.opts
	o.Store = s
	if td.Drive, err = Open(ctx, o); err != nil {
		td.t.Fatal(err)
	}
}

// put writes a whole file, making it if need be.
func (td *testDrive) put(dir Ino, name string, data []byte) Ino {
	td.t.Helper()
	a, err := td.Lookup(ctx, dir, name)
	var f *File
	if err == nil {
		f, err = td.Open(ctx, me, a.Ino, true)
	} else {
		f, a, err = td.Create(ctx, me, dir, name, 0o644)
	}
	if err != nil {
		td.t.Fatalf("put %s: %v", name, err)
	}
	defer f.Close()
	for off := 0; off < len(data); off += 1 << 20 {
		end := min(len(data), off+1<<20)
		if _, err := f.WriteAt(ctx, data[off:end], int64(off)); err != nil {
			td.t.Fatalf("put %s: %v", name, err)
		}
	}
	return a.Ino
}

func (td *testDrive) get(dir Ino, name string) []byte {
	td.t.Helper()
	a, err := td.Lookup(ctx, dir, name)
	if err != nil {
		td.t.Fatalf("get %s: %v", name, err)
	}
	return td.content(a.Ino)
}

func (td *testDrive) content(ino Ino) []byte {
	td.t.Helper()
	f, err := td.Open(ctx, me, ino, false)
	if err != nil {
		td.t.Fatal(err)
	}
	defer f.Close()
	a, err := td.Getattr(ctx, ino)
	if err != nil {
		td.t.Fatal(err)
	}
	b := make([]byte, a.Size)
	for off := 0; off < len(b); {
		n, err := f.ReadAt(ctx, b[off:min(len(b), off+1<<20)], int64(off))
		if err != nil {
			td.t.Fatalf("read inode %d at %d: %v", ino, off, err)
		}
		off += n
	}
	return b
}

func random(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = r.Read(b)
	return b
}

func TestWriteReadReopen(t *testing.T) {
	td := newTestDrive(t, Options{})
	files := map[string][]byte{
		"empty": {}, "small": []byte("hello"), "page": random(4096, 1),
		"block": random(70_000, 2), "big": random(9<<20+123, 3),
	}
	check := func(when string) {
		t.Helper()
		for name, want := range files {
			if got := td.get(RootIno, name); !bytes.Equal(got, want) {
				t.Fatalf("%s: %s differs", when, name)
			}
		}
	}
	for name, data := range files {
		td.put(RootIno, name, data)
	}
	check("unsaved")
	if err := td.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	check("synced")
	td.reopen()
	check("reopened")

	// Overwrites in the middle, across blocks, and past the end.
	a, err := td.Lookup(ctx, RootIno, "big")
	if err != nil {
		t.Fatal(err)
	}
	f, err := td.Open(ctx, me, a.Ino, false)
	if err != nil {
		t.Fatal(err)
	}
	big := bytes.Clone(files["big"])
	for i, off := range []int{0, 100, 65_000, 4 << 20, len(big) - 10} {
		p := random(5000, uint64(10+i))
		if _, err := f.WriteAt(ctx, p, int64(off)); err != nil {
			t.Fatal(err)
		}
		if end := off + len(p); end > len(big) {
			big = append(big, make([]byte, end-len(big))...)
		}
		copy(big[off:], p)
		if i%2 == 1 {
			if err := f.Fsync(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.Close()
	files["big"] = big
	check("overwritten")
	td.reopen()
	check("overwritten, reopened")
}

func TestNamespace(t *testing.T) {
	td := newTestDrive(t, Options{})
	d, err := td.Mkdir(ctx, me, RootIno, "dir", 0o755)
	if err != nil {
		t.Fatal(err)
	}
	ino := td.put(d.Ino, "a", []byte("one"))
	if _, err := td.Link(ctx, me, ino, RootIno, "b"); err != nil {
		t.Fatal(err)
	}
	if err := td.Rmdir(ctx, me, RootIno, "dir"); !errors.Is(err, ErrNotEmpty) {
		t.Fatalf("rmdir of a full directory: %v", err)
	}
	if err := td.Unlink(ctx, me, d.Ino, "a"); err != nil {
		t.Fatal(err)
	}
	if a, err := td.Getattr(ctx, ino); err != nil || a.Nlink != 1 {
		t.Fatalf("after unlink: %+v, %v", a, err)
	}
	if err := td.Rename(ctx, me, RootIno, "b", d.Ino, "c", 0); err != nil {
		t.Fatal(err)
	}
	if err := td.Rename(ctx, me, RootIno, "dir", d.Ino, "x", 0); !errors.Is(err, ErrInvalid) {
		t.Fatalf("directory into itself: %v", err)
	}
	td.reopen()
	if got := td.get(d.Ino, "c"); string(got) != "one" {
		t.Fatalf("got %q", got)
	}
	if p, err := td.Path(ctx, ino); err != nil || p != "/dir/c" {
		t.Fatalf("path %q, %v", p, err)
	}
	if _, err := td.Mkdir(ctx, me, RootIno, HistoryName, 0o755); !errors.Is(err, ErrExist) {
		t.Fatalf("mkdir %s: %v", HistoryName, err)
	}
}

func TestUnlinkedOpenFile(t *testing.T) {
	td := newTestDrive(t, Options{})
	f, a, err := td.Create(ctx, me, RootIno, "f", 0o644)
	if err != nil {
		t.Fatal(err)
	}
	first, second := random(300_000, 1), random(9<<20, 2)
	if _, err := f.WriteAt(ctx, first, 0); err != nil {
		t.Fatal(err)
	}
	if err := td.Unlink(ctx, me, RootIno, "f"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(ctx, second, 300_000); err != nil {
		t.Fatal(err)
	}
	if err := td.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(first)+len(second))
	if _, err := f.ReadAt(ctx, got, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if !bytes.Equal(got, append(first, second...)) {
		t.Fatal("contents differ")
	}
	// It may be given a name again only through a handle that never had one,
	// but the drive need not care.
	if _, err := td.Link(ctx, me, a.Ino, RootIno, "again"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	td.reopen()
	if !bytes.Equal(td.get(RootIno, "again"), got) {
		t.Fatal("contents differ after linking")
	}
	if _, err := td.Getattr(ctx, 1<<40); !errors.Is(err, ErrNotExist) {
		t.Fatalf("unknown inode: %v", err)
	}
}

func TestCopyRangeSharesBlocks(t *testing.T) {
	td := newTestDrive(t, Options{})
	data := random(20<<20, 1)
	src := td.put(RootIno, "src", data)
	if err := td.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	before := td.own.Size()
	in, err := td.Open(ctx, me, src, false)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, _, err := td.Create(ctx, me, RootIno, "dst", 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if n, err := in.CopyRange(ctx, 0, out, 0, int64(len(data))); err != nil || n != int64(len(data)) {
		t.Fatalf("copied %d, %v", n, err)
	}
	if err := td.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	if grown := td.own.Size() - before; grown > 10 {
		t.Fatalf("a clone of 20 MiB appended %d blocks", grown)
	}
	if !bytes.Equal(td.get(RootIno, "dst"), data) {
		t.Fatal("contents differ")
	}
}

func TestRewriteIsDeduplicated(t *testing.T) {
	// Each commit in the middle of a stream cuts it once where the contents
	// would not: none here, however slow the machine.
	td := newTestDrive(t, Options{Delay: time.Hour})
	data := random(40<<20, 1)
	td.put(RootIno, "a", data)
	td.reopen() // the log keeps zeros ahead of its end while it is open
	before, err := td.own.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	edited := append(append(bytes.Clone(data[:20<<20]), random(1024, 2)...), data[20<<20:]...)
	td.put(RootIno, "b", edited)
	td.reopen()
	after, err := td.own.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if grown := after - before; grown > 512<<10 {
		t.Fatalf("a rewrite with 1 KB inserted took %d bytes", grown)
	}
	if !bytes.Equal(td.get(RootIno, "b"), edited) {
		t.Fatal("contents differ")
	}
}

// Pieces without a content boundary in them, each of which may go on, do not
// keep writers waiting for ever: no commit seals what has no name.
func TestManyOpenEnds(t *testing.T) {
	for _, unlinked := range []bool{false, true} {
		td := newTestDrive(t, Options{Delay: time.Hour})
		f, _, err := td.Create(ctx, me, RootIno, "f", 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if unlinked {
			if err := td.Unlink(ctx, me, RootIno, "f"); err != nil {
				t.Fatal(err)
			}
		}
		piece := make([]byte, 64<<10)
		done := make(chan error, 1)
		go func() {
			for i := range 4 * maxDirty / len(piece) {
				if _, err := f.WriteAt(ctx, piece, int64(2*i*len(piece))); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(time.Minute):
			t.Fatal("a writer waits for ever")
		}
		f.Close()
	}
}
