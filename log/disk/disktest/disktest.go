// Package disktest is the conformance suite of disk.FS: what every
// implementation does, as far as a program can see without a crash. What
// survives one is tested where crashes can be had, in package crashfs.
//
// It imports disk and the standard library.
package disktest

import (
	"bytes"
	"errors"
	"io"
	iofs "io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hearth/log/disk"
)

// All is the suite. Each function gets an empty directory of its own.
var All = map[string]func(t *testing.T, d disk.FS, dir string){
	"Create":       testCreate,
	"Open":         testOpen,
	"ReadWrite":    testReadWrite,
	"Truncate":     testTruncate,
	"Allocate":     testAllocate,
	"PunchHole":    testPunchHole,
	"Closed":       testClosed,
	"WriteFile":    testWriteFile,
	"Rename":       testRename,
	"RenameDir":    testRenameDir,
	"Remove":       testRemove,
	"RemoveAll":    testRemoveAll,
	"Mkdir":        testMkdir,
	"List":         testList,
	"Stat":         testStat,
	"Sync":         testSync,
	"Free":         testFree,
	"Parallel":     testParallel,
	"RandomWrites": testRandomWrites,
}

// Run runs the suite in new directories below dir, which exists on the file
// systems that newFS returns.
func Run(t *testing.T, newFS func() disk.FS, dir string) {
	names := make([]string, 0, len(All))
	for name := range All {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			d := newFS()
			own := filepath.Join(dir, strings.ToLower(name))
			if err := d.MkdirAll(own); err != nil {
				t.Fatal(err)
			}
			All[name](t, d, own)
		})
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fails checks that err is want, if that is not nil, and names the path.
func fails(t *testing.T, err, want error, path string) {
	t.Helper()
	switch {
	case err == nil:
		t.Fatalf("no error for %s", path)
	case want != nil && !errors.Is(err, want):
		t.Fatalf("got %v, want %v", err, want)
	case !strings.Contains(err.Error(), path):
		t.Fatalf("%q does not name %s", err, path)
	}
}

func create(t *testing.T, d disk.FS, name string) disk.File {
	t.Helper()
	f, err := d.Create(name)
	ok(t, err)
	return f
}

func write(t *testing.T, f disk.File, data string, off int64) {
	t.Helper()
	n, err := f.WriteAt([]byte(data), off)
	ok(t, err)
	if n != len(data) {
		t.Fatalf("wrote %d of %d", n, len(data))
	}
}

func size(t *testing.T, f disk.File) int64 {
	t.Helper()
	n, err := f.Size()
	ok(t, err)
	return n
}

// holds checks the whole contents of a file.
func holds(t *testing.T, f disk.File, want []byte) {
	t.Helper()
	if n := size(t, f); n != int64(len(want)) {
		t.Fatalf("size %d, want %d", n, len(want))
	}
	got := make([]byte, len(want))
	if _, err := f.ReadAt(got, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("byte %d of %d is %#x, want %#x", i, len(got), got[i], want[i])
			}
		}
	}
}

func testCreate(t *testing.T, d disk.FS, dir string) {
	name := filepath.Join(dir, "a")
	f := create(t, d, name)
	holds(t, f, nil)
	write(t, f, "hello", 0)
	holds(t, f, []byte("hello"))
	_, err := d.Create(name)
	fails(t, err, iofs.ErrExist, name)
	ok(t, f.Close())
	_, err = d.Create(filepath.Join(dir, "none", "a"))
	fails(t, err, iofs.ErrNotExist, filepath.Join(dir, "none", "a"))
	_, err = d.Create(filepath.Join(name, "b"))
	fails(t, err, nil, filepath.Join(name, "b"))
	_, err = d.Create(dir)
	fails(t, err, iofs.ErrExist, dir)
}

func testOpen(t *testing.T, d disk.FS, dir string) {
	name := filepath.Join(dir, "a")
	_, err := d.Open(name)
	fails(t, err, iofs.ErrNotExist, name)
	_, err = d.OpenRead(name)
	fails(t, err, iofs.ErrNotExist, name)
	f := create(t, d, name)
	write(t, f, "hello", 0)

	rw, err := d.Open(name)
	ok(t, err)
	write(t, rw, "J", 0)
	holds(t, f, []byte("Jello"))
	ro, err := d.OpenRead(name)
	ok(t, err)
	holds(t, ro, []byte("Jello"))
	_, err = ro.WriteAt([]byte("x"), 0)
	fails(t, err, nil, name)
	fails(t, ro.Truncate(0), nil, name)
	fails(t, ro.Allocate(0, 1), nil, name)
	fails(t, ro.PunchHole(0, 1), nil, name)
	holds(t, f, []byte("Jello"))
	for _, f := range []disk.File{f, rw, ro} {
		ok(t, f.Close())
	}
	_, err = d.Open(dir)
	fails(t, err, nil, dir)
}

func testWriteFile(t *testing.T, d disk.FS, dir string) {
	name := filepath.Join(dir, "a")
	_, err := d.ReadFile(name)
	fails(t, err, iofs.ErrNotExist, name)
	ok(t, d.WriteFile(name, []byte("one")))
	old, err := d.OpenRead(name)
	ok(t, err)
	defer old.Close()
	for _, want := range []string{"two", "", strings.Repeat("long ", 5000)} {
		ok(t, d.WriteFile(name, []byte(want)))
		got, err := d.ReadFile(name)
		ok(t, err)
		if string(got) != want {
			t.Fatalf("read %d bytes, wrote %d", len(got), len(want))
		}
	}
	holds(t, old, []byte("one")) // replaced, not overwritten
	names, err := d.List(dir)
	ok(t, err)
	if len(names) != 1 {
		t.Fatalf("WriteFile left %q", names)
	}
	fails(t, d.WriteFile(filepath.Join(dir, "none", "a"), nil), iofs.ErrNotExist, dir)
	ok(t, d.MkdirAll(filepath.Join(dir, "d")))
	fails(t, d.WriteFile(filepath.Join(dir, "d"), nil), nil, filepath.Join(dir, "d"))
	_, err = d.ReadFile(filepath.Join(dir, "d"))
	fails(t, err, nil, filepath.Join(dir, "d"))
	names, err = d.List(dir)
	ok(t, err)
	if len(names) != 2 {
		t.Fatalf("a WriteFile that failed left %q", names)
	}
}

func testRename(t *testing.T, d disk.FS, dir string) {
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	fails(t, d.Rename(a, b), iofs.ErrNotExist, a)
	f := create(t, d, a)
	defer f.Close()
	write(t, f, "a", 0)
	ok(t, d.WriteFile(b, []byte("b")))
	ok(t, d.Rename(a, b))
	_, err := d.Stat(a)
	fails(t, err, iofs.ErrNotExist, a)
	write(t, f, "c", 1)
	got, err := d.ReadFile(b)
	ok(t, err)
	if string(got) != "ac" {
		t.Fatalf("%q behind the new name", got)
	}
	ok(t, d.Rename(b, b))
	holds(t, f, []byte("ac"))
	fails(t, d.Rename(b, filepath.Join(dir, "none", "b")), iofs.ErrNotExist, b)
}

func testRenameDir(t *testing.T, d disk.FS, dir string) {
	x, y := filepath.Join(dir, "x"), filepath.Join(dir, "y")
	ok(t, d.MkdirAll(filepath.Join(x, "sub")))
	ok(t, d.WriteFile(filepath.Join(x, "sub", "f"), []byte("f")))
	fails(t, d.Rename(x, filepath.Join(x, "sub", "x")), nil, x)
	ok(t, d.MkdirAll(y))
	fails(t, d.Rename(x, y), nil, x) // even an empty directory is not replaced
	ok(t, d.Remove(y))
	ok(t, d.Rename(x, y))
	got, err := d.ReadFile(filepath.Join(y, "sub", "f"))
	ok(t, err)
	if string(got) != "f" {
		t.Fatalf("%q after the directory moved", got)
	}
	ok(t, d.WriteFile(x, nil))
	fails(t, d.Rename(x, y), nil, x)
	fails(t, d.Rename(y, x), nil, y)
}

func testRemove(t *testing.T, d disk.FS, dir string) {
	name := filepath.Join(dir, "a")
	fails(t, d.Remove(name), iofs.ErrNotExist, name)
	f := create(t, d, name)
	defer f.Close()
	write(t, f, "still here", 0)
	ok(t, d.Remove(name))
	_, err := d.Open(name)
	fails(t, err, iofs.ErrNotExist, name)
	holds(t, f, []byte("still here"))
	write(t, f, "S", 0)
	holds(t, f, []byte("Still here"))
	g := create(t, d, name)
	defer g.Close()
	holds(t, g, nil)

	sub := filepath.Join(dir, "sub")
	ok(t, d.MkdirAll(filepath.Join(sub, "sub")))
	fails(t, d.Remove(sub), nil, sub)
	ok(t, d.Remove(filepath.Join(sub, "sub")))
	ok(t, d.Remove(sub))
	_, err = d.Stat(sub)
	fails(t, err, iofs.ErrNotExist, sub)
}

func testRemoveAll(t *testing.T, d disk.FS, dir string) {
	sub := filepath.Join(dir, "sub")
	ok(t, d.RemoveAll(sub))
	ok(t, d.RemoveAll(filepath.Join(sub, "deeper")))
	ok(t, d.MkdirAll(filepath.Join(sub, "x", "y")))
	ok(t, d.WriteFile(filepath.Join(sub, "x", "f"), []byte("f")))
	f := create(t, d, filepath.Join(sub, "g"))
	defer f.Close()
	ok(t, d.RemoveAll(sub))
	_, err := d.Stat(sub)
	fails(t, err, iofs.ErrNotExist, sub)
	ok(t, d.WriteFile(sub, nil))
	ok(t, d.RemoveAll(sub))
	names, err := d.List(dir)
	ok(t, err)
	if len(names) != 0 {
		t.Fatalf("left: %q", names)
	}
}

func testMkdir(t *testing.T, d disk.FS, dir string) {
	deep := filepath.Join(dir, "a", "b", "c")
	ok(t, d.MkdirAll(deep))
	ok(t, d.MkdirAll(deep))
	fi, err := d.Stat(deep)
	ok(t, err)
	if !fi.IsDir() {
		t.Fatal("not a directory")
	}
	ok(t, d.WriteFile(filepath.Join(dir, "f"), nil))
	fails(t, d.MkdirAll(filepath.Join(dir, "f")), nil, filepath.Join(dir, "f"))
	fails(t, d.MkdirAll(filepath.Join(dir, "f", "g")), nil, filepath.Join(dir, "f"))
}

func testList(t *testing.T, d disk.FS, dir string) {
	for _, name := range []string{"b", "a", "ab", "Z", "10", "9"} {
		ok(t, d.WriteFile(filepath.Join(dir, name), nil))
	}
	ok(t, d.MkdirAll(filepath.Join(dir, "d", "inner")))
	names, err := d.List(dir)
	ok(t, err)
	if want := []string{"10", "9", "Z", "a", "ab", "b", "d"}; !slices.Equal(names, want) {
		t.Fatalf("%q, want %q", names, want)
	}
	_, err = d.List(filepath.Join(dir, "none"))
	fails(t, err, iofs.ErrNotExist, "none")
	_, err = d.List(filepath.Join(dir, "a"))
	fails(t, err, nil, filepath.Join(dir, "a"))
	names, err = d.List(filepath.Join(dir, "d", "inner"))
	ok(t, err)
	if len(names) != 0 {
		t.Fatalf("%q in an empty directory", names)
	}
}

func testStat(t *testing.T, d disk.FS, dir string) {
	name := filepath.Join(dir, "a")
	_, err := d.Stat(name)
	fails(t, err, iofs.ErrNotExist, name)
	ok(t, d.WriteFile(name, []byte("12345")))
	fi, err := d.Stat(name)
	ok(t, err)
	if fi.Name() != "a" || fi.Size() != 5 || fi.IsDir() || !fi.Mode().IsRegular() {
		t.Fatalf("%s, %d bytes, %v", fi.Name(), fi.Size(), fi.Mode())
	}
	if fi.Mode().Perm()&0o077 != 0 {
		t.Fatalf("others may use it: %v", fi.Mode())
	}
	same, err := d.Stat(filepath.Join(dir, ".", "a"))
	ok(t, err)
	if same.Size() != fi.Size() || !same.ModTime().Equal(fi.ModTime()) {
		t.Fatal("a second look differs")
	}
	fi, err = d.Stat(dir)
	ok(t, err)
	if !fi.IsDir() || !fi.Mode().IsDir() || fi.Name() != filepath.Base(dir) {
		t.Fatalf("%s, %v", fi.Name(), fi.Mode())
	}
}

func testFree(t *testing.T, d disk.FS, dir string) {
	free, total, err := d.Free(dir)
	ok(t, err)
	if free < 0 || total <= 0 || free > total {
		t.Fatalf("%d free of %d", free, total)
	}
	_, _, err = d.Free(filepath.Join(dir, "none"))
	fails(t, err, iofs.ErrNotExist, "none")
}
