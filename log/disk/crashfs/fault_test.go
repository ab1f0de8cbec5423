package crashfs_test

import (
	"bytes"
	"errors"
	"fmt"
	iofs "io/fs"
	"syscall"
	"testing"

	"hearth/log/disk"
	"hearth/log/disk/crashfs"
)

func TestFaultsInBothHalves(t *testing.T) {
	boom := errors.New("boom")
	for _, test := range []struct {
		name string
		kind crashfs.Kind
		do   func(c *crashfs.FS, f disk.File) error
		did  func(c *crashfs.FS, f disk.File) bool
	}{
		{"write", crashfs.OpWriteAt,
			func(_ *crashfs.FS, f disk.File) error { _, err := f.WriteAt([]byte("new"), 0); return err },
			func(c *crashfs.FS, _ disk.File) bool { return string(read(t, c, "/f")) == "new" }},
		{"truncate", crashfs.OpTruncate,
			func(_ *crashfs.FS, f disk.File) error { return f.Truncate(1) },
			func(c *crashfs.FS, _ disk.File) bool { return string(read(t, c, "/f")) == "o" }},
		{"writefile", crashfs.OpWriteFile,
			func(c *crashfs.FS, _ disk.File) error { return c.WriteFile("/f", []byte("new")) },
			func(c *crashfs.FS, _ disk.File) bool { return string(read(t, c, "/f")) == "new" }},
		{"create", crashfs.OpCreate,
			func(c *crashfs.FS, _ disk.File) error { _, err := c.Create("/g"); return err },
			func(c *crashfs.FS, _ disk.File) bool { _, err := c.Stat("/g"); return err == nil }},
		{"remove", crashfs.OpRemove,
			func(c *crashfs.FS, _ disk.File) error { return c.Remove("/f") },
			func(c *crashfs.FS, _ disk.File) bool { _, err := c.Stat("/f"); return err != nil }},
		{"rename", crashfs.OpRename,
			func(c *crashfs.FS, _ disk.File) error { return c.Rename("/f", "/g") },
			func(c *crashfs.FS, _ disk.File) bool { _, err := c.Stat("/f"); return err != nil }},
	} {
		for _, half := range []struct {
			fault crashfs.Fault
			did   bool
		}{{crashfs.FailLost(boom), false}, {crashfs.FailDone(boom), true}} {
			c := crashfs.New(1)
			f := file(t, c, "/f", []byte("old"))
			c.SetPolicy(crashfs.Nth(0, crashfs.Kinds(test.kind), half.fault))
			err := test.do(c, f)
			if !errors.Is(err, boom) {
				t.Fatalf("%s: %v", test.name, err)
			}
			var pe *iofs.PathError
			if !errors.As(err, &pe) || pe.Op != test.kind.String() {
				t.Errorf("%s: %v", test.name, err)
			}
			if test.did(c, f) != half.did {
				t.Errorf("%s: happened: %v, want %v", test.name, !half.did, half.did)
			}
			if err := test.do(c, f); errors.Is(err, boom) {
				t.Errorf("%s: failed twice", test.name)
			}
		}
	}
	c := crashfs.New(1)
	f := file(t, c, "/f", []byte("....."))
	c.SetPolicy(crashfs.Nth(0, nil, crashfs.Partial(2, boom)))
	if n, err := f.WriteAt([]byte("abcde"), 0); n != 2 || !errors.Is(err, boom) || string(read(t, c, "/f")) != "ab..." {
		t.Errorf("partial write: %d, %v, %q", n, err, read(t, c, "/f"))
	}
	c.SetPolicy(crashfs.Nth(0, crashfs.Kinds(crashfs.OpReadAt), crashfs.Partial(3, boom)))
	p := make([]byte, 5)
	if n, err := f.ReadAt(p, 0); n != 3 || !errors.Is(err, boom) {
		t.Errorf("partial read: %d, %v", n, err)
	}
	for i := range 3 { // the failed open leaves no handle behind
		c.SetPolicy(crashfs.Nth(0, crashfs.Kinds(crashfs.OpOpen), crashfs.FailDone(boom)))
		if _, err := c.Open("/f"); !errors.Is(err, boom) {
			t.Error(i, err)
		}
	}
	must(t, f.Close())
	must(t, c.Remove("/f"))
	if c.Used() != 0 {
		t.Errorf("%d used", c.Used())
	}
}

func TestFailedDatasync(t *testing.T) {
	for _, keep := range []bool{false, true} {
		seen := make(map[string]int)
		for seed := range uint64(300) {
			c := crashfs.New(seed)
			f := file(t, c, "/f", fill('.', 1024))
			if keep {
				c.SetSyncFailure(crashfs.KeepCache)
			}
			_, err := f.WriteAt(fill('x', 1024), 0)
			must(t, err)
			c.SetPolicy(crashfs.Nth(0, crashfs.Kinds(crashfs.OpDatasync), crashfs.FailLost(syscall.EIO)))
			if err := f.Datasync(); !errors.Is(err, syscall.EIO) {
				t.Fatal(err)
			}
			cached := read(t, c, "/f")
			if keep && !bytes.Equal(cached, fill('x', 1024)) {
				t.Fatal("the cache lost what was written")
			}
			must(t, f.Datasync()) // succeeds, and mends nothing
			after := read(t, c.Clone().Crash(seed), "/f")
			if !keep && !bytes.Equal(cached, after) {
				t.Fatal("the cache shows what the disk does not have")
			}
			seen[string(after[:1])+string(after[512:513])]++
			if !keep {
				continue
			}
			next := c.Kill()
			if got := read(t, next, "/f"); !bytes.Equal(got, after) && !bytes.Equal(got, cached) {
				t.Fatal("a third state after a kill")
			}
			// Writing it again is what helps.
			g, err := next.Open("/f")
			must(t, err)
			_, err = g.WriteAt(cached, 0)
			must(t, err)
			must(t, g.Datasync())
			if got := read(t, next.Crash(seed), "/f"); !bytes.Equal(got, cached) {
				t.Fatal("written again, synced, and lost")
			}
		}
		if len(seen) != 4 {
			t.Errorf("keep %v: %v", keep, seen)
		}
	}
}

func TestFailedDatasyncThatHappened(t *testing.T) {
	c := crashfs.New(1)
	f := file(t, c, "/f", fill('.', 1024))
	_, err := f.WriteAt(fill('x', 1024), 0)
	must(t, err)
	c.SetPolicy(crashfs.Nth(0, crashfs.Kinds(crashfs.OpDatasync), crashfs.FailDone(syscall.EIO)))
	if err := f.Datasync(); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	if got := read(t, c.CrashWith(1, crashfs.DropAll), "/f"); !bytes.Equal(got, fill('x', 1024)) {
		t.Error("it did not happen")
	}
}

func TestCrashAfter(t *testing.T) {
	seen := make(map[string]int)
	for seed := range uint64(100) {
		c := crashfs.New(seed)
		f := file(t, c, "/f", fill('.', 2048))
		c.CrashAfter(1)
		_, err := f.WriteAt(fill('a', 512), 0)
		must(t, err)
		_, err = f.ReadAt(make([]byte, 1), 0) // does not count
		must(t, err)
		_, err = f.WriteAt(fill('b', 1024), 512)
		if !errors.Is(err, crashfs.ErrCrashed) || !errors.Is(c.Down(), crashfs.ErrCrashed) {
			t.Fatal(err)
		}
		if _, err := c.List("/"); !errors.Is(err, crashfs.ErrCrashed) {
			t.Fatal(err)
		}
		data := read(t, c.CrashWith(seed, crashfs.KeepAll), "/f")
		seen[fmt.Sprintf("%c%c%c", data[0], data[512], data[1024])]++
	}
	for _, want := range []string{"a..", "abb"} {
		if seen[want] == 0 {
			t.Errorf("never %s: %v", want, seen)
		}
	}
	if seen["..."] > 0 || len(seen) < 3 {
		t.Error(seen)
	}
}

func TestFlipByte(t *testing.T) {
	c := crashfs.New(1)
	file(t, c, "/f", []byte("abc"))
	d := c.Clone()
	must(t, c.FlipByte("/f", 1))
	if got := read(t, c, "/f"); string(got) != "a\x9dc" {
		t.Errorf("%q", got)
	}
	if got := read(t, c.Crash(1), "/f"); string(got) != "a\x9dc" {
		t.Errorf("%q after a crash", got)
	}
	if got := read(t, d, "/f"); string(got) != "abc" {
		t.Errorf("the clone changed: %q", got)
	}
	if d.FlipByte("/f", 3) == nil || d.FlipByte("/g", 0) == nil {
		t.Error("no error")
	}
}

func TestInspection(t *testing.T) {
	c := crashfs.New(1)
	must(t, c.MkdirAll("/d"))
	f := file(t, c, "/d/f", fill('x', 5000))
	if got := fmt.Sprint(c.Unsynced()); got != "[/d/]" {
		t.Error(got)
	}
	_, err := f.WriteAt([]byte("y"), 0)
	must(t, err)
	if got := fmt.Sprint(c.Unsynced()); got != "[/d/ /d/f]" {
		t.Error(got)
	}
	if got := fmt.Sprint(c.Files()); got != "[{/d/f 5000 2}]" {
		t.Error(got)
	}
	c.SyncAll()
	if got := c.Unsynced(); got != nil {
		t.Error(got)
	}
	if a, b := c.Dump(), c.Clone().Crash(7).Dump(); a != b {
		t.Errorf("%s\n%s", a, b)
	}
}

func TestWritebackBoundsMemory(t *testing.T) {
	c := crashfs.New(1)
	f := file(t, c, "/f", nil)
	for i := range int64(200) {
		_, err := f.WriteAt(fill(byte(i+1), 1<<20), 0)
		must(t, err)
	}
	// Never synced, yet most of it is on the disk by now.
	got := read(t, c.CrashWith(1, crashfs.DropAll), "/f")
	if len(got) != 1<<20 || got[0] < 100 {
		t.Errorf("%d bytes, of version %d", len(got), got[0])
	}
}
