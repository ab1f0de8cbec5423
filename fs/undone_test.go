package fs

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// step is an undo or a redo at a path, or what comes of it.
type step struct {
	do   func(context ctxType, o UndoOptions) (Result, error)
	path string
	told string // what was undone or redone; "": there was nothing; "*": something
	want string // what /d/a, /d/b and /d/c hold then
}

func (k *desk) steps(steps []step) {
	k.t.Helper()
	for i, s := range steps {
		r, err := s.do(ctx, UndoOptions{Path: s.path})
		if s.told == "" && !errors.Is(err, ErrNothing) || s.told != "" && err != nil {
			k.t.Fatalf("step %d: %+v, %v", i, r, err)
		}
		if got := r.Change.What(); err == nil && s.told != "*" && got != s.told {
			k.t.Errorf("step %d: %q, want %q", i, got, s.told)
		}
		if got := k.read("/d/a") + k.read("/d/b") + k.read("/d/c"); got != s.want {
			k.t.Fatalf("step %d: %q, want %q", i, got, s.want)
		}
		k.clock.pass(time.Minute)
	}
}

// newTrio returns a desk with three files, each made by a change of its own,
// and then saved by one.
func newTrio(t *testing.T, o Options, save func(k *desk, c Caller, path, text string)) *desk {
	k := newDesk(t, o)
	k.mkdir(k.program(), "/d")
	for _, name := range []string{"a", "b", "c"} {
		k.write(k.program(), "/d/"+name, name+"0")
		k.cut(time.Minute)
	}
	c := k.program()
	for _, name := range []string{"a", "b", "c"} {
		save(k, c, "/d/"+name, name+"1")
	}
	k.cut(time.Minute)
	return k
}

// A change of which a part was undone is undone just there: undo of the folder
// takes back the rest of it, and redo goes the same way back.
func TestUndoOfTheRest(t *testing.T) {
	for name, save := range editors {
		for _, noIndex := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				k := newTrio(t, Options{NoIndex: noIndex}, save)
				told := func(paths string) string {
					switch name {
					case "emacs": // backups come and go, too
						return "*"
					case "in place":
						return "edited " + paths
					}
					return "saved " + paths
				}
				all := k.changesOf(ChangeQuery{Limit: 1})[0]
				// undone is whether the log of a path has the change as undone.
				undone := func(path string) (marked bool) {
					k.must(k.Changes(ctx, ChangeQuery{Path: path}, func(c Change) bool {
						marked = c.Undone
						return c.Verb == "undid" || c.Verb == "redid"
					}))
					return marked
				}
				marks := func(want ...bool) {
					t.Helper()
					for i, path := range []string{"", "/d", "/d/a", "/d/b"} {
						if got := undone(path); got != want[max(i-1, 0)] {
							t.Errorf("%q is marked undone: %v", path, got)
						}
					}
				}
				marks(false, false, false)
				k.steps([]step{{k.Undo, "/d/a", told("/d/a"), "a0b1c1"}})
				marks(false, true, false)
				k.steps([]step{{k.Undo, "/d", told("/d/b, /d/c"), "a0b0c0"}})
				marks(true, true, true)
				k.steps([]step{{k.Redo, "/d", told("/d/b, /d/c"), "a0b1c1"}})
				marks(false, true, false)
				k.steps([]step{
					{k.Redo, "/d", told("/d/a"), "a1b1c1"},
					{k.Redo, "/d", "", "a1b1c1"},
				})
				marks(false, false, false)
				// From the whole to the parts.
				k.steps([]step{
					{k.Undo, "", all, "a0b0c0"},
					{k.Redo, "/d/b", told("/d/b"), "a0b1c0"},
				})
				marks(false, true, false)
				k.steps([]step{
					{k.Undo, "", told("/d/b"), "a0b0c0"},
					{k.Redo, "", told("/d/b"), "a0b1c0"},
					{k.Redo, "", told("/d/a, /d/c"), "a1b1c1"},
					{k.Redo, "", "", "a1b1c1"},
					{k.Undo, "/d/c", told("/d/c"), "a1b1c0"},
					{k.Undo, "", told("/d/a, /d/b"), "a0b0c0"},
				})
				marks(true, true, true)
				// Then comes the change before.
				if _, err := k.Undo(ctx, UndoOptions{Path: "/d"}); err != nil {
					t.Fatal(err)
				}
				if _, err := k.Resolve(ctx, "/d/c"); !errors.Is(err, ErrNotExist) {
					t.Error(err)
				}
			})
		}
	}
}

// What was done to the part that was undone, since, goes before the rest.
func TestUndoOfTheRestAfterEdit(t *testing.T) {
	k := newTrio(t, Options{}, editors["glib"])
	k.steps([]step{{k.Undo, "/d/a", "saved /d/a", "a0b1c1"}})
	k.write(k.program(), "/d/a", "a9")
	k.cut(time.Minute)
	k.steps([]step{
		{k.Undo, "/d", "edited /d/a", "a0b1c1"},
		{k.Undo, "/d", "saved /d/b, /d/c", "a0b0c0"},
		{k.Redo, "/d", "saved /d/b, /d/c", "a0b1c1"},
		{k.Redo, "/d", "edited /d/a", "a9b1c1"},
		{k.Redo, "/d", "", "a9b1c1"},
	})
}

// A name that a change used in passing is no part of it that is left to undo,
// whatever has the name now.
func TestUndoPassesOverScratch(t *testing.T) {
	k := newDesk(t, Options{})
	k.write(k.program(), "/tmp", "mine")
	k.write(k.program(), "/f", "one")
	k.cut(time.Minute)
	k.rm(k.program(), "/tmp")
	k.cut(time.Minute)
	c := k.program()
	k.write(c, "/tmp", "two")
	k.cut(time.Second)
	k.mv(c, "/tmp", "/f", 0)
	k.cut(time.Minute)
	for range 2 {
		_, err := k.Undo(ctx, UndoOptions{})
		k.must(err)
	}
	if got := k.read("/f") + k.read("/tmp"); got != "onemine" {
		t.Fatal(got)
	}
	k.wantChanges(ChangeQuery{Limit: 4}, "undid /tmp", "undid /f", "saved /f [undone]", "deleted /tmp [undone]")
	_, err := k.Undo(ctx, UndoOptions{})
	k.must(err)
}

// A file that a change edited before it replaced it comes back as it was before
// the edit.
func TestUndoOfEditAndSave(t *testing.T) {
	k := newDesk(t, Options{})
	k.write(k.program(), "/f", "one")
	k.cut(time.Minute)
	c := k.program()
	k.write(c, "/f", "two")
	k.cut(time.Second)
	editors["glib"](k, c, "/f", "three")
	k.cut(time.Minute)
	r, err := k.Undo(ctx, UndoOptions{})
	k.must(err)
	if got := k.read("/f"); got != "one" {
		t.Errorf("%q after undo of %q", got, r.Change.What())
	}
	_, err = k.Undo(ctx, UndoOptions{})
	k.must(err)
	if _, err := k.Resolve(ctx, "/f"); !errors.Is(err, ErrNotExist) {
		t.Error(err)
	}
}

// Undo of a file that one change made and then saved leads to before both.
func TestUndoOfMadeAndSaved(t *testing.T) {
	k := newDesk(t, Options{})
	c := k.program()
	k.write(c, "/f", "one")
	k.cut(time.Second)
	editors["glib"](k, c, "/f", "two")
	k.cut(time.Minute)
	_, err := k.Undo(ctx, UndoOptions{Path: "/f"})
	k.must(err)
	if _, err := k.Resolve(ctx, "/f"); !errors.Is(err, ErrNotExist) {
		t.Error(err)
	}
}

// Wherever and in whatever order parts of changes are undone and redone, undo
// of the whole leads to the first state, and redo of the whole from there to
// the last.
func TestUndoModel(t *testing.T) {
	type undoing = func(ctxType, UndoOptions) (Result, error)
	rapid.Check(t, func(rt *rapid.T) {
		k := newDesk(t, Options{NoIndex: true})
		defer k.shut()
		state := func() string {
			s, err := dumpDrive(k.Drive)
			if err != nil {
				rt.Fatal(err)
			}
			return s
		}
		files := rapid.SampledFrom([]string{"/a", "/b", "/d/a", "/d/b", "/d/e/a", "/d/e/b"})
		first := state()
		k.mkdir(me, "/d")
		k.mkdir(me, "/d/e")
		k.cut(time.Minute)
		for range rapid.IntRange(1, 5).Draw(rt, "changes") {
			c := k.program()
			for _, path := range rapid.SliceOfNDistinct(files, 1, 5, rapid.ID).Draw(rt, "paths") {
				_, err := k.Resolve(ctx, path)
				text := rapid.StringMatching("[a-z]{0,4}").Draw(rt, "text")
				switch op := rapid.IntRange(0, 5).Draw(rt, "op"); {
				case err != nil || op < 2:
					k.write(c, path, text)
				case op == 2:
					k.rm(c, path)
				case op == 3:
					k.mv(c, path, path+"~", 0)
				case op == 4:
					_, err := k.Setattr(ctx, c, k.ino(path), SetAttr{Mode: ptr(uint32(rapid.IntRange(0, 0o777).Draw(rt, "mode")))})
					k.must(err)
				default:
					editors["glib"](k, c, path, text)
				}
			}
			k.cut(time.Minute)
		}
		last := state()
		for range rapid.IntRange(0, 6).Draw(rt, "parts") {
			path := rapid.SampledFrom([]string{"/a", "/b", "/d", "/d/a", "/d/e", "/d/e/a", ""}).Draw(rt, "path")
			do := rapid.SampledFrom([]undoing{k.Undo, k.Undo, k.Redo}).Draw(rt, "do")
			// There may be nothing of that name, or nothing to have without
			// the rest.
			_, err := do(ctx, UndoOptions{Path: path})
			if err != nil && !errors.Is(err, ErrNothing) && !errors.Is(err, ErrConflict) && !isNotExist(err) {
				rt.Fatal(err)
			}
			k.clock.pass(time.Minute)
		}
		for _, way := range []struct {
			do   undoing
			want string
		}{{k.Undo, first}, {k.Redo, last}} {
			var err error
			for err == nil {
				_, err = way.do(ctx, UndoOptions{})
			}
			if !errors.Is(err, ErrNothing) {
				rt.Fatal(err)
			}
			if got := state(); got != way.want {
				rt.Fatalf("%s\nwant\n%s", got, way.want)
			}
		}
	})
}
