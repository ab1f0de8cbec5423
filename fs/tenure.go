package fs

import (
	"context"
	"errors"
)

// tenure is the time for which a document was under one inode: from version
// floor on until it passed to another. Before floor it was under inode from, or
// was not there for 0.
type tenure struct {
	ino   Ino // 0: the document was not there
	below uint64
	floor uint64
	from  Ino
}

// tenureOf finds out since when a document is under an inode, which the newest
// kept version before below has. it stands at the inode's events.
func (d *Drive) tenureOf(ctx context.Context, k *keptVersions, it *docEvents, ino Ino, below uint64) (tenure, error) {
	t := tenure{ino: ino, below: below}
	if e, ok := it.peek(); ok && e.ino == ino && e.seq < below && e.what&didReplace != 0 {
		if all, err := k.all(e.seq, below-1); err != nil {
			return t, err
		} else if all {
			t.floor, t.from = e.seq, e.from
			return t, nil
		}
	}
	n, err := d.lastRecord(ctx, k, ino, below)
	if isNotExist(err) {
		return t, nil
	}
	if err == nil && n.from != 0 && n.from != ino {
		t.floor, t.from = n.fromAt.Seq+1, n.from
	}
	return t, err
}

// lastRecord returns an inode's record in the newest kept version before one.
func (d *Drive) lastRecord(ctx context.Context, k *keptVersions, ino Ino, below uint64) (*inode, error) {
	seen, err := k.atOrBefore(below - 1)
	if err != nil {
		return nil, err
	}
	if seen == 0 {
		return nil, ErrNotExist
	}
	s, err := d.At(ctx, Version{d.writer, seen})
	if err != nil {
		return nil, err
	}
	return s.v.inode(ino)
}

// tenureBefore returns where the document was before. The inode it succeeded
// may be in no version that is kept, nor those before that one: then it goes on
// with what had its name.
func (d *Drive) tenureBefore(ctx context.Context, k *keptVersions, it *docEvents, t tenure) (tenure, error) {
	none := tenure{}
	if t.from == 0 || t.floor >= t.below {
		return none, nil
	}
	it.seek(t.from, t.floor)
	if e, ok := it.peek(); ok && e.ino == t.from && e.what&didRemove == 0 {
		if all, err := k.all(e.seq, t.floor-1); err != nil {
			return none, err
		} else if all {
			return d.tenureOf(ctx, k, it, t.from, t.floor)
		}
	}
	n, err := d.lastRecord(ctx, k, t.from, t.floor)
	switch {
	case err == nil && n.isRegular():
		return d.tenureOf(ctx, k, it, t.from, t.floor)
	case err != nil && !isNotExist(err):
		return none, err
	}
	ino, err := d.namesake(ctx, k, t)
	if ino == 0 || err != nil {
		return none, err
	}
	it.seek(ino, t.floor)
	return d.tenureOf(ctx, k, it, ino, t.floor)
}

// namesake finds the file that had the document's name before it passed to the
// present inode.
func (d *Drive) namesake(ctx context.Context, k *keptVersions, t tenure) (Ino, error) {
	before, err := k.atOrBefore(t.floor - 1)
	if err != nil || before == 0 {
		return 0, err
	}
	first, _, err := k.from(t.floor, t.below-1)
	if err != nil || first == 0 {
		return 0, err
	}
	old, err := d.At(ctx, Version{d.writer, before})
	if err != nil {
		return 0, err
	}
	took, err := d.At(ctx, Version{d.writer, first})
	if err != nil {
		return 0, err
	}
	var found Ino
	var failed error
	err = took.v.parents(t.ino, func(parent Ino, name string) bool {
		var e dirent
		if e, failed = old.v.lookup(parent, name); isNotExist(failed) {
			failed = nil
			return true
		}
		if failed == nil && e.typ == ModeRegular && e.ino != t.ino {
			found = e.ino
		}
		return found == 0 && failed == nil
	})
	return found, errors.Join(err, failed)
}

// all reports whether every version from lo to hi is kept.
func (k *keptVersions) all(lo, hi uint64) (bool, error) {
	if lo > hi {
		return true, nil
	}
	if lo == hi {
		return k.has(lo)
	}
	next := lo
	it := k.v.scan(versionKey(Version{k.d.writer, lo}), versionKey(Version{k.d.writer, hi + 1}))
	for it.next() {
		if keyVersion(it.key).Seq != next {
			return false, nil
		}
		next++
	}
	if next == k.head.seq {
		next++ // the newest has no record yet
	}
	return next > hi, it.err
}
