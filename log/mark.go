package log

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"path/filepath"

	"hearth/log/disk"
	"hearth/log/wire"

	"github.com/zeebo/blake3"
)

// position is a place between two frames.
type position struct {
	segment uint32
	offset  int64
}

func (p position) before(o position) bool {
	return p.segment < o.segment || p.segment == o.segment && p.offset < o.offset
}

// mark says up to where the index files are durable and trusted: the frames
// before pos, which hold the entries of head. It is itself an index: without
// it, or when its digest does not match, everything is rebuilt.
//
// Encoding: "HM", version u8, segment u32, offset u64, rewriting u32, the
// note as a byte string, BLAKE3-256 of what is before.
type mark struct {
	pos  position
	head Head
	// rewriting, if not 0, is a segment's number plus 1: that segment is
	// being replaced by a rewritten one, and the locations in it may be those
	// of the old or of the new file.
	rewriting uint32
}

const (
	markVersion = 1
	markMagic   = "HM"
)

func (m *mark) encode() []byte {
	w := wire.Writer{B: []byte(markMagic)}
	w.U8(markVersion)
	w.U32(m.pos.segment)
	w.U64(uint64(m.pos.offset))
	w.U32(m.rewriting)
	w.Bytes(m.head.Note)
	sum := blake3.Sum256(w.B)
	w.Raw(sum[:])
	return w.B
}

// decodeMark decodes a mark and verifies its checkpoint.
func decodeMark(b []byte, v *Verifier) (*mark, error) {
	if len(b) < hashSize {
		return nil, fmt.Errorf("%w: mark of %d bytes", ErrDamaged, len(b))
	}
	body, sum := b[:len(b)-hashSize], b[len(b)-hashSize:]
	if blake3.Sum256(body) != [hashSize]byte(sum) {
		return nil, fmt.Errorf("%w: mark", ErrDamaged)
	}
	r := wire.NewReader(body)
	if magic := r.Raw(2); string(magic) != markMagic {
		r.Fail("no mark")
	}
	if version := r.U8(); r.Err() == nil && version != markVersion {
		r.Fail("mark version %d", version)
	}
	m := &mark{pos: position{segment: r.U32(), offset: int64(r.U64())}, rewriting: r.U32()}
	noteBytes := r.Bytes(maxNote)
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("%w: mark: %w", ErrDamaged, err)
	}
	if m.pos.segment >= maxSegments || m.pos.offset < segmentHeader || m.pos.offset%frameAlign != 0 {
		return nil, fmt.Errorf("%w: mark at %d of segment %d", ErrDamaged, m.pos.offset, m.pos.segment)
	}
	var err error
	if m.head, err = v.Verify(noteBytes); err != nil {
		return nil, fmt.Errorf("%w: mark: %w", ErrDamaged, err)
	}
	return m, nil
}

func (l *Log) indexPath(name string) string { return filepath.Join(l.dir, "index", name) }

// Settle makes the index files durable and advances the mark to the newest
// durable checkpoint, so that opening the log has nothing to recover, and rot
// in the last commit cannot be mistaken for a torn write. The log does it by
// itself when much was appended and when it is closed; a program that has
// been idle for some seconds may do it at leisure. A failure loses nothing
// but that.
func (l *Log) Settle() error {
	l.markMu.Lock()
	defer l.markMu.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	return l.settleLocked()
}

// settleLocked is Settle with markMu held.
func (l *Log) settleLocked() error {
	if l.replica {
		return l.settleReplica()
	}
	if l.indexBroken {
		return nil // see syncIndex
	}
	l.mu.RLock()
	m := mark{pos: l.headPos, head: l.head, rewriting: l.rewriting}
	l.mu.RUnlock()
	if m.head.Size == 0 {
		return nil
	}
	if m.head.Size == l.marked.head.Size && m.rewriting == l.marked.rewriting && m.pos == l.marked.pos && !l.locsStale {
		return nil
	}
	if err := l.syncIndex(nil); err != nil {
		return fmt.Errorf("settling the index of %s: %w", l.dir, err)
	}
	if err := l.disk.WriteFile(l.indexPath("mark"), m.encode()); err != nil {
		return fmt.Errorf("settling the index of %s: %w", l.dir, err)
	}
	l.marked, l.locsStale = m, false
	l.sinceMark.Store(0)
	return nil
}

// syncIndex writes and syncs the hash tree and the locations. After a failed
// sync nothing is known about what the files hold, and a later sync that
// succeeds says nothing about it: the mark then stays where it is until the
// log is opened again, which computes anew what comes after it. update is what
// to write of the locations; nil: all there is.
func (l *Log) syncIndex(update *locsUpdate) error {
	if err := l.tree.flush(); err != nil {
		return err
	}
	if err := l.flushLocations(update); err != nil {
		return err
	}
	if err := l.tree.sync(); err != nil {
		l.indexBroken = true
		return err
	}
	if err := l.locsFile.Datasync(); err != nil {
		l.indexBroken = true
		return err
	}
	return nil
}

func (l *Log) flushLocations(given *locsUpdate) error {
	if l.locsFile == nil {
		f, err := openOrCreate(l.disk, l.indexPath("locs"))
		if err != nil {
			return err
		}
		if err := l.disk.SyncDir(filepath.Join(l.dir, "index")); err != nil {
			return errors.Join(err, f.Close())
		}
		l.locsFile = f
	}
	if given != nil {
		if err := given.writeTo(l.locsFile); err != nil {
			return fmt.Errorf("%s: %w", l.indexPath("locs"), err)
		}
		return nil
	}
	l.mu.Lock()
	update := l.locs.takeDirty()
	l.mu.Unlock()
	if err := update.writeTo(l.locsFile); err != nil {
		l.mu.Lock()
		l.locs.putBack(update)
		l.mu.Unlock()
		return fmt.Errorf("%s: %w", l.indexPath("locs"), err)
	}
	return nil
}

func openOrCreate(d disk.FS, name string) (disk.File, error) {
	f, err := d.Open(name)
	if errors.Is(err, iofs.ErrNotExist) {
		return d.Create(name)
	}
	return f, err
}
