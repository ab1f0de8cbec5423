package mount

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"

	"hearth/fs"
)

// followed is the half that reads of a drive that another device writes: each
// operation sees the newest version that is known, and first has what it reads
// brought here in one request.
type followed struct{ d *fs.Drive }

func (f followed) at(ctx context.Context, w fs.Walk) *fs.Snapshot {
	s := f.d.Current()
	s.Prepare(ctx, w)
	return s
}

func (f followed) Lookup(ctx context.Context, parent fs.Ino, name string) (fs.Attr, error) {
	return f.at(ctx, fs.Walk{Op: fs.WalkLookup, Ino: parent, Name: name}).Lookup(ctx, parent, name)
}

func (f followed) Getattr(ctx context.Context, ino fs.Ino) (fs.Attr, error) {
	return f.at(ctx, fs.Walk{Op: fs.WalkAttr, Ino: ino}).Getattr(ctx, ino)
}

func (f followed) Readlink(ctx context.Context, ino fs.Ino) (string, error) {
	return f.at(ctx, fs.Walk{Op: fs.WalkAttr, Ino: ino}).Readlink(ctx, ino)
}

func (f followed) ReadDir(ctx context.Context, dir fs.Ino, after string, fn func(fs.DirEntry) bool) error {
	return f.at(ctx, fs.Walk{Op: fs.WalkList, Ino: dir, Name: after}).ReadDir(ctx, dir, after, fn)
}

func (f followed) ReadDirPlus(ctx context.Context, dir fs.Ino, after string, known func(fs.Ino) bool, fn func(fs.DirEntry, fs.Attr) bool) error {
	return f.at(ctx, fs.Walk{Op: fs.WalkList, Ino: dir, Name: after}).ReadDirPlus(ctx, dir, after, known, fn)
}

func (f followed) Getxattr(ctx context.Context, ino fs.Ino, name string) ([]byte, error) {
	return f.at(ctx, fs.Walk{Op: fs.WalkAttr, Ino: ino}).Getxattr(ctx, ino, name)
}

func (f followed) Listxattr(ctx context.Context, ino fs.Ino) ([]string, error) {
	return f.at(ctx, fs.Walk{Op: fs.WalkAttr, Ino: ino}).Listxattr(ctx, ino)
}

// followedFile is an open file of a followed drive. Like one on this device, it
// has new contents at the next read, and its last ones once it was deleted.
type followedFile struct {
	d    *fs.Drive
	ino  fs.Ino
	last atomic.Pointer[fs.Snapshot] // the newest that had the file
}

func (f *followedFile) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	s := f.d.Current()
	walk := fs.Walk{Op: fs.WalkRead, Ino: f.ino, Off: uint64(max(off, 0)), Len: uint64(len(p))}
	s.Prepare(ctx, walk)
	n, err := s.ReadAt(ctx, f.ino, p, off)
	if errors.Is(err, fs.ErrNotExist) {
		last := f.last.Load()
		last.Prepare(ctx, walk)
		return last.ReadAt(ctx, f.ino, p, off)
	}
	f.last.Store(s)
	return n, err
}

func (s *server) openFollowed(ino fs.Ino, out *fuse.OpenOut) fuse.Status {
	f := &followedFile{d: s.followed, ino: ino}
	f.last.Store(s.followed.Current())
	out.Fh = s.files.add(&fileHandle{reader: f})
	out.OpenFlags = fuse.FOPEN_NOFLUSH
	if s.notes.idle() {
		out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
	}
	return fuse.OK
}
