package fs

import (
	"context"
	"fmt"
	"path"
	"time"
)

// FileVersion is one version of one document.
type FileVersion struct {
	Version Version
	Time    time.Time // when it was made
	Size    uint64
	Ino     Ino    // under which the document was kept then
	Name    string // what it was called
	Program string // that wrote it; "" if that is not known any more
	Reason  Reason
	Created bool // it is the document's first
}

// meantPause is how long a document must rest for a state of it to count that
// no program finished by closing the file.
const meantPause = 2 * time.Second

// FileVersions calls fn for each version of a document, newest first, until it
// returns false or has seen limit of them (0: all). A document is what people
// take for one file: it goes on when an editor saves it as a new file. A path
// that is gone is looked for in what was deleted. Versions are those people
// mean: the newest, those a program finished writing, and those that stood for
// a while.
func (d *Drive) FileVersions(ctx context.Context, path string, limit int, fn func(FileVersion) bool) error {
	k := d.kept()
	ino, below, name, err := d.document(ctx, k, path)
	if err != nil {
		return err
	}
	return d.documentVersions(ctx, k, ino, name, below, limit, fn)
}

// document finds the inode of a path, now or when it was last there: states
// before version below are the document's.
func (d *Drive) document(ctx context.Context, k *keptVersions, p string) (ino Ino, below uint64, name string, err error) {
	name = path.Base(path.Clean("/" + p))
	ino, err = k.v.resolve(p)
	below = k.head.seq + 1
	if isNotExist(err) {
		var seq uint64
		if seq, ino, err = d.lastSeen(ctx, k, p); err != nil {
			return 0, 0, "", err
		}
		below = seq + 1
	}
	return ino, below, name, err
}

func (d *Drive) documentVersions(ctx context.Context, k *keptVersions, ino Ino, name string, below uint64, limit int, fn func(FileVersion) bool) error {
	seen, err := k.atOrBefore(below - 1)
	if err != nil {
		return err
	}
	s, err := d.At(ctx, Version{d.writer, seen})
	if err != nil {
		return err
	}
	n, err := s.v.inode(ino)
	switch {
	case err != nil:
		return err
	case n.isDir():
		return fmt.Errorf("%s: %w", showPath(name), ErrIsDir)
	case !n.isRegular():
		return fmt.Errorf("%s has no contents: %w", showPath(name), ErrInvalid)
	}
	w, err := d.walkDocument(ctx, k, ino, name, below)
	if err != nil {
		return err
	}
	for given := 0; ; {
		s, ok, err := w.nextMeant(ctx)
		if err != nil || !ok {
			return err
		}
		given++
		more := fn(FileVersion{
			Version: Version{d.writer, s.version}, Time: unixNano(s.time), Size: s.size, Ino: s.ino,
			Name: s.name, Program: s.program, Reason: s.reason, Created: s.created,
		})
		if !more || given == limit {
			return nil
		}
	}
}

// nextMeant returns the next older state that people mean.
func (w *docWalk) nextMeant(ctx context.Context) (docState, bool, error) {
	for {
		s, ok, err := w.next(ctx)
		if !ok || err != nil {
			return s, false, err
		}
		rested := w.newer == 0 || time.Duration(w.newer-s.time) > meantPause
		w.newer = s.time
		if s.meant || rested {
			return s, true, nil
		}
	}
}
