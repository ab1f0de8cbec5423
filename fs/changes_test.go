package fs

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// editors are the ways in which programs save a document.
var editors = map[string]func(k *desk, c Caller, path, text string){
	"in place": func(k *desk, c Caller, path, text string) { k.write(c, path, text) },
	// vim with 'backup' unset and 'writebackup': a swap file beside it, a write
	// test, the old file renamed away and unlinked at the end.
	"vim": func(k *desk, c Caller, path, text string) {
		dir, name := path[:strings.LastIndexByte(path, '/')+1], path[strings.LastIndexByte(path, '/')+1:]
		k.write(c, dir+"."+name+".swp", "swap")
		k.write(c, dir+"4913", "")
		k.rm(c, dir+"4913")
		k.mv(c, path, path+"~", 0)
		k.write(c, path, text)
		k.rm(c, path+"~")
		k.rm(c, dir+"."+name+".swp")
	},
	// emacs: the old file becomes the backup, which stays.
	"emacs": func(k *desk, c Caller, path, text string) {
		k.mv(c, path, path+"~", 0)
		k.write(c, path, text)
	},
	// GLib, LibreOffice and most others: a temporary file renamed over it.
	"glib": func(k *desk, c Caller, path, text string) {
		tmp := path[:strings.LastIndexByte(path, '/')+1] + ".goutputstream-X"
		k.write(c, tmp, text)
		k.mv(c, tmp, path, 0)
	},
	"exchange": func(k *desk, c Caller, path, text string) {
		tmp := path + ".new"
		k.write(c, tmp, text)
		k.mv(c, tmp, path, RenameExchange)
		k.rm(c, tmp)
	},
}

func TestSavesAreVersions(t *testing.T) {
	for name, save := range editors {
		for _, noIndex := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, index %v", name, !noIndex), func(t *testing.T) {
				k := newDesk(t, Options{NoIndex: noIndex})
				k.mkdir(k.program(), "/d")
				k.cut(time.Minute)
				k.write(k.program(), "/d/report.txt", "one")
				k.cut(time.Minute)
				c := k.program()
				for _, text := range []string{"two", "three!", "four"} {
					save(k, c, "/d/report.txt", text)
					k.cut(time.Minute)
				}
				k.wantVersions("/d/report.txt", "four", "three!", "two", "one")
				verb := "saved"
				if name == "in place" {
					verb = "edited"
				}
				want := []string{verb + " /d/report.txt", verb + " /d/report.txt", verb + " /d/report.txt", "created /d/report.txt"}
				k.wantChanges(ChangeQuery{Path: "/d/report.txt"}, want...)
				k.wantChanges(ChangeQuery{}, append(want, "created /d")...)
				k.wantChanges(ChangeQuery{Path: "/d", Limit: 2}, want[:2]...)
				if got := k.deletedIn("/d"); len(got) != 0 {
					t.Errorf("deleted: %q", got)
				}
				// The document goes on after it was moved and deleted.
				k.mv(k.program(), "/d/report.txt", "/d/final.txt", 0)
				k.cut(time.Minute)
				k.wantVersions("/d/final.txt", "four", "three!", "two", "one")
				k.wantChanges(ChangeQuery{Path: "/d/final.txt", Limit: 2}, "renamed /d/report.txt to /d/final.txt", verb+" /d/report.txt")
				k.rm(k.program(), "/d/final.txt")
				k.cut(time.Minute)
				k.wantVersions("/d/final.txt", "four", "three!", "two", "one")
				if got := k.deletedIn("/d"); !slices.Equal(got, []string{"final.txt"}) {
					t.Errorf("deleted: %q", got)
				}
				k.wantChanges(ChangeQuery{Path: "/d/final.txt", Limit: 1}, "deleted /d/final.txt")
			})
		}
	}
}

// A save that is cut in two by a version in between is still one.
func TestSaveAcrossVersions(t *testing.T) {
	for _, noIndex := range []bool{false, true} {
		k := newDesk(t, Options{NoIndex: noIndex})
		k.write(k.program(), "/report", "one")
		k.cut(time.Minute)
		c := k.program()
		k.write(c, "/.tmp", "two")
		k.cut(time.Second)
		k.mv(c, "/.tmp", "/report", 0)
		k.cut(time.Minute)
		k.wantVersions("/report", "two", "one")
		k.wantChanges(ChangeQuery{}, "saved /report", "created /report")
	}
}

func TestUnrelatedFilesAreNotJoined(t *testing.T) {
	for name, do := range map[string]func(k *desk){
		"logrotate": func(k *desk) {
			c := k.program()
			k.mv(c, "/log", "/log.1", 0)
			k.write(c, "/log", "fresh")
		},
		"mv old, mv new": func(k *desk) {
			k.write(k.program(), "/new", "fresh")
			k.cut(time.Minute)
			k.mv(k.program(), "/log", "/old", 0)
			k.cut(time.Minute)
			k.mv(k.program(), "/new", "/log", 0)
		},
		"mv over it": func(k *desk) {
			k.write(k.program(), "/new", "fresh")
			k.cut(time.Minute)
			k.mv(k.program(), "/new", "/log", 0)
		},
		"rm, later another": func(k *desk) {
			k.rm(k.program(), "/log")
			k.cut(time.Minute)
			k.write(k.program(), "/log", "fresh")
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := newDesk(t, Options{})
			k.write(k.program(), "/log", "old 1")
			k.cut(time.Minute)
			k.write(k.program(), "/log", "old 2")
			k.cut(time.Minute)
			do(k)
			k.cut(time.Minute)
			k.wantVersions("/log", "fresh")
		})
	}
}

func TestVersionsPeopleMean(t *testing.T) {
	for _, noIndex := range []bool{false, true} {
		k := newDesk(t, Options{NoIndex: noIndex})
		f, _, err := k.Create(ctx, k.program(), RootIno, "db", 0o644)
		k.must(err)
		write := func(text string, pause time.Duration) {
			_, err := f.WriteAt(ctx, []byte(text), 0)
			k.must(err)
			k.cut(pause)
		}
		write("a1", time.Second)
		write("a2", time.Second)
		write("a3", time.Minute) // stands for a while
		write("b1", time.Second)
		write("b2", time.Second)
		f.Flush() // nothing is left to mark: b2 is in a version already
		_, err = f.WriteAt(ctx, []byte("c1"), 0)
		k.must(err)
		f.Close()
		k.cut(time.Second)
		k.write(k.program(), "/db", "d1")
		k.cut(time.Second)
		k.wantVersions("/db", "d1", "c1", "a3")
	}
}

func TestChangesInWords(t *testing.T) {
	k := newDesk(t, Options{})
	do := func(want string, f func(c Caller)) {
		t.Helper()
		f(k.program())
		k.cut(time.Minute)
		got := k.changesOf(ChangeQuery{Limit: 1})
		if len(got) != 1 || got[0] != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	tree := func(c Caller, dir string, n int) {
		k.mkdir(c, dir)
		k.mkdir(c, dir+"/sub")
		for i := range n {
			k.write(c, fmt.Sprintf("%s/sub/%d", dir, i), "text")
		}
	}
	do("created /src (12 files)", func(c Caller) { tree(c, "/src", 12) })
	do("edited 5 files in /src/sub/", func(c Caller) {
		for i := range 5 {
			k.write(c, fmt.Sprintf("/src/sub/%d", i), "more text")
		}
	})
	do("edited /src/sub/1, /src/sub/2", func(c Caller) {
		k.write(c, "/src/sub/1", "x")
		k.write(c, "/src/sub/2", "x")
	})
	do("renamed /src to /source", func(c Caller) { k.mv(c, "/src", "/source", 0) })
	do("moved /source/sub/3 to /three", func(c Caller) { k.mv(c, "/source/sub/3", "/three", 0) })
	do("changed the attributes of /three", func(Caller) { k.chmod("/three", 0o600) })
	do("created /four", func(c Caller) { k.ln(c, "/three", "/four") })
	do("deleted /four", func(c Caller) { k.rm(c, "/four") })
	do("deleted /source (11 files)", func(c Caller) { k.rm(c, "/source") })
	do(`created "/a\tb"`, func(c Caller) { k.write(c, "/a\tb", "") })
}

// A change says by how much the document grew, whoever asks.
func TestSizeDelta(t *testing.T) {
	for name, save := range editors {
		k := newDesk(t, Options{})
		c := k.program()
		for _, text := range []string{"1", "12345", "123"} {
			if text == "1" {
				k.write(c, "/f.txt", text)
			} else {
				save(k, c, "/f.txt", text)
			}
			k.cut(time.Minute)
		}
		for _, path := range []string{"/", "/f.txt"} {
			var got []int64
			k.must(k.Changes(ctx, ChangeQuery{Path: path}, func(c Change) bool { got = append(got, c.SizeDelta); return true }))
			want := []int64{-2, 4, 1}
			if name == "emacs" && path == "/" { // the backup stays
				want = []int64{2, 5, 1}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s, %s: %d, want %d", name, path, got, want)
			}
		}
	}
}

func TestTemporaryFilesAreNoChange(t *testing.T) {
	k := newDesk(t, Options{})
	k.write(k.program(), "/keep", "x")
	k.cut(time.Minute)
	c := k.program()
	k.write(c, "/tmp1", "x")
	k.rm(c, "/tmp1")
	k.cut(time.Minute)
	c = k.program()
	k.write(c, "/tmp2", "x")
	k.cut(time.Second)
	k.rm(c, "/tmp2")
	k.cut(time.Minute)
	k.wantChanges(ChangeQuery{}, "created /keep")
}

func TestParallelProgramsAreTwoChanges(t *testing.T) {
	k := newDesk(t, Options{})
	k.write(k.program(), "/letter", "one")
	k.cut(time.Minute)
	tar, vim := k.program(), k.program()
	k.mkdir(tar, "/src")
	k.write(tar, "/src/a", "a")
	editors["vim"](k, vim, "/letter", "two")
	k.write(tar, "/src/b", "b")
	k.cut(time.Second)
	k.write(tar, "/src/c", "c")
	k.cut(time.Minute)
	k.wantChanges(ChangeQuery{}, "created /src (3 files)", "saved /letter", "created /letter")
}

// A change goes on while others begin and end: they are listed by their ends,
// as many as are asked for, and undo takes the one on top, whole.
func TestOverlappingChanges(t *testing.T) {
	k := newDesk(t, Options{})
	long, short, third := k.program(), k.program(), k.program()
	k.mkdir(long, "/d")
	k.write(long, "/d/a", "a")
	k.cut(time.Second)
	k.write(short, "/s", "s")
	k.cut(time.Second)
	k.write(long, "/d/b", "b")
	k.cut(time.Second)
	k.write(third, "/t", "t")
	k.cut(time.Minute)
	k.wantChanges(ChangeQuery{}, "created /t", "created /d (2 files)", "created /s")
	k.wantChanges(ChangeQuery{Limit: 1}, "created /t")
	k.wantChanges(ChangeQuery{Limit: 2}, "created /t", "created /d (2 files)")
	for _, want := range []string{"created /t", "created /d (2 files)", "created /s"} {
		r, err := k.Undo(ctx, UndoOptions{})
		k.must(err)
		if got := r.Change.What(); got != want {
			t.Errorf("undid %q, want %q", got, want)
		}
	}
	if _, err := k.Undo(ctx, UndoOptions{}); !errors.Is(err, ErrNothing) {
		t.Errorf("one more: %v", err)
	}
	for _, want := range []string{"created /s", "created /d (2 files)", "created /t"} {
		r, err := k.Redo(ctx, UndoOptions{})
		k.must(err)
		if got := r.Change.What(); got != want {
			t.Errorf("redid %q, want %q", got, want)
		}
	}
}

func TestChangeQueries(t *testing.T) {
	for _, path := range []string{"", "/f"} {
		k := newDesk(t, Options{})
		var at []Version
		for i := range 6 {
			k.write(k.program(), "/f", strings.Repeat("x", i+1))
			at = append(at, k.cut(time.Minute))
		}
		var got []uint64
		k.must(k.Changes(ctx, ChangeQuery{Path: path, Since: at[1], Before: at[4]}, func(c Change) bool {
			got = append(got, c.Last.Seq)
			if c.SizeDelta != 1 || c.Files != 1 {
				t.Errorf("%+v", c)
			}
			return true
		}))
		if want := []uint64{at[3].Seq, at[2].Seq}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		n := 0
		k.must(k.Changes(ctx, ChangeQuery{Path: path}, func(Change) bool { n++; return n < 3 }))
		if n != 3 {
			t.Errorf("stopped after %d", n)
		}
	}
}

func TestUndoneIsMarked(t *testing.T) {
	for _, path := range []string{"", "/f"} {
		for _, noIndex := range []bool{false, true} {
			k := newDesk(t, Options{NoIndex: noIndex})
			k.write(k.program(), "/f", "one")
			k.cut(time.Minute)
			k.write(k.program(), "/f", "two")
			k.cut(time.Minute)
			r, err := k.Undo(ctx, UndoOptions{})
			k.must(err)
			if got := r.Change.What(); got != "edited /f" {
				t.Errorf("undid %q", got)
			}
			k.clock.pass(time.Minute)
			k.wantChanges(ChangeQuery{Path: path}, "undid /f", "edited /f [undone]", "created /f")
			_, err = k.Redo(ctx, UndoOptions{})
			k.must(err)
			k.clock.pass(time.Minute)
			k.wantChanges(ChangeQuery{Path: path}, "redid /f", "undid /f [undone]", "edited /f", "created /f")
			k.wantVersions("/f", "two", "one", "two", "one")
		}
	}
}

func TestFormatChange(t *testing.T) {
	c := Change{
		Last: Version{0, 1234}, Time: time.Date(2026, 11, 22, 11, 4, 5, 9, time.FixedZone("", 3600)),
		Verb: "edited", Paths: []string{"/a b/x\ny"}, Files: 1, SizeDelta: 1300, Program: "vim", Undone: true,
	}
	want := `@1234    2026-11-22 10:04:05Z   +1.3 KiB  edited "/a b/x\ny"  (vim)  [undone]`
	if got := FormatChange(c); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
