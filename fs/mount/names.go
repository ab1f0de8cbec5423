package mount

import (
	"context"

	"github.com/hanwen/go-fuse/v2/fuse"

	"hearth/fs"
)

// refuse returns why no name may be made in a directory, if so.
func (s *server) refuse(dir uint64, name string) fuse.Status {
	switch {
	case s.drive == nil || isVirtual(dir):
		return fuse.EROFS
	case name == fs.HistoryName:
		return statusExist
	}
	return fuse.OK
}

// fixed returns why a name may not be taken away, if so: .history cannot.
func (s *server) fixed(dir uint64, name string) fuse.Status {
	if s.drive == nil || isVirtual(dir) || name == fs.HistoryName {
		return fuse.EROFS
	}
	return fuse.OK
}

// birth is what a new inode gets of its directory's default ACL.
type birth struct {
	mode            uint32
	access, defacls []byte // ACLs to store, or nil
}

// inherit applies umask, or in its place the directory's default ACL, to the
// mode of something new: the kernel leaves it to us (FUSE_DONT_MASK).
func (s *server) inherit(ctx context.Context, parent fs.Ino, mode, umask uint32, isDir bool) (birth, error) {
	raw, err := s.getACL(ctx, parent, xattrDefault)
	if err != nil {
		return birth{}, err
	}
	if raw == nil {
		return birth{mode: mode &^ (umask & 0o777)}, nil
	}
	a, err := parseACL(raw)
	if err != nil {
		return birth{}, err
	}
	var b birth
	var extended bool
	if b.mode, extended = a.inherit(mode); extended {
		b.access = a.encode()
	}
	if isDir {
		b.defacls = raw
	}
	return b, nil
}

// bless stores the ACLs of a new inode and returns its attributes. No other
// process can see the inode before the kernel has our answer.
func (s *server) bless(ctx context.Context, c fs.Caller, b birth, a fs.Attr) (fs.Attr, error) {
	if b.access == nil && b.defacls == nil {
		return a, nil
	}
	for _, x := range [2]struct {
		name  string
		value []byte
	}{{xattrAccess, b.access}, {xattrDefault, b.defacls}} {
		if x.value == nil {
			continue
		}
		if err := s.drive.Setxattr(ctx, c, a.Ino, x.name, x.value, 0); err != nil {
			return a, err
		}
	}
	return s.drive.Getattr(ctx, a.Ino)
}

// made finishes the answer to a creation, or takes it back when its ACLs could
// not be stored.
func (s *server) made(ctx context.Context, h *fuse.InHeader, name string, b birth, a fs.Attr, asked uint64, out *fuse.EntryOut) fuse.Status {
	blessed, err := s.bless(ctx, caller(h), b, a)
	if err != nil {
		if a.IsDir() {
			_ = s.drive.Rmdir(ctx, caller(h), fs.Ino(h.NodeId), name)
		} else {
			_ = s.drive.Unlink(ctx, caller(h), fs.Ino(h.NodeId), name)
		}
		return s.fail("inherit ACL", err)
	}
	s.entry(out, &blessed, asked)
	return fuse.OK
}

// Mknod makes a file, fifo, socket or device.
func (s *server) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	if st := s.refuse(in.NodeId, name); st != fuse.OK {
		return st
	}
	ctx, parent := uninterrupted(), fs.Ino(in.NodeId)
	asked := s.notes.ask()
	defer s.notes.answered()
	b, err := s.inherit(ctx, parent, in.Mode, in.Umask, false)
	if err != nil {
		return s.fail("mknod", err)
	}
	a, err := s.drive.Mknod(ctx, caller(&in.InHeader), parent, name, b.mode, in.Rdev)
	if err != nil {
		return s.fail("mknod", err)
	}
	return s.made(ctx, &in.InHeader, name, b, a, asked, out)
}

// Mkdir makes a directory; inside .history/tags, a tag.
func (s *server) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	ctx := uninterrupted()
	if isVirtual(in.NodeId) {
		return s.virtualMkdir(ctx, in, name, out)
	}
	if st := s.refuse(in.NodeId, name); st != fuse.OK {
		return st
	}
	parent := fs.Ino(in.NodeId)
	asked := s.notes.ask()
	defer s.notes.answered()
	b, err := s.inherit(ctx, parent, in.Mode, in.Umask, true)
	if err != nil {
		return s.fail("mkdir", err)
	}
	a, err := s.drive.Mkdir(ctx, caller(&in.InHeader), parent, name, b.mode)
	if err != nil {
		return s.fail("mkdir", err)
	}
	return s.made(ctx, &in.InHeader, name, b, a, asked, out)
}

// Symlink makes a symbolic link.
func (s *server) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	if st := s.refuse(h.NodeId, name); st != fuse.OK {
		return st
	}
	asked := s.notes.ask()
	defer s.notes.answered()
	a, err := s.drive.Symlink(uninterrupted(), caller(h), fs.Ino(h.NodeId), name, target)
	if err != nil {
		return s.fail("symlink", err)
	}
	s.entry(out, &a, asked)
	return fuse.OK
}

// Link gives an inode another name. An old version's file is not of the same
// file system in this sense: EXDEV makes programs copy it.
func (s *server) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	if st := s.refuse(in.NodeId, name); st != fuse.OK {
		return st
	}
	if isVirtual(in.Oldnodeid) {
		return fuse.EXDEV
	}
	asked := s.notes.ask()
	defer s.notes.answered()
	a, err := s.drive.Link(uninterrupted(), caller(&in.InHeader), fs.Ino(in.Oldnodeid), fs.Ino(in.NodeId), name)
	if err != nil {
		return s.fail("link", err)
	}
	s.entry(out, &a, asked)
	return fuse.OK
}

// Unlink removes a name that is not a directory.
func (s *server) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if st := s.fixed(h.NodeId, name); st != fuse.OK {
		return st
	}
	return s.fail("unlink", s.drive.Unlink(uninterrupted(), caller(h), fs.Ino(h.NodeId), name))
}

// Rmdir removes an empty directory; inside .history/tags, a tag.
func (s *server) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	ctx := uninterrupted()
	if isVirtual(h.NodeId) {
		return s.virtualRmdir(ctx, h, name)
	}
	if st := s.fixed(h.NodeId, name); st != fuse.OK {
		return st
	}
	return s.fail("rmdir", s.drive.Rmdir(ctx, caller(h), fs.Ino(h.NodeId), name))
}

// Rename moves a name, with the flags of renameat2(2).
func (s *server) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	if st := s.fixed(in.NodeId, oldName); st != fuse.OK {
		return st
	}
	if st := s.refuse(in.Newdir, newName); st != fuse.OK {
		return st
	}
	return s.fail("rename", s.drive.Rename(uninterrupted(), caller(&in.InHeader),
		fs.Ino(in.NodeId), oldName, fs.Ino(in.Newdir), newName, renameFlags(in.Flags)))
}
