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
	if _, err := f.WriteAt(ctx, []byte(contents), 0); err != nil {
		td.t.Fatal(err)
	}
	f.Close()
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

// size reopens the drive and returns what its files take.
func (td *testDrive) size() int64 {
	td.t.Helper()
	td.reopen()
	var sum int64
	err := filepath.Walk(td.dir, func(p string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() && filepath.Base(p) != "reserve" {
			sum += info.Size()
		}
		return err
	})
	if err != nil {
		td.t.Fatal(err)
	}
	return sum
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
	before := td.size()
	td.clock.add(time.Hour)
	start = time.Now()
	r := td.sweep()
	took := time.Since(start)
	after := td.size()
	per := float64(after) / float64(r.Versions)
	t.Logf("%d versions in %v: %d bytes; sweep in %v: %+v; then %d bytes, %.0f for each dropped version", n, wrote, before, took, r, after, per)
	if r.Versions < int64(n)*9/10 {
		t.Fatalf("only %d versions went", r.Versions)
	}
	if n >= 20_000 && per > 400 {
		t.Errorf("%.0f bytes are left of each dropped version", per)
	}
}

func TestCommitsOfOneChangeBecomeOne(t *testing.T) {
	td := newTestDrive(t, fs.Options{})
	td.mkdir("/d")
	var all []fs.Version
	for i := range 6 { // without a pause: one change
		all = append(all, td.write(fmt.Sprint("/d/f", i), "x"))
		td.clock.add(100 * time.Millisecond)
	}
	td.clock.add(time.Minute)
	last := td.write("/d/g", "y")
	td.clock.add(lease / 2)
	td.sweep()
	for _, v := range all[:5] {
		td.wantGone(v)
	}
	td.wantAt(all[5], "/d/f0", "x")
	td.wantAt(last, "/d/g", "y")
	// What the change did is still known as a whole.
	td.clock.add(time.Hour)
	if _, err := td.Undo(ctx, fs.UndoOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := td.Undo(ctx, fs.UndoOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := td.Resolve(ctx, "/d"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("after undoing both: %v", err)
	}
}

// lease is more than what was opened is kept for.
const lease = 20 * time.Minute

func TestFolderWithoutHistory(t *testing.T) {
	td := newTestDrive(t, fs.Options{})
	td.mkdir("/scratch")
	td.mkdir("/scratch/below")
	td.mkdir("/docs")
	td.retain("/scratch", "none")
	var all []fs.Version
	for i := range 5 {
		td.write("/docs/a", fmt.Sprint("doc ", i))
		all = append(all, td.write("/scratch/below/b", fmt.Sprint("scratch ", i)))
		td.clock.add(lease)
	}
	td.sweep()
	for i, v := range all {
		td.wantAt(v, "/docs/a", fmt.Sprint("doc ", i))
		got, err := td.readAt(v, "/scratch/below/b")
		if i == 4 {
			if err != nil || got != "scratch 4" {
				t.Errorf("present: %q, %v", got, err)
			}
			continue
		}
		for _, want := range []error{fs.ErrNotKept, fs.ErrNoVersion, log.ErrDropped} {
			if !errors.Is(err, want) {
				t.Errorf("version %v: %q, %v; want %v", v, got, err, want)
			}
		}
		// Nor does it come back by another way.
		if _, err := td.Restore(ctx, fs.RestoreOptions{Path: "/scratch/below/b", At: v}); !errors.Is(err, fs.ErrNotKept) {
			t.Errorf("restoring what is not kept: %v", err)
		}
	}
	if _, err := td.Verify(ctx, func(d fs.Damage) { t.Errorf("damage: %+v", d) }, nil); err != nil {
		t.Fatal(err)
	}
	l, from, err := LadderOf(ctx, td.Drive, "/scratch/below/b")
	if err != nil || from != "/scratch" || l.String() != "none" {
		t.Errorf("ladder %v from %q, %v", l, from, err)
	}
	if l, from, err := LadderOf(ctx, td.Drive, "/docs"); err != nil || from != "" || l.String() != Default().String() {
		t.Errorf("ladder %v from %q, %v", l, from, err)
	}
}

func TestTagsAndPinsStay(t *testing.T) {
	td := newTestDrive(t, fs.Options{})
	td.retain("/", "none")
	first := td.write("/a", "one")
	if err := td.Tag(ctx, "/", "release"); err != nil {
		t.Fatal(err)
	}
	td.clock.add(lease)
	pinned := td.write("/a", "two")
	release := td.Pin(pinned)
	td.clock.add(lease)
	other := td.write("/a", "three")
	td.clock.add(lease)
	td.write("/a", "four")
	td.clock.add(lease)
	td.sweep()
	td.wantAt(first, "/a", "one")
	td.wantAt(pinned, "/a", "two")
	td.wantGone(other)
	td.clock.add(10 * year)
	release()
	td.sweep()
	td.wantAt(first, "/a", "one")
	td.wantGone(pinned)
	if err := td.Untag(ctx, "/", "release"); err != nil {
		t.Fatal(err)
	}
	td.clock.add(lease)
	td.sweep()
	td.wantGone(first)
}

func TestUndelete(t *testing.T) {
	td := newTestDrive(t, fs.Options{})
	td.retain("/", "1d:1y undelete:30d")
	deleted := func(name string, age time.Duration) fs.Version {
		t.Helper()
		v := td.write(name, "contents of "+name)
		td.clock.add(age)
		td.unlink(name)
		td.clock.add(time.Minute)
		return v
	}
	doc := deleted("/document", time.Hour)
	journal := deleted("/journal", 2*time.Second)
	old := td.write("/replaced", "old")
	td.clock.add(time.Hour)
	ino, err := td.Resolve(ctx, "/replaced")
	if err != nil {
		t.Fatal(err)
	}
	td.write("/new", "new")
	if err := td.Rename(ctx, me, fs.RootIno, "new", fs.RootIno, "replaced", 0); err != nil {
		t.Fatal(err)
	}
	td.commit()
	if now, err := td.Resolve(ctx, "/replaced"); err != nil || now == ino {
		t.Fatalf("inode %d, %v", now, err)
	}
	td.clock.add(time.Minute)
	td.write("/last", "of the day")
	td.clock.add(3 * day)
	td.write("/other", "x")
	td.clock.add(lease)
	td.sweep()
	td.wantAt(doc, "/document", "contents of /document")
	td.wantGone(journal)
	td.wantGone(old)
	if _, err := td.Undelete(ctx, "/document", false); err != nil {
		t.Fatal(err)
	}
	if err := td.Unlink(ctx, me, fs.RootIno, "document"); err != nil {
		t.Fatal(err)
	}
	td.commit()
	td.clock.add(31 * day)
	td.write("/other", "y")
	td.clock.add(lease)
	td.sweep()
	td.wantGone(doc)
}

func TestDryRun(t *testing.T) {
	td := newTestDrive(t, fs.Options{})
	td.retain("/", "none")
	for i := range 10 {
		td.write("/a", fmt.Sprint(i))
		td.clock.add(lease)
	}
	head := td.Newest()
	dry, err := Sweep(ctx, td.Drive, SweepOptions{Clock: td.clock.now, DryRun: true})
	if err != nil || dry.Versions == 0 || dry.Blocks == 0 || td.Newest() != head {
		t.Fatalf("%+v, %v", dry, err)
	}
	if r := td.sweep(); r.Versions != dry.Versions || r.Blocks < dry.Blocks {
		t.Fatalf("foreseen %+v, done %+v", dry, r)
	}
}

// A sweep of many versions beside a program that writes and syncs.
func TestWritersAreNotHeld(t *testing.T) {
	n := 5000
	if testing.Short() {
		n = 500
	}
	td := newTestDrive(t, fs.Options{})
	f, _, err := td.Create(ctx, me, fs.RootIno, "f", 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	write := func(i int, sync bool) (time.Duration, error) {
		start := time.Now()
		_, err := f.WriteAt(ctx, []byte(fmt.Sprintf("%08d", i)), int64(i%1000)*4096)
		if err == nil && sync {
			err = f.Fsync(ctx)
		}
		return time.Since(start), err
	}
	for i := range n {
		if _, err := write(i, true); err != nil {
			t.Fatal(err)
		}
		td.clock.add(10 * time.Second)
	}
	td.retain("/", "none")
	td.clock.add(lease)
	stop := make(chan struct{})
	type stalls struct {
		write, sync time.Duration
		n           int
		err         error
	}
	measured := make(chan stalls)
	measure := func() stalls {
		var s stalls
		for i := 0; ; i++ {
			select {
			case <-stop:
				return s
			default:
			}
			took, err := write(i, i%8 == 0)
			if err != nil {
				s.err = err
				return s
			}
			if i%8 == 0 {
				s.sync = max(s.sync, took)
			} else {
				s.write = max(s.write, took)
			}
			s.n++
		}
	}
	// Before, for the machine's own stalls.
	go func() { measured <- measure() }()
	time.Sleep(500 * time.Millisecond)
	stop <- struct{}{}
	alone := <-measured
	go func() { measured <- measure() }()
	start := time.Now()
	r := td.sweep()
	took := time.Since(start)
	stop <- struct{}{}
	beside := <-measured
	if alone.err != nil || beside.err != nil {
		t.Fatal(alone.err, beside.err)
	}
	t.Logf("sweep of %d versions in %v; longest write %v, with sync %v, of %d; without a sweep %v and %v of %d",
		r.Versions, took, beside.write, beside.sync, beside.n, alone.write, alone.sync, alone.n)
	if limit := 250*time.Millisecond + 3*alone.sync; beside.sync > limit || beside.write > limit {
		t.Errorf("a writer was held for %v", max(beside.sync, beside.write))
	}
}
