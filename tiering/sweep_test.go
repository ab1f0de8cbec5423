package tiering

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"hearth/fs"
	"hearth/log"
)

var ctx = context.Background()

var me = fs.Caller{Uid: 1000, Gid: 1000}

// clock is a time that a test sets.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// testDrive is a drive on a disk of its own.
type testDrive struct {
	*fs.Drive
	t     testing.TB
	dir   string
	clock *clock
	opts  fs.Options
}

func newTestDrive(t testing.TB, o fs.Options) *testDrive {
	t.Helper()
	td := &testDrive{t: t, dir: filepath.Join(t.TempDir(), "drive"), clock: newClock(), opts: o}
	td.opts.Clock = td.clock.now
	if td.opts.Delay == 0 {
		td.opts.Delay = time.Hour
	}
	store, err := log.CreateStore(log.StoreOptions{Dir: td.dir}, "test")
	if err != nil {
		t.Fatal(err)
	}
	o = td.opts
	o.Store = store
	if td.Drive, err = fs.Create(ctx, o, me); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(td.shut)
	return td
}

func (td *testDrive) shut() {
	if td.Drive == nil {
		return
	}
	store := td.Store()
	if err := td.Close(ctx); err != nil {
		td.t.Errorf("closing: %v", err)
	}
	if err := store.Close(); err != nil {
		td.t.Errorf("closing the store: %v", err)
	}
	td.Drive = nil
}

func (td *testDrive) reopen() {
	td.t.Helper()
	td.shut()
	store, err := log.OpenStore(log.StoreOptions{Dir: td.dir})
	if err != nil {
		td.t.Fatal(err)
	}
	o := td.opts
	o.Store = store
	if td.Drive, err = fs.Open(ctx, o); err != nil {
		td.t.Fatal(err)
	}
}

// write replaces the contents of a file, made if need be, as one change, and
// commits it.
func (td *testDrive) write(path, contents string) fs.Version {
	td.t.Helper()
	dir, err := td.Resolve(ctx, filepath.Dir(path))
	if err != nil {
		td.t.Fatal(err)
	}
	name := filepath.Base(path)
	var f *fs.File
	a, err := td.Lookup(ctx, dir, name)
	if err == nil {
		f, err = td.Open(ctx, me, a.Ino, true)
	} else {
		f, _, err = td.Create(ctx, me, dir, name, 0o644)
	}
	if err != nil {
		td.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(ctx, []byte(contents), 0); err != nil {
		td.t.Fatal(err)
	}
	return td.commit()
}

func (td *testDrive) commit() fs.Version {
	td.t.Helper()
	if err := td.Sync(ctx); err != nil {
		td.t.Fatal(err)
	}
	return td.Newest()
}

func (td *testDrive) mkdir(path string) {
	td.t.Helper()
	dir, err := td.Resolve(ctx, filepath.Dir(path))
	if err == nil {
		_, err = td.Mkdir(ctx, me, dir, filepath.Base(path), 0o755)
	}
	if err != nil {
		td.t.Fatal(err)
	}
}

func (td *testDrive) unlink(path string) fs.Version {
	td.t.Helper()
	dir, err := td.Resolve(ctx, filepath.Dir(path))
	if err == nil {
		err = td.Unlink(ctx, me, dir, filepath.Base(path))
	}
	if err != nil {
		td.t.Fatal(err)
	}
	return td.commit()
}

// readAt returns a file's contents in a version.
func (td *testDrive) readAt(v fs.Version, path string) (string, error) {
	s, err := td.At(ctx, v)
	if err != nil {
		return "", err
	}
	ino, err := s.Resolve(ctx, path)
	if err != nil {
		return "", err
	}
	a, err := s.Getattr(ctx, ino)
	if err != nil {
		return "", err
	}
	b := make([]byte, a.Size)
	if len(b) == 0 {
		return "", nil
	}
	_, err = s.ReadAt(ctx, ino, b, 0)
	return string(b), err
}

func (td *testDrive) wantAt(v fs.Version, path, want string) {
	td.t.Helper()
	if got, err := td.readAt(v, path); err != nil || got != want {
		td.t.Errorf("%s at %v: %q, %v; want %q", path, v, got, err, want)
	}
}

func (td *testDrive) wantGone(v fs.Version) {
	td.t.Helper()
	if _, err := td.At(ctx, v); !errors.Is(err, fs.ErrNoVersion) {
		td.t.Errorf("version %v: %v; want that it is gone", v, err)
	}
}

func (td *testDrive) sweep() SweepResult {
	td.t.Helper()
	r, err := Sweep(ctx, td.Drive, SweepOptions{Clock: td.clock.now, Grace: -1})
	if err != nil {
		td.t.Fatal(err)
	}
	return r
}

func (td *testDrive) retain(path, ladder string) {
	td.t.Helper()
	l, err := ParseLadder(ladder)
	if err == nil {
		err = SetLadder(ctx, td.Drive, path, l)
	}
	if err != nil {
		td.t.Fatal(err)
	}
	td.commit()
}

func TestSweepThinsByAge(t *testing.T) {
	td := newTestDrive(t, fs.Options{})
	var all []fs.Version
	for i := range 72 { // three days of an edit every hour
		all = append(all, td.write("/doc", fmt.Sprint("edit ", i)))
		td.clock.add(time.Hour)
	}
	td.retain("/", "all:4h 12h:1d 1d:30d undelete:0s")
	td.clock.add(10 * time.Minute)
	r := td.sweep()
	if r.Versions == 0 || r.Blocks == 0 {
		t.Fatalf("nothing went: %+v", r)
	}
	var kept []int
	for i, v := range all {
		if _, err := td.At(ctx, v); err == nil {
			kept = append(kept, i)
			td.wantAt(v, "/doc", fmt.Sprint("edit ", i))
		} else {
			td.wantGone(v)
		}
	}
	// It is 10:10, the third day after. Edit i was made at hour 10+i. All of the
	// last four hours; the last of the twelve hours before 12:00 and 0:00; the
	// last of each day.
	want := fmt.Sprint([]int{13, 37, 49, 61, 69, 70, 71})
	if fmt.Sprint(kept) != want {
		t.Fatalf("kept %v, want %v", kept, want)
	}
	again := td.sweep()
	if again.Versions > 3 { // its own
		t.Fatalf("a second sweep dropped %d versions", again.Versions)
	}
	td.reopen()
	for _, i := range kept {
		td.wantAt(all[i], "/doc", fmt.Sprint("edit ", i))
	}
}

func TestRewrittenFileLeavesLittleBehind(t *testing.T) {
	n := 20_000
	if testing.Short() {
		n = 2_000
	}
	td := newTestDrive(t, fs.Options{})
	f, _, err := td.Create(ctx, me, fs.RootIno, "db", 0o644)
	if err != nil {
		t.Fatal(err)
	}
	page := bytes.Repeat([]byte{1}, 4096)
	size := func() int64 {
		td.reopen()
		var sum int64
		err := filepath.Walk(td.dir, func(_ string, info os.FileInfo, err error) error {
			if err == nil && info.Mode().IsRegular() {
				sum += info.Size()
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	start := time.Now()
	for i := range n {
		for j := range page {
			page[j] = byte(i * j >> (i % 5))
		}
		copy(page, fmt.Sprint(i))
		if _, err := f.WriteAt(ctx, page, 0); err != nil {
			t.Fatal(err)
		}
		if err := f.Fsync(ctx); err != nil {
			t.Fatal(err)
		}
		td.clock.add(3 * time.Millisecond)
	}
	f.Close()
	wrote := time.Since(start)
	before := size()
	td.clock.add(time.Hour)
	start = time.Now()
	r := td.sweep()
	took := time.Since(start)
	if _, err := td.Store().Own().Erase(ctx); err != nil {
		t.Fatal(err)
	}
	after := size()
	perVersion := float64(after) / float64(r.Versions)
	dump(t, td.dir)
	t.Logf("%d versions in %v: %d bytes; sweep in %v: %+v; then %d bytes, %.0f for each dropped version", n, wrote, before, took, r, after, perVersion)
	if r.Versions < int64(n*9/10) {
		t.Fatalf("only %d versions went", r.Versions)
	}
	if n >= 20_000 && perVersion > 400 {
		t.Errorf("%.0f bytes are left of each dropped version", perVersion)
	}
}

func dump(t *testing.T, dir string) {
	filepath.Walk(dir, func(p string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() && info.Size() > 10000 {
			t.Logf("%s %d", p[len(dir):], info.Size())
		}
		return err
	})
}
