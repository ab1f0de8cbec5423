package log

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"path/filepath"

	"hearth/log/disk"
	"hearth/log/seal"
)

// Replicas.
//
// A replica is a log of another device, of which this one has a verified head
// and as many of the entries and hash tiles as somebody wanted here. Entries
// arrive in any order:
//
//	replica            the head that was verified, and up to which frame
//	                   index/locs is complete
//	seg/00000000 ...   frames of blocks and control entries as they arrived
//	tiles/hash.0 ...   the Merkle tree, a row of tiles in each, with holes
//	index/locs         where each entry's frame is; zero: not here
//	reserve            space kept back, so that blocks can be evicted from a
//	                   full disk
//
// Nothing enters that was not verified: a head against the log's key and the
// head before it, a tile against the tile above it and so up to the head, an
// entry against its leaf. So what a crash or rot takes away is merely not here
// any more, and is asked for again: a frame that does not match its digest is
// passed over, a tile that does not match the one above is taken for a hole.
// Segment files are synced when much has arrived, by [Log.Settle], and when the
// log is closed. Blocks that were evicted are not here any more, and the numbers
// of segments may have gaps: see evict.go.

// ErrMissing is matched by the error about an entry of a replica that is not
// on this device. It matches ErrAbsent, too.
var ErrMissing error = missingError{}

type missingError struct{}

func (missingError) Error() string        { return "not on this device" }
func (missingError) Is(target error) bool { return target == ErrAbsent }

// ErrMoved is matched by the error about a head or a proof that does not begin
// where the log is now: others may have moved it on. Nobody is to blame.
var ErrMoved = errors.New("the log is at another head")

// Source gets what a replica lacks.
type Source interface {
	// Fetch returns nil when all the entries are in the log, which has none of
	// them, or the reason why one is not: ErrMissing if nobody can be asked,
	// context.DeadlineExceeded if nobody answers. It may be called from
	// several goroutines, which want the same entries perhaps.
	Fetch(l *Log, indexes []uint64) error
}

// replicaFile is the file replica of a log.
type replicaFile struct {
	Format  uint16 `json:"format"`
	Head    string `json:"head"` // signed note; empty: none yet
	Segment uint32 `json:"segment"`
	Offset  int64  `json:"offset"`
}

func (l *Log) replicaPath() string { return filepath.Join(l.dir, "replica") }

// isReplica reports whether there is a replica in dir.
func isReplica(d disk.FS, dir string) (bool, error) {
	_, err := d.Stat(filepath.Join(dir, "replica"))
	if errors.Is(err, iofs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// createReplica creates an empty replica. One that was not finished, for lack
// of its file, is begun anew.
func createReplica(o Options) (*Log, error) {
	l, err := newLog(o)
	if err != nil {
		return nil, err
	}
	l.beReplica(o.Known)
	err = l.disk.RemoveAll(l.dir)
	if err == nil {
		err = l.create()
	}
	if err == nil {
		err = writeChecked(l.disk, l.replicaPath(), replicaFile{Format: FormatVersion, Offset: segmentHeader})
	}
	if err == nil {
		err = l.openEvictReserve()
	}
	if err != nil {
		l.stop()
		return nil, errors.Join(fmt.Errorf("creating the replica %s: %w", o.Dir, err), l.closeFiles())
	}
	l.start()
	return l, nil
}

func (l *Log) beReplica(known Head) {
	l.replica, l.known = true, known
	l.locs.sparse = true
	l.tree = newHashTree(l.disk, filepath.Join(l.dir, "tiles"))
	l.tree.sparse = true
}

// openReplica opens a replica. What is damaged is not here any more; that a
// head was lost is said, and the next one makes up for it.
func openReplica(o Options) (*Log, error) {
	l, err := newLog(o)
	if err != nil {
		return nil, err
	}
	l.beReplica(o.Known)
	err = l.recoverReplica()
	if err == nil {
		err = l.openEvictReserve()
	}
	if err != nil {
		l.stop()
		return nil, errors.Join(fmt.Errorf("opening the replica %s: %w", o.Dir, err), l.closeFiles())
	}
	l.start()
	return l, nil
}

func (l *Log) recoverReplica() error {
	var file replicaFile
	err := readChecked(l.disk, l.replicaPath(), &file)
	if errors.Is(err, ErrDamaged) {
		l.noteReplica(l.replicaPath(), err)
		file = replicaFile{Format: FormatVersion}
	} else if err != nil {
		return err
	}
	if file.Format > FormatVersion {
		return fmt.Errorf("%s: %w: format %d", l.replicaPath(), ErrNewer, file.Format)
	}
	if file.Head != "" {
		if err := l.openHead([]byte(file.Head)); err != nil {
			l.noteReplica(l.replicaPath(), err)
		}
	}
	from := position{file.Segment, file.Offset}
	if err := l.openLocations(); err != nil {
		if !errors.Is(err, iofs.ErrNotExist) || l.head.Size > 0 {
			l.noteReplica(l.indexPath("locs"), err)
		}
		from = position{}
	}
	for _, dir := range []string{l.segs.dir, l.tree.dir} { // see recover
		if err := l.disk.SyncDir(dir); err != nil {
			return err
		}
	}
	return l.scanReplica(from)
}

func (l *Log) noteReplica(file string, err error) {
	l.slog.Warn("a file of a replica is damaged, and is made good from other devices", "file", file, "err", err)
	l.health.note(Damage{Writer: l.writer, Index: NoEntry, File: file, Detail: err.Error()})
}

// openHead opens the tree of a head.
func (l *Log) openHead(text []byte) error {
	head, err := l.verifier.Verify(text)
	if err != nil {
		return err
	}
	tree, err := openHashTree(l.disk, l.tree.dir, head.Size, true)
	if err != nil {
		return err
	}
	if tree.root() != head.Root {
		return errors.Join(fmt.Errorf("%w: the tiles in %s have another root", ErrDamaged, l.tree.dir), tree.close())
	}
	l.tree, l.head, l.next = tree, head, head.Size
	l.durable.Store(head.Size)
	return nil
}

func (l *Log) openLocations() error {
	f, err := l.disk.Open(l.indexPath("locs"))
	if err != nil {
		l.locs.grow(l.next)
		return err
	}
	locs, err := loadLocations(f, l.next, true)
	if err == nil {
		err = dropLater(f, l.next)
	}
	if err != nil {
		l.locs.grow(l.next)
		return errors.Join(err, f.Close())
	}
	l.locs, l.locsFile = locs, f
	return nil
}

// dropLater cuts off the pages of entries that the head does not cover: they
// were written for one that did not become durable, and would be believed when
// another one covers them.
func dropLater(f disk.File, n uint64) error {
	end := int64((n+locsPerPage-1)/locsPerPage) * locsPage
	if size, err := f.Size(); err != nil || size <= end {
		return err
	}
	return f.Truncate(end)
}

// scanReplica finds the frames from a place on, and the end.
func (l *Log) scanReplica(from position) error {
	names, err := l.disk.List(l.segs.dir)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrForeign, err)
	}
	var nums []uint32
	for _, name := range names {
		if num, ok := parseSegmentName(name); ok {
			nums = append(nums, num)
		}
	}
	if len(nums) == 0 {
		return fmt.Errorf("%w: no segments in %s", ErrForeign, l.segs.dir)
	}
	// The file of locations may be newer than the record of where it ends.
	for page, locs := range l.locs.pages {
		for i, loc := range locs {
			if at := (position{loc.segment(), loc.offset()}); loc != 0 && !at.before(from) {
				l.locs.set(uint64(page)*locsPerPage+uint64(i), 0)
			}
		}
	}
	end := position{nums[len(nums)-1], segmentHeader}
	for _, num := range nums {
		if num < from.segment {
			continue
		}
		off := int64(segmentHeader)
		if num == from.segment {
			off = max(off, from.offset)
		}
		if end.offset, err = l.scanReplicaSegment(num, off); err != nil {
			return err
		}
	}
	tail, err := l.segs.get(end.segment)
	if err != nil {
		return err
	}
	l.setTail(tail, end.offset)
	return tail.file.Truncate(end.offset) // what is beyond is torn
}

// scanReplicaSegment returns where the last whole frame ends.
func (l *Log) scanReplicaSegment(num uint32, off int64) (int64, error) {
	seg, err := l.segs.get(num)
	if err != nil {
		return 0, err
	}
	defer l.segs.put(seg)
	if _, err := l.readSegmentHeader(num); err != nil {
		if !errors.Is(err, ErrDamaged) {
			return 0, err
		}
		l.noteReplica(seg.path, err)
	}
	s, err := newScanner(seg.file, num, true)
	if err != nil {
		return 0, err
	}
	end := off
	for {
		f, ok := s.frameAt(off)
		if !ok || !f.intact(s.body(&f, off)) {
			if off = s.search(off + frameAlign); off < 0 {
				return end, s.err
			}
			continue
		}
		// What lies beyond the head was verified against one that is forgotten.
		if f.index < l.next && f.typ <= frameControl {
			kind := locControl
			if f.typ == frameBlock {
				kind = blockKind(s.body(&f, off))
			}
			l.locs.set(f.index, makeLocation(kind, num, off, f.length))
		}
		off += f.size()
		end = off
	}
}

func blockKind(stored []byte) locKind {
	if seal.Uniform(stored) {
		return locUniform
	}
	return locBlock
}

// settleReplica makes durable what has arrived. With markMu held.
func (l *Log) settleReplica() error {
	if l.indexBroken {
		return nil
	}
	l.appendMu.Lock()
	err := l.flush(true)
	head := l.Head()
	pos := position{l.tail.num, l.pendOff}
	same := head.Size == l.marked.head.Size && pos == l.marked.pos && !l.locsStale
	var update locsUpdate
	if err == nil && !same {
		// What arrives from here on is not durable when this is.
		l.mu.Lock()
		update = l.locs.takeDirty()
		l.mu.Unlock()
	}
	l.appendMu.Unlock()
	if err != nil || same {
		return err
	}
	if err := l.settleAt(head, pos, update); err != nil {
		l.mu.Lock()
		l.locs.putBack(update)
		l.mu.Unlock()
		return fmt.Errorf("settling the replica %s: %w", l.dir, err)
	}
	return nil
}

// settleAt makes durable the frames before pos, the tiles of head, and the
// locations, which must not name what is not there, in this order.
func (l *Log) settleAt(head Head, pos position, update locsUpdate) error {
	seg, err := l.segs.get(pos.segment)
	if err != nil {
		return err
	}
	err = l.syncTail(seg)
	l.segs.put(seg)
	if err != nil {
		return err
	}
	if err := l.syncIndex(&update); err != nil {
		return err
	}
	file := replicaFile{Format: FormatVersion, Head: string(head.Note), Segment: pos.segment, Offset: pos.offset}
	if err := writeChecked(l.disk, l.replicaPath(), file); err != nil {
		return err
	}
	l.marked, l.locsStale = mark{pos: pos, head: head}, false
	l.sinceMark.Store(0)
	return nil
}

// IsReplica reports whether this is the log of another device, which may be
// here in parts.
func (l *Log) IsReplica() bool { return l.replica }

// Known returns the head that the next one has to continue. It is newer than
// Head if the replica's own files have lost that, of which the store's memory
// tells; then a proof from 0 is no use, but one of a newer head, or of the same
// with its edges, is.
func (l *Log) Known() Head {
	if h := l.Head(); h.Size >= l.known.Size {
		return h
	}
	return l.known
}

// Advance verifies a newer head and makes it the head. Errors match
// ErrCheckpoint or ErrProof if what is given is wrong, ErrFork where the new
// head is signed and contradicts the old one, ErrUndecided, besides ErrProof,
// where it may, and the proof has no base to tell by, ErrMoved where the proof is for
// another head than the log's. A head that is not newer changes
// nothing. See [Store.Advance].
func (l *Log) Advance(p HeadProof) (Head, error) {
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	if err := l.usable(); err != nil {
		return Head{}, err
	}
	head, err := l.verifier.Verify(p.Note)
	if err != nil {
		return Head{}, err
	}
	known := l.Known()
	switch {
	case head.Size == known.Size && head.Root != known.Root:
		return Head{}, &forkError{known: known, other: head}
	case head.Size <= l.Head().Size:
		return l.Head(), nil
	case head.Size < known.Size:
		return Head{}, fmt.Errorf("%w: a head of %d entries where %d are known", ErrMoved, head.Size, known.Size)
	case p.Old != known.Size:
		return Head{}, fmt.Errorf("%w: a proof from %d entries on where %d are known", ErrMoved, p.Old, known.Size)
	}
	next, err := l.extended(head, known, &p)
	if err != nil {
		return Head{}, err
	}
	if err := l.tree.become(next); err != nil {
		return Head{}, err
	}
	l.mu.Lock()
	l.locs.grow(head.Size)
	l.next, l.head = head.Size, head
	close(l.committed)
	l.committed = make(chan struct{})
	l.mu.Unlock()
	l.durable.Store(head.Size)
	return head, nil
}

// extended returns the edge of the tree of a new head.
func (l *Log) extended(head, known Head, p *HeadProof) (*hashTree, error) {
	if len(p.Leaves) > 0 && (known.Size == l.Head().Size || len(p.Edges) == 0) {
		if known.Size != l.Head().Size || known.Size == 0 || uint64(len(p.Leaves)) != (head.Size-known.Size)*hashSize {
			return nil, fmt.Errorf("%w: %d bytes of leaves from %d to %d entries", ErrProof, len(p.Leaves), known.Size, head.Size)
		}
		s := l.tree.shadow()
		for b := p.Leaves; len(b) > 0; b = b[hashSize:] {
			s.append([hashSize]byte(b))
		}
		if s.root() != head.Root {
			return nil, branch(known, head, known.Root, p)
		}
		return s, nil
	}
	if known.Size > 0 && known.Size < head.Size {
		if err := head.VerifyConsistency(known, p.Consistency); err != nil {
			if len(p.Base) > 0 {
				err = branch(known, head, known.Root, p)
			}
			return nil, err
		}
	}
	s, err := edgeTree(head.Size, p.Edges)
	if err != nil {
		return nil, err
	}
	if s.root() != head.Root {
		return nil, fmt.Errorf("%w: the edges do not have the root of %d entries", ErrProof, head.Size)
	}
	return s, nil
}

// verifyReplica is Verify of what is here of a replica. An entry that is
// damaged is forgotten: it can be had again.
func (l *Log) verifyReplica(ctx context.Context, report func(Damage), progress func(done, total int64)) error {
	size := l.Head().Size
	var buf []byte
	for index := range size {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if index%4096 == 0 && progress != nil {
			progress(int64(index), int64(size))
		}
		if !l.Holds(index) {
			continue
		}
		var err error
		if buf, err = l.ReadStored(buf[:0], index); err == nil {
			err = l.checkLeaf(index, buf)
		}
		var damage *DamageError
		if errors.As(err, &damage) {
			l.health.note(damage.Damage)
			report(damage.Damage)
			l.forget(index)
			continue
		}
		if err != nil && !errors.Is(err, ErrAbsent) {
			return fmt.Errorf("verifying %s: %w", l.dir, err)
		}
	}
	return nil
}

// checkLeaf checks the body of an entry against the tree, as far as it is here.
func (l *Log) checkLeaf(index uint64, body []byte) error {
	tile, err := l.tree.verifiedTile(0, index/tileWidth)
	if err != nil {
		return err
	}
	l.mu.RLock()
	loc := l.locs.get(index)
	l.mu.RUnlock()
	e := newControlEntry(body)
	if loc.isBlock() {
		e = newBlockEntry(body)
	}
	if e.leaf != [hashSize]byte(tile[index%tileWidth*hashSize:][:hashSize]) {
		return l.damage(index, loc, "it is not what the log has there")
	}
	return nil
}

// forget makes an entry one that is not here.
func (l *Log) forget(index uint64) {
	l.mu.Lock()
	l.locs.set(index, 0)
	l.whole.Store(min(l.whole.Load(), index))
	l.mu.Unlock()
	l.present.Add(1)
	l.markMu.Lock()
	l.locsStale = true
	l.markMu.Unlock()
}

// Lacking appends the hash tiles that are needed to verify an entry and are
// not here: in the order they have to be added in.
func (l *Log) Lacking(dst []TileRef, index uint64) ([]TileRef, error) {
	if index >= l.Head().Size {
		return dst, fmt.Errorf("entry %v: %w", Ref{l.writer, index}, ErrAbsent)
	}
	return l.tree.lacking(dst, index)
}

// AddTile adds a full hash tile, verified. The error matches ErrProof if it is
// wrong, ErrAbsent if that cannot be told: the one above is lacking, or the head
// does not cover it.
func (l *Log) AddTile(ref TileRef, data []byte) error { return l.tree.addTile(ref.Level, ref.N, data) }

// Tile returns the first width hashes of a tile, verified.
func (l *Log) Tile(ref TileRef, width int) ([]byte, error) {
	return l.tree.tile(ref.Level, ref.N, width)
}

// AddBlock adds a stored block to a replica, verified against its leaf. One
// that is here already changes nothing. Errors are those of
// [Log.AddControlEntry].
func (l *Log) AddBlock(index uint64, stored []byte) error {
	if len(stored) == 0 || len(stored) > seal.MaxStored {
		return fmt.Errorf("%w: a block of %d bytes", ErrProof, len(stored))
	}
	return l.addEntry(index, newBlockEntry(stored))
}

// AddControlEntry is AddBlock for an encoded control entry. The error matches
// ErrProof if it is not what the log has there, ErrAbsent if the tile to
// verify it with is lacking, and syscall.ENOSPC on a full disk.
func (l *Log) AddControlEntry(index uint64, entry []byte) error {
	if _, c, err := ParseEntry(entry); err != nil || c == nil {
		return fmt.Errorf("%w: no control entry", ErrProof)
	}
	return l.addEntry(index, newControlEntry(entry))
}

func (l *Log) addEntry(index uint64, e *entry) error {
	if !l.replica {
		return fmt.Errorf("adding to %s: %w", l.dir, ErrReadOnly)
	}
	if index >= l.Head().Size {
		return fmt.Errorf("entry %v: %w", Ref{l.writer, index}, ErrAbsent)
	}
	tile, err := l.tree.verifiedTile(0, index/tileWidth)
	if err != nil {
		return err
	}
	if e.leaf != [hashSize]byte(tile[index%tileWidth*hashSize:][:hashSize]) {
		return fmt.Errorf("%w: entry %v has another leaf", ErrProof, Ref{l.writer, index})
	}
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	if l.Holds(index) {
		return nil
	}
	if err := l.makeRoom(false); err != nil {
		return fmt.Errorf("adding to %s: %w", l.dir, err)
	}
	e.index = index
	buf := e.frame.appendTo(l.pend, e.body)
	loc := makeLocation(e.kind, l.tail.num, l.pendOff+int64(len(l.pend)), e.frame.length)
	l.sinceMark.Add(e.frame.size() + l.limits.markEntry)
	l.mu.Lock()
	l.locs.set(index, loc)
	l.pend = buf
	l.mu.Unlock()
	l.present.Add(1)
	if !l.inline {
		l.nudge()
	}
	return nil
}

// Holds reports whether an entry's bytes are on this device.
func (l *Log) Holds(index uint64) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.holds(index)
}

// holds is Holds with mu held.
func (l *Log) holds(index uint64) bool {
	if index >= l.next || l.dropped.Contains(index) {
		return false
	}
	switch l.locs.get(index).kind() {
	case locBlock, locUniform, locControl:
		return true
	}
	return false
}

// NextMissing returns the first run of at most most entries from index on that
// are not on this device and were not dropped here; n is 0 if there is none.
func (l *Log) NextMissing(index, most uint64) (first, n uint64) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	absent := func(i uint64) bool { return l.locs.get(i).kind() == locAbsent && !l.dropped.Contains(i) }
	whole := l.whole.Load()
	behind := index <= whole
	for index = max(index, whole); index < l.next && !absent(index); index++ {
	}
	if behind && index > whole {
		l.whole.Store(index)
	}
	for n < most && index+n < l.next && absent(index+n) {
		n++
	}
	return index, n
}

// SetSource sets who is asked for what is not here; nil: nobody.
func (l *Log) SetSource(s Source) {
	l.mu.Lock()
	l.source = s
	l.mu.Unlock()
}

// fetch gets entries that are not here.
func (l *Log) fetch(indexes []uint64) error {
	l.mu.RLock()
	source := l.source
	l.mu.RUnlock()
	if source == nil {
		return l.missing(indexes[0])
	}
	return source.Fetch(l, indexes)
}

func (l *Log) missing(index uint64) error {
	return fmt.Errorf("block %v is %w", Ref{l.writer, index}, ErrMissing)
}

// Changed returns a channel that is closed when there is a newer head.
func (l *Log) Changed() <-chan struct{} {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.committed
}

// Controls returns the first most control entries of those from index on that
// the head covers and that are here.
func (l *Log) Controls(from uint64, most int) []uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var all []uint64
	for i := from; i < l.head.Size && len(all) < most; {
		page := l.locs.pages[i/locsPerPage]
		if page == nil {
			i = (i/locsPerPage + 1) * locsPerPage
			continue
		}
		if page[i%locsPerPage].kind() == locControl {
			all = append(all, i)
		}
		i++
	}
	return all
}
