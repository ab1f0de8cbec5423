package fs

import (
	"container/list"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"

	"hearth/fs/tree"
	"hearth/log"
)

// Snapshot is the drive as a version left it: read-only, and unchanging for
// as long as the version is kept.
type Snapshot struct {
	d *Drive
	v *view
	// Version is what it shows.
	Version Version
	c       *commit
	index   uint64 // of the commit
	locals  localCache
}

// version finds a commit of this device's log by its sequence number.
func (d *Drive) version(seq uint64) (version, error) {
	d.mu.RLock()
	head := d.head
	if head.commit != nil && seq == head.seq {
		d.mu.RUnlock()
		return head, nil
	}
	b, err := d.live().get(versionKey(Version{d.writer, seq}))
	d.mu.RUnlock()
	if err != nil {
		return version{}, err
	}
	if b == nil {
		return version{}, fmt.Errorf("version %d: %w", seq, ErrNoVersion)
	}
	rec, err := decodeVersionRecord(b)
	if err != nil {
		return version{}, err
	}
	c, err := d.readCommit(log.Ref{Writer: d.writer, Index: rec.index})
	if err != nil {
		return version{}, fmt.Errorf("version %d: %w", seq, err)
	}
	if c.seq != seq {
		return version{}, fmt.Errorf("version %d: its block holds version %d: %w", seq, c.seq, ErrDamaged)
	}
	return version{c, rec.index}, nil
}

// At returns the drive as version v left it.
func (d *Drive) At(_ context.Context, v Version) (*Snapshot, error) {
	if v.Writer != d.writer {
		return nil, fmt.Errorf("version %v: no such writer: %w", v, ErrNoVersion)
	}
	if s := d.leased(v); s != nil {
		return s, nil
	}
	c, err := d.version(v.Seq)
	if err != nil {
		return nil, err
	}
	s := d.snapshotOf(c)
	d.snapshots.put(s)
	return s, nil
}

func (d *Drive) snapshotOf(c version) *Snapshot {
	return &Snapshot{
		d: d, c: c.commit, index: c.index, Version: Version{d.writer, c.seq},
		v: &view{[]*layer{layerOf(c.buffer)}, tree.New(&d.pages, d.cache, c.root)},
	}
}

// snapshotCache keeps the snapshots used last.
type snapshotCache struct {
	mu    sync.Mutex
	order list.List
	m     map[Version]*list.Element
}

const snapshotsKept = 64

func (c *snapshotCache) get(v Version) *Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.m[v]
	if e == nil {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*Snapshot)
}

func (c *snapshotCache) put(s *Snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[Version]*list.Element{}
	}
	if c.m[s.Version] != nil {
		return
	}
	c.m[s.Version] = c.order.PushFront(s)
	if c.order.Len() > snapshotsKept {
		old := c.order.Remove(c.order.Back()).(*Snapshot)
		delete(c.m, old.Version)
	}
}

// remove forgets the snapshot of a version.
func (c *snapshotCache) remove(v Version) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.m[v]; e != nil {
		c.order.Remove(e)
		delete(c.m, v)
	}
}

// Time returns when the version was made.
func (s *Snapshot) Time() Time { return TimeOf(unixNano(s.c.time)) }

// Lookup finds a name in a directory.
func (s *Snapshot) Lookup(_ context.Context, parent Ino, name string) (Attr, error) {
	e, err := s.v.lookup(parent, name)
	if err != nil {
		return Attr{}, err
	}
	return s.attr(e.ino)
}

// Getattr returns an inode's attributes.
func (s *Snapshot) Getattr(_ context.Context, ino Ino) (Attr, error) { return s.attr(ino) }

func (s *Snapshot) attr(ino Ino) (Attr, error) {
	n, err := s.v.inode(ino)
	if err != nil {
		return Attr{}, err
	}
	a := n.attr(ino)
	if s.d.followed && n.isRegular() && n.size > 0 {
		used, err := s.localBytes(ino, n.size)
		if err != nil {
			return a, err
		}
		a.Blocks = max((used+511)/512, 1)
		return a, nil
	}
	if n.sparse {
		var used uint64
		if err := s.v.extents(ino, 0, n.size, func(e extent) bool { used += e.length; return true }); err != nil {
			return a, err
		}
		a.Blocks = max((used+511)/512, min(n.size, 1))
	}
	return a, nil
}

// ReadDir is as Drive.ReadDir.
func (s *Snapshot) ReadDir(_ context.Context, dir Ino, after string, fn func(DirEntry) bool) error {
	return s.v.entries(dir, after, fn)
}

// ReadDirPlus is as Drive.ReadDirPlus.
func (s *Snapshot) ReadDirPlus(_ context.Context, dir Ino, after string, known func(Ino) bool, fn func(DirEntry, Attr) bool) error {
	return s.v.entriesPlus(dir, after, known, s.attr, fn)
}

// Readlink returns a symbolic link's target.
func (s *Snapshot) Readlink(_ context.Context, ino Ino) (string, error) {
	n, err := s.v.inode(ino)
	if err != nil {
		return "", err
	}
	if n.mode&ModeType != ModeSymlink {
		return "", ErrInvalid
	}
	return n.target, nil
}

// Getxattr returns an extended attribute's value.
func (s *Snapshot) Getxattr(_ context.Context, ino Ino, name string) ([]byte, error) {
	rec, err := s.v.xattr(ino, name)
	if err != nil {
		return nil, err
	}
	value, err := s.d.xattrValue(rec)
	return value, notKept(err)
}

// Listxattr returns the names of an inode's extended attributes, sorted.
func (s *Snapshot) Listxattr(_ context.Context, ino Ino) ([]string, error) {
	var out []string
	err := s.v.xattrs(ino, func(name string, _ []byte) error { out = append(out, name); return nil })
	return out, err
}

// ReadAt reads a regular file as File.ReadAt does.
func (s *Snapshot) ReadAt(_ context.Context, ino Ino, p []byte, off int64) (int, error) {
	n, err := s.v.inode(ino)
	if err != nil {
		return 0, err
	}
	if !n.isRegular() {
		return 0, ErrInvalid
	}
	if off < 0 || uint64(off) >= n.size {
		return 0, io.EOF
	}
	p = p[:min(uint64(len(p)), n.size-uint64(off))]
	exts, err := collect(s.v, ino, uint64(off), uint64(len(p)))
	if err != nil {
		return 0, err
	}
	if err := s.d.readExtents(exts, p, uint64(off)); err != nil {
		return 0, fmt.Errorf("inode %d of version %v at %d: %w", ino, s.Version, off, notKept(err))
	}
	return len(p), nil
}

// Resolve finds an inode by its path from the drive's root. Symbolic links are
// not followed.
func (s *Snapshot) Resolve(_ context.Context, path string) (Ino, error) { return s.v.resolve(path) }

// Path returns a path of an inode.
func (s *Snapshot) Path(_ context.Context, ino Ino) (string, error) { return s.v.path(ino) }

// Resolve finds an inode by its path from the drive's root. Symbolic links are
// not followed.
func (d *Drive) Resolve(_ context.Context, path string) (Ino, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.live().resolve(path)
}

// Path returns a path of an inode.
func (d *Drive) Path(_ context.Context, ino Ino) (string, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.live().path(ino)
}

func (v *view) resolve(path string) (Ino, error) {
	ino := RootIno
	for _, name := range strings.Split(path, "/") {
		if name == "" || name == "." {
			continue
		}
		e, err := v.lookup(ino, name)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		ino = e.ino
	}
	return ino, nil
}
