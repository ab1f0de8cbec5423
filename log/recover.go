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
// was never acknowledged: it and what follows are cut off. This is right
// unless rot hits the very last commit before a crash, of which neither a mark
// nor a later frame knows; [Log.Settle] closes that window.
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
	l, err := newLog(o)
	if err != nil {
		return nil, err
	}
	if err := l.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the log %s: %w", o.Dir, err), l.closeFiles())
	}
	if err := l.openReserve(o.Reserve); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the log %s: %w", o.Dir, err), l.closeFiles())
	}
	l.start()
	return l, nil
}

// recovery is the state of opening one log.
type recovery struct {
	*Log
	segments []uint32
	last     uint32 // the last segment
	from     position
	rehash   bool // read everything from the start, not only the last segment
	rebuilt  bool

	checkpoints []foundCheckpoint
	bad         []badEntry // in order
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

func (l *Log) recover() error {
	r := &recovery{Log: l}
	if err := r.list(); err != nil {
		return err
	}
	var err error
	if r.dropsLost, err = l.loadDropped(); err != nil {
		return err
	}
	if err := r.trust(); err != nil {
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
		err = errors.Join(err, r.hints.Close(), l.disk.Remove(l.indexPath("hints")))
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
		}
	}
	return nil
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
	return r.checkHeaders()
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
func (r *recovery) trust() error {
	r.from = position{0, segmentHeader}
	r.rehash = true
	err := r.openIndex()
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
	tree, err := openHashTree(r.disk, r.indexPath(""), m.head.Size)
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
	locs, err := loadLocations(f, m.head.Size)
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
	if r.from.segment > r.last {
		return fmt.Errorf("%w: segments after %d are missing from %s", ErrForeign, r.last, r.segs.dir)
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
	if err := r.disk.MkdirAll(r.indexPath("")); err != nil {
		return err
	}
	err := r.disk.Rename(r.indexPath("hash.0"), r.indexPath("hints"))
	if err == nil {
		r.hints, err = r.disk.Open(r.indexPath("hints"))
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
			r.health.note(Damage{Writer: r.writer, Index: NoEntry, Segment: num, File: seg.path, Detail: "the segment's header is damaged"})
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
	if s.err != nil {
		r.slog.Warn("a segment could not be read in parts", "segment", seg.path, "err", s.err)
	}
	for _, at := range res.broken {
		r.health.note(Damage{Writer: r.writer, Index: NoEntry, Segment: num, Offset: at, File: seg.path, Detail: "a checkpoint or recap is damaged"})
	}
	r.evidence = max(r.evidence, res.evidence)
	r.checkpoints = append(r.checkpoints, res.checkpoints...)
	if n := len(r.checkpoints); n > 2*keepCheckpoints {
		r.checkpoints = append(r.checkpoints[:0], r.checkpoints[n-keepCheckpoints:]...)
	}
	r.fold(s, res)
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

// adopt chooses the checkpoint to go on from and makes it so.
func (r *recovery) adopt() error {
	head, pos, resign, err := r.choose()
	if err != nil {
		return err
	}
	for _, b := range r.bad {
		if b.index < head.Size {
			r.noteBad(b)
		}
	}
	if err := r.cut(pos); err != nil {
		return err
	}
	if err := r.tree.truncate(head.Size); err != nil {
		return err
	}
	r.locs.truncate(head.Size)
	r.next = head.Size
	tail, err := r.segs.get(pos.segment)
	if err != nil {
		return err
	}
	r.setTail(tail, pos.offset)
	if err := r.settleTail(head, pos); err != nil {
		return err
	}
	r.durable.Store(head.Size)
	if resign {
		buf := r.appendCheckpoint(nil, head, nil)
		if _, err := tail.file.WriteAt(buf, pos.offset); err != nil {
			return fmt.Errorf("%s: %w", tail.path, err)
		}
		if err := tail.file.Datasync(); err != nil {
			return err
		}
		pos.offset += int64(len(buf))
		r.setTail(tail, pos.offset)
	}
	r.head, r.headPos = head, pos
	return nil
}

// choose returns the head to adopt and where its frames end. With resign its
// checkpoint is to be written there again.
func (r *recovery) choose() (head Head, pos position, resign bool, err error) {
	head, pos = r.head, r.headPos // of the mark, or empty
	var refused error
	for i := len(r.checkpoints) - 1; i >= 0; i-- {
		c := &r.checkpoints[i]
		if c.size <= head.Size {
			break
		}
		h, err := r.checkCandidate(c)
		if err == nil && !r.torn(c.size) {
			head, pos = h, c.pos
			break
		}
		if err != nil {
			refused = err
			r.slog.Warn("a checkpoint was passed over", "dir", r.dir, "size", c.size, "err", err)
		}
	}
	if r.evidence <= head.Size {
		if head.Size == 0 && refused != nil {
			return head, pos, false, refused
		}
		return head, pos, false, nil
	}
	if refused != nil || r.signer == nil || r.next < r.evidence {
		return head, pos, false, r.evidenceError(head, refused)
	}
	// The frames of the acknowledged entries are there, their checkpoint is
	// not.
	loc := r.locs.get(r.evidence - 1)
	if !loc.isBlock() {
		return head, pos, false, r.evidenceError(head, nil)
	}
	root, err := r.tree.rootAt(r.evidence)
	if err != nil {
		return head, pos, false, err
	}
	head, err = r.signer.Sign(r.evidence, root)
	return head, position{loc.segment(), loc.offset() + frameSize(int(loc.length()))}, true, err
}

func (r *recovery) evidenceError(head Head, cause error) error {
	err := fmt.Errorf("%w: %d entries were durable, but only %d can be verified", ErrDamaged, r.evidence, head.Size)
	if r.stuck {
		err = fmt.Errorf("%w; the descriptor of entry %d is lost", err, r.next)
	}
	if cause != nil {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	return err
}

// readCheckpoint reads a checkpoint that was found and verifies it.
func (l *Log) readCheckpoint(c *foundCheckpoint) (Head, error) {
	seg, err := l.segs.get(c.pos.segment)
	if err != nil {
		return Head{}, err
	}
	defer l.segs.put(seg)
	text := make([]byte, c.noteLen)
	if _, err := seg.file.ReadAt(text, c.noteOff); err != nil {
		return Head{}, fmt.Errorf("%s: %w", seg.path, err)
	}
	return l.verifier.Verify(text)
}

// checkCandidate verifies a checkpoint against the entries.
func (r *recovery) checkCandidate(c *foundCheckpoint) (Head, error) {
	h, err := r.readCheckpoint(c)
	if err != nil {
		return h, err
	}
	if h.Size != c.size {
		return h, fmt.Errorf("%w: of size %d in the place of size %d", ErrCheckpoint, h.Size, c.size)
	}
	if h.Size > r.next {
		return h, fmt.Errorf("%w: of %d entries %d are there", ErrCheckpoint, h.Size, r.next)
	}
	root, err := r.tree.rootAt(h.Size)
	if err != nil {
		return h, err
	}
	if root != h.Root {
		return h, fmt.Errorf("%w: its root of %d entries is another", ErrCheckpoint, h.Size)
	}
	return h, nil
}

// torn reports whether an entry below size is damaged that may have been
// written without being synced.
func (r *recovery) torn(size uint64) bool {
	for _, b := range r.bad {
		if b.index >= r.evidence && b.index < size && b.loc.segment() == r.last {
			return true
		}
	}
	return false
}

func (r *recovery) noteBad(b badEntry) {
	detail := "its contents do not match its digest"
	if b.state != entryBad {
		detail = "the frame's header is damaged"
	}
	r.health.note(Damage{
		Writer: r.writer, Index: b.index, Segment: b.loc.segment(), Offset: b.loc.offset(),
		File: r.segs.path(b.loc.segment()), Detail: detail,
	})
}

// cut removes the segments behind pos, the last one first.
func (r *recovery) cut(pos position) error {
	for num := r.last; num > pos.segment; num-- {
		r.segs.forget(num)
		if err := r.disk.Remove(r.segs.path(num)); err != nil {
			return err
		}
		if err := r.disk.SyncDir(r.segs.dir); err != nil {
			return err
		}
	}
	return nil
}

// settleTail cuts off what is behind pos, and makes durable what is before,
// writing again what may be in memory only. It must be done before anything
// of it is shown.
func (r *recovery) settleTail(head Head, pos position) error {
	file := r.tail.file
	size, err := file.Size()
	if err != nil {
		return err
	}
	if size > pos.offset {
		if err := file.Truncate(pos.offset); err != nil {
			return err
		}
	}
	if head.Size > r.evidence {
		from := int64(segmentHeader)
		if r.evidencePos.segment == pos.segment {
			from = r.evidencePos.offset
		}
		if err := rewrite(file, from, pos.offset); err != nil {
			return fmt.Errorf("%s: %w", r.tail.path, err)
		}
	} else if size == pos.offset {
		return nil
	}
	return file.Datasync()
}

// rewrite writes what a file holds in [from, to) once more.
func rewrite(file disk.File, from, to int64) error {
	buf := make([]byte, min(max(to-from, 0), 1<<20))
	for from < to {
		part := buf[:min(int64(len(buf)), to-from)]
		if _, err := file.ReadAt(part, from); err != nil {
			return err
		}
		if _, err := file.WriteAt(part, from); err != nil {
			return err
		}
		from += int64(len(part))
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
