package fs

import (
	"errors"
	"slices"
	"testing"
	"time"
)

// An exact restore takes a file that was renamed since back to its name; one
// that has a place outside keeps that, and the old name gets a copy.
func TestRestoreExactMovesBack(t *testing.T) {
	k := newDesk(t, Options{})
	k.mkdir(me, "/d")
	k.mkdir(me, "/d/sub")
	k.write(k.program(), "/d/a", "one")
	k.write(k.program(), "/d/b", "two")
	k.write(k.program(), "/d/c", "three")
	was := k.cut(time.Minute)
	a, b, c := k.ino("/d/a"), k.ino("/d/b"), k.ino("/d/c")
	k.mv(me, "/d/a", "/d/sub/moved", 0)
	k.mv(me, "/d/b", "/out", 0)
	k.mv(me, "/d/c", "/d/a", 0)
	k.write(k.program(), "/d/sub/moved", "changed")
	k.cut(time.Minute)
	_, err := k.Restore(ctx, RestoreOptions{Path: "/d", At: was, Exact: true})
	k.must(err)
	if k.ino("/d/a") != a || k.ino("/d/c") != c || k.ino("/out") != b || k.ino("/d/b") == b {
		t.Error("files did not move back, or one left its place outside")
	}
	k.wantVersions("/d/a", "one", "changed", "one")
	k.wantVersions("/out", "two")
}

// What was brought back is there: bringing it back again does nothing.
func TestRestoreTwice(t *testing.T) {
	k := newDesk(t, Options{})
	k.write(k.program(), "/f", "one")
	was := k.cut(time.Minute)
	k.write(k.program(), "/f", "two")
	k.cut(time.Minute)
	for i, want := range []int{1, 0} {
		r, err := k.Restore(ctx, RestoreOptions{Path: "/", At: was})
		if want == 0 && errors.Is(err, ErrNothing) {
			continue
		}
		k.must(err)
		if len(r.Entries) != want {
			t.Errorf("restore %d changed %v", i, r.Entries)
		}
	}
}

// A pattern also finds what went with its directory.
func TestUndeletePatternInDeletedDirectory(t *testing.T) {
	k := newDesk(t, Options{})
	k.mkdir(me, "/d")
	for _, name := range []string{"a.txt", "b.txt", "c.jpg"} {
		k.write(me, "/d/"+name, name)
	}
	k.cut(time.Minute)
	k.rm(k.program(), "/d")
	k.cut(time.Minute)
	_, err := k.Undelete(ctx, "/d/*.txt", false)
	k.must(err)
	var got []string
	k.must(k.ReadDir(ctx, k.ino("/d"), "", func(e DirEntry) bool { got = append(got, e.Name); return true }))
	if !slices.Equal(got, []string{"a.txt", "b.txt"}) {
		t.Errorf("undeleted %q", got)
	}
	if _, err := k.Undelete(ctx, "/d/*.png", false); !isNotExist(err) {
		t.Errorf("undeleting what never was: %v", err)
	}
}
