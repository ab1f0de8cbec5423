package fs

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// Change is what one run of one program did without a pause, as people think
// of it: one untar, one save, one "rm -r".
type Change struct {
	ID          uint64
	First, Last Version
	Time        time.Time // of Last
	Verb        string    // "created", "edited", "deleted", ...; "" if nothing came of it
	// Paths are the one to three files or directories that say it, from the
	// root of the drive; of one that was renamed or moved the old path and the
	// new one. For more there is just the directory they are in, which then
	// ends in a slash.
	Paths     []string
	Files     int // affected, those in a directory that came or went as a whole included
	SizeDelta int64
	Program   string
	Uid       uint32
	// Undone says that all of it that is within the path asked for was undone
	// since; of an undo, redone.
	Undone bool
}

// String returns what a reason is called in the feed.
func (r Reason) String() string {
	switch r {
	case ReasonWork:
		return "work"
	case ReasonUndo:
		return "undo"
	case ReasonRedo:
		return "redo"
	case ReasonRestore:
		return "restore"
	case ReasonTag:
		return "tag"
	case ReasonUpkeep:
		return "upkeep"
	case ReasonPurge:
		return "purge"
	case ReasonGenesis:
		return "genesis"
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// ChangeQuery says which changes are wanted.
type ChangeQuery struct {
	// Path limits them to a file or directory and what is below it, also one
	// that is gone; "" and "/" mean the whole drive. A file stands for the
	// document: what was done to it before an editor saved it under a new
	// inode counts.
	Path   string
	Limit  int     // at most so many; 0: all
	Since  Version // only changes that ended after it, if not zero
	Before Version // only changes that ended before it, if not zero
}

// Changes calls fn for each change, newest first, until it returns false.
// Changes of which nothing is left to see (temporary files) are left out.
func (d *Drive) Changes(ctx context.Context, q ChangeQuery, fn func(Change) bool) error {
	for _, v := range []Version{q.Since, q.Before} {
		if v.Seq != 0 && v.Writer != d.writer {
			return fmt.Errorf("version %v: no such writer: %w", v, ErrNoVersion)
		}
	}
	k := d.kept()
	now := k.newest()
	scope, err := d.scope(ctx, now, q.Path)
	if err != nil {
		return err
	}
	l := &changeLister{query: q, fn: fn}
	if scope != RootIno {
		seen, err := d.seenIn(ctx, k, scope, q.Path)
		if err != nil {
			return err
		}
		n, err := seen.v.inode(scope)
		if err != nil {
			return err
		}
		if !n.isDir() {
			return d.documentChanges(ctx, k, scope, seen.Version.Seq+1, q.Path, l)
		}
	}
	undone := reversals{by: map[uint64][]*doneChange{}}
	return d.doneChanges(ctx, now, scope, func(c *doneChange) (bool, error) {
		rest := undone.rest(c)
		if !l.wants(c.last.seq) {
			return l.reaches(c.last.seq), nil
		}
		ch, err := d.describe(ctx, c)
		if err != nil {
			return false, err
		}
		if rest != c {
			left, err := d.describe(ctx, rest)
			if err != nil {
				return false, err
			}
			ch.Undone = left.Verb == ""
		}
		return l.give(ch), nil
	})
}

// seenIn returns the newest version that has the inode that a path leads to, or
// led to.
func (d *Drive) seenIn(ctx context.Context, k *keptVersions, ino Ino, path string) (*Snapshot, error) {
	_, err := k.v.inode(ino)
	if !isNotExist(err) {
		return k.newest(), err
	}
	seq, _, err := d.lastSeen(ctx, k, path)
	if err != nil {
		return nil, err
	}
	return d.At(ctx, Version{d.writer, seq})
}

// changeLister filters changes that come newest first.
type changeLister struct {
	query ChangeQuery
	fn    func(Change) bool
	given int
}

// wants reports whether a change that ended in a version is to be given.
func (l *changeLister) wants(last uint64) bool {
	return (l.query.Before.Seq == 0 || last < l.query.Before.Seq) && l.reaches(last)
}

// reaches reports whether changes that ended in a version are recent enough.
func (l *changeLister) reaches(last uint64) bool { return last > l.query.Since.Seq }

// give hands out a change and reports whether more are wanted.
func (l *changeLister) give(c Change) bool {
	if c.Verb == "" {
		return true
	}
	l.given++
	return l.fn(c) && (l.query.Limit <= 0 || l.given < l.query.Limit)
}

// describe says what a change did in the words people use.
func (d *Drive) describe(ctx context.Context, c *doneChange) (Change, error) {
	ch := Change{
		ID: c.id, First: Version{d.writer, c.first.seq}, Last: Version{d.writer, c.last.seq},
		Time: unixNano(c.last.time), SizeDelta: c.delta, Program: c.program, Uid: c.uid,
	}
	var pre *view
	if before, err := d.before(ctx, c.first.seq); err == nil {
		pre = before.v
	} else if isNoVersion(err) {
		pre = d.nothing()
	} else {
		return ch, err
	}
	after, err := d.At(ctx, ch.Last)
	if err != nil {
		return ch, err
	}
	if len(c.names)+len(c.inodes) > bigChange {
		return ch, c.outline(&ch, pre, after.v)
	}
	x := newEffects(pre, after.v)
	for at := range c.names {
		was, err := pre.lookupIno(at)
		if err != nil {
			return ch, err
		}
		is, err := after.v.lookupIno(at)
		if err != nil {
			return ch, err
		}
		x.name(at, was, is)
	}
	for ino, t := range c.inodes {
		e := x.of(ino)
		e.content = t.what&didWrite != 0
		e.xattr = t.what&didXattr != 0
	}
	if err := x.load(); err != nil {
		return ch, err
	}
	ch.SizeDelta = x.delta
	list, err := x.entries()
	if err != nil {
		return ch, err
	}
	ch.summarize(c.reason, list, x.saved)
	return ch, nil
}

// bigChange is from how many names and inodes on a change is described in
// outline.
const bigChange = 20_000

// outline describes a big change without looking each file up: by what it did
// to the topmost directories and files that came or went with it.
func (c *doneChange) outline(ch *Change, pre, post *view) error {
	a, b := newPathCache(pre), newPathCache(post)
	var list []DiffEntry
	files := 0
	for _, t := range c.inodes {
		if t.what&(didCreate|didRemove) != didCreate|didRemove {
			files++
		}
	}
	for at, t := range c.names {
		up := c.inodes[at.parent].what
		e := DiffEntry{Type: ModeRegular}
		var err error
		switch {
		case t.what&didLink != 0 && t.what&didUnlink == 0 && up&didCreate == 0:
			e.Op = OpAdded
			e.Path, err = b.join(at)
		case t.what&didUnlink != 0 && t.what&didLink == 0 && up&didRemove == 0:
			e.Op = OpDeleted
			e.Path, err = a.join(at)
		default:
			continue
		}
		if isNotExist(err) {
			continue
		}
		if err != nil {
			return err
		}
		list = append(list, e)
	}
	for ino, t := range c.inodes {
		op := OpAttributes
		switch {
		case t.what&(didCreate|didRemove) != 0:
			continue
		case t.what&didWrite != 0:
			op = OpChanged
		}
		at, err := b.nameOf(ino)
		if isNotExist(err) {
			continue
		}
		if err != nil {
			return err
		}
		e := DiffEntry{Op: op, Type: ModeRegular}
		if e.Path, err = b.join(at); err != nil {
			return err
		}
		list = append(list, e)
	}
	slices.SortFunc(list, func(p, q DiffEntry) int { return cmp.Compare(p.Path, q.Path) })
	ch.summarize(c.reason, list, nil)
	ch.Files = max(files, 1)
	return nil
}
