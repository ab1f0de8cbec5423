package fs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

func TestFindDeleted(t *testing.T) {
	k := newDesk(t, Options{NoIndex: true})
	k.mkdir(me, "/a")
	k.mkdir(me, "/a/b")
	k.write(me, "/a/b/old", "1")
	k.write(me, "/a/b/both", "1")
	first := k.cut(time.Minute)
	k.rm(k.program(), "/a")
	gone := k.cut(time.Minute)
	k.mkdir(me, "/a")
	k.mkdir(me, "/a/b")
	k.write(me, "/a/b/both", "2")
	second := k.cut(time.Minute)
	k.rm(k.program(), "/a/b/both")
	last := k.cut(time.Minute)
	for path, want := range map[string]Version{"/a/b/old": first, "/a/b/both": second, "/a": last, "/a/b": last, "/": last} {
		v, ino, err := k.FindDeleted(ctx, path)
		if err != nil || v != want {
			t.Errorf("%s was last in %v, %v; want %v", path, v, err, want)
			continue
		}
		s, err := k.At(ctx, v)
		k.must(err)
		if was, err := s.Resolve(ctx, path); err != nil || was != ino {
			t.Errorf("%s in %v is inode %d, %v; want %d", path, v, was, err, ino)
		}
	}
	for _, path := range []string{"/never", "/a/b/old/x", "/a/never/b"} {
		if v, _, err := k.FindDeleted(ctx, path); !errors.Is(err, ErrNotExist) {
			t.Errorf("%s: %v, %v", path, v, err)
		}
	}
	if got := k.changesOf(ChangeQuery{Path: "/a/b/old"}); !slices.Equal(got, []string{"deleted /a/b/old", "created /a/b/old"}) {
		t.Errorf("changes of a file that is gone: %q", got)
	}
	// Where versions are not kept, an older one has it.
	k.thin(second.Seq, gone.Seq)
	if v, _, err := k.FindDeleted(ctx, "/a/b/both"); err != nil || v != first {
		t.Errorf("thinned: %v, %v", v, err)
	}
}

// A directory that took several versions to delete comes back whole.
func TestDeletedSlowly(t *testing.T) {
	k := newDesk(t, Options{})
	k.mkdir(me, "/d")
	for i := range 10 {
		k.write(me, fmt.Sprintf("/d/%d", i), "text")
	}
	whole := k.cut(time.Minute)
	c := k.program()
	for i := range 10 {
		k.rm(c, fmt.Sprintf("/d/%d", i))
		k.cut(100 * time.Millisecond)
	}
	k.rm(c, "/d")
	k.cut(time.Minute)
	if v, _, err := k.FindDeleted(ctx, "/d"); err != nil || v != whole {
		t.Errorf("last in %v, %v; want %v", v, err, whole)
	}
	if got := k.list("/", "deleted/d"); len(got) != 10 {
		t.Errorf("deleted/d: %q", got)
	}
	k.must(k.Deleted(ctx, RootIno, 0, func(e DeletedEntry) bool {
		if e.Name != "d" || e.Version != whole || e.Type != ModeDir {
			t.Errorf("%+v", e)
		}
		return true
	}))
	_, err := k.Undelete(ctx, "/d", false)
	k.must(err)
	n := 0
	k.must(k.ReadDir(ctx, k.ino("/d"), "", func(DirEntry) bool { n++; return true }))
	if n != 10 {
		t.Errorf("%d files are back", n)
	}
	if got := k.deletedIn("/"); len(got) != 0 {
		t.Errorf("deleted: %q", got)
	}
}

func TestDeletedLeavesOut(t *testing.T) {
	k := newDesk(t, Options{})
	for _, name := range []string{"/moved", "/renamed", "/again", "/gone", "/.gone.swp"} {
		k.write(me, name, "x")
	}
	k.mkdir(me, "/d")
	k.cut(time.Minute)
	k.mv(me, "/moved", "/d/moved", 0)
	k.mv(me, "/renamed", "/other", 0)
	for _, name := range []string{"/again", "/gone", "/.gone.swp"} {
		k.rm(k.program(), name)
	}
	k.cut(time.Minute)
	k.write(me, "/again", "y")
	k.cut(time.Minute)
	if got := k.deletedIn("/"); !slices.Equal(got, []string{"gone"}) {
		t.Errorf("deleted: %q", got)
	}
}

// A document's history goes on where the saves in between are not kept.
func TestVersionsAfterThinning(t *testing.T) {
	for name, save := range editors {
		for _, noIndex := range []bool{false, true} {
			k := newDesk(t, Options{NoIndex: noIndex})
			k.write(k.program(), "/f.txt", "0")
			k.cut(time.Minute)
			var gone []uint64
			want := []string{}
			for i := range 40 {
				save(k, k.program(), "/f.txt", fmt.Sprint(i))
				if v := k.cut(time.Minute); i%10 == 7 {
					want = append([]string{fmt.Sprint(i)}, want...)
				} else {
					gone = append(gone, v.Seq)
				}
			}
			k.write(k.program(), "/unrelated", "")
			k.cut(time.Minute)
			k.thin(append(gone, 2)...)
			t.Run(fmt.Sprintf("%s, index %v", name, !noIndex), func(t *testing.T) {
				k.wantVersions("/f.txt", append([]string{"39"}, want...)...)
			})
		}
	}
}

func TestFeedFollows(t *testing.T) {
	k := newDesk(t, Options{NoIndex: true})
	k.write(me, "/a", "x")
	since := k.cut(time.Minute)
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	got := make(chan FeedEntry)
	done := make(chan error, 1)
	go func() {
		done <- k.Feed(limited, since, true, func(e FeedEntry) error {
			select {
			case got <- e:
				return nil
			case <-limited.Done():
				return limited.Err()
			}
		})
	}()
	next := func(op, path string) {
		t.Helper()
		select {
		case e := <-got:
			if e.Op != op || e.Path != path {
				t.Errorf("got %+v, want %s %s", e, op, path)
			}
		case <-limited.Done():
			t.Fatalf("no %s %s", op, path)
		}
	}
	k.write(me, "/b", "x")
	k.cut(time.Minute)
	next(OpAdded, "/b")
	k.must(k.Tag(ctx, "/", "tagged"))
	editors["glib"](k, me, "/a", "longer")
	k.mv(me, "/b", "/c", 0)
	k.cut(time.Minute)
	next(OpChanged, "/a")
	next(OpMoved, "/c")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("following ended with %v", err)
	}
	if err := k.Feed(ctx, Version{0, 999}, false, nil); !errors.Is(err, ErrNoVersion) {
		t.Errorf("from the future: %v", err)
	}
}
