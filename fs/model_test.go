package fs

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

// model is a plain picture of a drive: what a drive must look like after the
// same operations.
type model struct{ root *mnode }

type mnode struct {
	mode     uint32
	data     []byte
	target   string
	xattrs   map[string]string
	children map[string]*mnode // of a directory
}

func newModel() *model {
	return &model{&mnode{mode: ModeDir | 0o755, children: map[string]*mnode{}}}
}

// dump renders a state as one line per path, so that states compare as text.
func (m *model) dump() string {
	ids := map[*mnode]int{}
	var lines []string
	var walk func(path string, n *mnode)
	walk = func(path string, n *mnode) {
		id, ok := ids[n]
		if !ok {
			id = len(ids)
			ids[n] = id
		}
		lines = append(lines, line(path, id, n.mode, n.data, n.target, n.xattrs))
		for _, name := range slices.Sorted(maps.Keys(n.children)) {
			walk(path+"/"+name, n.children[name])
		}
	}
	walk("", m.root)
	return strings.Join(lines, "\n")
}

func line(path string, id int, mode uint32, data []byte, target string, xattrs map[string]string) string {
	return fmt.Sprintf("%s #%d %o %d:%x %q %v", path, id, mode, len(data), sum(data), target, xattrs)
}

// sum is FNV-1a: contents are compared by it to keep states short.
func sum(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

// reader is what a drive and a snapshot have in common.
type reader interface {
	Getattr(c ctxType, ino Ino) (Attr, error)
	ReadDir(c ctxType, dir Ino, after string, fn func(DirEntry) bool) error
	Readlink(c ctxType, ino Ino) (string, error)
	Getxattr(c ctxType, ino Ino, name string) ([]byte, error)
	Listxattr(c ctxType, ino Ino) ([]string, error)
}

// dump renders a drive or a version of it as model.dump does.
func dump(r reader, read func(ino Ino, size uint64) ([]byte, error)) (string, error) {
	ids := map[Ino]int{}
	var lines []string
	var walk func(path string, ino Ino) error
	walk = func(path string, ino Ino) error {
		id, ok := ids[ino]
		if !ok {
			id = len(ids)
			ids[ino] = id
		}
		a, err := r.Getattr(ctx, ino)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		var data []byte
		var target string
		switch {
		case a.IsRegular():
			if data, err = read(ino, a.Size); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		case a.Mode&ModeType == ModeSymlink:
			if target, err = r.Readlink(ctx, ino); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
		var xattrs map[string]string
		names, err := r.Listxattr(ctx, ino)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for _, name := range names {
			v, err := r.Getxattr(ctx, ino, name)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			if xattrs == nil {
				xattrs = map[string]string{}
			}
			xattrs[name] = fmt.Sprint(len(v), ":", sum(v))
		}
		lines = append(lines, line(path, id, a.Mode, data, target, xattrs))
		if !a.IsDir() {
			return nil
		}
		var list []DirEntry
		if err := r.ReadDir(ctx, ino, "", func(e DirEntry) bool { list = append(list, e); return true }); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		subdirs := uint32(0)
		for _, e := range list {
			if e.Type == ModeDir {
				subdirs++
			}
			if err := walk(path+"/"+e.Name, e.Ino); err != nil {
				return err
			}
		}
		if a.Nlink != 2+subdirs {
			return fmt.Errorf("%s: link count %d with %d subdirectories", path, a.Nlink, subdirs)
		}
		return nil
	}
	if err := walk("", RootIno); err != nil {
		return "", err
	}
	return strings.Join(lines, "\n"), nil
}

func dumpDrive(d *Drive) (string, error) {
	return dump(d, func(ino Ino, size uint64) ([]byte, error) {
		f, err := d.Open(ctx, me, ino, false)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		b := make([]byte, size)
		if size == 0 {
			return b, nil
		}
		n, err := f.ReadAt(ctx, b, 0)
		return b[:n], err
	})
}

func dumpSnapshot(s *Snapshot) (string, error) {
	return dump(s, func(ino Ino, size uint64) ([]byte, error) {
		b := make([]byte, size)
		if size == 0 {
			return b, nil
		}
		n, err := s.ReadAt(ctx, ino, b, 0)
		return b[:n], err
	})
}

// pick returns a random directory of the model with its path.
func (m *model) pick(r *rand.Rand) (*mnode, []string) {
	n, path := m.root, []string(nil)
	for r.IntN(3) > 0 {
		var dirs []string
		for _, name := range slices.Sorted(maps.Keys(n.children)) {
			if n.children[name].children != nil {
				dirs = append(dirs, name)
			}
		}
		if len(dirs) == 0 {
			break
		}
		name := dirs[r.IntN(len(dirs))]
		n, path = n.children[name], append(path, name)
	}
	return n, path
}

func randomName(r *rand.Rand) string { return string(rune('a' + r.IntN(8))) }

// linked reports whether n is dir or holds it.
func (n *mnode) holds(dir *mnode) bool {
	if n == dir {
		return true
	}
	for _, c := range n.children {
		if c.holds(dir) {
			return true
		}
	}
	return false
}

// step does one random operation to the drive and, if the drive says it
// worked, to the model. Errors that the operation deserves are expected, and
// checked; the error returned is any other.
func (m *model) step(d *Drive, r *rand.Rand) error {
	dir, path := m.pick(r)
	parent, err := d.Resolve(ctx, "/"+strings.Join(path, "/"))
	if err != nil {
		return fmt.Errorf("resolving %v: %w", path, err)
	}
	name := randomName(r)
	old := dir.children[name]
	expect := func(err error, want error) error {
		if want == nil || isAny(err, want) {
			return err
		}
		return fmt.Errorf("got %v, want %v", err, want)
	}
	switch op := r.IntN(20); {
	case op < 3:
		_, err := d.Mkdir(ctx, me, parent, name, 0o755)
		if old != nil {
			return known(expect(err, ErrExist), ErrExist)
		}
		if err == nil {
			dir.children[name] = &mnode{mode: ModeDir | 0o755, children: map[string]*mnode{}}
		}
		return err
	case op < 9:
		return m.write(d, r, dir, parent, name)
	case op < 11:
		if old == nil {
			return known(expect(d.Unlink(ctx, me, parent, name), ErrNotExist), ErrNotExist)
		}
		if old.children != nil {
			err := d.Rmdir(ctx, me, parent, name)
			if len(old.children) > 0 {
				return known(expect(err, ErrNotEmpty), ErrNotEmpty)
			}
			if err == nil {
				delete(dir.children, name)
			}
			return err
		}
		err := d.Unlink(ctx, me, parent, name)
		if err == nil {
			delete(dir.children, name)
		}
		return err
	case op < 14:
		return m.rename(d, r, dir, parent, name)
	case op < 15:
		to, toPath := m.pick(r)
		toName := randomName(r)
		if old == nil || old.children != nil || to.children[toName] != nil {
			return nil
		}
		a, err := d.Lookup(ctx, parent, name)
		if err != nil {
			return err
		}
		toIno, err := d.Resolve(ctx, "/"+strings.Join(toPath, "/"))
		if err != nil {
			return err
		}
		if _, err := d.Link(ctx, me, a.Ino, toIno, toName); err != nil {
			return err
		}
		to.children[toName] = old
		return nil
	case op < 16:
		if old != nil {
			return nil
		}
		target := strings.Repeat("x", 1+r.IntN([]int{100, MaxSymlink}[r.IntN(2)]))
		if _, err := d.Symlink(ctx, me, parent, name, target); err != nil {
			return err
		}
		dir.children[name] = &mnode{mode: ModeSymlink | 0o777, target: target}
		return nil
	case op < 18:
		if old == nil || old.target != "" {
			return nil
		}
		a, err := d.Lookup(ctx, parent, name)
		if err != nil {
			return err
		}
		mode := uint32(0o600 + r.IntN(0o100))
		if _, err := d.Setattr(ctx, me, a.Ino, SetAttr{Mode: &mode}); err != nil {
			return err
		}
		old.mode = old.mode&ModeType | mode
		return nil
	default:
		if old == nil {
			return nil
		}
		a, err := d.Lookup(ctx, parent, name)
		if err != nil {
			return err
		}
		value := random(r.IntN(1+[]int{10, 5000}[r.IntN(2)]), r.Uint64())
		if err := d.Setxattr(ctx, me, a.Ino, "user.x", value, 0); err != nil {
			return err
		}
		if old.xattrs == nil {
			old.xattrs = map[string]string{}
		}
		old.xattrs["user.x"] = fmt.Sprint(len(value), ":", sum(value))
		return nil
	}
}

// write creates, overwrites, extends, truncates or clones a file.
func (m *model) write(d *Drive, r *rand.Rand, dir *mnode, parent Ino, name string) error {
	n := dir.children[name]
	if n != nil && (n.children != nil || n.target != "") {
		return nil
	}
	var f *File
	var err error
	if n == nil {
		if f, _, err = d.Create(ctx, me, parent, name, 0o644); err != nil {
			return err
		}
		n = &mnode{mode: ModeRegular | 0o644}
		dir.children[name] = n
	} else {
		a, err := d.Lookup(ctx, parent, name)
		if err != nil {
			return err
		}
		if f, err = d.Open(ctx, me, a.Ino, false); err != nil {
			return err
		}
	}
	defer f.Close()
	size := 1 + r.IntN([]int{10, 5000, 100_000, 400_000}[r.IntN(4)])
	off := r.IntN(len(n.data) + 1)
	if r.IntN(8) == 0 {
		off += r.IntN(100_000) // a hole
	}
	switch r.IntN(6) {
	case 0: // resize
		to := uint64(r.IntN(len(n.data) + 10_000))
		if _, err := d.Setattr(ctx, me, f.Ino(), SetAttr{Size: &to}); err != nil {
			return err
		}
		n.data = resized(n.data, int(to))
		return nil
	case 1: // punch
		const punch = 3 // FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
		if err := f.Fallocate(ctx, punch, int64(off), int64(size)); err != nil {
			return err
		}
		clear(n.data[min(off, len(n.data)):min(off+size, len(n.data))])
		return nil
	}
	p := random(size, r.Uint64())
	if _, err := f.WriteAt(ctx, p, int64(off)); err != nil {
		return err
	}
	n.data = resized(n.data, max(len(n.data), off+size))
	copy(n.data[off:], p)
	return nil
}

func resized(b []byte, n int) []byte {
	if n <= len(b) {
		return b[:n]
	}
	return append(b, make([]byte, n-len(b))...)
}

func (m *model) rename(d *Drive, r *rand.Rand, dir *mnode, parent Ino, name string) error {
	old := dir.children[name]
	if old == nil {
		return nil
	}
	to, toPath := m.pick(r)
	toName := randomName(r)
	victim := to.children[toName]
	toIno, err := d.Resolve(ctx, "/"+strings.Join(toPath, "/"))
	if err != nil {
		return err
	}
	if victim != nil && r.IntN(4) == 0 {
		err := d.Rename(ctx, me, parent, name, toIno, toName, RenameExchange)
		if old.holds(to) && dir != to || victim.holds(dir) && dir != to {
			return known(err, ErrInvalid)
		}
		if err == nil {
			dir.children[name], to.children[toName] = victim, old
		}
		return err
	}
	err = d.Rename(ctx, me, parent, name, toIno, toName, 0)
	switch {
	case old.holds(to):
		return known(err, ErrInvalid)
	case victim == old:
		return err
	case victim != nil && (victim.children != nil) != (old.children != nil):
		return known(known(err, ErrIsDir), ErrNotDir)
	case victim != nil && len(victim.children) > 0:
		return known(err, ErrNotEmpty)
	}
	if err == nil {
		delete(dir.children, name)
		to.children[toName] = old
	}
	return err
}

// drop forgets every snapshot, as if all had been pushed out by others.
func (c *snapshotCache) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.order.Init()
	clear(c.m)
}
