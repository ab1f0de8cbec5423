package log

import (
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"path/filepath"
	"strings"

	"hearth/log/disk"
)

// Recovery, and what it relies on.
//
// A commit with sync writes the frames that are pending, the commit and its
// checkpoint, and syncs the tail. While it syncs, frames of later entries may
// be written behind the checkpoint; the next checkpoint is written only after
// the sync returned. A new segment is used only after the one before and the
// directory were synced. So after a crash:
//
//   - All segments but the last are as they were written. Damage there is rot.
//   - Of the last segment, everything up to the newest checkpoint but one is as
//     it was written: the newest was written after that one was durable. In
//     general, a frame proves that the tree size it says was durable when it was
//     written (frame.durable), and everything below that size was.
//   - What is beyond, any part of it may be missing: sectors that were not
//     written read as zeros, or the file ends earlier. Sectors of later frames may
//     be there while those of earlier ones are not, up to a whole valid
//     checkpoint, its entries missing.
//
// So of the valid checkpoints the newest is adopted such that all entries it
// covers are whole, but for those that are proved to have been durable (these
// are rot: reported, and read as ErrDamaged) and those in earlier segments.
// A newer checkpoint with damage of which nothing proves that it was durable
// was never acknowledged: it and what follows are cut off. (What cannot be
// read is not cut off: then opening fails.) This is right unless rot hits the
// very last commit before a crash, of which neither a mark nor a later frame
// knows; [Log.Settle] closes that window.
//
// If a frame proves a size durable whose checkpoint is damaged, the checkpoint
// is signed again: Ed25519 gives the same bytes, so that is no fork. If a
// leaf is not known from its frame, a recap or the old hash file, nothing
// behind it can be verified, and opening fails rather than cutting anything
// that may have been acknowledged.
//
// A crash of the process alone can leave written but unsynced bytes that look
// whole, and a failed sync bytes that the kernel calls clean though they are
// not on disk. So what is adopted beyond the proved size is written once more
// and synced before any of it is shown or signed over.

// OpenLog opens a log, recovering it after a crash. What recovery found wrong
// is in Health. Errors match ErrForeign, ErrNewer or ErrDamaged if the files
// are not such a log, or not all of it; then no segment was changed.
func OpenLog(o Options) (*Log, error) {
	l, err := openLog(o, true)
	if errors.Is(err, ErrDamaged) {
		// The damage may be in the index.
		l, err = openLog(o, false)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the log %s: %w", o.Dir, err)
	}
	return l, nil
}

func openLog(o Options, trustIndex bool) (*Log, error) {
	l, err := newLog(o)
	if err != nil {
		return nil, err
	}
	err = l.recover(o.Known, trustIndex)
	if err == nil {
		err = l.openReserve(o.Reserve)
	}
	if err != nil {
		l.stop()
		return nil, errors.Join(err, l.closeFiles())
	}
	l.start()
	return l, nil
}

// recovery is the state of opening one log.
type recovery struct {
	*Log
	known    Head // see Options
	segments []uint32
	last     uint32 // the last segment that is not empty; those before it are durable
	from     position
	rehash   bool // read everything from the start, not only the last segment
	rebuilt  bool

	checkpoints []foundCheckpoint
	bad         []badEntry // in order
	broken      []position // frames that are no entries'
	unread      error      // the last segment could not be read everywhere,
	unreadPos   position   // the last place being this
	evidence    uint64     // this size is durable for certain
	evidencePos position   // where its checkpoint ends; if not known, where the scan began
	stuck       bool       // at an entry whose leaf is not known: nothing is added any more
	dropsLost   bool       // which blocks were dropped must be read from the log
	hints       disk.File
	scanned     int64
}

// badEntry is an entry that is damaged.
type badEntry struct {
	index uint64
	loc   location
	state entryState
}

// keepCheckpoints is how many of the newest checkpoints are candidates.
const keepCheckpoints = 1024

func (l *Log) recover(known Head, trustIndex bool) error {
	r := &recovery{Log: l, known: known}
	if err := r.list(); err != nil {
		return err
	}
	var err error
	if r.dropsLost, err = l.loadDropped(); err != nil {
		return err
	}
	if err := r.trust(trustIndex); err != nil {
		return err
	}
	// Names that a killed process made, or removed, may not be durably so.
	if err := l.disk.SyncDir(l.segs.dir); err != nil {
		return err
	}
	if !r.rebuilt && l.marked.rewriting > 0 {
		if err := l.relocate(l.marked.rewriting - 1); err != nil {
			return err
		}
	}
	err = r.scanAll()
	if err == nil && r.dropsLost {
		r.dropsFromLog()
	}
	if r.hints != nil {
		err = errors.Join(err, r.hints.Close())
	}
	if err != nil {
		return err
	}
	if err := r.adopt(); err != nil {
		return err
	}
	if err := r.removeRewrites(); err != nil {
		return err
	}
	if r.rebuilt || l.locsStale || r.scanned > l.limits.mark/4 {
		l.markMu.Lock()
		defer l.markMu.Unlock()
		if err := l.settleLocked(); err != nil {
			l.slog.Warn("the index could not be settled", "err", err)
			return nil
		}
	}
	return removeIfThere(l.disk, l.indexPath("hints"))
}

// list finds the segments and checks their headers.
func (r *recovery) list() error {
	names, err := r.disk.List(r.segs.dir)
	if errors.Is(err, iofs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrForeign, err)
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		if num, ok := parseSegmentName(name); ok {
			if int(num) != len(r.segments) {
				return fmt.Errorf("%w: segment %d is missing from %s", ErrForeign, len(r.segments), r.segs.dir)
			}
			r.segments = append(r.segments, num)
		}
	}
	if len(r.segments) == 0 {
		return fmt.Errorf("%w: no segments in %s", ErrForeign, r.segs.dir)
	}
	r.last = r.segments[len(r.segments)-1]
	if err := r.checkHeaders(); err != nil {
		return err
	}
	for r.last > 0 {
		empty, err := r.isEmpty(r.last)
		if err != nil || !empty {
			return err
		}
		r.last--
	}
	return nil
}

// isEmpty reports whether a segment has no frame, nor anything else that is
// not zero.
func (r *recovery) isEmpty(num uint32) (bool, error) {
	seg, err := r.segs.get(num)
	if err != nil {
		return false, err
	}
	defer r.segs.put(seg)
	s, err := newScanner(seg.file, num, false)
	return err == nil && s.zeroFrom(segmentHeader), err
}

// checkHeaders checks the headers of the first and the last segments, which
// tells a foreign log; the others are checked when they are read.
func (r *recovery) checkHeaders() error {
	for _, num := range []uint32{0, r.last} {
		if _, err := r.readSegmentHeader(num); err != nil && !errors.Is(err, ErrDamaged) {
			return err
		}
	}
	return nil
}

func (l *Log) readSegmentHeader(num uint32) (first uint64, err error) {
	seg, err := l.segs.get(num)
	if err != nil {
		return 0, err
	}
	defer l.segs.put(seg)
	b := make([]byte, segmentHeader)
	if n, err := seg.file.ReadAt(b, 0); err != nil {
		if !errors.Is(err, io.EOF) {
			return 0, err
		}
		b = b[:n]
	}
	first, err = checkSegmentHeader(b, num, l.keyHash)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", seg.path, err)
	}
	return first, nil
}

// trust opens the index files up to the mark. If that is not possible, it
// prepares to build them anew.
func (r *recovery) trust(trustIndex bool) error {
	r.from = position{0, segmentHeader}
	r.rehash = true
	err := errors.New("it did not lead to the newest checkpoint")
	if trustIndex {
		err = r.openIndex()
	}
	if err == nil {
		return r.checkTruncated()
	}
	if errors.Is(err, iofs.ErrNotExist) && len(r.segments) == 1 {
		r.slog.Debug("no index yet", "dir", r.dir)
	} else {
		r.health.note(Damage{Writer: r.writer, Index: NoEntry, File: r.indexPath(""), Detail: "the index is rebuilt: " + err.Error()})
		r.slog.Warn("rebuilding the index of a log", "dir", r.dir, "err", err)
	}
	return r.discardIndex()
}

func (r *recovery) openIndex() error {
	b, err := r.disk.ReadFile(r.indexPath("mark"))
	if err != nil {
		return err
	}
	m, err := decodeMark(b, r.verifier)
	if err != nil {
		return fmt.Errorf("%s: %w", r.indexPath("mark"), err)
	}
	tree, err := openHashTree(r.disk, r.indexPath(""), m.head.Size, false)
	if err != nil {
		return err
	}
	if tree.root() != m.head.Root {
		return errors.Join(fmt.Errorf("%w: %s does not have the root of the mark", ErrDamaged, r.indexPath("hash.*")), tree.close())
	}
	f, err := r.disk.Open(r.indexPath("locs"))
	if err != nil {
		return errors.Join(err, tree.close())
	}
	locs, err := loadLocations(f, m.head.Size, false)
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", r.indexPath("locs"), err), f.Close(), tree.close())
	}
	r.marked, r.tree, r.locs, r.locsFile = *m, tree, locs, f
	r.next, r.head, r.headPos, r.from = m.head.Size, m.head, m.pos, m.pos
	r.evidence, r.evidencePos = m.head.Size, m.pos
	return nil
}

// checkTruncated makes sure that the segments hold what the mark says was
// durable.
func (r *recovery) checkTruncated() error {
	if top := r.segments[len(r.segments)-1]; r.from.segment > top {
		return fmt.Errorf("%w: segments after %d are missing from %s", ErrForeign, top, r.segs.dir)
	}
	info, err := r.disk.Stat(r.segs.path(r.from.segment))
	if err != nil {
		return err
	}
	if info.Size() < r.from.offset {
		return fmt.Errorf("%w: %s is truncated: it has %d bytes of %d", ErrForeign, r.segs.path(r.from.segment), info.Size(), r.from.offset)
	}
	return nil
}

// discardIndex starts the index over. The old leaves are kept as hints.
func (r *recovery) discardIndex() error {
	r.rebuilt, r.rehash = true, false
	// Hints of an attempt that failed are older than what it left.
	hints := r.indexPath("hints")
	_, err := r.disk.Stat(hints)
	if errors.Is(err, iofs.ErrNotExist) {
		err = r.disk.Rename(r.indexPath("hash.0"), hints)
	}
	if err == nil {
		r.hints, err = r.disk.OpenRead(hints)
	}
	if err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	return nil
}

func (r *recovery) hint(index uint64) (leaf [hashSize]byte, ok bool) {
	if r.hints == nil {
		return leaf, false
	}
	_, err := r.hints.ReadAt(leaf[:], int64(index)*hashSize)
	return leaf, err == nil && leaf != [hashSize]byte{}
}

// scanAll reads the segments from where the index ends.
func (r *recovery) scanAll() error {
	if r.evidencePos.offset == 0 {
		r.evidencePos = r.from
	}
	for _, num := range r.segments[r.from.segment:] {
		if err := r.scanSegment(num); err != nil {
			return err
		}
	}
	return nil
}

func (r *recovery) scanSegment(num uint32) error {
	seg, err := r.segs.get(num)
	if err != nil {
		return err
	}
	defer r.segs.put(seg)
	s, err := newScanner(seg.file, num, r.rehash || num == r.last)
	if err != nil {
		return err
	}
	off := int64(segmentHeader)
	if num == r.from.segment {
		off = r.from.offset
	}
	if off == segmentHeader {
		if first, err := r.readSegmentHeader(num); err != nil {
			if !errors.Is(err, ErrDamaged) {
				return err
			}
			r.broken = append(r.broken, position{num, 0})
		} else if first > r.next && !r.stuck {
			// The end of the segment before is lost. Its entries cannot be
			// more than it had room for.
			if first-r.next > segmentSize/recapSize {
				return fmt.Errorf("%s: %w: it begins with entry %d, not %d", seg.path, ErrDamaged, first, r.next)
			}
			res := &found{first: r.next}
			res.lose(num-1, segmentHeader, first-r.next)
			r.fold(s, res)
		}
	}
	res := s.scan(off, r.next)
	r.scanned += s.size - off
	for _, at := range res.broken {
		r.broken = append(r.broken, position{num, at})
	}
	r.evidence = max(r.evidence, res.evidence)
	r.checkpoints = append(r.checkpoints, res.checkpoints...)
	if n := len(r.checkpoints); n > 2*keepCheckpoints {
		r.checkpoints = append(r.checkpoints[:0], r.checkpoints[n-keepCheckpoints:]...)
	}
	r.fold(s, res)
	if s.err != nil {
		r.slog.Warn("a segment could not be read in parts", "segment", seg.path, "err", s.err)
		if num == r.last {
			r.unread, r.unreadPos = s.err, position{num, s.errOff}
		}
	}
	return r.spill()
}

// fold adds scanned entries to the tree and the locations.
func (r *recovery) fold(s *scanner, res *found) {
	res.resolve(s, r.hint)
	for i := range res.entries {
		e := &res.entries[i]
		index := res.first + uint64(i)
		if e.state == entryLost {
			r.stuck = true
		}
		if r.stuck {
			return
		}
		if e.state != entryGood && !r.dropped.Contains(index) {
			r.bad = append(r.bad, badEntry{index, e.loc, e.state})
		}
		r.tree.append(e.leaf)
		r.locs.add(e.loc)
		r.next++
	}
}

// spill bounds the memory that building the tree of a large log takes.
func (r *recovery) spill() error {
	if r.rebuilt && r.tree.unflushed() > 1<<20 {
		return r.tree.flush()
	}
	return nil
}

// relocate finds the frames of a segment that was being rewritten.
func (l *Log) relocate(num uint32) error {
	seg, err := l.segs.get(num)
	if err != nil {
		return err
	}
	defer l.segs.put(seg)
	first, err := l.readSegmentHeader(num)
	if err != nil {
		return err
	}
	s, err := newScanner(seg.file, num, false)
	if err != nil {
		return err
	}
	res := s.scan(segmentHeader, first)
	if s.err != nil {
		return s.err
	}
	for i := range res.entries {
		if index := first + uint64(i); index < l.next {
			l.locs.set(index, res.entries[i].loc)
		}
	}
	l.locsStale = true
	return nil
}

// removeRewrites removes rewritten segments that did not come to be used.
func (r *recovery) removeRewrites() error {
	names, err := r.disk.List(r.segs.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, rewriteSuffix) {
			if err := r.disk.Remove(filepath.Join(r.segs.dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// dropsFromLog takes which blocks were dropped from the log's own control
// entries, because the file that says so is missing or damaged.
func (r *recovery) dropsFromLog() {
	for _, index := range r.controls() {
		c, err := r.ReadControl(index)
		if d, ok := c.(*Dropped); err == nil && ok && d.Writer == r.writer {
			r.dropped.Or(d.Set)
		}
	}
	kept := r.bad[:0]
	for _, b := range r.bad {
		if !r.dropped.Contains(b.index) {
			kept = append(kept, b)
		}
	}
	r.bad = kept
}
