package log

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"hearth/log/seal"

	"github.com/zeebo/blake3"
)

// limits say when what is done. The zero value is no use: see newLimits.
type limits struct {
	// segment is where a segment ends: no frame of an entry starts beyond it.
	segment int64
	// flush is how much is gathered in memory before it is written, unless
	// a commit writes it: one write for many blocks.
	flush int
	// syncBehind is how much bulk data is written before the background
	// syncs it, so that neither a commit nor a rollover finds more to wait
	// for.
	syncBehind int64
	// Of a replica, the background has that much written out and waits for
	// nothing: see writeBehind.
	// hurried takes the place of syncBehind while programs wait for syncs.
	hurried int64
	// While commits are small, zeros are kept ahead in the tail so that a
	// sync has no file size or allocation to make durable (a third cheaper,
	// measured): window more when fewer than windowLow are left. A commit of
	// more than windowCommit is bulk, and bulk data gets none: it would be
	// written twice.
	window       int64
	windowLow    int64
	windowCommit int64
	// The mark is advanced when about this much would have to be recovered;
	// an entry counts as markEntry bytes besides its size.
	mark      int64
	markEntry int64
	// reserve is how much space is kept back.
	reserve int64
	// rollDead is how many dead bytes in the tail are worth a new segment.
	rollDead int64
}

// replicaMarks is how many times more of a replica is recovered after a crash:
// to settle it takes several syncs, and nobody waits at its next opening for what
// nobody asks for.
const replicaMarks = 4

func newLimits(tiny bool) limits {
	if tiny {
		return limits{
			segment: 256 << 10, flush: 16 << 10, syncBehind: 64 << 10, hurried: 32 << 10,
			window: 16 << 10, windowLow: 4 << 10, windowCommit: 8 << 10,
			mark: 128 << 10, markEntry: 1 << 10, reserve: 256 << 10, rollDead: 4 << 10,
		}
	}
	return limits{
		segment: segmentSize, flush: 256 << 10, syncBehind: 4 << 20, hurried: 512 << 10,
		window: 1 << 20, windowLow: 256 << 10, windowCommit: 128 << 10,
		mark: 16 << 20, markEntry: 4 << 10, reserve: 8 << 20, rollDead: 1 << 20,
	}
}

// Append appends a sealed block and returns its index. The block can be read
// at once and is durable once a later Commit with sync returned. Several
// goroutines may append; it does not wait for syncs. On a full disk the error
// matches syscall.ENOSPC and nothing was appended.
func (l *Log) Append(stored []byte) (uint64, error) { return l.appendBlock(stored, false) }

// AppendMeta is [Log.Append] for what a commit needs, such as pages of the
// tree: on a full disk it draws on the reserve, as Commit and AppendControl
// do, so that deleting works. From then on until there is space again, Append
// refuses data.
func (l *Log) AppendMeta(stored []byte) (uint64, error) { return l.appendBlock(stored, true) }

func (l *Log) appendBlock(stored []byte, meta bool) (uint64, error) {
	if len(stored) == 0 || len(stored) > seal.MaxStored {
		return 0, fmt.Errorf("appending to %s: a block of %d bytes", l.dir, len(stored))
	}
	return l.appendEntry(newBlockEntry(stored), meta)
}

// hurryFor is how long [Log.Hurry] holds.
const hurryFor = time.Second

// Hurry says that a program waits, or soon will, for a commit to be durable.
// For a second, less is left to be synced by the background, and CatchUp waits.
func (l *Log) Hurry() { l.hurry.Store(int64(time.Since(l.born))) }

// CatchUp is for those who append much that nobody waits for: in a [Log.Hurry]
// it returns once little is left to be synced, so that a commit has not to wait
// for what others appended.
func (l *Log) CatchUp() {
	if l.unsynced.Load() >= l.limits.hurried && l.Hurried() && l.usable() == nil {
		l.syncBehind()
	}
}

// Hurried reports whether there is a [Log.Hurry].
func (l *Log) Hurried() bool {
	at := l.hurry.Load()
	return at != 0 && time.Since(l.born)-time.Duration(at) < hurryFor
}

// AppendControl appends a control entry. Like a block, it becomes durable
// with the next synced Commit.
func (l *Log) AppendControl(c Control) (uint64, error) {
	body, err := EncodeControl(c)
	if err != nil {
		return 0, fmt.Errorf("appending to %s: %w", l.dir, err)
	}
	return l.appendEntry(newControlEntry(body), true)
}

// entry is an entry about to be appended.
type entry struct {
	frame
	recap
	body []byte
	kind locKind
}

func newBlockEntry(stored []byte) *entry { return describedEntry(stored, Describe(stored)) }

func describedEntry(stored []byte, d Descriptor) *entry {
	e := &entry{recap: recapBlock(d), body: stored, kind: locBlock}
	e.frame = frame{typ: frameBlock, length: d.Length, digest: d.Digest}
	if seal.Uniform(stored) {
		e.kind = locUniform
	}
	return e
}

func newControlEntry(body []byte) *entry {
	e := &entry{recap: recap{control: true, leaf: LeafHash(body)}, body: body, kind: locControl}
	e.frame = frame{typ: frameControl, length: uint32(len(body)), digest: blake3.Sum256(body)}
	return e
}

func (l *Log) appendEntry(e *entry, meta bool) (uint64, error) {
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	if err := l.writable(); err != nil {
		return 0, err
	}
	if !meta && !l.reserve.restore() {
		return 0, fmt.Errorf("appending to %s: only the reserve is left: %w", l.dir, syscall.ENOSPC)
	}
	if err := l.makeRoom(meta); err != nil {
		return 0, fmt.Errorf("appending to %s: %w", l.dir, err)
	}
	buf := l.pend
	loc := l.place(e, &buf)
	l.publish(e, loc, buf)
	if !l.inline {
		l.nudge()
	}
	return e.index, nil
}

// makeRoom writes what is pending if it is much, and begins a new segment if
// the tail is full. After it a frame may be placed.
func (l *Log) makeRoom(meta bool) error {
	if l.pendOff+int64(len(l.pend)) >= l.limits.segment-frameSize(maxRecaps*recapSize) {
		return l.rollover(meta)
	}
	if len(l.pend) >= l.limits.flush {
		if err := l.flush(meta); err != nil {
			return err
		}
	}
	// Before a checkpoint frame takes them, so that they fit there.
	if len(l.recaps) >= (maxRecaps-1)*recapSize {
		l.addRecaps()
	}
	return nil
}

// addRecaps adds the recaps of the entries that none was written of yet.
func (l *Log) addRecaps() {
	n := uint64(len(l.recaps) / recapSize)
	if n == 0 {
		return
	}
	f := frame{typ: frameRecap, length: uint32(len(l.recaps)), index: l.next - n, digest: blake3.Sum256(l.recaps)}
	f.setDurable(l.durable.Load())
	buf := f.appendTo(l.pend, l.recaps)
	l.recaps = l.recaps[:0]
	l.mu.Lock()
	l.pend = buf
	l.mu.Unlock()
}

// place gives e the next index and appends its frame to buf, which begins at
// pendOff.
func (l *Log) place(e *entry, buf *[]byte) location {
	e.index = l.next
	e.setDurable(l.durable.Load())
	off := l.pendOff + int64(len(*buf))
	*buf = e.frame.appendTo(*buf, e.body)
	return makeLocation(e.kind, l.tail.num, off, e.frame.length)
}

// publish makes e an entry of the log, readable from now on. buf is what is
// pending.
func (l *Log) publish(e *entry, loc location, buf []byte) {
	l.tree.append(e.leaf)
	l.recaps = e.recap.appendTo(l.recaps)
	l.sinceHead += e.frame.size()
	l.sinceMark.Add(e.frame.size() + l.limits.markEntry)
	l.mu.Lock()
	l.locs.add(loc)
	l.next++
	l.pend = buf
	l.mu.Unlock()
}

// flush writes what is pending.
func (l *Log) flush(meta bool) error {
	if len(l.pend) == 0 {
		return nil
	}
	if err := l.write(l.pend, meta); err != nil {
		return err
	}
	l.written(len(l.pend))
	return nil
}

// written moves on after n bytes were written at pendOff.
func (l *Log) written(n int) {
	end := l.pendOff + int64(n)
	l.zeroEnd = max(l.zeroEnd, end)
	l.unsynced.Add(int64(n))
	l.mu.Lock()
	l.pendOff, l.pend = end, l.pend[:0]
	l.mu.Unlock()
}

// write writes buf at pendOff. With a full disk it leaves the tail as it was;
// any other failure poisons the log.
func (l *Log) write(buf []byte, meta bool) error {
	for {
		_, err := l.tail.file.WriteAt(buf, l.pendOff)
		if err == nil {
			return nil
		}
		if !isFull(err) {
			return l.fail(err)
		}
		// Nothing of it may be found by a recovery: it did not happen.
		if err := l.tail.file.Truncate(l.pendOff); err != nil {
			return l.fail(err)
		}
		l.zeroEnd, l.noWindow = l.pendOff, true
		if !meta || !l.reserve.release() {
			return fmt.Errorf("%s: %w", l.tail.path, err)
		}
	}
}

// rollover begins a new segment. The old one is durable before the new one is
// used: recovery relies on it.
func (l *Log) rollover(meta bool) error {
	l.addRecaps()
	if err := l.flush(meta); err != nil {
		return err
	}
	old, end := l.tail, l.pendOff
	if l.zeroEnd > end {
		if err := old.file.Truncate(end); err != nil {
			return l.fail(err)
		}
		l.zeroEnd = end
	}
	if err := l.syncTail(old); err != nil {
		return err
	}
	seg, err := l.createSegment(old.num+1, l.next)
	if isFull(err) && !errors.Is(err, ErrPoisoned) && meta && l.reserve.release() {
		seg, err = l.createSegment(old.num+1, l.next)
	}
	if err != nil {
		if isFull(err) {
			return err // nothing has happened: the old segment can be used
		}
		return l.fail(err)
	}
	l.setTail(seg, segmentHeader)
	l.segs.put(old)
	return nil
}

// syncTail makes a segment durable. Syncs do not overlap: a failure is
// reported to one of several callers only, and the others must not believe
// theirs succeeded.
func (l *Log) syncTail(seg *segment) error {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	before := l.unsynced.Load()
	if err := seg.file.Datasync(); err != nil {
		return l.fail(err)
	}
	l.unsynced.Add(-before)
	l.begun.Store(0)
	return nil
}

// Commit appends a commit block and, with sync, a checkpoint over everything
// appended so far, and makes all of it durable; then it returns the
// checkpoint. Without sync the commit is as durable as appended data. Commits
// wait for each other; appending goes on beside them.
//
// An error that matches ErrPoisoned leaves open whether the commit happened:
// reopening the log tells. After any other error it did not happen and the
// log is as before: on a full disk, when even the reserve is used up.
func (l *Log) Commit(stored []byte, sync bool) (uint64, Head, error) {
	if len(stored) == 0 || len(stored) > seal.MaxStored {
		return 0, Head{}, fmt.Errorf("committing to %s: a block of %d bytes", l.dir, len(stored))
	}
	e := newBlockEntry(stored)
	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	if !sync {
		index, err := l.appendEntry(e, true)
		return index, Head{}, err
	}
	head, pos, seg, err := l.writeCommit(e)
	if err != nil {
		return 0, Head{}, fmt.Errorf("committing to %s: %w", l.dir, err)
	}
	err = l.syncTail(seg)
	l.segs.put(seg)
	if err != nil {
		return 0, Head{}, fmt.Errorf("committing to %s: %w", l.dir, err)
	}
	l.mu.Lock()
	l.head, l.headPos = head, pos
	close(l.committed)
	l.committed = make(chan struct{})
	l.mu.Unlock()
	l.durable.Store(head.Size)
	l.nudge()
	return e.index, head, nil
}

// writeCommit writes what is pending, the commit and its checkpoint in one
// write. It returns the segment they are in, for the caller to give back.
func (l *Log) writeCommit(e *entry) (Head, position, *segment, error) {
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	fault := func(err error) (Head, position, *segment, error) { return Head{}, position{}, nil, err }
	if err := l.writable(); err != nil {
		return fault(err)
	}
	if err := l.makeRoom(true); err != nil {
		return fault(err)
	}
	buf := l.pend
	loc := l.place(e, &buf)
	head, err := l.signer.Sign(e.index+1, l.tree.rootWith(e.leaf))
	if err != nil {
		return fault(err)
	}
	buf = l.appendCheckpoint(buf, head, e.recap.appendTo(l.recaps))
	if err := l.write(buf, true); err != nil {
		return fault(err)
	}
	l.publish(e, loc, buf)
	l.written(len(buf))
	l.recaps = l.recaps[:0]
	if l.sinceHead <= l.limits.windowCommit && !l.noWindow && l.zeroEnd-l.pendOff <= l.limits.windowLow {
		l.wantZeros.Store(true)
	}
	l.sinceHead = 0
	seg, err := l.segs.get(l.tail.num)
	return head, position{l.tail.num, l.pendOff}, seg, err
}

// appendCheckpoint appends a checkpoint frame to buf.
func (l *Log) appendCheckpoint(buf []byte, head Head, recaps []byte) []byte {
	body := checkpointBody(nil, recaps, head.Note)
	f := frame{typ: frameCheckpoint, length: uint32(len(body)), index: head.Size, digest: blake3.Sum256(body)}
	f.setDurable(l.durable.Load())
	return f.appendTo(buf, body)
}

// rootWith returns what root will be when leaf is appended: at the right edge
// a leaf meets every peak, the smallest first.
func (t *hashTree) rootWith(leaf [hashSize]byte) [hashSize]byte {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for level := range t.peaks {
		if t.n>>level&1 == 1 {
			leaf = nodeHash(&t.peaks[level], &leaf)
		}
	}
	return leaf
}

// nudge has due background work done, by the goroutine or here. With inline,
// appendMu must not be held.
func (l *Log) nudge() {
	if !l.behind() && !l.wantZeros.Load() && !l.markDue() {
		return
	}
	if l.inline {
		l.housekeep()
		return
	}
	select {
	case l.kick <- struct{}{}:
	default: // it is on its way already
	}
}

// behind reports whether so much is not synced that the background should.
func (l *Log) behind() bool {
	n := l.unsynced.Load()
	if l.replica {
		return n-l.begun.Load() >= l.limits.syncBehind
	}
	return n >= l.limits.syncBehind || n >= l.limits.hurried && l.Hurried()
}

func (l *Log) markDue() bool {
	limit := l.limits.mark
	if l.replica {
		limit *= replicaMarks
	}
	return l.sinceMark.Load() >= limit
}

// background is the goroutine of a log. Close ends it.
func (l *Log) background(ctx context.Context) {
	defer close(l.done)
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.kick:
			l.housekeep()
		}
	}
}

// housekeep does what is due. Its failures are not anybody's error: either
// they poison the log, or only speed is lost.
func (l *Log) housekeep() {
	if l.usable() != nil {
		return
	}
	switch {
	case !l.behind():
	case l.replica:
		l.writeBehind()
	default:
		l.syncBehind()
	}
	if l.wantZeros.Swap(false) {
		l.extendWindow()
	}
	if l.wipeDue.Swap(false) {
		if err := l.wipeDropped(); err != nil {
			l.wipeDue.Store(true) // with what is dropped next, or when the log is opened again
			l.slog.Warn("dropped blocks could not be overwritten yet", "dir", l.dir, "err", err)
		}
	}
	if l.markDue() {
		l.sinceMark.Store(0) // not again at once if it fails
		if err := l.Settle(); err != nil {
			l.slog.Warn("the index could not be settled; opening the log will take longer", "err", err)
		}
	}
}

// syncBehind syncs the tail while bulk data is appended.
func (l *Log) syncBehind() {
	l.mu.RLock()
	seg, err := l.segs.get(l.tailNum)
	l.mu.RUnlock()
	if err != nil {
		return
	}
	_ = l.syncTail(seg) // poisons the log if it fails
	l.segs.put(seg)
}

// writeBehind has the tail written out while a replica grows. Nobody waits for
// a commit of a replica, so nothing need be durable before it is settled: and a
// thread in a system call that waits for the disk takes from those who receive.
func (l *Log) writeBehind() {
	l.mu.RLock()
	seg, err := l.segs.get(l.tailNum)
	l.mu.RUnlock()
	if err != nil {
		return
	}
	n := l.unsynced.Load()
	seg.file.WriteBack()
	l.begun.Store(n)
	l.segs.put(seg)
}

// extendWindow writes zeros ahead of the tail and syncs them.
func (l *Log) extendWindow() {
	l.appendMu.Lock()
	end := l.pendOff + int64(len(l.pend))
	if l.noWindow || l.zeroEnd-end > l.limits.windowLow || end+l.limits.window > l.limits.segment {
		l.appendMu.Unlock()
		return
	}
	if l.zeroBuffer == nil {
		l.zeroBuffer = make([]byte, l.limits.window)
	}
	from := max(l.zeroEnd, end)
	_, err := l.tail.file.WriteAt(l.zeroBuffer, from)
	if err != nil {
		l.noWindow = true
	} else {
		l.zeroEnd = from + l.limits.window
	}
	l.appendMu.Unlock()
	if err == nil {
		l.syncBehind()
	}
}
