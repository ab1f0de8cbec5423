package mount

import (
	"context"
	"hash/maphash"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"

	"hearth/fs"
)

// HistoryNode is a file, directory or symbolic link inside a .history. What a
// name there means may change from one lookup to the next, so every lookup asks
// the drive again, and what was opened keeps the node it was opened on.
type HistoryNode = fs.HistoryNode

// Fixed is a [HistoryNode] that knows whether it is part of an old version:
// if so, its contents and the names in it never change, and stay cached.
type Fixed interface {
	Fixed() bool
}

// Cloner is a [HistoryNode] whose contents can be shared with a live file
// instead of being copied (copy_file_range out of .history).
type Cloner interface {
	CopyRange(ctx context.Context, c fs.Caller, off int64, dst *fs.File, dstOff, n int64) (int64, error)
}

func isFixed(n HistoryNode) bool {
	f, ok := n.(Fixed)
	return ok && f.Fixed()
}

// virtualBit marks the node ids of names inside .history.
const virtualBit = 1 << 63

func isVirtual(node uint64) bool { return node&virtualBit != 0 }

// virtualPath is what a virtual node stands for. The kernel refuses one
// directory at two places (ELOOP, or it moves the entry), so there is one node
// for each path and not for each (inode, version). The type and the target of
// a symbolic link are part of it: the kernel caches targets, and a link such as
// "latest" becomes another node when it points elsewhere.
type virtualPath struct {
	parent uint64
	name   string
	typ    uint32
	target string
}

type virtualNode struct {
	id      uint64
	path    virtualPath
	node    HistoryNode // of the newest lookup
	lookups uint64
}

// virtualNodes are the nodes of .history that the kernel knows. They live
// until it forgets them; ids are not used again.
type virtualNodes struct {
	mu     sync.Mutex
	last   uint64
	byID   map[uint64]*virtualNode
	byPath map[virtualPath]*virtualNode
}

// add notes a lookup and returns the id for the path.
func (t *virtualNodes) add(path virtualPath, n HistoryNode) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byID == nil {
		t.byID, t.byPath = map[uint64]*virtualNode{}, map[virtualPath]*virtualNode{}
	}
	v := t.byPath[path]
	if v == nil {
		t.last++
		v = &virtualNode{id: virtualBit | t.last, path: path}
		t.byID[v.id], t.byPath[path] = v, v
	}
	v.node = n
	v.lookups++
	return v.id
}

// get returns the node behind an id, or nil.
func (t *virtualNodes) get(id uint64) HistoryNode {
	t.mu.Lock()
	defer t.mu.Unlock()
	if v := t.byID[id]; v != nil {
		return v.node
	}
	return nil
}

func (t *virtualNodes) forget(id, lookups uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v := t.byID[id]
	if v == nil {
		return
	}
	if v.lookups > lookups {
		v.lookups -= lookups
		return
	}
	delete(t.byID, id)
	delete(t.byPath, v.path)
}

func (t *virtualNodes) drain() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byID, t.byPath = nil, nil
}

func (t *virtualNodes) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byID)
}

var inoSeed = maphash.MakeSeed()

// listedIno is the d_ino of a name inside .history: nodes are made by lookup
// only, so a listing cannot know the st_ino.
func listedIno(parent uint64, name string) uint64 {
	var h maphash.Hash
	h.SetSeed(inoSeed)
	maphash.WriteComparable(&h, parent)
	h.WriteString(name)
	return h.Sum64()>>2 | virtualBit
}

func fillVirtual(out *fuse.Attr, id uint64, a *fs.Attr) {
	fillAttr(out, a)
	out.Ino = id
	if a.IsDir() {
		out.Nlink = 1 // "not counted": find and fts then trust d_type alone
	}
}

// virtualEntry answers a lookup with a node. Attributes are not cached: they
// are masked by what the present ones allow, and those may change.
func (s *server) virtualEntry(ctx context.Context, parent uint64, name string, n HistoryNode, out *fuse.EntryOut) fuse.Status {
	a, err := n.Attr(ctx)
	if err != nil {
		return s.fail("history", err)
	}
	path := virtualPath{parent: parent, name: name, typ: a.Mode & fs.ModeType}
	if path.typ == fs.ModeSymlink {
		if path.target, err = n.Readlink(ctx); err != nil {
			return s.fail("history", err)
		}
	}
	out.NodeId = s.virtual.add(path, n)
	fillVirtual(&out.Attr, out.NodeId, &a)
	if isFixed(n) {
		out.SetEntryTimeout(valid)
	}
	return fuse.OK
}

// historyLookup answers the lookup of .history in a live directory.
func (s *server) historyLookup(ctx context.Context, dir uint64, out *fuse.EntryOut) fuse.Status {
	n, err := s.history(ctx, fs.Ino(dir))
	if err != nil {
		return s.fail("history", err)
	}
	return s.virtualEntry(ctx, dir, fs.HistoryName, n, out)
}

func (s *server) virtualLookup(ctx context.Context, parent uint64, name string, out *fuse.EntryOut) fuse.Status {
	dir := s.virtual.get(parent)
	switch {
	case dir == nil:
		return statusStale
	case name == fs.HistoryName: // there is no history of history
		return fuse.ENOENT
	}
	n, err := dir.Lookup(ctx, name)
	if err != nil {
		return s.fail("history", err)
	}
	return s.virtualEntry(ctx, parent, name, n, out)
}

func (s *server) virtualAttr(ctx context.Context, id uint64, out *fuse.AttrOut) fuse.Status {
	n := s.virtual.get(id)
	if n == nil {
		return statusStale
	}
	a, err := n.Attr(ctx)
	if err != nil {
		return s.fail("history", err)
	}
	fillVirtual(&out.Attr, id, &a)
	return fuse.OK
}

func (s *server) virtualReadlink(ctx context.Context, id uint64) ([]byte, fuse.Status) {
	n := s.virtual.get(id)
	if n == nil {
		return nil, statusStale
	}
	target, err := n.Readlink(ctx)
	if err != nil {
		return nil, s.fail("history", err)
	}
	return []byte(target), fuse.OK
}

func (s *server) virtualMkdir(ctx context.Context, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	dir := s.virtual.get(in.NodeId)
	if dir == nil {
		return statusStale
	}
	if s.drive == nil {
		return fuse.EROFS
	}
	if err := dir.Mkdir(ctx, caller(&in.InHeader), name); err != nil {
		return s.fail("history mkdir", err)
	}
	return s.virtualLookup(ctx, in.NodeId, name, out)
}

func (s *server) virtualRmdir(ctx context.Context, h *fuse.InHeader, name string) fuse.Status {
	dir := s.virtual.get(h.NodeId)
	if dir == nil {
		return statusStale
	}
	if s.drive == nil {
		return fuse.EROFS
	}
	return s.fail("history rmdir", dir.Rmdir(ctx, caller(h), name))
}

// virtualOpen opens an old file. Contents that may change, such as a list of
// versions, bypass the page cache.
func (s *server) virtualOpen(in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n := s.virtual.get(in.NodeId)
	switch {
	case n == nil:
		return statusStale
	case writes(in.Flags):
		return fuse.EROFS
	}
	out.Fh = s.files.add(&fileHandle{reader: n})
	out.OpenFlags = fuse.FOPEN_NOFLUSH | fuse.FOPEN_DIRECT_IO
	if isFixed(n) {
		out.OpenFlags = fuse.FOPEN_NOFLUSH | fuse.FOPEN_KEEP_CACHE
	}
	return fuse.OK
}
