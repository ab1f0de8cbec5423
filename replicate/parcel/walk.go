package parcel

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// source is where a top-level entry of the sender is. Its folder is opened
// again by path for each part of the tree, and must be the same one.
type source struct {
	path string
	name string
	st   unix.Stat_t
}

// tree is what a sender walked.
type tree struct {
	m       *manifest
	tops    []source
	skipped []Skipped
}

// dirs opens the folders of the tree.
func (t *tree) dirs() *dirs {
	return &dirs{m: t.m, base: func(i uint32) (int, string) { return unix.AT_FDCWD, t.tops[i].path }, check: t.same}
}

// walk makes the manifest of paths. A path that cannot be found is an error;
// what is below the paths and cannot be sent is skipped.
func walk(ctx context.Context, paths []string) (*tree, error) {
	t := &tree{m: &manifest{}}
	if err := t.top(paths); err != nil {
		return nil, err
	}
	slices.SortFunc(t.tops, func(a, b source) int { return strings.Compare(a.name, b.name) })
	for i := range t.tops {
		if err := t.add(&t.tops[i].st, 0, t.tops[i].name, ""); err != nil {
			return nil, err
		}
	}
	d := t.dirs()
	defer d.close()
	for i := 0; i < len(t.m.entries); i++ {
		if t.m.entries[i].kind != kindDir {
			continue
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err := t.list(d, uint32(i)); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// top finds the top-level entries and gives them names of their own.
func (t *tree) top(paths []string) error {
	taken := map[string]bool{}
	for _, p := range paths {
		abs, err := filepath.Abs(p)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		st, err := statAt(unix.AT_FDCWD, abs)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		name := filepath.Base(abs)
		switch {
		case isKind(&st, unix.S_IFLNK):
			t.skip(p, SkippedLink)
			continue
		case !isKind(&st, unix.S_IFREG) && !isKind(&st, unix.S_IFDIR):
			t.skip(p, SkippedSpecial)
			continue
		case checkName(name) != nil || strings.HasPrefix(name, partialPrefix):
			t.skip(p, SkippedName)
			continue
		}
		for n := 1; ; n++ {
			if free := freeName(name, n, isKind(&st, unix.S_IFDIR)); !taken[free] {
				name = free
				break
			}
		}
		taken[name] = true
		t.tops = append(t.tops, source{abs, name, st})
	}
	return nil
}

func (t *tree) skip(path string, why Reason) { t.skipped = append(t.skipped, Skipped{path, why}) }

// source is the path of an entry at the sender.
func (t *tree) source(i uint32) string {
	e := &t.m.entries[i]
	if e.parent == 0 {
		return t.tops[i].path
	}
	return t.source(e.parent-1) + "/" + e.name
}

func (t *tree) add(st *unix.Stat_t, parent uint32, name, target string) error {
	v := metaOf(st)
	e := entry{name: name, sec: v.sec, nsec: v.nsec, parent: parent, mode: v.mode}
	switch uint32(st.Mode) & unix.S_IFMT {
	case unix.S_IFDIR:
		e.kind = kindDir
	case unix.S_IFLNK:
		e.kind = kindLink
	default:
		e.size = v.size
	}
	if err := t.m.add(e, target); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// list adds what is in the folder of entry i.
func (t *tree) list(d *dirs, i uint32) error {
	here := t.source(i)
	fd, err := d.open(i + 1)
	var names []string
	if err == nil {
		names, err = readNames(fd, here)
	}
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		return fmt.Errorf("%s: %w", here, err)
	}
	if err != nil {
		// The folder itself is sent, as it was when it was seen.
		t.skip(here, SkippedUnreadable)
		return nil
	}
	depth := int(t.m.entries[i].depth)
	slices.Sort(names)
	for _, name := range names {
		path := here + "/" + name
		st, err := statAt(fd, name)
		switch {
		case errors.Is(err, unix.ENOENT): // gone since it was listed
			continue
		case err != nil:
			t.skip(path, SkippedUnreadable)
			continue
		case depth >= MaxDepth:
			t.skip(path, SkippedDepth)
			continue
		}
		target := ""
		switch uint32(st.Mode) & unix.S_IFMT {
		case unix.S_IFREG, unix.S_IFDIR:
		case unix.S_IFLNK:
			target, err = readLink(fd, name)
			if err == nil {
				err = checkTarget(target, depth-1)
			}
			if err != nil {
				t.skip(path, SkippedLink)
				continue
			}
		default:
			t.skip(path, SkippedSpecial)
			continue
		}
		if checkName(name) != nil {
			t.skip(path, SkippedName)
			continue
		}
		if err := t.add(&st, i+1, name, target); err != nil {
			return fmt.Errorf("%s: %w", here, err)
		}
	}
	return nil
}

// same checks that a top-level folder is the one that was named.
func (t *tree) same(i uint32, fd int) error {
	st, err := statFD(fd)
	if err == nil && (st.Ino != t.tops[i].st.Ino || st.Dev != t.tops[i].st.Dev) {
		err = unix.ESTALE
	}
	return err
}

func readLink(dir int, name string) (string, error) {
	buf := make([]byte, MaxTarget+1)
	n, err := retry(func() (int, error) { return unix.Readlinkat(dir, name, buf) })
	return string(buf[:max(n, 0)]), err
}
