package fs

import (
	"errors"
	"testing"
	"time"
)

// read returns what a path holds now.
func (k *desk) read(path string) string {
	k.t.Helper()
	f, err := k.Open(ctx, me, k.ino(path), false)
	k.must(err)
	defer f.Close()
	a, err := k.Getattr(ctx, k.ino(path))
	k.must(err)
	p := make([]byte, a.Size)
	if len(p) > 0 {
		_, err = f.ReadAt(ctx, p, 0)
		k.must(err)
	}
	return string(p)
}

// Undo and redo go back and forth through what was done to a file, one change
// at a time, however it was saved.
func TestUndoBackAndForth(t *testing.T) {
	for name, save := range editors {
		t.Run(name, func(t *testing.T) {
			k := newDesk(t, Options{})
			k.write(k.program(), "/f", "v1")
			k.cut(time.Minute)
			for _, text := range []string{"v2", "v3"} {
				save(k, k.program(), "/f", text)
				k.cut(time.Minute)
			}
			for i, step := range []struct {
				do   func() (Result, error)
				want string
			}{
				{func() (Result, error) { return k.Undo(ctx, UndoOptions{Path: "/f"}) }, "v2"},
				{func() (Result, error) { return k.Redo(ctx, UndoOptions{Path: "/f"}) }, "v3"},
				{func() (Result, error) { return k.Undo(ctx, UndoOptions{Path: "/f"}) }, "v2"},
				{func() (Result, error) { return k.Undo(ctx, UndoOptions{Path: "/f"}) }, "v1"},
			} {
				if _, err := step.do(); err != nil {
					t.Fatalf("step %d: %v", i, err)
				}
				if got := k.read("/f"); got != step.want {
					t.Fatalf("step %d: %q, want %q", i, got, step.want)
				}
				k.clock.pass(time.Minute)
			}
			// What was written by hand in between still stops it.
			k.write(k.program(), "/f", "v9")
			k.cut(time.Minute)
			if _, err := k.Undo(ctx, UndoOptions{Path: "/f"}); err != nil || k.read("/f") != "v1" {
				t.Fatalf("%q, %v", k.read("/f"), err)
			}
		})
	}
}

// An unlinked file that is still open gets its old contents back when undo
// gives it its name again, whatever was written into it meanwhile.
func TestUndoRevivesOpenFile(t *testing.T) {
	for _, size := range []int{10, 3 << 20} {
		k := newDesk(t, Options{})
		k.write(k.program(), "/f", "old contents")
		k.cut(time.Minute)
		f, err := k.Open(ctx, me, k.ino("/f"), false)
		k.must(err)
		defer f.Close()
		c := k.program()
		k.rm(c, "/f")
		_, err = f.WriteAt(ctx, random(size, 1), 0)
		k.must(err)
		k.cut(time.Minute)
		_, err = k.Undo(ctx, UndoOptions{})
		k.must(err)
		for range 2 {
			if got := k.read("/f"); got != "old contents" {
				t.Fatalf("%q after undo", got)
			}
			k.cut(time.Minute)
		}
		_, err = f.WriteAt(ctx, []byte("new"), 0)
		k.must(err)
		k.cut(time.Minute)
		if got := k.read("/f"); got != "new contents" {
			t.Fatalf("%q after writing on", got)
		}
		if _, err := k.Undo(ctx, UndoOptions{}); err != nil && !errors.Is(err, ErrConflict) {
			t.Fatal(err)
		}
	}
}

// A change that left no trace, such as the chmod of a file that was made in the
// same version, does not stand in the way of what came before.
func TestUndoPassesOverTracelessChanges(t *testing.T) {
	k := newDesk(t, Options{})
	k.write(k.program(), "/old", "1")
	k.cut(time.Minute)
	k.write(k.program(), "/new", "2")
	mode := uint32(0o600)
	if _, err := k.Setattr(ctx, k.program(), k.ino("/new"), SetAttr{Mode: &mode}); err != nil {
		t.Fatal(err)
	}
	k.cut(time.Minute)
	for _, gone := range []string{"/new", "/old"} {
		if _, err := k.Undo(ctx, UndoOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Resolve(ctx, gone); !errors.Is(err, ErrNotExist) {
			t.Fatalf("%s: %v", gone, err)
		}
	}
	if _, err := k.Undo(ctx, UndoOptions{}); !errors.Is(err, ErrNothing) {
		t.Fatal(err)
	}
	for _, back := range []string{"/old", "/new"} {
		if _, err := k.Redo(ctx, UndoOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Resolve(ctx, back); err != nil {
			t.Fatal(err)
		}
	}
}
