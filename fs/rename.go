package fs

import (
	"context"
	"fmt"
)

// Rename moves a name, with the flags of renameat2(2). A directory is never
// moved into itself.
func (d *Drive) Rename(ctx context.Context, c Caller, oldParent Ino, oldName string, newParent Ino, newName string, flags uint32) error {
	if flags&^(RenameNoReplace|RenameExchange|RenameWhiteout) != 0 ||
		flags&RenameExchange != 0 && flags&(RenameNoReplace|RenameWhiteout) != 0 {
		return ErrInvalid
	}
	for _, name := range []string{oldName, newName} {
		if err := checkName(name); err != nil {
			return err
		}
	}
	if err := d.relieve(ctx); err != nil {
		return err
	}
	s := d.sessions.of(c, d.clock())
	for {
		if err := d.begin(); err != nil {
			return err
		}
		again, err := d.rename(s, c, nameOf{oldParent, oldName}, nameOf{newParent, newName}, flags)
		d.mu.Unlock()
		if err != nil || !again {
			return err
		}
		if err := d.cut(ctx); err != nil {
			return err
		}
	}
}

// rename does it under mu; again asks for a version to be cut first.
func (d *Drive) rename(s *session, c Caller, from, to nameOf, flags uint32) (again bool, err error) {
	if e, err := d.live().lookup(to.parent, to.name); err == nil {
		d.settle(e.ino)
	}
	v := d.live()
	fromDir, err := d.dir(from.parent)
	if err != nil {
		return false, err
	}
	toDir := fromDir
	if to.parent != from.parent {
		if toDir, err = d.dir(to.parent); err != nil {
			return false, err
		}
	}
	src, err := v.lookup(from.parent, from.name)
	if err != nil {
		return false, err
	}
	n, err := v.inode(src.ino)
	if err != nil {
		return false, err
	}
	var victim *inode
	dst, err := v.lookup(to.parent, to.name)
	switch {
	case err == nil:
		if victim, err = v.inode(dst.ino); err != nil {
			return false, err
		}
	case !isNotExist(err):
		return false, err
	}
	if err := d.renameAllowed(v, src, n, dst, victim, from, to, flags); err != nil {
		return false, err
	}
	if victim != nil && dst.ino == src.ino {
		return false, nil // two names of one file: POSIX wants nothing done
	}
	if victim != nil && !victim.isDir() && d.cutBefore(s, dst.ino) {
		return true, nil
	}
	now := d.now()
	if flags&RenameExchange != 0 {
		return false, d.exchange(s, from, to, src, dst, n, victim, fromDir, toDir, now)
	}
	d.delLink(from.parent, from.name, src.ino)
	if victim != nil {
		w, err := d.unlinkInode(to.parent, to.name, dst.ino, victim, now)
		if err != nil {
			return false, err
		}
		delta := int64(0)
		if w&didRemove != 0 {
			delta = -int64(victim.size)
		}
		d.note(s, change{what: w, ino: dst.ino, parent: to.parent, name: to.name, delta: delta})
		if victim.isDir() {
			toDir.nlink--
		}
		d.released(s, to.parent, to.name, dst.ino)
	}
	if n.isDir() && from.parent != to.parent {
		fromDir.nlink--
		toDir.nlink++
	}
	n.ctime = now
	d.putInode(src.ino, n)
	d.setLink(to.parent, to.name, src.ino, n.mode)
	d.note(s, change{what: didUnlink, ino: src.ino, parent: from.parent, name: from.name})
	d.note(s, change{what: didLink, ino: src.ino, parent: to.parent, name: to.name})
	fromDir.mtime, fromDir.ctime = now, now
	if flags&RenameWhiteout != 0 {
		wino, wn := d.newInode(c, fromDir, ModeChar|0o600, 0)
		d.putInode(wino, wn)
		d.setLink(from.parent, from.name, wino, wn.mode)
		d.note(s, change{what: didCreate | didLink, ino: wino, parent: from.parent, name: from.name})
	}
	d.putInode(from.parent, fromDir)
	if to.parent != from.parent {
		toDir.mtime, toDir.ctime = now, now
		d.putInode(to.parent, toDir)
	}
	d.released(s, from.parent, from.name, src.ino)
	d.mutated()
	return false, d.gained(s, to.parent, to.name, src.ino)
}

func (d *Drive) renameAllowed(v *view, src dirent, n *inode, dst dirent, victim *inode, from, to nameOf, flags uint32) error {
	if n.isDir() && from.parent != to.parent {
		if err := d.notInside(v, src.ino, to.parent); err != nil {
			return err
		}
	}
	if victim == nil {
		if flags&RenameExchange != 0 {
			return ErrNotExist
		}
		return nil
	}
	if flags&RenameNoReplace != 0 {
		return ErrExist
	}
	if flags&RenameExchange != 0 {
		if victim.isDir() && from.parent != to.parent {
			return d.notInside(v, dst.ino, from.parent)
		}
		return nil
	}
	if src.ino == dst.ino {
		return nil
	}
	switch {
	case n.isDir() && !victim.isDir():
		return ErrNotDir
	case !n.isDir() && victim.isDir():
		return ErrIsDir
	case victim.isDir():
		empty, err := v.dirEmpty(dst.ino)
		if err != nil {
			return err
		}
		if !empty {
			return ErrNotEmpty
		}
	}
	return nil
}

// notInside refuses to move a directory into itself or below.
func (d *Drive) notInside(v *view, dir, into Ino) error {
	for depth := 0; into != RootIno; depth++ {
		if into == dir {
			return fmt.Errorf("a directory cannot move into itself: %w", ErrInvalid)
		}
		if depth > maxDepth {
			return fmt.Errorf("inode %d: parents go in circles: %w", dir, ErrDamaged)
		}
		up := Ino(0)
		if err := v.parents(into, func(p Ino, _ string) bool { up = p; return false }); err != nil {
			return err
		}
		if up == 0 {
			return ErrNotExist
		}
		into = up
	}
	if dir == RootIno {
		return ErrInvalid
	}
	return nil
}

// exchange swaps two names.
func (d *Drive) exchange(s *session, a, b nameOf, x, y dirent, xn, yn *inode, aDir, bDir *inode, now Time) error {
	d.delLink(a.parent, a.name, x.ino)
	d.delLink(b.parent, b.name, y.ino)
	d.setLink(b.parent, b.name, x.ino, xn.mode)
	d.setLink(a.parent, a.name, y.ino, yn.mode)
	if a.parent != b.parent && xn.isDir() != yn.isDir() {
		if xn.isDir() {
			aDir.nlink--
			bDir.nlink++
		} else {
			aDir.nlink++
			bDir.nlink--
		}
	}
	xn.ctime, yn.ctime = now, now
	d.putInode(x.ino, xn)
	d.putInode(y.ino, yn)
	aDir.mtime, aDir.ctime = now, now
	d.putInode(a.parent, aDir)
	if a.parent != b.parent {
		bDir.mtime, bDir.ctime = now, now
		d.putInode(b.parent, bDir)
	}
	for _, c := range []change{
		{what: didUnlink, ino: x.ino, parent: a.parent, name: a.name},
		{what: didLink, ino: x.ino, parent: b.parent, name: b.name},
		{what: didUnlink, ino: y.ino, parent: b.parent, name: b.name},
		{what: didLink, ino: y.ino, parent: a.parent, name: a.name},
	} {
		d.note(s, c)
	}
	d.mutated()
	d.released(s, b.parent, b.name, y.ino)
	d.released(s, a.parent, a.name, x.ino)
	if err := d.gained(s, b.parent, b.name, x.ino); err != nil {
		return err
	}
	return d.gained(s, a.parent, a.name, y.ino)
}
