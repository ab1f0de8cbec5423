package fs

import (
	"cmp"
	"context"
	"path"
	"slices"
)

// docChange is a change as far as it did something to one document.
type docChange struct {
	id               uint64
	reason           Reason
	undoes           uint64
	first, last      uint64
	time             int64
	what             what
	before, after    *uint64 // its size, as far as it is known
	uid              uint32
	program          string
	newPath, oldPath string
}

// documentChanges gives the changes of one document, newest first, from the
// index alone where there is one. The document is under ino, which versions
// before below may have.
func (d *Drive) documentChanges(ctx context.Context, k *keptVersions, ino Ino, below uint64, p string, l *changeLister) error {
	g := &docGroups{d: d, k: k, l: l, path: path.Clean("/" + p), gone: below, open: map[uint64]*docChange{}, undone: map[uint64]bool{}}
	it := d.docEvents(ctx, k, ino, k.head.seq+1)
	it.top = below
	at, err := d.tenureOf(ctx, k, it, ino, below)
	if err != nil {
		return err
	}
	for read := k.head.seq + 1; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		e, ok := it.peek()
		if it.lost {
			return d.scanDocument(ctx, g, it, at, read)
		}
		if !ok || e.ino != at.ino || e.seq < at.floor {
			read = min(read, max(at.floor, 1))
			if at, err = d.tenureBefore(ctx, k, it, at); err != nil {
				return err
			}
			if at.ino == 0 {
				_, err := g.emit(0)
				return err
			}
			continue
		}
		it.take()
		if read = e.seq; read > k.head.seq {
			continue
		}
		kept, err := k.has(e.seq)
		if err != nil {
			return err
		}
		if kept {
			if more, err := g.add(ctx, e); !more || err != nil {
				return err
			}
		}
	}
}

// scanDocument is documentChanges without an index: it reads every version
// before one.
func (d *Drive) scanDocument(ctx context.Context, g *docGroups, it *docEvents, at tenure, below uint64) error {
	seen, err := g.k.atOrBefore(below - 1)
	if err != nil || seen == 0 {
		return err
	}
	v, err := d.version(seen)
	if err != nil {
		return err
	}
	stopped := false // by who asked
	err = d.versionsBack(ctx, v, func(v version) (bool, error) {
		for v.seq < at.floor {
			if at, err = d.tenureBefore(ctx, g.k, it, at); err != nil {
				return false, err
			}
		}
		if at.ino == 0 {
			return false, nil
		}
		e, ok, err := d.eventOf(v, at.ino)
		if err != nil || !ok {
			return err == nil, err
		}
		more, err := g.add(ctx, e)
		stopped = !more
		return more, err
	})
	if err != nil || stopped {
		return err
	}
	_, err = g.emit(0)
	return err
}

// docGroups joins the events of a document, which come newest first, to
// changes.
type docGroups struct {
	d    *Drive
	k    *keptVersions
	l    *changeLister
	path string // of the document, as of the event last seen
	gone uint64 // from this version on it did not have its path any more
	open map[uint64]*docChange
	// undone holds the changes that were undone in the document, and the undos
	// that were redone.
	undone map[uint64]bool
}

// add takes an event, and reports whether more are wanted.
func (g *docGroups) add(ctx context.Context, e docEvent) (bool, error) {
	size, err := g.size(ctx, e)
	if err != nil {
		return false, err
	}
	for id, c := range g.open {
		if id != e.actor && c.before == nil {
			c.before = size
		}
	}
	if more, err := g.emit(e.seq); !more || err != nil {
		return false, err
	}
	if e.reason == ReasonUpkeep || e.reason == ReasonTag || e.reason == ReasonGenesis {
		return true, nil
	}
	c := g.open[e.actor]
	if c == nil {
		c = &docChange{id: e.actor, reason: e.reason, undoes: e.undoes, last: e.seq, time: e.time, uid: e.uid, program: e.program, newPath: g.path}
		g.open[e.actor] = c
	}
	if c.after == nil {
		c.after = size
	}
	if e.seq >= g.gone {
		e.what &^= didReplace // of another document
		if e.what&didLink != 0 {
			if err := g.wentTo(ctx, c, e); err != nil {
				return false, err
			}
		}
	}
	c.first = e.seq
	c.what |= e.what
	if e.seq < g.gone && e.renames() {
		if err := g.renamed(ctx, e); err != nil {
			return false, err
		}
	}
	c.oldPath = g.path
	return true, nil
}

// size returns the document's size after an event that set it, nil for others.
func (g *docGroups) size(ctx context.Context, e docEvent) (*uint64, error) {
	switch {
	case e.what&didRemove != 0:
		return new(uint64), nil
	case e.what&(didWrite|didCreate) != 0:
		return &e.size, nil
	case e.what&didReplace == 0 || e.seq >= g.gone:
		return nil, nil
	}
	// Written in a version before, under a name of its own.
	s, err := g.d.At(ctx, Version{g.d.writer, e.seq})
	if err != nil {
		return nil, err
	}
	n, err := s.v.inode(e.ino)
	if err != nil {
		return nil, err
	}
	return &n.size, nil
}

// wentTo finds where an event took the document that lost its path.
func (g *docGroups) wentTo(ctx context.Context, c *docChange, e docEvent) error {
	s, err := g.d.At(ctx, Version{g.d.writer, e.seq})
	if err != nil {
		return err
	}
	p, err := s.v.path(e.ino)
	if err == nil {
		c.newPath = p
	}
	if isNotExist(err) {
		return nil
	}
	return err
}

// renamed finds what the document was called before an event.
func (g *docGroups) renamed(ctx context.Context, e docEvent) error {
	before, err := g.k.atOrBefore(e.seq - 1)
	if err != nil || before == 0 {
		return err
	}
	s, err := g.d.At(ctx, Version{g.d.writer, before})
	if err != nil {
		return err
	}
	// Of several names the present one stays.
	if ino, err := s.v.resolve(g.path); err == nil && ino == e.ino {
		return nil
	}
	p, err := s.v.path(e.ino)
	if isNotExist(err) {
		return nil
	}
	if err == nil {
		g.path = p
	}
	return err
}

// emit gives the changes that began after version below, or all for 0, and
// reports whether more are wanted.
func (g *docGroups) emit(below uint64) (bool, error) {
	var ready []*docChange
	for id, c := range g.open {
		if id>>8 > below || below == 0 {
			ready = append(ready, c)
			delete(g.open, id)
		}
	}
	slices.SortFunc(ready, func(a, b *docChange) int {
		return cmp.Or(cmp.Compare(b.last, a.last), cmp.Compare(b.id, a.id))
	})
	for _, c := range ready {
		if (c.reason == ReasonUndo || c.reason == ReasonRedo) && !g.undone[c.id] {
			g.undone[c.undoes] = true
		}
		if !g.l.wants(c.last) {
			if !g.l.reaches(c.last) {
				return false, nil
			}
			continue
		}
		if !g.l.give(g.describe(c)) {
			return false, nil
		}
	}
	return true, nil
}

func (g *docGroups) describe(c *docChange) Change {
	w := g.d.writer
	ch := Change{
		ID: c.id, First: Version{w, c.first}, Last: Version{w, c.last}, Time: unixNano(c.time),
		Paths: []string{c.newPath}, Files: 1, Program: c.program, Uid: c.uid,
		Undone: g.undone[c.id],
	}
	if c.after != nil {
		ch.SizeDelta = int64(*c.after)
		if c.before != nil {
			ch.SizeDelta -= int64(*c.before)
		}
	}
	switch {
	case c.reason != ReasonWork:
		ch.Verb = verbOf(c.reason, nil, nil)
	case c.what&didRemove != 0 && c.what&didCreate != 0:
	case c.what&didRemove != 0:
		ch.Verb = verbDeleted
	case c.what&didReplace != 0:
		ch.Verb = verbSaved
	case c.what&didCreate != 0:
		ch.Verb = verbCreated
	case c.newPath != c.oldPath:
		ch.Verb = verbMoved
		if path.Dir(c.newPath) == path.Dir(c.oldPath) {
			ch.Verb = verbRenamed
		}
		ch.Paths = []string{c.oldPath, c.newPath}
	case c.what&didWrite != 0:
		ch.Verb = verbEdited
	case c.what&didLink != 0:
		ch.Verb = verbLinked
	case c.what&didUnlink != 0:
		ch.Verb = verbUnlinked
	case c.what&(didAttr|didXattr) != 0:
		ch.Verb = verbAttributes
	}
	return ch
}
