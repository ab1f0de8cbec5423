package log

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"path/filepath"

	"hearth/log/disk"

	"github.com/zeebo/blake3"
)

const (
	rewriteBuffer = 1 << 20
	rewriteSync   = 4 << 20 // synced in parts, so that others never wait long for the disk
)

// rewriter writes the new file of a segment.
type rewriter struct {
	*Log
	use      segmentUse
	old      *segment
	file     disk.File
	path     string
	buf      []byte
	off      int64 // where buf belongs
	unsynced int64

	next   uint64 // the entry after those that were copied
	dead   []byte // recaps of dropped entries that are to be written in their place
	recaps []byte // of all entries since the last frameRecap
	locs   []location
}

// rewriteSegment replaces a segment by one without the bodies of dropped
// blocks: see drop.go. A segment in which a header is damaged stays as it is.
func (l *Log) rewriteSegment(ctx context.Context, u segmentUse) error {
	old, err := l.segs.get(u.num)
	if err != nil {
		return err
	}
	defer l.segs.put(old)
	w := &rewriter{Log: l, use: u, old: old, path: l.segs.path(u.num) + rewriteSuffix}
	err = w.write(ctx)
	if isFull(err) && l.reserve.release() {
		err = w.write(ctx)
	}
	if err != nil {
		return err
	}
	return w.install()
}

// write writes and syncs the new file. After an error there is none.
func (w *rewriter) write(ctx context.Context) error {
	if err := removeIfThere(w.disk, w.path); err != nil {
		return err
	}
	var err error
	if w.file, err = w.disk.Create(w.path); err != nil {
		return err
	}
	w.buf = encodeSegmentHeader(w.use.num, w.use.first, w.keyHash)
	w.off, w.unsynced = 0, 0
	w.recaps, w.dead, w.locs, w.next = w.recaps[:0], w.dead[:0], w.locs[:0], w.use.first
	err = w.copyAll(ctx)
	if err == nil {
		err = w.file.Datasync()
	}
	err = errors.Join(err, w.file.Close())
	if err != nil {
		return errors.Join(err, removeIfThere(w.disk, w.path))
	}
	return nil
}

func (w *rewriter) copyAll(ctx context.Context) error {
	for i := range w.use.count {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := w.copyEntry(w.use.first + i); err != nil {
			return err
		}
		if len(w.buf) >= rewriteBuffer {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	w.endRecaps()
	return w.flush()
}

// copyEntry copies the frame of a live entry, or keeps the recap of a dropped
// one. A block that is damaged is copied as it is.
func (w *rewriter) copyEntry(index uint64) error {
	w.mu.RLock()
	loc, dropped := w.Log.locs.get(index), w.dropped.Contains(index)
	w.mu.RUnlock()
	if dropped || loc.kind() == locDropped {
		return w.keepRecap(index)
	}
	w.endDead()
	start := len(w.buf)
	f, buf, loc, err := w.readFrame(w.buf, index)
	if errors.Is(err, ErrDropped) {
		return w.keepRecap(index) // just now
	}
	if err != nil {
		return err
	}
	w.buf = buf
	body := buf[start+frameHeader:]
	if f.typ == frameControl && !f.intact(body) {
		return w.damage(index, loc, "its contents do not match its digest") // its leaf is lost
	}
	var zeros [frameAlign]byte
	w.buf = append(w.buf, zeros[:f.size()-int64(len(buf)-start)]...)
	w.locs = append(w.locs, makeLocation(loc.kind(), w.use.num, w.off+int64(start), f.length))
	r := recapBlock(Descriptor{f.length, f.digest})
	if f.typ == frameControl {
		r = recap{control: true, leaf: LeafHash(body)}
	}
	w.addRecap(r)
	return nil
}

// addRecap adds the second copy of what the tree needs to know.
func (w *rewriter) addRecap(r recap) {
	w.recaps = r.appendTo(w.recaps)
	w.next++
	if len(w.recaps) == maxRecaps*recapSize {
		w.endRecaps()
	}
}

func (w *rewriter) keepRecap(index uint64) error {
	d, err := w.Descriptor(index)
	if err != nil {
		return err
	}
	r := recap{length: d.Length, digest: d.Digest}
	w.dead = r.appendTo(w.dead)
	w.addRecap(r)
	return nil
}

// endDead writes the recaps of dropped entries in the place of their frames.
func (w *rewriter) endDead() {
	n := uint64(len(w.dead) / recapSize)
	if n == 0 {
		return
	}
	loc := makeLocation(locDropped, w.use.num, w.off+int64(len(w.buf)), 0)
	for range n {
		w.locs = append(w.locs, loc)
	}
	w.addFrame(frameDropped, w.next-n, w.dead)
	w.dead = w.dead[:0]
}

// endRecaps writes the second copies.
func (w *rewriter) endRecaps() {
	w.endDead()
	if n := uint64(len(w.recaps) / recapSize); n > 0 {
		w.addFrame(frameRecap, w.next-n, w.recaps)
		w.recaps = w.recaps[:0]
	}
}

func (w *rewriter) addFrame(typ frameType, index uint64, body []byte) {
	f := frame{typ: typ, length: uint32(len(body)), index: index, behind: unknownBehind, digest: blake3.Sum256(body)}
	w.buf = f.appendTo(w.buf, body)
}

func (w *rewriter) flush() error {
	if _, err := w.file.WriteAt(w.buf, w.off); err != nil {
		return fmt.Errorf("%s: %w", w.path, err)
	}
	w.off += int64(len(w.buf))
	w.unsynced += int64(len(w.buf))
	w.buf = w.buf[:0]
	if w.unsynced < rewriteSync {
		return nil
	}
	w.unsynced = 0
	return w.file.Datasync()
}

// install puts the new file in the place of the old one.
func (w *rewriter) install() error {
	w.markMu.Lock()
	defer w.markMu.Unlock()
	if err := w.setRewriting(w.use.num + 1); err != nil {
		return errors.Join(err, w.setRewriting(0), removeIfThere(w.disk, w.path))
	}
	w.mu.Lock()
	// No reader may take a location from before and the file from after. The
	// old file is in use here, so that until it is forgotten nobody gets the
	// new one.
	err := w.disk.Rename(w.path, w.old.path)
	if err == nil {
		for i, loc := range w.locs {
			w.Log.locs.set(w.use.first+uint64(i), loc)
		}
		w.segs.forget(w.use.num)
	}
	w.mu.Unlock()
	if err == nil {
		err = w.disk.SyncDir(filepath.Dir(w.path))
	}
	if err != nil {
		// Which file is there is not known until the log is opened again.
		return w.fail(err)
	}
	w.locsStale = true
	return w.setRewriting(0)
}

// setRewriting makes the mark say, durably, which segment is being rewritten.
func (w *rewriter) setRewriting(v uint32) error {
	w.mu.Lock()
	w.rewriting = v
	w.mu.Unlock()
	return w.settleForSpace()
}

func removeIfThere(d disk.FS, name string) error {
	_, err := d.Stat(name)
	if err == nil {
		err = d.Remove(name)
	}
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	return err
}
