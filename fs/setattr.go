package fs

import (
	"context"
	"fmt"
)

// Setattr changes attributes; a size cuts the file or extends it with a hole.
func (d *Drive) Setattr(ctx context.Context, c Caller, ino Ino, a SetAttr) (Attr, error) {
	return d.setattr(ctx, d.sessions.of(c, d.clock()), ino, a)
}

func (d *Drive) setattr(ctx context.Context, s *session, ino Ino, a SetAttr) (Attr, error) {
	if a.Size != nil && *a.Size > MaxSize {
		return Attr{}, ErrTooBig
	}
	for {
		if err := d.begin(); err != nil {
			return Attr{}, err
		}
		if a.Size != nil && d.orphans[ino] == nil {
			d.saving(s, ino)
			if d.cutBefore(s, ino) {
				d.mu.Unlock()
				if err := d.cut(ctx); err != nil {
					return Attr{}, err
				}
				continue
			}
		}
		defer d.mu.Unlock()
		return d.setattrLocked(s, ino, a)
	}
}

func (d *Drive) setattrLocked(s *session, ino Ino, a SetAttr) (Attr, error) {
	if a.Size != nil {
		d.settle(ino)
	}
	v := d.viewOf(ino)
	n, err := v.inode(ino)
	if err != nil {
		return Attr{}, err
	}
	orphaned := d.orphans[ino] != nil
	now := d.now()
	var w what
	var delta int64
	if a.Size != nil {
		switch {
		case n.isDir():
			return Attr{}, ErrIsDir
		case !n.isRegular():
			return Attr{}, ErrInvalid
		}
		if delta, err = d.resize(v, ino, n, *a.Size); err != nil {
			return Attr{}, err
		}
		n.mtime, n.content = now, d.openSeq
		w |= didWrite
	}
	if a.Mode != nil {
		n.mode = n.mode&ModeType | *a.Mode&modePerm
		w |= didAttr
	}
	if a.Uid != nil {
		n.uid = *a.Uid
		w |= didAttr
	}
	if a.Gid != nil {
		n.gid = *a.Gid
		w |= didAttr
	}
	if a.KillPriv && !n.isDir() {
		n.mode = withoutPrivilege(n.mode)
	}
	if a.Mtime != nil {
		n.mtime = *a.Mtime
		w |= didAttr
	}
	if a.Atime != nil {
		d.atimes.set(ino, *a.Atime)
	}
	if a.KillPriv && !n.isDir() || a.Atime != nil {
		w |= didAttr
	}
	if w != 0 {
		n.ctime = now
		d.putInode(ino, n)
		if !orphaned {
			d.bytes += uint64(delta)
			d.note(s, change{what: w, ino: ino, delta: delta, size: n.size})
			d.mutated()
		}
	}
	return d.attrOf(d.viewOf(ino), ino, n)
}

// resize sets a regular file's size. Under mu, settled.
func (d *Drive) resize(v *view, ino Ino, n *inode, size uint64) (delta int64, err error) {
	delta = int64(size) - int64(n.size)
	if size < n.size {
		if err := d.clearRange(v, ino, size, MaxSize); err != nil {
			return 0, err
		}
	} else if size > n.size {
		n.sparse = true
	}
	n.size = size
	return delta, nil
}

// clearRange makes [lo, hi) of a file a hole. Under mu, settled.
func (d *Drive) clearRange(v *view, ino Ino, lo, hi uint64) error {
	if f := d.dirty[ino]; f != nil {
		d.dirtyBytes -= int64(f.cut(lo, hi))
		d.delist(f)
		d.changed.Broadcast()
	}
	return clearExtents(v, d.target(ino), ino, lo, hi)
}

// Modes of Fallocate, Linux's own.
const (
	FallocKeepSize  = 0x01
	FallocPunchHole = 0x02
	FallocZeroRange = 0x10
)

// Fallocate is fallocate(2): modes 0, KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE. Space
// is not set aside: a log writes elsewhere each time, so what is checked is
// that the disk has room now.
func (f *File) Fallocate(ctx context.Context, mode uint32, off, length int64) error {
	d := f.d
	const known = FallocKeepSize | FallocPunchHole | FallocZeroRange
	if mode&^known != 0 {
		return ErrNotSupported
	}
	punch, zero := mode&FallocPunchHole != 0, mode&FallocZeroRange != 0
	if off < 0 || length <= 0 {
		return ErrInvalid
	}
	if punch && (zero || mode&FallocKeepSize == 0) {
		return ErrNotSupported
	}
	if uint64(off)+uint64(length) > MaxSize {
		return ErrTooBig
	}
	for {
		if err := d.begin(); err != nil {
			return err
		}
		if d.orphans[f.ino] == nil && (punch || zero) && d.cutBefore(f.session, f.ino) {
			d.mu.Unlock()
			if err := d.cut(ctx); err != nil {
				return err
			}
			continue
		}
		break
	}
	defer d.mu.Unlock()
	d.settle(f.ino)
	v := d.viewOf(f.ino)
	n, err := v.inode(f.ino)
	if err != nil {
		return err
	}
	if !n.isRegular() {
		return fmt.Errorf("inode %d: %w", f.ino, ErrInvalid)
	}
	if !punch && !zero && !d.spaceFor(d.dirtyBytes+length) {
		return ErrNoSpace
	}
	end := uint64(off + length)
	if punch || zero {
		if err := d.clearRange(v, f.ino, uint64(off), min(end, max(n.size, uint64(off)))); err != nil {
			return err
		}
		n.sparse = true
	}
	var grown int64
	if mode&FallocKeepSize == 0 && end > n.size {
		grown = int64(end - n.size)
		n.size, n.sparse = end, true
	}
	if !punch && !zero && grown == 0 {
		return nil
	}
	n.mtime = d.now()
	n.ctime = n.mtime
	n.content = d.openSeq
	d.putInode(f.ino, n)
	if d.orphans[f.ino] == nil {
		d.bytes += uint64(grown)
		d.note(f.session, change{what: didWrite, ino: f.ino, delta: grown, size: n.size})
		d.mutated()
	}
	f.wrote.Store(true)
	return nil
}

// Statfs describes the drive's space: that of the disk below it.
func (d *Drive) Statfs(context.Context) (Statfs, error) {
	free, total, err := d.store.FS().Free(d.store.Dir())
	if err != nil {
		return Statfs{}, fmt.Errorf("drive %s: %w", d.store.ID(), err)
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	const block = 4096
	s := Statfs{BlockSize: block, Blocks: uint64(total) / block, NameLen: MaxName, Files: d.inodes, LogicalSize: d.bytes}
	if usable := free - spaceKept - d.dirtyBytes; usable > 0 {
		s.Free = uint64(usable) / block
	}
	s.FilesFree = s.Free
	return s, nil
}
