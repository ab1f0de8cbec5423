package fs

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

func sortEntries(list []DirEntry) {
	slices.SortFunc(list, func(a, b DirEntry) int { return strings.Compare(a.Name, b.Name) })
}

// historyFiles is .history/by-file: a directory for each document.
type historyFiles struct{ historyBase }

func (n *historyFiles) Attr(context.Context) (Attr, error) { return n.attr(ModeDir | 0o555) }

// ReadDir lists the files that are there now; those that are gone can be
// looked up.
func (n *historyFiles) ReadDir(ctx context.Context, after string, fn func(DirEntry) bool) error {
	return n.d.ReadDir(ctx, n.dir, after, func(e DirEntry) bool {
		return e.Type != ModeRegular || fn(DirEntry{Name: e.Name, Type: ModeDir})
	})
}

func (n *historyFiles) Lookup(ctx context.Context, name string) (HistoryNode, error) {
	doc := &historyDocument{historyBase: n.historyBase, name: name}
	a, err := n.d.Lookup(ctx, n.dir, name)
	switch {
	case err == nil:
		if !a.IsRegular() {
			return nil, ErrNotExist
		}
		doc.ino, doc.below = a.Ino, ^uint64(0)
		return doc, nil
	case !isNotExist(err):
		return nil, err
	}
	e, err := n.d.deletedFrom(ctx, n.dir, name)
	if err != nil {
		return nil, err
	}
	s, err := n.d.At(ctx, e.Version)
	if err != nil {
		return nil, absent(name, err)
	}
	rec, err := s.v.inode(e.Ino)
	if err != nil {
		return nil, err
	}
	if !rec.isRegular() {
		return nil, ErrNotExist
	}
	doc.ino, doc.below = e.Ino, e.Version.Seq+1
	return doc, nil
}

// historyDocument is .history/by-file/NAME: the versions of one document.
type historyDocument struct {
	historyBase
	name  string
	ino   Ino
	below uint64 // its states began before this version
}

func (n *historyDocument) Attr(context.Context) (Attr, error) { return n.attr(ModeDir | 0o555) }

// documentListed is how many of a document's newest versions are listed one by
// one; of older ones there is the last of each period.
const documentListed = 120

// list returns the versions that are listed, newest first.
func (n *historyDocument) list(ctx context.Context) ([]docState, error) {
	return remembered(&n.d.past, historyKey{cachedDocument, n.ino}, n.d.Newest().Seq, func() ([]docState, error) {
		k := n.d.kept()
		w, err := n.d.walkDocument(ctx, k, n.ino, n.name, min(n.below, k.head.seq+1))
		if err != nil {
			return nil, err
		}
		var out []docState
		add := func() (bool, error) {
			s, ok, err := w.nextMeant(ctx)
			if ok && err == nil {
				out = append(out, s)
			}
			return ok, err
		}
		for range documentListed {
			if more, err := add(); !more || err != nil {
				return out, err
			}
		}
		err = periods(n.d.clock(), func(end time.Time) (bool, error) {
			seq, err := k.lastBefore(end)
			if err != nil || seq == 0 {
				return false, err
			}
			if seq >= out[len(out)-1].version {
				return true, nil
			}
			if err := w.jump(ctx, seq+1); err != nil {
				return false, err
			}
			return add()
		})
		return out, err
	})
}

// jump leaves out the states that began in a version or later.
func (w *docWalk) jump(ctx context.Context, below uint64) error {
	for w.ino != 0 && w.floor >= below {
		if err := w.back(ctx); err != nil {
			return err
		}
	}
	if w.ino != 0 && below < w.below {
		w.below = below
		w.it.seek(w.ino, below)
	}
	return nil
}

// entryName is what a version of the document is called: when it was made, the
// version, what it was, and the document's extension, so that programs know
// what to do with it.
func (n *historyDocument) entryName(s docState) string {
	verb := "edit"
	switch {
	case s.reason != ReasonWork:
		verb = s.reason.String()
	case s.created:
		verb = "create"
	}
	ext := path.Ext(n.name)
	if ext == n.name || len(ext) > 32 {
		ext = ""
	}
	return fmt.Sprintf("%s_%s_%s%s", unixNano(s.time).Format(stampLayout), Version{n.d.writer, s.version}, verb, ext)
}

// entryVersion reads the version out of a name.
func entryVersion(name string) (Version, bool) {
	_, rest, ok := strings.Cut(name, "_@")
	if !ok {
		return Version{}, false
	}
	num, _, ok := strings.Cut(rest, "_")
	if !ok {
		return Version{}, false
	}
	return parseVersion(num)
}

// ReadDir lists newest first.
func (n *historyDocument) ReadDir(ctx context.Context, after string, fn func(DirEntry) bool) error {
	last := ^uint64(0)
	if after != "" {
		v, ok := entryVersion(after)
		if !ok {
			return nil
		}
		last = v.Seq
	}
	list, err := n.list(ctx)
	if err != nil {
		return err
	}
	for _, s := range list {
		if s.version < last && !fn(DirEntry{Name: n.entryName(s), Type: ModeRegular}) {
			return nil
		}
	}
	return nil
}

func (n *historyDocument) Lookup(ctx context.Context, name string) (HistoryNode, error) {
	v, ok := entryVersion(name)
	if !ok || v.Writer != n.d.writer || v.Seq == 0 {
		return nil, ErrNotExist
	}
	list, err := n.list(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(s docState) bool { return s.version == v.Seq })
	if i < 0 {
		s, found, err := n.find(ctx, v.Seq)
		if err != nil {
			return nil, err
		}
		if !found {
			return nil, ErrNotExist
		}
		list, i = []docState{s}, 0
	}
	s := list[i]
	if n.entryName(s) != name {
		return nil, ErrNotExist
	}
	snap, err := n.d.At(ctx, v)
	if err != nil {
		return nil, absent(name, err)
	}
	p, err := n.past(snap, s.ino, true)
	if err != nil {
		return nil, absent(name, err)
	}
	at := TimeOf(unixNano(s.time))
	p.mtime, p.doc = &at, n.ino
	return p, nil
}

// find returns the state that is first seen in a version.
func (n *historyDocument) find(ctx context.Context, seq uint64) (docState, bool, error) {
	k := n.d.kept()
	w, err := n.d.walkDocument(ctx, k, n.ino, n.name, min(n.below, k.head.seq+1))
	if err != nil {
		return docState{}, false, err
	}
	if err := w.jump(ctx, seq+1); err != nil {
		return docState{}, false, err
	}
	s, ok, err := w.next(ctx)
	return s, ok && s.version == seq, err
}
