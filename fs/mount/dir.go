package mount

import (
	"context"
	"errors"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"

	"hearth/fs"
	"hearth/log"
)

// dirHandle is an open directory. The offset the kernel has for an entry is
// its place among the names this handle delivered, and a listing goes on after
// the name, not after the place: names that come or go between two reads never
// make others appear twice or not at all, and seekdir finds every offset that
// telldir gave. Reading from the start begins anew.
type dirHandle struct {
	mu      sync.Mutex
	node    uint64
	history HistoryNode // what is listed inside .history; nil: a live directory
	names   nameList
	batch   []listed
}

type listed struct {
	fs.DirEntry
	attr fs.Attr
}

// Offsets: 0 is the start, then one after each entry.
const (
	afterDot    = 1
	afterDotDot = 2
)

// Sizes of entries in a reply: fuse_dirent and fuse_entry_out.
const (
	direntSize = 24
	entrySize  = 128
)

func replySize(name string, plus bool) int {
	n := (direntSize + len(name) + 7) &^ 7
	if plus {
		n += entrySize
	}
	return n
}

// OpenDir opens a directory.
func (s *server) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	h := &dirHandle{node: in.NodeId}
	if isVirtual(in.NodeId) {
		if h.history = s.virtual.get(in.NodeId); h.history == nil {
			return statusStale
		}
	}
	out.Fh = s.dirs.add(h)
	return fuse.OK
}

// ReadDir lists names.
func (s *server) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return s.readDir(requestContext(cancel), in, out, false)
}

// ReadDirPlus lists names with their attributes: a lookup of each. What the
// kernel knows already it is not told again, which halves the time of a listing
// that comes after another.
func (s *server) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return s.readDir(requestContext(cancel), in, out, true)
}

func (s *server) readDir(ctx context.Context, in *fuse.ReadIn, out *fuse.DirEntryList, plus bool) fuse.Status {
	h := s.dirs.get(in.Fh)
	if h == nil {
		return fuse.EBADF
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	off, room := in.Offset, int(in.Size)
	if off == 0 {
		h.names.reset()
		room -= replySize(".", plus)
		add(out, plus, fuse.DirEntry{Name: ".", Ino: h.node, Mode: fs.ModeDir, Off: afterDot})
		off = afterDot
	}
	if off == afterDot {
		room -= replySize("..", plus)
		add(out, plus, fuse.DirEntry{Name: "..", Ino: s.parent(ctx, h), Mode: fs.ModeDir, Off: afterDotDot})
		off = afterDotDot
	}
	place := int(off - afterDotDot) // how many names lie before
	if off > uint64(afterDotDot+h.names.len()) {
		return fuse.EINVAL
	}
	after := ""
	if place > 0 {
		after = h.names.at(place - 1)
	}
	asked := s.notes.ask()
	defer s.notes.answered()
	attrs := plus && h.history == nil
	err := s.list(ctx, h, after, room, plus, attrs)
	if err != nil && len(h.batch) == 0 && attrs && !away(err) {
		// One damaged inode must not hide the others: names alone then, for
		// which the kernel asks one by one. Of inodes that are elsewhere each
		// would be waited for.
		attrs = false
		err = s.list(ctx, h, after, room, plus, false)
	}
	if err != nil && len(h.batch) == 0 {
		return s.fail("readdir", err)
	}
	for i := range h.batch {
		e := &h.batch[i]
		place = h.names.after(place, e.Name)
		d := fuse.DirEntry{Name: e.Name, Ino: uint64(e.Ino), Mode: e.Type, Off: uint64(afterDotDot + place)}
		if h.history != nil {
			d.Ino = listedIno(h.node, e.Name)
		}
		entry, ok := add(out, plus, d)
		if !ok {
			break
		}
		if attrs && e.attr.Ino != 0 {
			s.entry(entry, &e.attr, asked)
		}
	}
	clear(h.batch)
	h.batch = h.batch[:0]
	return fuse.OK
}

// list collects what fits. Nothing else is done while the drive lists: it may
// hold a lock.
func (s *server) list(ctx context.Context, h *dirHandle, after string, room int, plus, attrs bool) error {
	h.batch = h.batch[:0]
	collect := func(e fs.DirEntry, a fs.Attr) bool {
		room -= replySize(e.Name, plus)
		if room < 0 {
			return false
		}
		h.batch = append(h.batch, listed{e, a})
		return true
	}
	names := func(e fs.DirEntry) bool { return collect(e, fs.Attr{}) }
	switch {
	case h.history != nil:
		return h.history.ReadDir(ctx, after, names)
	case attrs:
		return s.src.ReadDirPlus(ctx, fs.Ino(h.node), after, s.refs.known, collect)
	default:
		return s.src.ReadDir(ctx, fs.Ino(h.node), after, names)
	}
}

// away reports whether an error says that what is wanted is elsewhere, and
// could not be had.
func away(err error) bool {
	return errors.Is(err, log.ErrAbsent) || errors.Is(err, context.DeadlineExceeded)
}

// parent is the d_ino of "..", as far as it is known.
func (s *server) parent(ctx context.Context, h *dirHandle) uint64 {
	if h.history != nil || s.drive == nil {
		return h.node
	}
	p, err := s.drive.Parent(ctx, fs.Ino(h.node))
	if err != nil {
		return h.node
	}
	return uint64(p)
}

func add(out *fuse.DirEntryList, plus bool, d fuse.DirEntry) (*fuse.EntryOut, bool) {
	if plus {
		e := out.AddDirLookupEntry(d)
		return e, e != nil
	}
	return nil, out.AddDirEntry(d)
}

// ReleaseDir closes a directory.
func (s *server) ReleaseDir(in *fuse.ReleaseIn) { s.dirs.remove(in.Fh) }

// FsyncDir makes names durable: everything is.
func (s *server) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if s.drive == nil || isVirtual(in.NodeId) {
		return fuse.OK
	}
	return s.fail("fsync directory", s.drive.Sync(uninterrupted()))
}

// nameList keeps the names a directory handle delivered: front-coded, as they
// mostly come in order, since a directory may have millions.
type nameList struct {
	arena []byte // shared u8, rest u8, bytes of the rest; names are at most 255 bytes
	block []uint32
	n     int
	last  string
}

// nameBlock is how many names share a starting point.
const nameBlock = 16

func (l *nameList) reset() { *l = nameList{arena: l.arena[:0], block: l.block[:0]} }

func (l *nameList) len() int { return l.n }

func (l *nameList) append(name string) {
	shared := 0
	if l.n%nameBlock == 0 {
		l.block = append(l.block, uint32(len(l.arena)))
	} else {
		for shared < len(name) && shared < len(l.last) && name[shared] == l.last[shared] {
			shared++
		}
	}
	l.arena = append(l.arena, byte(shared), byte(len(name)-shared))
	l.arena = append(l.arena, name[shared:]...)
	l.n++
	l.last = name
}

// at returns name i.
func (l *nameList) at(i int) string {
	if i == l.n-1 {
		return l.last
	}
	b := l.arena[l.block[i/nameBlock]:]
	var name []byte
	for range i%nameBlock + 1 {
		shared, rest := int(b[0]), int(b[1])
		name = append(name[:shared], b[2:2+rest]...)
		b = b[2+rest:]
	}
	return string(name)
}

// after records that name was delivered after the first place names, and
// returns the place after it. A listing that is read again gives the same
// places as long as it has the same names.
func (l *nameList) after(place int, name string) int {
	if place < l.n && l.at(place) == name {
		return place + 1
	}
	l.append(name)
	return l.n
}
