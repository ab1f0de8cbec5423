package fs

import (
	"context"
	"errors"
	"fmt"
)

// Rename flags, Linux's own.
const (
	RenameNoReplace = 1
	RenameExchange  = 2
	RenameWhiteout  = 4
)

func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("name %q: %w", name, ErrInvalid)
	case len(name) > MaxName:
		return fmt.Errorf("name of %d bytes: %w", len(name), ErrNameTooLong)
	case name == HistoryName:
		return fmt.Errorf("%s is reserved: %w", HistoryName, ErrExist)
	}
	for i := range len(name) {
		if name[i] == '/' || name[i] == 0 {
			return fmt.Errorf("name %q: %w", name, ErrInvalid)
		}
	}
	return nil
}

// HistoryName is the hidden directory that every directory of a drive has: no
// file can have this name.
const HistoryName = ".history"

// begin takes the lock for a change. It returns with mu held and no error, or
// without it and the reason.
func (d *Drive) begin() error {
	d.mu.Lock()
	if err := d.usable(); err != nil {
		d.mu.Unlock()
		return err
	}
	return nil
}

// cut makes a version of what is done so far, before something of it is
// overwritten. Without locks.
func (d *Drive) cut(ctx context.Context) error {
	d.commitMu.Lock()
	defer d.commitMu.Unlock()
	return d.commitLocked(false)
}

// Lookup finds a name in a directory.
func (d *Drive) Lookup(_ context.Context, parent Ino, name string) (Attr, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	e, err := d.viewOf(parent).lookup(parent, name)
	if err != nil {
		return Attr{}, err
	}
	return d.attr(e.ino)
}

// Getattr returns an inode's attributes.
func (d *Drive) Getattr(_ context.Context, ino Ino) (Attr, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.attr(ino)
}

// attr is Getattr under mu.
func (d *Drive) attr(ino Ino) (Attr, error) {
	v := d.viewOf(ino)
	n, err := v.inode(ino)
	if err != nil {
		return Attr{}, err
	}
	return d.attrOf(v, ino, n)
}

func (d *Drive) attrOf(v *view, ino Ino, n *inode) (Attr, error) {
	a := n.attr(ino)
	a.Atime = d.atimes.get(ino, a.Mtime)
	if n.sparse {
		var used uint64
		if err := v.extents(ino, 0, n.size, func(e extent) bool { used += e.length; return true }); err != nil {
			return a, err
		}
		if f := d.dirty[ino]; f != nil {
			for _, r := range f.runs {
				used += uint64(len(r.data))
			}
			for _, r := range f.sealing {
				used += uint64(len(r.data))
			}
		}
		// At least one block: a file with a size and no block looks empty to
		// sparse-aware copies.
		a.Blocks = max(min(used+511, n.size+511)/512, min(n.size, 1))
	}
	return a, nil
}

// ReadDir calls fn for each entry of a directory after the name after ("":
// from the start), in name order, until it returns false. "." and ".." are
// not among them.
func (d *Drive) ReadDir(_ context.Context, dir Ino, after string, fn func(DirEntry) bool) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.viewOf(dir).entries(dir, after, fn)
}

// ReadDirPlus is ReadDir with each entry's attributes, but for those that known
// (which may be nil) reports: they come with a zero Attr. Neither function may
// call the drive or wait for who does.
func (d *Drive) ReadDirPlus(_ context.Context, dir Ino, after string, known func(Ino) bool, fn func(DirEntry, Attr) bool) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.viewOf(dir).entriesPlus(dir, after, known, d.attr, fn)
}

// Parent returns a directory's parent; the root is its own.
func (d *Drive) Parent(_ context.Context, dir Ino) (Ino, error) {
	if dir == RootIno {
		return RootIno, nil
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	parent := Ino(0)
	err := d.live().parents(dir, func(p Ino, _ string) bool { parent = p; return false })
	if err == nil && parent == 0 {
		err = ErrNotExist
	}
	return parent, err
}

// dir returns a directory that entries may be made in. Under mu.
func (d *Drive) dir(ino Ino) (*inode, error) {
	if d.orphans[ino] != nil {
		return nil, fmt.Errorf("directory %d was removed: %w", ino, ErrNotExist)
	}
	n, err := d.live().inode(ino)
	if err != nil {
		return nil, err
	}
	if !n.isDir() {
		return nil, ErrNotDir
	}
	return n, nil
}

// absent reports ErrExist if the name is taken. Under mu.
func (d *Drive) absent(parent Ino, name string) error {
	_, err := d.live().lookup(parent, name)
	if err == nil {
		return ErrExist
	}
	if errors.Is(err, ErrNotExist) {
		return nil
	}
	return err
}

// setLink gives ino a name. Under mu.
func (d *Drive) setLink(parent Ino, name string, ino Ino, mode uint32) {
	d.open.put(direntKey(parent, name), dirent{ino, mode & ModeType, d.openVersion()}.encode())
	d.open.put(parentKey(ino, parent, name), []byte{})
}

func (d *Drive) delLink(parent Ino, name string, ino Ino) {
	d.open.del(direntKey(parent, name))
	d.open.del(parentKey(ino, parent, name))
}

// newInode makes an inode for a caller in a directory: set-group-id
// directories hand down their group, and to directories the bit. Under mu.
func (d *Drive) newInode(c Caller, dir *inode, mode, rdev uint32) (Ino, *inode) {
	now := d.now()
	n := &inode{mode: mode, nlink: 1, uid: c.Uid, gid: c.Gid, mtime: now, ctime: now, btime: now, rdev: rdev}
	if dir.mode&modeSetgid != 0 {
		n.gid = dir.gid
		if n.isDir() {
			n.mode |= modeSetgid
		}
	}
	if n.isDir() {
		n.nlink = 2
	}
	ino := Ino(d.writer)<<48 | Ino(d.nextIno)
	d.nextIno++
	d.inodes++
	return ino, n
}

// make creates an inode under a name.
func (d *Drive) make(ctx context.Context, c Caller, parent Ino, name string, mode, rdev uint32, target string) (Attr, error) {
	a, _, err := d.makeFile(ctx, c, parent, name, mode, rdev, target, false)
	return a, err
}

func (d *Drive) makeFile(ctx context.Context, c Caller, parent Ino, name string, mode, rdev uint32, target string, open bool) (Attr, *File, error) {
	if err := checkName(name); err != nil {
		return Attr{}, nil, err
	}
	if err := d.relieve(ctx); err != nil {
		return Attr{}, nil, err
	}
	s := d.sessions.of(c, d.clock())
	if err := d.begin(); err != nil {
		return Attr{}, nil, err
	}
	defer d.mu.Unlock()
	dir, err := d.dir(parent)
	if err != nil {
		return Attr{}, nil, err
	}
	if err := d.absent(parent, name); err != nil {
		return Attr{}, nil, err
	}
	ino, n := d.newInode(c, dir, mode, rdev)
	n.target = target
	if mode&ModeType == ModeSymlink {
		n.size = uint64(len(target))
	}
	if n.isDir() {
		if dir.nlink >= maxLinks {
			return Attr{}, nil, ErrTooManyLinks
		}
		dir.nlink++
	}
	d.putInode(ino, n)
	d.setLink(parent, name, ino, mode)
	dir.mtime, dir.ctime = n.ctime, n.ctime
	d.putInode(parent, dir)
	d.note(s, change{what: didCreate | didLink, ino: ino, parent: parent, name: name, delta: int64(n.size)})
	d.mutated()
	if n.isRegular() {
		d.born(s, ino)
		if err := d.gained(s, parent, name, ino); err != nil {
			return Attr{}, nil, err
		}
	}
	var f *File
	if open {
		f = d.newFile(ino, s)
	}
	a, err := d.attr(ino)
	return a, f, err
}

func isNotExist(err error) bool { return errors.Is(err, ErrNotExist) }

// Mknod makes a file of any type but a directory or symlink; mode holds the
// type and permissions.
func (d *Drive) Mknod(ctx context.Context, c Caller, parent Ino, name string, mode, rdev uint32) (Attr, error) {
	switch mode & ModeType {
	case 0:
		mode |= ModeRegular
	case ModeRegular, ModeFifo, ModeSocket:
		rdev = 0
	case ModeChar, ModeBlock:
	default:
		return Attr{}, ErrInvalid
	}
	return d.make(ctx, c, parent, name, mode&(ModeType|modePerm), rdev, "")
}

// Mkdir makes a directory.
func (d *Drive) Mkdir(ctx context.Context, c Caller, parent Ino, name string, mode uint32) (Attr, error) {
	return d.make(ctx, c, parent, name, ModeDir|mode&modePerm, 0, "")
}

// Symlink makes a symbolic link.
func (d *Drive) Symlink(ctx context.Context, c Caller, parent Ino, name, target string) (Attr, error) {
	switch {
	case target == "":
		return Attr{}, ErrNotExist
	case len(target) > MaxSymlink:
		return Attr{}, ErrNameTooLong
	}
	return d.make(ctx, c, parent, name, ModeSymlink|0o777, 0, target)
}

// Readlink returns a symbolic link's target.
func (d *Drive) Readlink(_ context.Context, ino Ino) (string, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	n, err := d.viewOf(ino).inode(ino)
	if err != nil {
		return "", err
	}
	if n.mode&ModeType != ModeSymlink {
		return "", ErrInvalid
	}
	return n.target, nil
}

// Create makes a regular file and opens it.
func (d *Drive) Create(ctx context.Context, c Caller, parent Ino, name string, mode uint32) (*File, Attr, error) {
	a, f, err := d.makeFile(ctx, c, parent, name, ModeRegular|mode&modePerm, 0, "", true)
	return f, a, err
}

// Tmpfile makes a regular file without a name and opens it; Link may name it.
func (d *Drive) Tmpfile(_ context.Context, c Caller, parent Ino, mode uint32) (*File, Attr, error) {
	s := d.sessions.of(c, d.clock())
	if err := d.begin(); err != nil {
		return nil, Attr{}, err
	}
	defer d.mu.Unlock()
	dir, err := d.dir(parent)
	if err != nil {
		return nil, Attr{}, err
	}
	ino, n := d.newInode(c, dir, ModeRegular|mode&modePerm, 0)
	d.inodes-- // not while it has no name
	n.nlink = 0
	n.changed = d.openVersion()
	o := &orphan{layer: new(layer)}
	o.layer.put(inodeKey(ino), n.encode())
	d.orphans[ino] = o
	f := d.newFile(ino, s)
	a, err := d.attrOf(o.view(), ino, n)
	return f, a, err
}

// Link gives an inode another name.
func (d *Drive) Link(ctx context.Context, c Caller, ino, parent Ino, name string) (Attr, error) {
	if err := checkName(name); err != nil {
		return Attr{}, err
	}
	d.upkeep.placing.RLock() // adopt appends blocks
	defer d.upkeep.placing.RUnlock()
	s := d.sessions.of(c, d.clock())
	if err := d.begin(); err != nil {
		return Attr{}, err
	}
	defer d.mu.Unlock()
	dir, err := d.dir(parent)
	if err != nil {
		return Attr{}, err
	}
	n, err := d.viewOf(ino).inode(ino)
	switch {
	case err != nil:
		return Attr{}, err
	case n.isDir():
		return Attr{}, ErrPerm
	case n.nlink >= maxLinks:
		return Attr{}, ErrTooManyLinks
	}
	if err := d.absent(parent, name); err != nil {
		return Attr{}, err
	}
	born := d.orphans[ino] != nil
	if born {
		if err := d.adopt(ino); err != nil {
			return Attr{}, err
		}
		if n, err = d.live().inode(ino); err != nil {
			return Attr{}, err
		}
		if dir, err = d.dir(parent); err != nil { // the lock was released
			return Attr{}, err
		}
		if err := d.absent(parent, name); err != nil {
			return Attr{}, err
		}
	}
	now := d.now()
	n.nlink++
	n.ctime = now
	d.putInode(ino, n)
	d.setLink(parent, name, ino, n.mode)
	dir.mtime, dir.ctime = now, now
	d.putInode(parent, dir)
	w := didLink
	if born {
		w |= didCreate | didWrite
	}
	d.note(s, change{what: w, ino: ino, parent: parent, name: name, size: n.size})
	d.mutated()
	if born {
		d.born(s, ino)
		if err := d.gained(s, parent, name, ino); err != nil {
			return Attr{}, err
		}
	}
	return d.attr(ino)
}

// Unlink removes a name that is not a directory.
func (d *Drive) Unlink(ctx context.Context, c Caller, parent Ino, name string) error {
	return d.remove(ctx, c, parent, name, false)
}

// Rmdir removes an empty directory.
func (d *Drive) Rmdir(ctx context.Context, c Caller, parent Ino, name string) error {
	return d.remove(ctx, c, parent, name, true)
}

func (d *Drive) remove(ctx context.Context, c Caller, parent Ino, name string, isDir bool) error {
	if err := d.relieve(ctx); err != nil {
		// A full disk must not keep anyone from deleting.
		if !errors.Is(err, ErrNoSpace) {
			return err
		}
	}
	s := d.sessions.of(c, d.clock())
	for {
		if err := d.begin(); err != nil {
			return err
		}
		again, err := d.removeLocked(s, parent, name, isDir)
		d.mu.Unlock()
		if err != nil || !again {
			return err
		}
		if err := d.cut(ctx); err != nil && !errors.Is(err, ErrNoSpace) {
			return err
		}
	}
}

// removeLocked does it under mu; again asks for a version to be cut first.
func (d *Drive) removeLocked(s *session, parent Ino, name string, isDir bool) (again bool, err error) {
	e, err := d.live().lookup(parent, name)
	if err != nil {
		return false, err
	}
	d.settle(e.ino)
	dir, err := d.dir(parent)
	if err != nil {
		return false, err
	}
	v := d.live()
	if e, err = v.lookup(parent, name); err != nil { // the lock was released
		return false, err
	}
	n, err := v.inode(e.ino)
	if err != nil {
		return false, err
	}
	switch {
	case isDir && !n.isDir():
		return false, ErrNotDir
	case !isDir && n.isDir():
		return false, ErrIsDir
	}
	if isDir {
		empty, err := v.dirEmpty(e.ino)
		if err != nil {
			return false, err
		}
		if !empty {
			return false, ErrNotEmpty
		}
		dir.nlink--
	}
	if d.lostBy(s, e.ino) {
		return true, nil
	}
	now := d.now()
	w, err := d.unlinkInode(parent, name, e.ino, n, now)
	if err != nil {
		return false, err
	}
	dir.mtime, dir.ctime = now, now
	d.putInode(parent, dir)
	delta := int64(0)
	if w&didRemove != 0 {
		delta = -int64(n.size)
	}
	d.note(s, change{what: w, ino: e.ino, parent: parent, name: name, delta: delta})
	d.mutated()
	if n.isDir() {
		return false, nil
	}
	d.released(s, parent, name, e.ino)
	return false, d.gone(s, e.ino)
}

// unlinkInode takes a name from an inode, and the inode with its last name.
// Under mu, settled.
func (d *Drive) unlinkInode(parent Ino, name string, ino Ino, n *inode, now Time) (what, error) {
	d.delLink(parent, name, ino)
	n.ctime = now
	if n.isDir() {
		n.nlink = 0
	} else {
		n.nlink--
	}
	if n.nlink > 0 {
		d.putInode(ino, n)
		return didUnlink, nil
	}
	return didUnlink | didRemove, d.orphan(ino, n)
}
