package mount

import (
	"context"
	"errors"
	"io"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"hearth/fs"
)

// reader reads the contents of one file.
type reader interface {
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
}

// fileHandle is an open file: live, of an old version, or inside .history.
type fileHandle struct {
	reader
	file *fs.File // nil: read-only
}

func (h *fileHandle) close(*server) {
	if h.file != nil {
		h.file.Close()
	}
}

// snapshotFile is a file of a mounted old version.
type snapshotFile struct {
	snapshot *fs.Snapshot
	ino      fs.Ino
}

func (f snapshotFile) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return f.snapshot.ReadAt(ctx, f.ino, p, off)
}

// writes reports whether open flags ask for more than reading.
func writes(flags uint32) bool {
	return flags&syscall.O_ACCMODE != syscall.O_RDONLY || flags&syscall.O_TRUNC != 0
}

// live returns the open live file behind a handle.
func (s *server) live(fh uint64) (*fs.File, fuse.Status) {
	h := s.files.get(fh)
	switch {
	case h == nil:
		return nil, fuse.EBADF
	case h.file == nil:
		return nil, fuse.EROFS
	}
	return h.file, fuse.OK
}

// opened hands a live file to the kernel. Its pages are kept unless it has yet
// to hear of a change; it need not flush when the file is closed, as nothing
// can fail there: RELEASE follows.
func (s *server) opened(f *fs.File, out *fuse.OpenOut) {
	out.Fh = s.files.add(&fileHandle{reader: f, file: f})
	out.OpenFlags = fuse.FOPEN_NOFLUSH
	if s.notes.idle() {
		out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
	}
}

// Open opens a file. O_TRUNC is part of it (CAP_ATOMIC_O_TRUNC).
func (s *server) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if isVirtual(in.NodeId) {
		return s.virtualOpen(in, out)
	}
	ino := fs.Ino(in.NodeId)
	if s.drive == nil {
		if writes(in.Flags) {
			return fuse.EROFS
		}
		if s.followed != nil {
			return s.openFollowed(ino, out)
		}
		out.Fh = s.files.add(&fileHandle{reader: snapshotFile{s.snapshot, ino}})
		out.OpenFlags = fuse.FOPEN_NOFLUSH | fuse.FOPEN_KEEP_CACHE
		return fuse.OK
	}
	ctx, c := uninterrupted(), caller(&in.InHeader)
	trunc := in.Flags&syscall.O_TRUNC != 0
	if trunc && in.Mode&fuse.OPEN_KILL_SUIDGID != 0 {
		if _, err := s.drive.Setattr(ctx, c, ino, fs.SetAttr{KillPriv: true}); err != nil {
			return s.fail("open", err)
		}
	}
	f, err := s.drive.Open(ctx, c, ino, trunc)
	if err != nil {
		return s.fail("open", err)
	}
	s.opened(f, out)
	return fuse.OK
}

// Create makes and opens a file.
func (s *server) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if st := s.refuse(in.NodeId, name); st != fuse.OK {
		return st
	}
	ctx, c, parent := uninterrupted(), caller(&in.InHeader), fs.Ino(in.NodeId)
	asked := s.notes.ask()
	defer s.notes.answered()
	b, err := s.inherit(ctx, parent, in.Mode, in.Umask, false)
	if err != nil {
		return s.fail("create", err)
	}
	f, a, err := s.drive.Create(ctx, c, parent, name, b.mode)
	if errors.Is(err, fs.ErrExist) && in.Flags&syscall.O_EXCL == 0 {
		return s.createExisting(ctx, in, name, out)
	}
	if err != nil {
		return s.fail("create", err)
	}
	if st := s.made(ctx, &in.InHeader, name, b, a, asked, &out.EntryOut); st != fuse.OK {
		f.Close()
		return st
	}
	s.opened(f, &out.OpenOut)
	return fuse.OK
}

// createExisting opens a file that came to be (by an undo, say) after the
// kernel was told there was none.
func (s *server) createExisting(ctx context.Context, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	asked := s.notes.ask()
	defer s.notes.answered()
	a, err := s.drive.Lookup(ctx, fs.Ino(in.NodeId), name)
	if err != nil {
		return s.fail("create", err)
	}
	if !a.IsRegular() {
		return statusExist
	}
	f, err := s.drive.Open(ctx, caller(&in.InHeader), a.Ino, in.Flags&syscall.O_TRUNC != 0)
	if err != nil {
		return s.fail("create", err)
	}
	s.entry(&out.EntryOut, &a, asked)
	out.SetAttrTimeout(0) // O_TRUNC
	s.opened(f, &out.OpenOut)
	return fuse.OK
}

// Tmpfile makes and opens a file without a name (O_TMPFILE).
func (s *server) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	if s.drive == nil || isVirtual(in.NodeId) {
		return fuse.EROFS
	}
	ctx, c, parent := uninterrupted(), caller(&in.InHeader), fs.Ino(in.NodeId)
	asked := s.notes.ask()
	defer s.notes.answered()
	b, err := s.inherit(ctx, parent, in.Mode, in.Umask, false)
	if err != nil {
		return s.fail("tmpfile", err)
	}
	f, a, err := s.drive.Tmpfile(ctx, c, parent, b.mode)
	if err != nil {
		return s.fail("tmpfile", err)
	}
	if a, err = s.bless(ctx, c, b, a); err != nil {
		f.Close()
		return s.fail("tmpfile", err)
	}
	s.entry(&out.EntryOut, &a, asked)
	s.opened(f, &out.OpenOut)
	return fuse.OK
}

// Release closes a file.
func (s *server) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	if h := s.files.remove(in.Fh); h != nil {
		h.close(s)
	}
}

// Read reads a file.
func (s *server) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	h := s.files.get(in.Fh)
	if h == nil {
		return nil, fuse.EBADF
	}
	n, err := h.ReadAt(requestContext(cancel), buf, int64(in.Offset))
	if err != nil && err != io.EOF {
		return nil, s.fail("read", err)
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

// Write writes to a file. The offset of an O_APPEND write is the kernel's: it
// knows the size, and holds the inode's lock meanwhile.
func (s *server) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	f, st := s.live(in.Fh)
	if st != fuse.OK {
		return 0, st
	}
	var n int
	var err error
	if in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 {
		n, err = f.WriteKillPriv(uninterrupted(), data, int64(in.Offset))
	} else {
		n, err = f.WriteAt(uninterrupted(), data, int64(in.Offset))
	}
	if err != nil && n == 0 {
		return 0, s.fail("write", err)
	}
	return uint32(n), fuse.OK
}

// Writev is how go-fuse hands over writes; from a kernel they are in one piece.
func (s *server) Writev(cancel <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	if len(data) != 1 {
		return 0, fuse.ENOSYS // go-fuse joins the pieces and calls Write
	}
	return s.Write(cancel, in, data[0])
}

// Lseek finds data and holes.
func (s *server) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	h := s.files.get(in.Fh)
	if h == nil {
		return fuse.EBADF
	}
	if in.Whence != seekData && in.Whence != seekHole {
		return fuse.EINVAL
	}
	if h.file == nil {
		return s.lseekOld(requestContext(cancel), in, out)
	}
	off, err := h.file.Seek(requestContext(cancel), int64(in.Offset), in.Whence == seekHole)
	if err != nil {
		return s.fail("lseek", err)
	}
	out.Offset = uint64(off)
	return fuse.OK
}

// lseekOld says of an old file that it is all data, with a hole at its end.
func (s *server) lseekOld(ctx context.Context, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	var a fs.Attr
	var err error
	if isVirtual(in.NodeId) {
		n := s.virtual.get(in.NodeId)
		if n == nil {
			return statusStale
		}
		a, err = n.Attr(ctx)
	} else {
		a, err = s.src.Getattr(ctx, fs.Ino(in.NodeId))
	}
	switch {
	case err != nil:
		return s.fail("lseek", err)
	case in.Offset >= a.Size:
		return fuse.Status(syscall.ENXIO)
	}
	out.Offset = in.Offset
	if in.Whence == seekHole {
		out.Offset = a.Size
	}
	return fuse.OK
}

// maxCopy is the most one copy_file_range may say it copied: the answer has 32
// bits, and page-sized steps suit the kernel.
const maxCopy = 1<<32 - 1<<16

// CopyFileRange copies between two files by sharing what is stored. What
// cannot be shared is EOPNOTSUPP: the kernel copies it through the page cache.
func (s *server) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	dst, st := s.live(in.FhOut)
	if st != fuse.OK {
		return 0, st
	}
	src := s.files.get(in.FhIn)
	if src == nil {
		return 0, fuse.EBADF
	}
	length := int64(min(in.Len, maxCopy))
	var n int64
	var err error
	if src.file != nil {
		n, err = src.file.CopyRange(uninterrupted(), int64(in.OffIn), dst, int64(in.OffOut), length)
	} else if c, ok := src.reader.(Cloner); ok {
		n, err = c.CopyRange(uninterrupted(), caller(&in.InHeader), int64(in.OffIn), dst, int64(in.OffOut), length)
	} else {
		return 0, statusNotSupported
	}
	if err != nil {
		return 0, s.fail("copy_file_range", err)
	}
	return uint32(n), fuse.OK
}

// Flush is not sent (FOPEN_NOFLUSH), but by kernels that do not know that.
func (s *server) Flush(_ <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	h := s.files.get(in.Fh)
	if h == nil {
		return fuse.EBADF
	}
	if h.file != nil {
		h.file.Flush()
	}
	return fuse.OK
}

// Fsync makes a file durable.
func (s *server) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h := s.files.get(in.Fh)
	if h == nil {
		return fuse.EBADF
	}
	if h.file == nil {
		return fuse.OK
	}
	return s.fail("fsync", h.file.Fsync(uninterrupted()))
}

// Fallocate is fallocate(2).
func (s *server) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	f, st := s.live(in.Fh)
	if st != fuse.OK {
		return st
	}
	return s.fail("fallocate", f.Fallocate(uninterrupted(), in.Mode, int64(in.Offset), int64(in.Length)))
}
