package crashfs

import (
	iofs "io/fs"
	"path"
	"slices"
	"strings"
	"syscall"

	"hearth/log/disk"
)

// dirOp is a change of entries that is not durable. A rename has two entries
// that become durable together, as journaling file systems have it.
type dirOp struct {
	entries []entry
}

// entry says that name in dir is n, or nothing.
type entry struct {
	dir  *inode
	name string
	n    *inode
}

func (e entry) apply(names map[string]*inode) {
	if e.n == nil {
		delete(names, e.name)
	} else {
		names[e.name] = e.n
	}
}

// link makes entries so, in the page cache, and returns the operation that
// would make them durable.
func (c *FS) link(entries ...entry) *dirOp {
	for _, e := range entries {
		if e.n != nil {
			e.n.names++ // before any release: a rename keeps the file alive
		}
	}
	for _, e := range entries {
		old := e.dir.kids.current[e.name]
		e.apply(e.dir.kids.current)
		e.dir.mtime = c.now()
		if old != nil {
			old.names--
			c.release(old)
		}
	}
	return &dirOp{entries: entries}
}

// settle makes an operation durable. Older pending changes of the same names
// are overtaken.
func (c *FS) settle(op *dirOp) {
	for _, e := range op.entries {
		e.apply(e.dir.kids.durable)
	}
	overtaken := func(e entry) bool {
		return slices.ContainsFunc(op.entries, func(s entry) bool { return s.dir == e.dir && s.name == e.name })
	}
	c.pending = slices.DeleteFunc(c.pending, func(p *dirOp) bool {
		p.entries = slices.DeleteFunc(p.entries, overtaken)
		return len(p.entries) == 0
	})
}

// Create implements disk.FS.
func (c *FS) Create(name string) (disk.File, error) {
	var h *handle
	err := c.do(Op{Kind: OpCreate, Path: name}, func(int64) error {
		dir, base, err := c.parent(name)
		if err != nil {
			return err
		}
		if dir.kids.current[base] != nil {
			return syscall.EEXIST
		}
		n := c.newFile()
		n.handles++
		c.pending = append(c.pending, c.link(entry{dir, base, n}))
		h = &handle{c: c, n: n, path: name}
		return nil
	}, nil)
	return c.opened(h, err)
}

// opened drops the handle of an open that is to fail though it happened.
func (c *FS) opened(h *handle, err error) (disk.File, error) {
	if err == nil {
		return h, nil
	}
	if h != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		h.n.handles--
		c.release(h.n)
	}
	return nil, err
}

// Open implements disk.FS.
func (c *FS) Open(name string) (disk.File, error) { return c.open(OpOpen, name) }

// OpenRead implements disk.FS.
func (c *FS) OpenRead(name string) (disk.File, error) { return c.open(OpOpenRead, name) }

func (c *FS) open(k Kind, name string) (disk.File, error) {
	var h *handle
	err := c.do(Op{Kind: k, Path: name}, func(int64) error {
		n, err := c.findFile(name)
		if err != nil {
			return err
		}
		n.handles++
		h = &handle{c: c, n: n, path: name, readOnly: k == OpOpenRead}
		return nil
	}, nil)
	return c.opened(h, err)
}

// ReadFile implements disk.FS.
func (c *FS) ReadFile(name string) (data []byte, err error) {
	err = c.do(Op{Kind: OpReadFile, Path: name}, func(int64) error {
		n, err := c.findFile(name)
		if err != nil {
			return err
		}
		data = make([]byte, n.cur.size)
		n.cur.read(data, 0)
		return nil
	}, nil)
	if err != nil {
		return nil, err
	}
	return data, nil
}

// WriteFile implements disk.FS. It makes durable the one name it wrote, not
// the other entries of the directory. One that fails though it happened is
// seen at once and may yet be lost.
func (c *FS) WriteFile(name string, data []byte) error {
	return c.do(Op{Kind: OpWriteFile, Path: name, Len: int64(len(data))}, func(int64) error {
		dir, base, err := c.parent(name)
		if err != nil {
			return err
		}
		if old := dir.kids.current[base]; old != nil && old.isDir() {
			return syscall.EISDIR
		}
		n := c.newFile()
		if c.room(n.cur, 0, int64(len(data))) < int64(len(data)) {
			return syscall.ENOSPC
		}
		c.change(n, func(f *content) { f.write(data, 0) })
		n.dur = n.cur.clone()
		op := c.link(entry{dir, base, n})
		if c.failing {
			c.pending = append(c.pending, op)
		} else {
			c.settle(op)
		}
		return nil
	}, nil)
}

// Rename implements disk.FS.
func (c *FS) Rename(oldname, newname string) error {
	return c.do(Op{Kind: OpRename, Path: oldname, To: newname}, func(int64) error {
		from, oldBase, err := c.parent(oldname)
		if err != nil {
			return err
		}
		n := from.kids.current[oldBase]
		if n == nil {
			return syscall.ENOENT
		}
		to, newBase, err := c.parent(newname)
		if err != nil {
			return err
		}
		old := to.kids.current[newBase]
		switch {
		case old == n:
			return nil
		case n.isDir() && strings.HasPrefix(path.Join(split(newname)...)+"/", path.Join(split(oldname)...)+"/"):
			return syscall.EINVAL
		case old != nil && old.isDir():
			return syscall.EEXIST // as os.Rename has it, empty or not
		case old != nil && n.isDir():
			return syscall.ENOTDIR
		}
		c.pending = append(c.pending, c.link(entry{to, newBase, n}, entry{from, oldBase, nil}))
		return nil
	}, nil)
}

// Remove implements disk.FS.
func (c *FS) Remove(name string) error {
	return c.do(Op{Kind: OpRemove, Path: name}, func(int64) error {
		dir, base, err := c.parent(name)
		if err != nil {
			return err
		}
		n := dir.kids.current[base]
		switch {
		case n == nil:
			return syscall.ENOENT
		case n.isDir() && len(n.kids.current) > 0:
			return syscall.ENOTEMPTY
		}
		c.pending = append(c.pending, c.link(entry{dir, base, nil}))
		return nil
	}, nil)
}

// RemoveAll implements disk.FS. Each entry on the way is a removal of its own.
func (c *FS) RemoveAll(name string) error {
	return c.do(Op{Kind: OpRemoveAll, Path: name}, func(int64) error {
		dir, base, err := c.parent(name)
		if err == syscall.ENOENT {
			return nil
		}
		if err != nil {
			return err
		}
		if n := dir.kids.current[base]; n != nil {
			c.removeTree(dir, base, n)
		}
		return nil
	}, nil)
}

func (c *FS) removeTree(dir *inode, base string, n *inode) {
	if n.isDir() {
		for _, name := range sortedNames(n.kids.current) {
			c.removeTree(n, name, n.kids.current[name])
		}
	}
	c.pending = append(c.pending, c.link(entry{dir, base, nil}))
}

// MkdirAll implements disk.FS. Each new directory is durable after SyncDir of
// the one that holds it.
func (c *FS) MkdirAll(name string) error {
	return c.do(Op{Kind: OpMkdirAll, Path: name}, func(int64) error {
		n := c.root
		for _, elem := range split(name) {
			kid := n.kids.current[elem]
			if kid == nil {
				kid = c.newDir()
				c.pending = append(c.pending, c.link(entry{n, elem, kid}))
			}
			if !kid.isDir() {
				return syscall.ENOTDIR
			}
			n = kid
		}
		return nil
	}, nil)
}

// List implements disk.FS.
func (c *FS) List(dir string) (names []string, err error) {
	err = c.do(Op{Kind: OpList, Path: dir}, func(int64) error {
		n, err := c.findDir(dir)
		if err != nil {
			return err
		}
		names = sortedNames(n.kids.current)
		return nil
	}, nil)
	if err != nil {
		return nil, err
	}
	return names, nil
}

// Stat implements disk.FS. The Sys of the result is a *syscall.Stat_t with
// Ino, Size and Blocks.
func (c *FS) Stat(name string) (fi iofs.FileInfo, err error) {
	err = c.do(Op{Kind: OpStat, Path: name}, func(int64) error {
		n, err := c.find(name)
		if err != nil {
			return err
		}
		fi = newInfo(path.Base("/"+path.Join(split(name)...)), n)
		return nil
	}, nil)
	if err != nil {
		return nil, err
	}
	return fi, nil
}

// SyncDir implements disk.FS.
func (c *FS) SyncDir(dir string) error {
	return c.do(Op{Kind: OpSyncDir, Path: dir}, func(int64) error {
		n, err := c.findDir(dir)
		if err != nil {
			return err
		}
		c.syncDir(n)
		return nil
	}, nil)
}

func (c *FS) syncDir(n *inode) {
	var due []*dirOp
	for _, op := range c.pending {
		if slices.ContainsFunc(op.entries, func(e entry) bool { return e.dir == n }) {
			due = append(due, op)
		}
	}
	for _, op := range due {
		c.settle(op)
	}
}

// Free implements disk.FS.
func (c *FS) Free(dir string) (free, total int64, err error) {
	err = c.do(Op{Kind: OpFree, Path: dir}, func(int64) error {
		if _, err := c.find(dir); err != nil {
			return err
		}
		free, total = max(0, c.total-c.used)*BlockSize, c.total*BlockSize
		return nil
	}, nil)
	return free, total, err
}
