package fs

import (
	"context"
	"fmt"
	"path"
	"strings"
	"time"
)

// DeletedEntry is something that was deleted from a directory and can still
// come back.
type DeletedEntry struct {
	Name    string
	Ino     Ino
	Type    uint32    // file type bits
	Size    uint64    // of a regular file
	Version Version   // the last version that has it
	Time    time.Time // when that version was made
}

// FindDeleted returns the newest version in which a path existed, and what was
// there. A path that is there now is found in the newest version, and a
// directory that was deleted in the version before it was begun to be emptied.
func (d *Drive) FindDeleted(ctx context.Context, p string) (Version, Ino, error) {
	k := d.kept()
	seq, ino, err := d.lastSeen(ctx, k, p)
	if err != nil || seq == k.head.seq || ino == RootIno {
		return Version{d.writer, seq}, ino, err
	}
	s, err := d.At(ctx, Version{d.writer, seq})
	if err != nil {
		return Version{}, 0, err
	}
	dir, name := path.Split(path.Clean("/" + p))
	parent, err := s.v.resolve(dir)
	if err != nil {
		return Version{}, 0, err
	}
	seq, err = d.beforeDeletion(ctx, k, s, nameOf{parent, name}, ino)
	return Version{d.writer, seq}, ino, err
}

// beforeDeletion returns the version to bring something back from that was last
// seen in s. A directory is emptied before it is deleted, and versions may be
// made meanwhile: it comes back as it was before that change began.
func (d *Drive) beforeDeletion(ctx context.Context, k *keptVersions, s *Snapshot, at nameOf, ino Ino) (uint64, error) {
	seq := s.Version.Seq
	n, err := s.v.inode(ino)
	if err != nil || !n.isDir() {
		return seq, err
	}
	next, _, err := k.from(seq+1, k.head.seq)
	if err != nil || next == 0 {
		return seq, err
	}
	v, err := d.version(next)
	if err != nil {
		return seq, err
	}
	changes, err := d.allChanges(d.writer, v.commit)
	if err != nil {
		return seq, err
	}
	for _, c := range changes {
		if c.what&didUnlink == 0 || c.parent != at.parent || c.name != at.name {
			continue
		}
		// An id holds the version the change began in.
		began, err := k.atOrBefore(v.actors[c.actor].id>>8 - 1)
		if err != nil || began == 0 || began >= seq {
			return seq, err
		}
		before, err := d.At(ctx, Version{d.writer, began})
		if err != nil {
			return seq, err
		}
		if was, err := before.v.lookupIno(at); err != nil || was != ino {
			return seq, err
		}
		return began, nil
	}
	return seq, nil
}

// deletedInode returns the inode that a path that is gone last led to.
func (d *Drive) deletedInode(ctx context.Context, _ *Snapshot, p string) (Ino, error) {
	_, ino, err := d.lastSeen(ctx, d.kept(), p)
	return ino, err
}

// lastSeen finds the newest kept version in which a path existed.
func (d *Drive) lastSeen(ctx context.Context, k *keptVersions, p string) (uint64, Ino, error) {
	var names []string
	for _, name := range strings.Split(path.Clean("/"+p), "/") {
		if name != "" {
			names = append(names, name)
		}
	}
	seq, ino, err := d.lastSeenBelow(ctx, k, RootIno, names, 1, k.head.seq)
	if err == nil && ino == 0 {
		err = fmt.Errorf("%s is in no version that is kept: %w", showPath(p), ErrNotExist)
	}
	return seq, ino, err
}

// lastSeenBelow finds names below a directory in the kept versions from lo to
// hi, newest first; inode 0: in none. A directory's record says when its
// entries last changed, so only versions that changed it are looked at.
func (d *Drive) lastSeenBelow(ctx context.Context, k *keptVersions, dir Ino, names []string, lo, hi uint64) (uint64, Ino, error) {
	w := dirWalk{d: d, k: k, dir: dir, lo: lo, hi: hi}
	for {
		s, since, err := w.next(ctx)
		if err != nil || s == nil {
			return 0, 0, err
		}
		if len(names) == 0 {
			return s.Version.Seq, dir, nil
		}
		ino, err := s.v.lookupIno(nameOf{dir, names[0]})
		if err != nil {
			return 0, 0, err
		}
		if ino == 0 {
			continue
		}
		if len(names) == 1 {
			return s.Version.Seq, ino, nil
		}
		seq, found, err := d.lastSeenBelow(ctx, k, ino, names[1:], max(since, lo), s.Version.Seq)
		if found != 0 || err != nil {
			return seq, found, err
		}
	}
}

// dirWalk goes through the states of a directory's entries in the kept
// versions from lo to hi, newest first.
type dirWalk struct {
	d      *Drive
	k      *keptVersions
	dir    Ino
	lo, hi uint64
	resume uint64 // changed the directory before; it may have been gone since
}

// next returns the newest kept version of the next older state, and the
// version in which that state began; nil if there is none.
func (w *dirWalk) next(ctx context.Context) (*Snapshot, uint64, error) {
	for {
		if err := ctx.Err(); err != nil || w.hi < w.lo || w.hi == 0 {
			return nil, 0, err
		}
		seq, err := w.k.atOrBefore(w.hi)
		if err != nil || seq < w.lo || seq == 0 {
			return nil, 0, err
		}
		v, err := w.d.version(seq)
		if err != nil {
			return nil, 0, err
		}
		s := w.d.snapshotOf(v)
		n, err := s.v.inode(w.dir)
		switch {
		case isNotExist(err):
			// Deleted and brought back, or not made yet.
			if w.resume == 0 || w.resume >= seq {
				return nil, 0, nil
			}
			w.hi = w.resume
		case err != nil:
			return nil, 0, err
		case !n.isDir():
			return nil, 0, nil
		default:
			w.hi, w.resume = min(seq, n.changed.Seq)-1, n.before.Seq
			return s, n.changed.Seq, nil
		}
	}
}

// Bounds of how far back Deleted looks.
const (
	deletedStates = 20_000
	deletedLimit  = 10_000
)

// Deleted calls fn for what was deleted from a directory and can still come
// back, what went last first, until it returns false or has seen limit of them
// (0: a great many). What was moved or renamed is not among them, nor what is
// there again, nor what editors leave behind.
func (d *Drive) Deleted(ctx context.Context, dir Ino, limit int, fn func(DeletedEntry) bool) error {
	if limit <= 0 || limit > deletedLimit {
		limit = deletedLimit
	}
	k := d.kept()
	seen := map[string]struct{}{}
	lo, hi := kindRange(dir, kindDirent)
	w := dirWalk{d: d, k: k, dir: dir, lo: 1, hi: k.head.seq}
	newer, _, err := w.next(ctx)
	if err != nil {
		return err
	}
	if newer == nil {
		return fmt.Errorf("inode %d: %w", dir, ErrNotExist)
	}
	now := newer
	given := 0
	for range deletedStates {
		older, _, err := w.next(ctx)
		if err != nil || older == nil {
			return err
		}
		gone, err := d.goneBetween(older, newer, lo, hi)
		if err != nil {
			return err
		}
		for _, e := range gone {
			if _, ok := seen[e.Name]; ok || isScratch(e.Name) {
				continue
			}
			if there, err := now.v.lookupIno(nameOf{dir, e.Name}); err != nil {
				return err
			} else if there != 0 {
				continue
			}
			seen[e.Name] = struct{}{}
			seq, err := d.beforeDeletion(ctx, k, older, nameOf{dir, e.Name}, e.Ino)
			if err != nil {
				return err
			}
			if e.Version.Seq = seq; seq != older.Version.Seq {
				at, err := k.time(seq)
				if err != nil {
					return err
				}
				e.Time = unixNano(at)
			}
			given++
			if !fn(e) || given == limit {
				return nil
			}
		}
		newer = older
	}
	return nil
}

// goneBetween returns the entries of a directory that were deleted between two
// versions.
func (d *Drive) goneBetween(older, newer *Snapshot, lo, hi []byte) ([]DeletedEntry, error) {
	var out []DeletedEntry
	heirs := map[Ino]struct{}{} // inodes whose documents others took over
	err := diffViews(older.v, newer.v, lo, hi, func(key, old, new []byte) error {
		if new != nil {
			e, err := decodeDirent(new)
			if err != nil {
				return err
			}
			if e.typ == ModeRegular {
				n, err := newer.v.inode(e.ino)
				if err != nil {
					return err
				}
				if n.from != 0 {
					heirs[n.from] = struct{}{}
				}
			}
			return nil
		}
		e, err := decodeDirent(old)
		if err != nil {
			return err
		}
		if _, err := newer.v.inode(e.ino); !isNotExist(err) {
			return err // it lives on under another name
		}
		n, err := older.v.inode(e.ino)
		if err != nil {
			return err
		}
		out = append(out, DeletedEntry{
			Name: keyName(key), Ino: e.ino, Type: e.typ, Size: n.size,
			Version: older.Version, Time: unixNano(older.c.time),
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	kept := out[:0]
	for _, e := range out {
		if _, ok := heirs[e.Ino]; ok {
			continue
		}
		aside, err := newer.v.setAside(keyIno(lo), e)
		if err != nil {
			return nil, err
		}
		if aside {
			continue
		}
		if e.Type == ModeDir {
			e.Size = 0
		}
		kept = append(kept, e)
	}
	return kept, nil
}

// setAside reports whether an entry that went from a directory was the backup
// of a document that was saved under its own name in a version before.
func (v *view) setAside(dir Ino, e DeletedEntry) (bool, error) {
	if e.Type != ModeRegular {
		return false, nil
	}
	for _, base := range backupBases(e.Name) {
		ino, err := v.lookupIno(nameOf{dir, base})
		if err != nil {
			return false, err
		}
		if ino == 0 {
			continue
		}
		n, err := v.inode(ino)
		if err != nil || n.from == e.Ino {
			return err == nil, err
		}
	}
	return false, nil
}
