package log

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"path/filepath"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/zeebo/blake3"
)

// How space comes back.
//
// The file dropped says which blocks were dropped here, and is the only
// authority on that: Drop replaces it, durably, before anything else, and from
// then on the blocks read as ErrDropped. A [Dropped] control entry, which the
// caller adds to the log, tells other holders; it is read here only when the
// file is lost. (What is dropped here may be kept elsewhere, so the log cannot
// be the authority.)
//
// Reclaim then frees the bytes. Frames keep their headers in place, and with
// them their descriptors, so a long dead frame is freed by punching a hole into
// its body, which changes no other byte. A segment of which more than half is
// dead is rewritten: live frames are copied, and of dead ones a recap of 36
// bytes stays. The order of the steps:
//
//  1. The new file is written beside the old one and synced.
//  2. The mark is replaced by one that says the segment is being rewritten.
//  3. The new file is renamed over the old one, the directory is synced.
//  4. The locations are changed, in memory and then on disk.
//  5. The mark is replaced by one that does not say so any more.
//
// After a crash between 2 and 5 the segment, whichever file it is, is scanned
// for its locations. Log order and segment numbers stay as they were. Of the
// checkpoints in a segment none is kept, so only segments before that of the
// newest checkpoint, and before the mark, are rewritten.

// rewriteSuffix is added to the name of a segment while it is rewritten.
const rewriteSuffix = ".new"

// The file dropped is droppedMagic, a serialised roaring64 bitmap, and the
// BLAKE3-256 of what is before.
const droppedMagic = "HEARTHDR"

func (l *Log) droppedPath() string { return filepath.Join(l.dir, "dropped") }

// loadDropped reads which blocks were dropped; lost if the file is missing or
// damaged.
func (l *Log) loadDropped() (lost bool, err error) {
	b, err := l.disk.ReadFile(l.droppedPath())
	if errors.Is(err, iofs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	set, err := decodeDroppedFile(b)
	if err != nil {
		l.health.note(Damage{Writer: l.writer, Index: NoEntry, File: l.droppedPath(), Detail: err.Error()})
		return true, nil
	}
	l.dropped = set
	return false, nil
}

func decodeDroppedFile(b []byte) (*roaring64.Bitmap, error) {
	if len(b) < len(droppedMagic)+hashSize || string(b[:len(droppedMagic)]) != droppedMagic {
		return nil, fmt.Errorf("%w: no list of dropped blocks", ErrDamaged)
	}
	body, sum := b[:len(b)-hashSize], b[len(b)-hashSize:]
	if blake3.Sum256(body) != [hashSize]byte(sum) {
		return nil, fmt.Errorf("%w: list of dropped blocks", ErrDamaged)
	}
	set := roaring64.New()
	if err := set.UnmarshalBinary(body[len(droppedMagic):]); err != nil {
		return nil, fmt.Errorf("%w: list of dropped blocks: %w", ErrDamaged, err)
	}
	return set, nil
}

func encodeDroppedFile(set *roaring64.Bitmap) ([]byte, error) {
	body, err := set.MarshalBinary()
	if err != nil {
		return nil, err
	}
	b := append([]byte(droppedMagic), body...)
	sum := blake3.Sum256(b)
	return append(b, sum[:]...), nil
}

// Drop records durably that the blocks in set are not wanted here any more;
// then they read as ErrDropped. Their descriptors stay. Only blocks below the
// newest durable checkpoint can be dropped, and no control entries. The space
// comes back with [Log.Reclaim].
func (l *Log) Drop(ctx context.Context, set *roaring64.Bitmap) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.dropMu.Lock()
	defer l.dropMu.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	if set.IsEmpty() {
		return nil
	}
	if most := set.Maximum(); most >= l.durable.Load() {
		return fmt.Errorf("dropping block %v: it is not durable", Ref{l.writer, most})
	}
	for _, index := range l.controls() {
		if set.Contains(index) {
			return fmt.Errorf("dropping block %v: it is a control entry", Ref{l.writer, index})
		}
	}
	l.mu.RLock()
	all := roaring64.Or(l.dropped, set)
	l.mu.RUnlock()
	all.RunOptimize()
	if err := l.writeDropped(all); err != nil {
		return fmt.Errorf("dropping blocks of %s: %w", l.dir, err)
	}
	l.mu.Lock()
	l.dropped = all
	l.mu.Unlock()
	return nil
}

// writeDropped replaces the file dropped, on a full disk with the help of the
// reserve.
func (l *Log) writeDropped(set *roaring64.Bitmap) error {
	b, err := encodeDroppedFile(set)
	if err != nil {
		return err
	}
	err = l.disk.WriteFile(l.droppedPath(), b)
	if isFull(err) && l.reserve.release() {
		err = l.disk.WriteFile(l.droppedPath(), b)
	}
	return err
}

// Dropped returns the blocks that were dropped here. The bitmap is the
// caller's.
func (l *Log) Dropped() *roaring64.Bitmap {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.dropped.Clone()
}
