package fs

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestDiff(t *testing.T) {
	k := newDesk(t, Options{})
	k.mkdir(me, "/d")
	k.mkdir(me, "/d/sub")
	for _, p := range []string{"/a", "/b", "/c", "/d/e", "/d/sub/f", "/g", "/h"} {
		k.write(me, p, "text of "+p)
	}
	a := k.cut(time.Minute)
	k.write(me, "/a", "changed")
	k.rm(me, "/b")
	k.mv(me, "/c", "/d/c", 0)
	k.mv(me, "/d/sub", "/sub", 0)
	k.write(me, "/d/new", "")
	k.chmod("/g", 0o600)
	editors["emacs"](k, me, "/h", "saved")
	k.ln(me, "/g", "/g2")
	b := k.cut(time.Minute)
	for _, q := range []struct {
		path string
		a, b Version
		want []string
	}{
		{"/", a, b, []string{"changed /a", "deleted /b", "moved /d/c from /c", "added /d/new", "attributes /g", "added /g2", "changed /h", "added /h~", "moved /sub from /d/sub"}},
		{"/d", a, b, []string{"moved /d/c from /c", "added /d/new", "moved /sub from /d/sub"}},
		{"/h", a, b, []string{"changed /h", "added /h~"}},
		{"/sub/f", a, b, []string{}},
		{"/", b, a, []string{"changed /a", "added /b", "moved /c from /d/c", "deleted /d/new", "moved /d/sub from /sub", "attributes /g", "deleted /g2", "changed /h", "deleted /h~"}},
		{"/", a, a, []string{}},
	} {
		if got := k.diff(q.path, q.a, q.b); !slices.Equal(got, q.want) {
			t.Errorf("%s %v to %v:\n got %q\nwant %q", q.path, q.a, q.b, got, q.want)
		}
	}
	if err := k.Diff(ctx, "/nowhere", a, b, nil); !errors.Is(err, ErrNotExist) {
		t.Errorf("diff of nothing: %v", err)
	}
	if err := k.Diff(ctx, "/", a, Version{0, 999}, nil); !errors.Is(err, ErrNoVersion) {
		t.Errorf("diff to no version: %v", err)
	}
}

// chaos does random things to a small tree.
type chaos struct {
	*desk
	dirs []Ino
}

func (k *chaos) entry(rt *rapid.T) (Ino, string) {
	dir := k.dirs[rapid.IntRange(0, len(k.dirs)-1).Draw(rt, "dir")]
	return dir, rapid.SampledFrom([]string{"a", "b", "c", "c~"}).Draw(rt, "name")
}

func (k *chaos) step(rt *rapid.T, c Caller) {
	dir, name := k.entry(rt)
	var err error
	switch rapid.IntRange(0, 11).Draw(rt, "op") {
	case 0, 1, 2:
		var f *File
		var a Attr
		if a, err = k.Lookup(ctx, dir, name); err == nil && a.IsRegular() {
			f, err = k.Open(ctx, c, a.Ino, rapid.Bool().Draw(rt, "trunc"))
		} else if err != nil {
			f, _, err = k.Create(ctx, c, dir, name, 0o644)
		}
		if err == nil && f != nil {
			if n := rapid.IntRange(0, 20).Draw(rt, "size"); n > 0 {
				_, err = f.WriteAt(ctx, random(n, uint64(n)), 0)
			}
			if rapid.Bool().Draw(rt, "close") {
				f.Close()
			} else {
				f.wrote.Store(false)
				f.Close()
			}
		}
	case 3:
		var a Attr
		if a, err = k.Mkdir(ctx, c, dir, name, 0o755); err == nil {
			k.dirs = append(k.dirs, a.Ino)
		}
	case 4, 5:
		if err = k.Unlink(ctx, c, dir, name); errors.Is(err, ErrIsDir) {
			err = k.Rmdir(ctx, c, dir, name)
		}
	case 6, 7, 8:
		to, as := k.entry(rt)
		flags := rapid.SampledFrom([]uint32{0, 0, 0, RenameExchange}).Draw(rt, "flags")
		err = k.Rename(ctx, c, dir, name, to, as, flags)
	case 9:
		var a Attr
		if a, err = k.Lookup(ctx, dir, name); err == nil && !a.IsDir() {
			to, as := k.entry(rt)
			_, err = k.Link(ctx, c, a.Ino, to, as)
		}
	case 10:
		var a Attr
		if a, err = k.Lookup(ctx, dir, name); err == nil {
			_, err = k.Setattr(ctx, c, a.Ino, SetAttr{Mode: ptr(uint32(rapid.IntRange(0, 0o777).Draw(rt, "mode")))})
		}
	case 11:
		var a Attr
		if a, err = k.Lookup(ctx, dir, name); err == nil {
			err = k.Setxattr(ctx, c, a.Ino, "user.x", []byte{byte(rapid.IntRange(0, 3).Draw(rt, "x"))}, 0)
		}
	}
	for _, expected := range []error{ErrNotExist, ErrExist, ErrNotEmpty, ErrIsDir, ErrNotDir, ErrInvalid, ErrPerm} {
		if errors.Is(err, expected) {
			err = nil
		}
	}
	if err != nil {
		rt.Fatal(err)
	}
}

// diffModel is a state as lists: names and inodes.
type diffModel struct {
	names  map[nameOf]Ino
	inodes map[Ino]*inode
	paths  map[string]nameOf
}

func (k *chaos) diffModel(rt *rapid.T, v Version) diffModel {
	s, err := k.At(ctx, v)
	if err != nil {
		rt.Fatal(err)
	}
	m := diffModel{map[nameOf]Ino{}, map[Ino]*inode{}, map[string]nameOf{}}
	var walk func(dir Ino, path string)
	walk = func(dir Ino, path string) {
		err := s.v.entries(dir, "", func(e DirEntry) bool {
			at := nameOf{dir, e.Name}
			m.names[at] = e.Ino
			m.paths[path+"/"+e.Name] = at
			n, err := s.v.inode(e.Ino)
			if err != nil {
				rt.Fatal(err)
			}
			m.inodes[e.Ino] = n
			if e.Type == ModeDir {
				walk(e.Ino, path+"/"+e.Name)
			}
			return true
		})
		if err != nil {
			rt.Fatal(err)
		}
	}
	walk(RootIno, "")
	return m
}

// check applies a diff to the old names and compares with the new ones, and
// looks for each inode that differs.
func (a diffModel) check(rt *rapid.T, b diffModel, list []DiffEntry) {
	have := map[nameOf]Ino{}
	for at, ino := range a.names {
		have[at] = ino
	}
	told := map[Ino]bool{}
	for _, e := range list { // what goes, goes first
		switch e.Op {
		case OpDeleted:
			delete(have, a.paths[e.Path])
		case OpMoved:
			delete(have, a.paths[e.OldPath])
		}
	}
	for _, e := range list {
		at, ok := b.paths[e.Path]
		if !ok && e.Op != OpDeleted {
			rt.Fatalf("%+v: no such path", e)
		}
		switch e.Op {
		case OpAdded, OpMoved:
			have[at] = e.Ino
		case OpChanged:
			have[at] = e.Ino
			told[e.Ino] = true
			if n := b.inodes[e.Ino]; n == nil || n.size != e.SizeAfter {
				rt.Fatalf("%+v: it is %+v", e, n)
			}
		case OpAttributes:
			told[e.Ino] = true
		}
	}
	for at, ino := range b.names {
		if have[at] != ino {
			rt.Fatalf("%v leads to %d and not %d\n%+v", at, ino, have[at], list)
		}
	}
	for at, ino := range have {
		if b.names[at] != ino {
			rt.Fatalf("%v leads to %d, not %d\n%+v", at, b.names[at], ino, list)
		}
	}
	for ino, n := range a.inodes {
		m := b.inodes[ino]
		if m == nil || told[ino] || ino == RootIno {
			continue
		}
		if n.isRegular() && n.content != m.content || n.mode != m.mode {
			rt.Fatalf("nothing is said of inode %d: %+v, now %+v\n%+v", ino, n, m, list)
		}
	}
}

func TestDiffModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		k := &chaos{desk: newDesk(t, Options{NoIndex: true}), dirs: []Ino{RootIno}}
		defer k.shut()
		programs := []Caller{k.program(), k.program()}
		versions := []Version{k.Newest()}
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			k.step(rt, rapid.SampledFrom(programs).Draw(rt, "program"))
			if rapid.IntRange(0, 3).Draw(rt, "cut") == 0 {
				versions = append(versions, k.cut(time.Duration(rapid.IntRange(1, 5000).Draw(rt, "pause"))*time.Millisecond))
			}
		}
		versions = append(versions, k.cut(0))
		for range 5 {
			v := rapid.SampledFrom(versions).Draw(rt, "a")
			w := rapid.SampledFrom(versions).Draw(rt, "b")
			var list []DiffEntry
			if err := k.Diff(ctx, "/", v, w, func(e DiffEntry) error { list = append(list, e); return nil }); err != nil {
				rt.Fatal(err)
			}
			k.diffModel(rt, v).check(rt, k.diffModel(rt, w), list)
		}
		// Whoever applies the feed from any version on has the newest tree.
		since := rapid.SampledFrom(versions).Draw(rt, "since")
		feedModel(rt, k, since)
		var gone []uint64
		for seq := uint64(1); seq < k.Newest().Seq; seq++ {
			if rapid.Bool().Draw(rt, "thin") {
				gone = append(gone, seq)
			}
		}
		k.thin(gone...)
		feedModel(rt, k, since)
	})
}

func feedModel(rt *rapid.T, k *chaos, since Version) {
	var feed [][]FeedEntry
	err := k.Feed(ctx, since, false, func(e FeedEntry) error {
		if n := len(feed) - 1; n >= 0 && feed[n][0].Version == e.Version {
			feed[n] = append(feed[n], e)
		} else {
			feed = append(feed, []FeedEntry{e})
		}
		return nil
	})
	if err != nil {
		rt.Fatal(err)
	}
	at, err := k.kept().atOrBefore(since.Seq)
	if err != nil {
		rt.Fatal(err)
	}
	have := diffModel{map[nameOf]Ino{}, map[Ino]*inode{}, map[string]nameOf{}}
	if at != 0 {
		have = k.diffModel(rt, Version{0, at})
	}
	for _, group := range feed {
		next := k.diffModel(rt, group[0].Version)
		var list []DiffEntry
		for _, e := range group {
			list = append(list, DiffEntry{Op: e.Op, Path: e.Path, OldPath: e.OldPath, Ino: e.Ino, Type: e.Type, SizeAfter: e.Size})
		}
		have.check(rt, next, list)
		have = next
	}
	have.check(rt, k.diffModel(rt, k.Newest()), nil)
}

// What a dry run foretells is what happens.
func TestForesee(t *testing.T) {
	k := newDesk(t, Options{})
	k.mkdir(me, "/d")
	k.write(me, "/d/a", "one")
	k.write(me, "/d/b", "two")
	k.cut(time.Minute)
	c := k.program()
	k.rm(c, "/d")
	k.write(c, "/new", "x")
	k.cut(time.Minute)
	want, err := k.Undo(ctx, UndoOptions{DryRun: true})
	k.must(err)
	got, err := k.Undo(ctx, UndoOptions{})
	k.must(err)
	if len(got.Entries) != 4 || !slices.Equal(want.Entries, got.Entries) {
		t.Errorf("foretold %+v\ngot %+v", want.Entries, got.Entries)
	}
}

// What was deleted and brought back is what it was.
func TestBroughtBackIsNotChanged(t *testing.T) {
	k := newDesk(t, Options{})
	k.write(k.program(), "/f", "one")
	k.mkdir(k.program(), "/d")
	k.write(k.program(), "/d/g", "two")
	before := k.cut(time.Minute)
	c := k.program()
	k.rm(c, "/f")
	k.rm(c, "/d/g")
	k.cut(time.Minute)
	_, err := k.Undo(ctx, UndoOptions{})
	k.must(err)
	if got := k.diff("/", before, k.Newest()); len(got) > 0 {
		t.Errorf("%q", got)
	}
	k.write(k.program(), "/f", "1ne")
	if got, want := k.diff("/", before, k.cut(time.Minute)), "changed /f"; len(got) != 1 || !strings.HasPrefix(got[0], want) {
		t.Errorf("%q, want %q", got, want)
	}
}
