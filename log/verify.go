package log

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
)

// edge is the right edge of a Merkle tree: enough to append to it and to know
// its root.
type edge struct {
	n     uint64
	peaks [64][hashSize]byte
}

func (e *edge) append(leaf [hashSize]byte) {
	level := 0
	for n := e.n; n&1 == 1; n >>= 1 {
		leaf = nodeHash(&e.peaks[level], &leaf)
		level++
	}
	e.peaks[level] = leaf
	e.n++
}

func (e *edge) root() [hashSize]byte {
	root, first := emptyRoot, true
	for level := range e.peaks {
		switch {
		case e.n>>level&1 == 0:
		case first:
			root, first = e.peaks[level], false
		default:
			root = nodeHash(&e.peaks[level], &root)
		}
	}
	return root
}

// verification is one run of Verify.
type verification struct {
	*Log
	ctx      context.Context
	report   func(Damage)
	progress func(done, total int64)
	head     Head
	end      position // behind the head
	edge     edge
	known    bool // no leaf was lost so far: roots can be told
	done     int64
	total    int64
	badIndex bool
}

// Verify reads everything up to the newest durable checkpoint and checks every
// digest, every leaf, the roots and signatures of all checkpoints, and the
// index files. Each damage is reported; what is derived is repaired, at the
// latest when the log is opened next. Blocks that were dropped are no damage.
// progress may be nil. The error is not nil if checking itself was not
// possible or was cancelled.
func (l *Log) Verify(ctx context.Context, report func(Damage), progress func(done, total int64)) error {
	ctx, cancel := l.bound(ctx)
	defer cancel()
	l.spaceMu.Lock()
	defer l.spaceMu.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	if l.replica {
		return l.verifyReplica(ctx, report, progress)
	}
	v := &verification{Log: l, ctx: ctx, progress: progress, known: true}
	v.report = func(d Damage) {
		l.health.note(d)
		report(d)
	}
	l.mu.RLock()
	v.head, v.end = l.head, l.headPos
	l.mu.RUnlock()
	if err := v.run(); err != nil {
		return fmt.Errorf("verifying %s: %w", l.dir, err)
	}
	return nil
}

func (v *verification) run() error {
	for num := uint32(0); num <= v.end.segment; num++ {
		info, err := v.disk.Stat(v.segs.path(num))
		if err != nil {
			return err
		}
		v.total += info.Size()
	}
	for num := uint32(0); num <= v.end.segment; num++ {
		if err := v.segment(num); err != nil {
			return err
		}
	}
	if v.edge.n < v.head.Size {
		v.reportFile(v.segs.path(v.end.segment), fmt.Sprintf("entries from %d to %d are missing", v.edge.n, v.head.Size-1))
	} else if v.known && v.head.Size > 0 && v.edge.root() != v.head.Root {
		v.reportFile(v.segs.path(v.end.segment), "the root of the entries is not that of the newest checkpoint")
	}
	if v.head.Size > 0 {
		if _, err := v.verifier.Verify(v.head.Note); err != nil {
			v.reportFile(v.segs.path(v.end.segment), err.Error())
		}
	}
	return v.index()
}

func (v *verification) reportFile(file, detail string) {
	v.report(Damage{Writer: v.writer, Index: NoEntry, File: file, Detail: detail})
}

// segment checks one segment file.
func (v *verification) segment(num uint32) error {
	seg, err := v.segs.get(num)
	if err != nil {
		return err
	}
	defer v.segs.put(seg)
	at := func(index uint64, off int64, detail string) {
		v.report(Damage{Writer: v.writer, Index: index, Segment: num, Offset: off, File: seg.path, Detail: detail})
	}
	if first, err := v.readSegmentHeader(num); err != nil {
		at(NoEntry, 0, err.Error())
	} else if first != v.edge.n {
		at(NoEntry, 0, fmt.Sprintf("the segment begins with entry %d, not %d", first, v.edge.n))
		v.fillTo(min(first, v.head.Size))
	}
	s, err := newScanner(seg.file, num, true)
	if err != nil {
		return err
	}
	s.strict = true
	s.each = func(off int64) error {
		if v.progress != nil {
			v.progress(v.done+off, v.total)
		}
		return v.ctx.Err()
	}
	if num == v.end.segment {
		s.size = min(s.size, v.end.offset)
	}
	res := s.scan(segmentHeader, v.edge.n)
	if v.ctx.Err() != nil {
		return context.Cause(v.ctx)
	}
	if s.err != nil {
		at(NoEntry, 0, "it cannot be read in parts: "+s.err.Error())
	}
	for _, off := range res.broken {
		at(NoEntry, off, "a checkpoint, recap or padding is damaged")
	}
	if num < v.end.segment && !s.zeroFrom(res.end) || num == v.end.segment && res.end < s.size {
		at(NoEntry, res.end, "damaged to the end of the segment")
	}
	res.resolve(s, nil)
	v.entries(res, seg)
	v.done += s.size
	return nil
}

// entries checks the entries of a segment, and its checkpoints, against the
// tree.
func (v *verification) entries(res *found, seg *segment) {
	checkpoints := res.checkpoints
	for i := range res.entries {
		e, index := &res.entries[i], res.first+uint64(i)
		if index >= v.head.Size {
			break
		}
		checkpoints = v.checkpointsAt(checkpoints, index)
		leaf, ok := v.leaf(index)
		detail := ""
		switch {
		case e.state == entryLost || e.state == entryTold:
			detail = "the frame's header is damaged"
		case ok && e.leaf != leaf:
			detail = "it is not the entry that was signed"
		case e.state == entryBad && !v.isDropped(index):
			detail = "its contents do not match its digest"
		}
		if detail != "" {
			v.report(Damage{Writer: v.writer, Index: index, Segment: seg.num, Offset: e.loc.offset(), File: seg.path, Detail: detail})
		}
		if e.state != entryLost && !ok {
			leaf, ok = e.leaf, true
		}
		v.known = v.known && ok
		v.edge.append(leaf)
		v.location(index, e)
	}
	v.checkpointsAt(checkpoints, v.edge.n)
}

// leaf returns the leaf hash in the tree, which is authenticated by the head.
func (v *verification) leaf(index uint64) (leaf [hashSize]byte, ok bool) {
	data, err := v.tree.verifiedTile(0, index/tileWidth)
	if err != nil {
		v.badIndex = true
		return leaf, false
	}
	return [hashSize]byte(data[index%tileWidth*hashSize:]), true
}

// fillTo goes on to an entry over those that are missing.
func (v *verification) fillTo(n uint64) {
	for v.edge.n < n {
		leaf, ok := v.leaf(v.edge.n)
		v.known = v.known && ok
		v.report(Damage{Writer: v.writer, Index: v.edge.n, Detail: "the entry is missing"})
		v.edge.append(leaf)
	}
}

func (v *verification) isDropped(index uint64) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.dropped.Contains(index)
}

// location checks that an entry is found where it is.
func (v *verification) location(index uint64, e *foundEntry) {
	v.mu.RLock()
	loc := v.locs.get(index)
	v.mu.RUnlock()
	if e.state == entryGood && (loc.segment() != e.loc.segment() || loc.offset() != e.loc.offset()) {
		v.report(Damage{Writer: v.writer, Index: index, File: v.indexPath("locs"), Detail: "its location is wrong"})
		v.mu.Lock()
		v.locs.set(index, e.loc)
		v.mu.Unlock()
	}
}

// checkpointsAt verifies the checkpoints of size n, which are the next ones.
func (v *verification) checkpointsAt(cs []foundCheckpoint, n uint64) []foundCheckpoint {
	for len(cs) > 0 && cs[0].size <= n {
		c := &cs[0]
		cs = cs[1:]
		h, err := v.readCheckpoint(c)
		switch {
		case err != nil:
		case h.Size != c.size:
			err = errors.New("the checkpoint is of another size than its frame")
		case v.known && c.size == v.edge.n && h.Root != v.edge.root():
			err = fmt.Errorf("the checkpoint's root of %d entries is not theirs", h.Size)
		}
		if err != nil {
			v.report(Damage{
				Writer: v.writer, Index: NoEntry, Segment: c.pos.segment, Offset: c.noteOff,
				File: v.segs.path(c.pos.segment), Detail: err.Error(),
			})
		}
	}
	return cs
}

// index checks the files that are derived. What is wrong with them is put
// right: written again, or built again when the log is opened next.
func (v *verification) index() error {
	if err := v.hashFiles(); err != nil {
		return err
	}
	if err := v.droppedFile(); err != nil {
		return err
	}
	v.markMu.Lock()
	defer v.markMu.Unlock()
	if v.marked.head.Size == 0 {
		return nil
	}
	b, err := v.disk.ReadFile(v.indexPath("mark"))
	if err == nil && !bytes.Equal(b, v.marked.encode()) {
		err = fmt.Errorf("%w: it is not as it was written", ErrDamaged)
	}
	if err != nil {
		v.reportFile(v.indexPath("mark"), err.Error())
		v.locsStale = true // have it written again
	}
	if err := v.locsFileCheck(); err != nil {
		v.reportFile(v.indexPath("locs"), err.Error())
		v.locsStale = true
		v.mu.Lock()
		for page := range v.locs.pages {
			v.locs.dirty[uint64(page)] = struct{}{}
		}
		v.mu.Unlock()
	}
	if v.badIndex {
		// Without a mark the next open builds the index anew.
		return v.disk.Remove(v.indexPath("mark"))
	}
	if v.locsStale {
		return v.settleLocked()
	}
	return nil
}

// hashFiles checks all stored tiles of the hash tree.
func (v *verification) hashFiles() error {
	for level := 0; v.head.Size>>(tileHeight*level) > 0; level++ {
		count := v.head.Size >> (tileHeight * level)
		bad := 0
		for n := uint64(0); n*tileWidth < count; n++ {
			if v.ctx.Err() != nil {
				return context.Cause(v.ctx)
			}
			if _, err := v.tree.verifiedTile(level, n); err != nil {
				bad++
			}
		}
		if bad > 0 {
			v.badIndex = true
			v.reportFile(v.tree.fileName(level), fmt.Sprintf("%d tiles are damaged", bad))
		}
	}
	return nil
}

func (v *verification) locsFileCheck() error {
	if v.locsFile == nil {
		return nil
	}
	// What is beyond the mark may be on its way.
	_, err := loadLocations(v.locsFile, v.marked.head.Size, false)
	return err
}

// droppedFile checks the file dropped, and writes it again if need be.
func (v *verification) droppedFile() error {
	v.dropMu.Lock()
	defer v.dropMu.Unlock()
	v.mu.RLock()
	all := v.dropped
	v.mu.RUnlock()
	if all.IsEmpty() {
		return nil
	}
	b, err := v.disk.ReadFile(v.droppedPath())
	if err == nil {
		var set *roaring64.Bitmap
		if set, err = decodeDroppedFile(b); err == nil && !set.Equals(all) {
			err = fmt.Errorf("%w: it lists other blocks than were dropped", ErrDamaged)
		}
	}
	if err == nil {
		return nil
	}
	v.reportFile(v.droppedPath(), err.Error())
	return v.writeDropped(all)
}
