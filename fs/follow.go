package fs

import (
	"context"
	"errors"
	"fmt"

	"hearth/fs/tree"
	"hearth/log"
	"hearth/log/seal"
)

// A drive of which this device writes no log is followed: it is read-only here,
// and shows what its writer has committed as far as is known. Its blocks may
// be elsewhere, and reading may wait for them, so what is read holds no lock:
// readers take the newest snapshot and keep it. Whoever needs the drive's lock
// for more than a moment (.history, the feed) may delay the next version.

// Walker brings what an operation reads to this device, in one request to
// somebody who can do the operation himself, as a program of its own would
// need one for every page on the way.
type Walker interface {
	// Walk returns when it has brought what it could get. That something is
	// still lacking is no error: the operation asks for it then.
	Walk(ctx context.Context, w Walk) error
}

// WalkOp is what a [Walk] does.
type WalkOp uint8

// The operations of walks.
const (
	WalkPath    WalkOp = 1 // resolves Name, a path, and reads [Off, Off+Len) of what it names
	WalkLookup  WalkOp = 2 // finds Name in the directory Ino
	WalkList    WalkOp = 3 // lists the directory Ino after Name, with attributes
	WalkAttr    WalkOp = 4 // the attributes and extended attributes of Ino
	WalkRead    WalkOp = 5 // reads [Off, Off+Len) of the file Ino
	walkOpFirst        = WalkPath
	walkOpLast         = WalkRead
)

// Walk is an operation on a version of a drive, described to somebody else.
type Walk struct {
	Commit log.Ref // of the version
	Op     WalkOp
	Ino    Ino
	Name   string
	Off    uint64
	Len    uint64
}

// Valid reports whether a walk that was received makes sense.
func (w *Walk) Valid() bool {
	return w.Op >= walkOpFirst && w.Op <= walkOpLast && len(w.Name) <= 4096 && w.Len <= walkMost && w.Off <= MaxSize
}

// walkMost bounds what one walk reads of a file; the rest is asked for as it is
// read.
const walkMost = 4 << 20

// listAhead is how many entries of a directory a walk takes.
const listAhead = 4096

// errEnough ends a walk.
var errEnough = errors.New("enough")

// Trace does the operation of a walk and tells the blocks it reads, the commit
// first, in the order in which they are needed, until visit returns false. That
// the operation finds nothing is no error: the blocks say so.
func (d *Drive) Trace(ctx context.Context, w Walk, visit func(log.Ref) bool) error {
	t := &tracer{d: d, ctx: ctx, visit: visit, seen: map[log.Ref]bool{}}
	if !t.see(w.Commit) {
		return nil
	}
	c, err := d.readCommit(w.Commit)
	if err != nil {
		return err
	}
	v := &view{[]*layer{layerOf(c.buffer)}, tree.New(t, tree.NewCache(traceCache), c.root)}
	err = t.do(v, &w)
	if errors.Is(err, errEnough) || isNotExist(err) || errors.Is(err, ErrNotDir) || errors.Is(err, ErrInvalid) {
		return nil
	}
	return err
}

// traceCache is the memory for the pages of one walk.
const traceCache = 1 << 20

type tracer struct {
	d     *Drive
	ctx   context.Context
	visit func(log.Ref) bool
	seen  map[log.Ref]bool
}

func (t *tracer) see(ref log.Ref) bool {
	if t.seen[ref] {
		return true
	}
	t.seen[ref] = true
	return t.ctx.Err() == nil && t.visit(ref)
}

// ReadPage implements tree.Pages.
func (t *tracer) ReadPage(ref log.Ref) ([]byte, error) {
	if !t.see(ref) {
		return nil, errEnough
	}
	return t.d.store.ReadLocal(nil, ref, seal.Page)
}

// AppendPage implements tree.Pages.
func (t *tracer) AppendPage([]byte) (log.Ref, error) { return log.Ref{}, ErrReadOnly }

func (t *tracer) do(v *view, w *Walk) error {
	switch w.Op {
	case WalkPath:
		ino, err := v.resolve(w.Name)
		if err != nil {
			return err
		}
		return t.read(v, ino, w.Off, w.Len)
	case WalkLookup:
		e, err := v.lookup(w.Ino, w.Name)
		if err != nil {
			return err
		}
		return t.attr(v, e.ino)
	case WalkList:
		n := 0
		return v.entriesPlus(w.Ino, w.Name, nil,
			func(ino Ino) (Attr, error) { return Attr{}, t.attr(v, ino) },
			func(DirEntry, Attr) bool { n++; return n < listAhead })
	case WalkAttr:
		return t.attr(v, w.Ino)
	default:
		return t.read(v, w.Ino, w.Off, w.Len)
	}
}

// attr reads what stat and listxattr do.
func (t *tracer) attr(v *view, ino Ino) error {
	if _, err := v.inode(ino); err != nil {
		return err
	}
	return v.xattrs(ino, func(string, []byte) error { return nil })
}

func (t *tracer) read(v *view, ino Ino, off, n uint64) error {
	node, err := v.inode(ino)
	if err != nil || !node.isRegular() || off >= node.size || n == 0 {
		return err
	}
	return v.extents(ino, off, min(off+n, node.size), func(e extent) bool {
		return e.ref.Writer == spillWriter || t.see(e.ref)
	})
}

// SetWalker sets who is asked for what operations on a followed drive read.
func (d *Drive) SetWalker(w Walker) {
	d.mu.Lock()
	d.walker = w
	d.mu.Unlock()
}

// Followed reports whether the drive is written by another device.
func (d *Drive) Followed() bool { return d.followed }

// Current returns the newest version of a followed drive.
func (d *Drive) Current() *Snapshot { return d.current.Load() }

// Prepare brings what an operation on a snapshot of a followed drive reads to
// this device, if it is not here. It never fails: the operation does.
func (s *Snapshot) Prepare(ctx context.Context, w Walk) {
	d := s.d
	if !d.followed {
		return
	}
	d.mu.RLock()
	walker := d.walker
	d.mu.RUnlock()
	if walker == nil {
		return
	}
	w.Len = min(w.Len, walkMost)
	w.Commit = log.Ref{Writer: s.Version.Writer, Index: s.index}
	missing := false
	l := d.own
	t := &tracer{d: d, ctx: ctx, seen: map[log.Ref]bool{}, visit: func(ref log.Ref) bool {
		missing = !l.Holds(ref.Index)
		return !missing
	}}
	local := &view{s.v.layers, s.v.tree.With(t)}
	if err := t.do(local, &w); err == nil && !missing || !missing && !errors.Is(err, log.ErrMissing) {
		return
	}
	if err := walker.Walk(ctx, w); err != nil {
		d.logger.Debug("asking for a walk", "drive", d.store.ID(), "err", err)
	}
}

// follow shows each new version until the drive is closed.
func (d *Drive) follow() {
	defer d.wg.Done()
	for {
		changed, added := d.own.Changed(), d.store.Keys().Added()
		if err := d.advance(); err != nil && d.stopped.Err() == nil {
			d.logger.Warn("a newer version cannot be shown yet", "drive", d.store.ID(), "err", err)
		}
		select {
		case <-d.stopped.Done():
			return
		case <-changed:
		case <-added:
		}
	}
}

// advance goes on to the newest version, and tells the kernel what differs.
func (d *Drive) advance() error {
	size := d.own.Head().Size
	d.mu.RLock()
	have := d.head.index
	d.mu.RUnlock()
	if size > 0 && size-1 != have {
		c, err := d.readCommit(log.Ref{Writer: d.writer, Index: size - 1})
		if err != nil {
			return fmt.Errorf("newest version of drive %s: %w", d.store.ID(), err)
		}
		d.mu.Lock()
		d.show(version{c, size - 1})
		d.mu.Unlock()
		d.waiters.wake()
	}
	return d.announce()
}

// show makes a version the newest. Under mu.
func (d *Drive) show(v version) {
	d.head = v
	d.base = tree.New(&d.pages, d.cache, v.root)
	d.buffer = layerOf(v.buffer)
	d.openSeq = v.seq + 1
	d.nextIno, d.inodes, d.bytes = v.nextIno, v.inodes, v.bytes
	if d.followed {
		d.current.Store(d.snapshotOf(v))
	}
}

// announce tells the kernel what differs between what it was told of last and
// the newest version. When it fails, the next time makes up for it.
func (d *Drive) announce() error {
	now := d.current.Load()
	d.mu.RLock()
	notifier := d.notifier
	d.mu.RUnlock()
	was := d.announced
	if notifier == nil || was == nil {
		d.announced = now // nobody has seen anything older
		return nil
	}
	if was == now {
		return nil
	}
	var last Ino
	lo := inodeKey(RootIno)
	err := diffViews(was.v, now.v, lo, nil, func(key, _, _ []byte) error {
		ino := keyIno(key)
		if keyKind(key) == kindDirent {
			notifier.InvalEntry(ino, keyName(key))
		}
		if ino != last {
			notifier.InvalInode(ino)
			last = ino
		}
		return nil
	})
	if err != nil {
		return err
	}
	d.announced = now
	return nil
}

// Announce appends control entries of the drive's owner, such as the boxes of a
// share link, and makes them durable: with a version of its own that changes
// nothing, as a head is cut only after a commit.
func (d *Drive) Announce(ctx context.Context, controls []log.Control) error {
	d.commitMu.Lock()
	defer d.commitMu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.RLock()
	err := d.usable()
	d.mu.RUnlock()
	if err != nil {
		return err
	}
	// They count from when they are appended: if the commit fails, as on a full
	// disk, the next one saves them.
	d.mu.Lock()
	d.mutated()
	d.mu.Unlock()
	for _, c := range controls {
		if _, err := d.store.AppendControl(c); err != nil {
			return fmt.Errorf("drive %s: %w", d.store.ID(), err)
		}
	}
	return d.commitLocked(true)
}
