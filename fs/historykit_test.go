package fs

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// desk is a drive with programs that work on it: each has a session of its own.
type desk struct {
	*testDrive
	clock *testClock
	pids  uint32
}

func newDesk(t testing.TB, o Options) *desk {
	clock := newTestClock()
	o.Clock = clock.now
	if o.Delay == 0 {
		o.Delay = time.Hour
	}
	return &desk{testDrive: newTestDrive(t, o), clock: clock, pids: 1 << 30}
}

// program returns a caller that is no process, so it leads itself.
func (k *desk) program() Caller {
	k.pids++
	return Caller{Uid: me.Uid, Gid: me.Gid, Pid: k.pids}
}

func (k *desk) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

// cut makes a version of what was done, and lets time pass.
func (k *desk) cut(d time.Duration) Version {
	k.t.Helper()
	k.must(k.commit(ctx, false))
	k.clock.pass(d)
	return k.Newest()
}

func (k *desk) ino(path string) Ino {
	k.t.Helper()
	ino, err := k.Resolve(ctx, path)
	k.must(err)
	return ino
}

// at splits a path into its directory's inode and the name.
func (k *desk) at(path string) (Ino, string) {
	k.t.Helper()
	i := strings.LastIndexByte(path, '/')
	return k.ino(path[:i+1]), path[i+1:]
}

// write makes or rewrites a file in place.
func (k *desk) write(c Caller, path, text string) {
	k.t.Helper()
	dir, name := k.at(path)
	f, _, err := k.Create(ctx, c, dir, name, 0o644)
	if errors.Is(err, ErrExist) {
		f, err = k.Open(ctx, c, k.ino(path), true)
	}
	k.must(err)
	if text != "" {
		_, err = f.WriteAt(ctx, []byte(text), 0)
		k.must(err)
	}
	f.Close()
}

func (k *desk) mkdir(c Caller, path string) {
	k.t.Helper()
	dir, name := k.at(path)
	_, err := k.Mkdir(ctx, c, dir, name, 0o755)
	k.must(err)
}

func (k *desk) rm(c Caller, path string) {
	k.t.Helper()
	dir, name := k.at(path)
	err := k.Unlink(ctx, c, dir, name)
	if errors.Is(err, ErrIsDir) {
		var names []string
		ino := k.ino(path)
		k.must(k.ReadDir(ctx, ino, "", func(e DirEntry) bool { names = append(names, e.Name); return true }))
		for _, n := range names {
			k.rm(c, path+"/"+n)
		}
		err = k.Rmdir(ctx, c, dir, name)
	}
	k.must(err)
}

func (k *desk) mv(c Caller, from, to string, flags uint32) {
	k.t.Helper()
	a, x := k.at(from)
	b, y := k.at(to)
	k.must(k.Rename(ctx, c, a, x, b, y, flags))
}

func (k *desk) ln(c Caller, from, to string) {
	k.t.Helper()
	b, y := k.at(to)
	_, err := k.Link(ctx, c, k.ino(from), b, y)
	k.must(err)
}

func (k *desk) chmod(path string, mode uint32) {
	k.t.Helper()
	_, err := k.Setattr(ctx, me, k.ino(path), SetAttr{Mode: &mode})
	k.must(err)
}

func (k *desk) chown(path string, uid, gid uint32) {
	k.t.Helper()
	_, err := k.Setattr(ctx, me, k.ino(path), SetAttr{Uid: &uid, Gid: &gid})
	k.must(err)
}

// changesOf lists changes as "verb paths".
func (k *desk) changesOf(q ChangeQuery) []string {
	k.t.Helper()
	var out []string
	k.must(k.Changes(ctx, q, func(c Change) bool {
		line := c.What()
		if c.Undone {
			line += " [undone]"
		}
		out = append(out, line)
		return true
	}))
	return out
}

func (k *desk) wantChanges(q ChangeQuery, want ...string) {
	k.t.Helper()
	if got := k.changesOf(q); !slices.Equal(got, want) {
		k.t.Errorf("changes of %+v:\n  %s\nwant\n  %s", q, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// versionsOf lists the contents of a document's versions, newest first.
func (k *desk) versionsOf(path string) []string {
	k.t.Helper()
	out := []string{}
	k.must(k.FileVersions(ctx, path, 0, func(v FileVersion) bool {
		s, err := k.At(ctx, v.Version)
		k.must(err)
		p := make([]byte, v.Size)
		if v.Size > 0 {
			n, err := s.ReadAt(ctx, v.Ino, p, 0)
			if err != nil || n != len(p) {
				k.t.Fatalf("%s at %v: %d of %d bytes, %v", path, v.Version, n, len(p), err)
			}
		}
		if a, err := s.Getattr(ctx, v.Ino); err != nil || a.Size != v.Size {
			k.t.Fatalf("%s at %v: size %d, listed as %d, %v", path, v.Version, a.Size, v.Size, err)
		}
		out = append(out, string(p))
		return true
	}))
	return out
}

func (k *desk) wantVersions(path string, want ...string) {
	k.t.Helper()
	if got := k.versionsOf(path); !slices.Equal(got, want) {
		k.t.Errorf("versions of %s: %q, want %q", path, got, want)
	}
}

func (k *desk) deletedIn(path string) []string {
	k.t.Helper()
	out := []string{}
	k.must(k.Deleted(ctx, k.ino(path), 0, func(e DeletedEntry) bool { out = append(out, e.Name); return true }))
	return out
}

func (k *desk) diff(path string, a, b Version) []string {
	k.t.Helper()
	out := []string{}
	k.must(k.Diff(ctx, path, a, b, func(e DiffEntry) error {
		line := e.Op + " " + e.Path
		if e.OldPath != "" {
			line += " from " + e.OldPath
		}
		out = append(out, line)
		return nil
	}))
	return out
}

// everything prints what history says, to be compared.
func (k *desk) everything(paths ...string) string {
	k.t.Helper()
	var b bytes.Buffer
	k.must(k.Changes(ctx, ChangeQuery{}, func(c Change) bool { fmt.Fprintln(&b, FormatChange(c)); return true }))
	k.must(k.Feed(ctx, Version{}, false, func(e FeedEntry) error { fmt.Fprintf(&b, "%+v\n", e); return nil }))
	for _, p := range paths {
		fmt.Fprintln(&b, p)
		err := k.Changes(ctx, ChangeQuery{Path: p}, func(c Change) bool { fmt.Fprintln(&b, FormatChange(c), c.Uid, c.ID); return true })
		if err != nil && !isNotExist(err) {
			k.t.Fatal(err)
		}
		err = k.FileVersions(ctx, p, 0, func(v FileVersion) bool { fmt.Fprintf(&b, "%+v\n", v); return true })
		if err != nil && !isNotExist(err) && !errors.Is(err, ErrIsDir) {
			k.t.Fatal(err)
		}
	}
	return b.String()
}
