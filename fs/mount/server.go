package mount

import (
	"context"
	"log/slog"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"hearth/fs"
)

// The kernel operations, all of them: one that is not supported says so here.
// STATX and SYNCFS do not reach a go-fuse server.
var _ fuse.RawFileSystem = (*server)(nil)

// valid is how long the kernel may believe an answer: all changes come through
// it or are announced.
const valid = time.Hour

// localValid is how long it may believe what is local of a file.
const localValid = time.Second

// blockSize is the st_blksize of files: programs size their buffers by it, and
// every request costs tens of microseconds.
const blockSize = 64 << 10

// source is the half of a drive that reads, which an old version has too.
type source interface {
	Lookup(ctx context.Context, parent fs.Ino, name string) (fs.Attr, error)
	Getattr(ctx context.Context, ino fs.Ino) (fs.Attr, error)
	Readlink(ctx context.Context, ino fs.Ino) (string, error)
	ReadDir(ctx context.Context, dir fs.Ino, after string, fn func(fs.DirEntry) bool) error
	ReadDirPlus(ctx context.Context, dir fs.Ino, after string, known func(fs.Ino) bool, fn func(fs.DirEntry, fs.Attr) bool) error
	Getxattr(ctx context.Context, ino fs.Ino, name string) ([]byte, error)
	Listxattr(ctx context.Context, ino fs.Ino) ([]string, error)
}

// server answers the kernel's requests for one mount.
type server struct {
	src source
	// drive takes changes; nil for a mount of an old version.
	drive *fs.Drive
	// snapshot is the old version a read-only mount shows, or nil.
	snapshot *fs.Snapshot
	// followed is a drive that another device writes, or nil: read-only, and
	// changing.
	followed *fs.Drive
	// statfs tells about space.
	statfs func(ctx context.Context) (fs.Statfs, error)
	// history opens the .history of a live directory; nil: there is none.
	history func(ctx context.Context, dir fs.Ino) (HistoryNode, error)

	logger     *slog.Logger
	complaints complaints
	notes      *notifier
	refs       refs
	virtual    virtualNodes
	files      handles[fileHandle]
	dirs       handles[dirHandle]
}

// requestContext is canceled when the kernel interrupts a request. It is the
// request's own channel, so that it costs nothing, and means nothing once the
// request is answered: the channel is used again.
type requestContext <-chan struct{}

func (requestContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (c requestContext) Done() <-chan struct{}     { return c }
func (requestContext) Value(any) any               { return nil }

func (c requestContext) Err() error {
	select {
	case <-c:
		return context.Canceled
	default:
		return nil
	}
}

// uninterrupted is the context of changes: see the package comment.
func uninterrupted() context.Context { return context.Background() }

func caller(h *fuse.InHeader) fs.Caller {
	return fs.Caller{Uid: h.Uid, Gid: h.Gid, Pid: h.Pid}
}

// String names the file system in messages of go-fuse.
func (s *server) String() string { return fsType }

// SetDebug does nothing: messages go through slog.
func (s *server) SetDebug(bool) {}

// Init is called before the first request.
func (s *server) Init(*fuse.Server) {}

// OnUnmount is called after the last request; see [server.shutdown].
func (s *server) OnUnmount() {}

// shutdown closes what the kernel never closed: it says no goodbye to what it
// knows when a file system is unmounted, nor when the connection is cut.
func (s *server) shutdown() {
	for _, h := range s.files.drain() {
		h.close(s)
	}
	s.dirs.drain()
	s.refs.drain(s)
	s.virtual.drain()
}

// Access is decided by the kernel (default_permissions).
func (s *server) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.ENOSYS }

// GetLk is not reached: locks are the kernel's own, as every program that can
// see this mount runs under this kernel.
func (s *server) GetLk(<-chan struct{}, *fuse.LkIn, *fuse.LkOut) fuse.Status { return fuse.ENOSYS }

// SetLk is not reached: see GetLk.
func (s *server) SetLk(<-chan struct{}, *fuse.LkIn) fuse.Status { return fuse.ENOSYS }

// SetLkw is not reached: see GetLk.
func (s *server) SetLkw(<-chan struct{}, *fuse.LkIn) fuse.Status { return fuse.ENOSYS }

// Ioctl knows none. ENOSYS would mean the same to the kernel, but for good.
func (s *server) Ioctl(<-chan struct{}, *fuse.IoctlIn, []byte, *fuse.IoctlOut, []byte) fuse.Status {
	return statusNotTTY
}

// Statx is not reached: go-fuse does not pass it on, so btime is not seen
// through a mount.
func (s *server) Statx(<-chan struct{}, *fuse.StatxIn, *fuse.StatxOut) fuse.Status {
	return fuse.ENOSYS
}

// StatFs tells how much space there is.
func (s *server) StatFs(cancel <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	st, err := s.statfs(requestContext(cancel))
	if err != nil {
		return s.fail("statfs", err)
	}
	*out = fuse.StatfsOut{
		Blocks: st.Blocks, Bfree: st.Free, Bavail: st.Free,
		Files: st.Files + st.FilesFree, Ffree: st.FilesFree,
		Bsize: st.BlockSize, Frsize: st.BlockSize, NameLen: st.NameLen,
	}
	return fuse.OK
}

// fillAttr translates attributes.
func fillAttr(out *fuse.Attr, a *fs.Attr) {
	out.Ino = uint64(a.Ino)
	out.Size = a.Size
	out.Blocks = a.Blocks
	out.Atime, out.Atimensec = uint64(a.Atime.Sec), a.Atime.Nsec
	out.Mtime, out.Mtimensec = uint64(a.Mtime.Sec), a.Mtime.Nsec
	out.Ctime, out.Ctimensec = uint64(a.Ctime.Sec), a.Ctime.Nsec
	out.Mode = a.Mode
	out.Nlink = a.Nlink
	out.Uid, out.Gid = a.Uid, a.Gid
	out.Rdev = a.Rdev
	out.Blksize = blockSize
}

// entry answers a lookup of a live inode. asked is what notes.asked returned
// before the drive was asked.
func (s *server) entry(out *fuse.EntryOut, a *fs.Attr, asked uint64) {
	s.refs.add(s, uint64(a.Ino))
	out.NodeId = uint64(a.Ino)
	fillAttr(&out.Attr, a)
	if s.notes.fresh(asked) {
		out.SetEntryTimeout(valid)
		out.SetAttrTimeout(s.attrValid(a))
	}
}

func (s *server) attr(out *fuse.AttrOut, a *fs.Attr, asked uint64) {
	fillAttr(&out.Attr, a)
	if s.notes.fresh(asked) {
		out.SetTimeout(s.attrValid(a))
	}
}

// attrValid is how long the kernel may believe attributes. What is local of a
// file that another device writes, and so st_blocks, changes unannounced.
func (s *server) attrValid(a *fs.Attr) time.Duration {
	if s.followed != nil && a.IsRegular() && a.Size > 0 {
		return localValid
	}
	return valid
}

// Lookup finds a name. An absent one is an answer too, which the kernel keeps.
func (s *server) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	ctx := requestContext(cancel)
	if len(name) > fs.MaxName { // the kernel's own limit is higher
		return statusNameTooLong
	}
	if isVirtual(h.NodeId) {
		return s.virtualLookup(ctx, h.NodeId, name, out)
	}
	if name == fs.HistoryName && s.history != nil {
		return s.historyLookup(ctx, h.NodeId, out)
	}
	asked := s.notes.ask()
	defer s.notes.answered()
	a, err := s.src.Lookup(ctx, fs.Ino(h.NodeId), name)
	if err != nil {
		st := s.fail("lookup", err)
		if st == fuse.ENOENT && s.notes.fresh(asked) {
			out.NodeId = 0
			out.SetEntryTimeout(valid)
			return fuse.OK
		}
		return st
	}
	s.entry(out, &a, asked)
	return fuse.OK
}

// Forget drops lookups that the kernel remembered.
func (s *server) Forget(node, lookups uint64) {
	if isVirtual(node) {
		s.virtual.forget(node, lookups)
		return
	}
	s.refs.drop(s, node, lookups)
}

// GetAttr is stat.
func (s *server) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	ctx := requestContext(cancel)
	if isVirtual(in.NodeId) {
		return s.virtualAttr(ctx, in.NodeId, out)
	}
	asked := s.notes.ask()
	defer s.notes.answered()
	a, err := s.src.Getattr(ctx, fs.Ino(in.NodeId))
	if err != nil {
		return s.fail("getattr", err)
	}
	s.attr(out, &a, asked)
	return fuse.OK
}

// SetAttr is chmod, chown, truncate and utimensat.
func (s *server) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if s.drive == nil || isVirtual(in.NodeId) {
		return fuse.EROFS
	}
	ctx, ino := uninterrupted(), fs.Ino(in.NodeId)
	var set fs.SetAttr
	if mode, ok := in.GetMode(); ok {
		set.Mode = &mode
		if err := s.chmodACL(ctx, caller(&in.InHeader), ino, mode); err != nil {
			return s.fail("chmod", err)
		}
	}
	if uid, ok := in.GetUID(); ok {
		set.Uid = &uid
	}
	if gid, ok := in.GetGID(); ok {
		set.Gid = &gid
	}
	if size, ok := in.GetSize(); ok {
		set.Size = &size
	}
	if t, ok := in.GetATime(); ok {
		at := fs.TimeOf(t)
		set.Atime = &at
	}
	if t, ok := in.GetMTime(); ok {
		mt := fs.TimeOf(t)
		set.Mtime = &mt
	}
	// With HANDLE_KILLPRIV_V2, a new owner always costs setuid and setgid; a
	// new size does when the kernel says so.
	set.KillPriv = set.Mode == nil && (set.Uid != nil || set.Gid != nil) || in.Valid&fuse.FATTR_KILL_SUIDGID != 0
	asked := s.notes.ask()
	defer s.notes.answered()
	a, err := s.drive.Setattr(ctx, caller(&in.InHeader), ino, set)
	if err != nil {
		return s.fail("setattr", err)
	}
	s.attr(out, &a, asked)
	return fuse.OK
}

// Readlink returns the target of a symbolic link.
func (s *server) Readlink(cancel <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	ctx := requestContext(cancel)
	if isVirtual(h.NodeId) {
		return s.virtualReadlink(ctx, h.NodeId)
	}
	target, err := s.src.Readlink(ctx, fs.Ino(h.NodeId))
	if err != nil {
		return nil, s.fail("readlink", err)
	}
	return []byte(target), fuse.OK
}
