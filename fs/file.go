package fs

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"hearth/log"
)

// File is an open regular file. It keeps its inode alive until Close.
type File struct {
	d       *Drive
	ino     Ino
	session *session
	wrote   atomic.Bool // since the last flush
	read    atomic.Bool // atime was looked at through this handle
	closed  atomic.Bool
}

func (d *Drive) newFile(ino Ino, s *session) *File {
	d.refs[ino]++
	return &File{d: d, ino: ino, session: s}
}

// Open opens a regular file. With trunc its contents are dropped.
func (d *Drive) Open(ctx context.Context, c Caller, ino Ino, trunc bool) (*File, error) {
	s := d.sessions.of(c, d.clock())
	if trunc {
		zero := uint64(0)
		if _, err := d.setattr(ctx, s, ino, SetAttr{Size: &zero}); err != nil {
			return nil, err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.viewOf(ino).inode(ino)
	if err != nil {
		return nil, err
	}
	if n.isDir() {
		return nil, ErrIsDir
	}
	return d.newFile(ino, s), nil
}

// Ino returns the file's inode number.
func (f *File) Ino() Ino { return f.ino }

// Close ends the handle. It does not make a version durable.
func (f *File) Close() {
	if f.closed.Swap(true) {
		return
	}
	f.Flush()
	f.d.Unref(f.ino, 1)
}

// Flush marks what was written through this handle as a version people mean:
// the program closed the file. It does not commit.
func (f *File) Flush() {
	if !f.wrote.Swap(false) {
		return
	}
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.work.writer[f.ino]; ok {
		d.work.closed[f.ino] = struct{}{}
	}
	s := f.session
	if s.saved == nil || len(s.saved) > handoverLimit {
		s.saved = map[Ino]time.Time{}
	}
	s.saved[f.ino] = d.clock()
}

// Fsync returns when what was done to the file so far is durable.
func (f *File) Fsync(ctx context.Context) error {
	f.d.mu.Lock()
	o := f.d.orphans[f.ino]
	if _, ok := f.d.work.writer[f.ino]; ok {
		f.d.work.closed[f.ino] = struct{}{} // a version somebody asked to be kept
	}
	f.d.mu.Unlock()
	if o != nil {
		return nil // nothing of it outlives its handles
	}
	return f.d.Sync(ctx)
}

// ReadAt reads up to len(p) bytes from off; fewer only at the end of the file,
// where the error is io.EOF if nothing was read.
func (f *File) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	d := f.d
	if off < 0 {
		return 0, ErrInvalid
	}
	d.mu.RLock()
	v := d.viewOf(f.ino)
	n, err := v.inode(f.ino)
	if err != nil {
		d.mu.RUnlock()
		return 0, err
	}
	if uint64(off) >= n.size {
		d.mu.RUnlock()
		return 0, io.EOF
	}
	p = p[:min(uint64(len(p)), n.size-uint64(off))]
	if f.read.CompareAndSwap(false, true) {
		d.atimes.onRead(f.ino, n, d.clock())
	}
	df := d.dirty[f.ino]
	if df != nil && df.covers(uint64(off), uint64(len(p))) {
		df.overlay(uint64(off), p)
		d.mu.RUnlock()
		return len(p), nil
	}
	exts, err := collect(v, f.ino, uint64(off), uint64(len(p)))
	if err == nil && df != nil {
		// Unsealed bytes lie over extents, which may be replaced once the lock
		// is released: read all of it under the lock.
		err = d.readExtents(exts, p, uint64(off))
		df.overlay(uint64(off), p)
		d.mu.RUnlock()
		return len(p), err
	}
	d.mu.RUnlock()
	if err != nil {
		return 0, err
	}
	if err := d.readExtents(exts, p, uint64(off)); err != nil {
		return 0, fmt.Errorf("inode %d at %d: %w", f.ino, off, err)
	}
	return len(p), nil
}

// collect returns the extents of [off, off+n).
func collect(v *view, ino Ino, off, n uint64) ([]extent, error) {
	var out []extent
	err := v.extents(ino, off, off+n, func(e extent) bool {
		out = append(out, e)
		return true
	})
	return out, err
}

// readExtents fills p, which stands for the file's bytes from off, from
// extents within it; what no extent covers is a hole.
func (d *Drive) readExtents(exts []extent, p []byte, off uint64) error {
	at := off
	var slices []log.Slice
	var writer log.Writer
	flush := func() error {
		if len(slices) == 0 {
			return nil
		}
		l, err := d.store.Log(writer)
		if err == nil {
			err = l.ReadData(slices)
		}
		slices = slices[:0]
		return err
	}
	for _, e := range exts {
		if e.off > at {
			clear(p[at-off : e.off-off])
		}
		dst := p[e.off-off : e.end()-off]
		at = e.end()
		if e.ref.Writer == spillWriter {
			if err := d.spill.read(dst, e.ref.Index, int(e.skip), d.store.Keys()); err != nil {
				return err
			}
			continue
		}
		if e.ref.Writer != writer {
			if err := flush(); err != nil {
				return err
			}
			writer = e.ref.Writer
		}
		slices = append(slices, log.Slice{Index: e.ref.Index, Off: int(e.skip), Dst: dst})
	}
	clear(p[at-off:])
	return flush()
}

// WriteAt writes p at off.
func (f *File) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	return f.write(ctx, p, off, false, false)
}

// Append writes p at the end of the file and returns where that was.
func (f *File) Append(ctx context.Context, p []byte) (int, error) {
	return f.write(ctx, p, 0, true, false)
}

// WriteKillPriv is WriteAt by a process that must not leave setuid or setgid
// bits standing.
func (f *File) WriteKillPriv(ctx context.Context, p []byte, off int64) (int, error) {
	return f.write(ctx, p, off, false, true)
}

func (f *File) write(ctx context.Context, p []byte, off int64, atEnd, killPriv bool) (int, error) {
	if off < 0 || !atEnd && uint64(off)+uint64(len(p)) > MaxSize {
		return 0, ErrTooBig
	}
	done := 0
	for done < len(p) {
		n := min(len(p)-done, maxRun) // no more than the bound at once
		if f.d.own.Hurried() {
			n = min(n, maxHurried/4)
		}
		if err := f.writeSome(ctx, p[done:done+n], uint64(off)+uint64(done), atEnd, killPriv); err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

func (f *File) writeSome(ctx context.Context, p []byte, at uint64, atEnd, killPriv bool) error {
	d := f.d
	for {
		if err := d.waitRoom(ctx, f.ino, len(p)); err != nil {
			return err
		}
		if err := d.begin(); err != nil {
			return err
		}
		n, err := d.viewOf(f.ino).inode(f.ino)
		if err != nil {
			d.mu.Unlock()
			return err
		}
		if !n.isRegular() {
			d.mu.Unlock()
			return ErrInvalid
		}
		orphaned := d.orphans[f.ino] != nil
		if !orphaned {
			d.saving(f.session, f.ino)
			if d.cutBefore(f.session, f.ino) {
				d.mu.Unlock()
				if err := d.cut(ctx); err != nil {
					return err
				}
				continue
			}
		}
		if atEnd {
			at = n.size
		}
		d.writeDirty(f.ino, at, p)
		end := at + uint64(len(p))
		var grown int64
		if at > n.size {
			n.sparse = true
		}
		if end > n.size {
			grown = int64(end - n.size)
			n.size = end
		}
		n.mtime = d.now()
		n.ctime = n.mtime
		n.content = d.openSeq
		if killPriv {
			n.mode = withoutPrivilege(n.mode)
		}
		d.putInode(f.ino, n)
		if !orphaned {
			d.bytes += uint64(grown)
			d.note(f.session, change{what: didWrite, ino: f.ino, delta: grown, size: n.size})
			d.mutated()
		}
		much := d.dirtyBytes > d.lowDirty()
		d.mu.Unlock()
		f.wrote.Store(true)
		if much {
			d.wakeSealer()
		}
		return nil
	}
}

// withoutPrivilege clears what a write or chown by an unprivileged process
// clears: setuid, and setgid where the group may execute.
func withoutPrivilege(mode uint32) uint32 {
	mode &^= modeSetuid
	if mode&0o010 != 0 {
		mode &^= modeSetgid
	}
	return mode
}

// writeDirty puts contents into a file's dirty runs. Under mu.
func (d *Drive) writeDirty(ino Ino, off uint64, p []byte) {
	df := d.dirty[ino]
	if df == nil {
		df = &dirtyFile{ino: ino}
		d.dirty[ino] = df
	}
	d.dirtyBytes += int64(df.write(off, p))
	d.enlist(df)
}

func (d *Drive) wakeSealer() {
	select {
	case d.sealKick <- struct{}{}:
	default:
	}
}

// maxDirty and lowDirty are the bounds of unsealed data that hold now. Under mu.
func (d *Drive) maxDirty() int64 {
	if d.own.Hurried() {
		return maxHurried
	}
	return maxDirty
}

func (d *Drive) lowDirty() int64 {
	if d.own.Hurried() {
		return lowHurried
	}
	return lowDirty
}

// full reports whether n more bytes of a file would be too many. Under mu.
func (d *Drive) full(ino Ino, n int) bool {
	limit := d.maxDirty()
	if limit < maxDirty && d.dirty[ino].bytes()+n <= littleDirty {
		limit *= 2 // who writes little need not queue behind a stream
	}
	return d.dirtyBytes+int64(n) > limit
}

// waitRoom waits until n more bytes of a file may be unsealed, and refuses them
// when the disk could not take them. A commit's worth of room is kept for
// deleting.
func (d *Drive) waitRoom(ctx context.Context, ino Ino, n int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	// Up to lowDirty nobody seals behind the writers: whoever waited for that
	// would wait for a commit, and none takes what has no name.
	for d.full(ino, n) && d.dirtyBytes > d.lowDirty() {
		if err := d.usable(); err != nil {
			return err
		}
		before := d.dirtyBytes
		d.wakeSealer()
		d.changed.Wait()
		if err := ctx.Err(); err != nil {
			return err
		}
		if d.dirtyBytes >= before && !d.spaceFor(d.dirtyBytes+int64(n)) {
			return ErrNoSpace
		}
	}
	if !d.spaceFor(d.dirtyBytes + int64(n)) {
		return ErrNoSpace
	}
	return nil
}

// spaceFor reports whether the disk has room for n more bytes of contents,
// asking it only every so often. Under mu.
func (d *Drive) spaceFor(n int64) bool {
	now := time.Now()
	if d.spaceLeft-n < spaceMargin || now.Sub(d.spaceAt) > time.Second {
		free, _, err := d.store.FS().Free(d.store.Dir())
		if err != nil {
			return true // the write itself will tell
		}
		d.spaceLeft, d.spaceAt = free, now
	}
	return d.spaceLeft-n-n/16 >= spaceKept
}

const (
	spaceKept   = 2 << 20  // never filled with contents: commits and deletions need room
	spaceMargin = 64 << 20 // below this the disk is asked each time
)

// Seek finds data or a hole from off on: lseek(2) with SEEK_DATA or SEEK_HOLE.
func (f *File) Seek(_ context.Context, off int64, hole bool) (int64, error) {
	d := f.d
	d.mu.RLock()
	defer d.mu.RUnlock()
	v := d.viewOf(f.ino)
	n, err := v.inode(f.ino)
	if err != nil {
		return 0, err
	}
	if off < 0 || uint64(off) >= n.size {
		return 0, ErrNoData
	}
	var marks []extent // stretches of data, unsorted among sources
	if err := v.extents(f.ino, uint64(off), n.size, func(e extent) bool { marks = append(marks, e); return true }); err != nil {
		return 0, err
	}
	if df := d.dirty[f.ino]; df != nil {
		for _, runs := range [2][]run{df.sealing, df.runs} {
			for _, r := range runs {
				if r.end() > uint64(off) && r.off < n.size {
					marks = append(marks, extent{off: max(r.off, uint64(off)), length: r.end() - max(r.off, uint64(off))})
				}
			}
		}
	}
	at := uint64(off)
	if !hole {
		best := n.size
		for _, e := range marks {
			best = min(best, e.off)
		}
		if best >= n.size {
			return 0, ErrNoData
		}
		return int64(best), nil
	}
	for moved := true; moved; {
		moved = false
		for _, e := range marks {
			if e.off <= at && e.end() > at {
				at, moved = e.end(), true
			}
		}
	}
	return int64(min(at, n.size)), nil
}

// CopyRange copies n bytes from f at off to dst at dstOff by sharing extents:
// no data is read or written. It returns how much was copied, less than n only
// at the end of f.
func (f *File) CopyRange(ctx context.Context, off int64, dst *File, dstOff int64, n int64) (int64, error) {
	d := f.d
	if off < 0 || dstOff < 0 || n < 0 || dst.d != d {
		return 0, ErrInvalid
	}
	if uint64(dstOff)+uint64(n) > MaxSize {
		return 0, ErrTooBig
	}
	// What is unsealed has no extents to share yet; and data of inodes without
	// a name is outside the log.
	if err := d.sealFile(f.ino); err != nil {
		return 0, err
	}
	if err := d.begin(); err != nil {
		return 0, err
	}
	defer d.mu.Unlock()
	d.settle(dst.ino)
	src, err := d.viewOf(f.ino).inode(f.ino)
	if err != nil {
		return 0, err
	}
	if uint64(off) >= src.size {
		return 0, nil
	}
	n = min(n, int64(src.size)-off)
	if f.ino == dst.ino && off < dstOff+n && dstOff < off+n {
		return 0, ErrInvalid
	}
	if df := d.dirty[f.ino]; df != nil || d.orphans[f.ino] != nil || d.orphans[dst.ino] != nil {
		return 0, ErrNotSupported // written again meanwhile: the caller copies bytes
	}
	exts, err := collect(d.live(), f.ino, uint64(off), uint64(n))
	if err != nil {
		return 0, err
	}
	to, err := d.live().inode(dst.ino)
	if err != nil {
		return 0, err
	}
	if df := d.dirty[dst.ino]; df != nil {
		d.dirtyBytes -= int64(df.cut(uint64(dstOff), uint64(dstOff+n)))
		d.delist(df)
	}
	v := d.live()
	if err := clearExtents(v, d.open, dst.ino, uint64(dstOff), uint64(dstOff+n)); err != nil {
		return 0, err
	}
	covered := uint64(0)
	for _, e := range exts {
		e.off = e.off - uint64(off) + uint64(dstOff)
		d.open.put(extentKey(dst.ino, e.off), e.encode())
		covered += e.length
	}
	end := uint64(dstOff + n)
	var grown int64
	if covered < uint64(n) || uint64(dstOff) > to.size {
		to.sparse = true
	}
	if end > to.size {
		grown = int64(end - to.size)
		to.size = end
	}
	to.mtime = d.now()
	to.ctime = to.mtime
	to.content = d.openSeq
	d.putInode(dst.ino, to)
	d.bytes += uint64(grown)
	d.note(dst.session, change{what: didWrite, ino: dst.ino, delta: grown, size: to.size})
	d.mutated()
	dst.wrote.Store(true)
	return n, nil
}

// delist takes a file without unsealed contents off the list. Under mu.
func (d *Drive) delist(f *dirtyFile) {
	if len(f.runs) > 0 || f.sealing != nil {
		return
	}
	if f.elem != nil {
		d.dirtyOrder.Remove(f.elem)
		f.elem = nil
	}
	delete(d.dirty, f.ino)
}

// sealFile seals what is unsealed of one file.
func (d *Drive) sealFile(ino Ino) error {
	d.sealMu.Lock()
	defer d.sealMu.Unlock()
	d.mu.Lock()
	f := d.dirty[ino]
	if f == nil || len(f.runs) == 0 || d.orphans[ino] != nil {
		d.mu.Unlock()
		return nil
	}
	var batch []detached
	for _, r := range f.runs {
		batch = append(batch, detached{f, r, nil})
	}
	f.sealing, f.runs = f.runs, nil
	d.dirtyOrder.Remove(f.elem)
	f.elem = nil
	base, target := d.live(), d.open
	d.mu.Unlock()
	_, err := d.sealRuns(batch, base, target, true)
	return err
}

// readWhole reads the first n bytes of a data block.
func (d *Drive) readWhole(ref log.Ref, n int) ([]byte, error) {
	l, err := d.store.Log(ref.Writer)
	if err != nil {
		return nil, err
	}
	p := make([]byte, n)
	return p, l.ReadData([]log.Slice{{Index: ref.Index, Dst: p}})
}
