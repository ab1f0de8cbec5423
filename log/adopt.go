package log

import (
	"errors"
	"fmt"
	"slices"

	"hearth/log/disk"
)

// adopt chooses the checkpoint to go on from and makes it so.
func (r *recovery) adopt() error {
	head, pos, resign, err := r.choose()
	if err != nil {
		return err
	}
	if r.unread != nil && pos.before(r.unreadPos) {
		// A torn write reads as zeros; this may be an acknowledged commit.
		return fmt.Errorf("the end of the log cannot be read: %w", r.unread)
	}
	if r.rebuilt {
		if err := r.disk.MkdirAll(r.indexPath("")); err != nil {
			return err
		}
		// Else an old index could come back after a crash.
		if err := r.disk.SyncDir(r.dir); err != nil {
			return err
		}
	}
	for _, b := range r.bad {
		if b.index < head.Size {
			r.noteBad(b)
		}
	}
	for _, at := range r.broken {
		if at.before(pos) {
			r.noteBroken(at)
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
		r.health.note(Damage{
			Writer: r.writer, Index: NoEntry, Segment: pos.segment, Offset: pos.offset, File: tail.path,
			Detail: "the newest checkpoint was damaged and is written again",
		})
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
	r.evidence = max(r.evidence, r.known.Size)
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
		if err != nil && !errors.Is(err, ErrCheckpoint) {
			return head, pos, false, err // it could not be read, which says nothing about it
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
		if r.next == 0 && slices.Contains(r.broken, position{0, 0}) {
			return head, pos, false, fmt.Errorf("%w: %s has neither a header nor an entry", ErrForeign, r.segs.path(0))
		}
		return head, pos, false, r.checkKnown(head)
	}
	if refused != nil || r.next < r.evidence {
		return head, pos, false, r.evidenceError(head, refused)
	}
	return r.restoreCheckpoint(head)
}

// checkKnown makes sure that the log has the head that is known of it.
func (r *recovery) checkKnown(head Head) error {
	if r.known.Size == 0 {
		return nil
	}
	root, err := r.tree.rootAt(r.known.Size)
	if err == nil && root != r.known.Root {
		err = &forkError{known: r.known, other: head}
	}
	return err
}

// restoreCheckpoint makes again the checkpoint of entries that were durable
// and are there, while their checkpoint is not.
func (r *recovery) restoreCheckpoint(head Head) (Head, position, bool, error) {
	loc := r.locs.get(r.evidence - 1)
	if !loc.isBlock() {
		return head, position{}, false, r.evidenceError(head, nil)
	}
	pos := position{loc.segment(), loc.offset() + frameSize(int(loc.length()))}
	root, err := r.tree.rootAt(r.evidence)
	if err != nil {
		return head, pos, false, err
	}
	if r.known.Size == r.evidence && r.known.Root == root {
		return r.known, pos, true, nil
	}
	if r.signer == nil {
		return head, pos, false, r.evidenceError(head, nil)
	}
	head, err = r.signer.Sign(r.evidence, root)
	return head, pos, true, err
}

func (r *recovery) evidenceError(head Head, cause error) error {
	err := fmt.Errorf("%w: %d entries were durable, but only %d can be verified", ErrDamaged, r.evidence, head.Size)
	if r.known.Size > r.next {
		err = fmt.Errorf("%w: %w", ErrRolledBack, err)
	}
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

func (r *recovery) noteBroken(at position) {
	detail := "a checkpoint or recap is damaged"
	if at.offset == 0 {
		detail = "the segment's header is damaged"
	}
	r.health.note(Damage{
		Writer: r.writer, Index: NoEntry, Segment: at.segment, Offset: at.offset,
		File: r.segs.path(at.segment), Detail: detail,
	})
}

// cut removes the segments behind pos, the last one first.
func (r *recovery) cut(pos position) error {
	for num := r.segments[len(r.segments)-1]; num > pos.segment; num-- {
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
	if size != pos.offset {
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
