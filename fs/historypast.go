package fs

import (
	"context"
	"fmt"
	"strings"
)

// historyPast is a file or directory of an old version.
type historyPast struct {
	historyBase
	s     *Snapshot
	ino   Ino
	fixed bool
	entry []access // what had to be searched to get there then
	doc   Ino      // of a version of a document: the inode it is in today
	mtime *Time    // shown instead of its own
}

// past returns an inode of a version that is reached in one step.
func (b historyBase) past(s *Snapshot, ino Ino, fixed bool) (*historyPast, error) {
	if _, err := s.v.inode(ino); err != nil {
		return nil, err
	}
	entry, err := b.d.entrance(b.dir, s.v, ino)
	return &historyPast{historyBase: b, s: s, ino: ino, fixed: fixed, entry: entry}, err
}

// Fixed reports whether the node's name will always lead to the same.
func (n *historyPast) Fixed() bool { return n.fixed }

func (n *historyPast) Attr(ctx context.Context) (Attr, error) {
	a, err := n.s.attr(n.ino)
	if err != nil {
		return a, err
	}
	allowed, err := n.d.effective(ctx, n.dir, n.s, n.ino, n.entry)
	if err != nil {
		return a, err
	}
	heirs, err := n.d.heirs(n.s.v, n.ino)
	if err != nil {
		return a, err
	}
	if n.doc != 0 && n.doc != n.ino {
		heirs = append(heirs, n.doc)
	}
	for _, heir := range heirs {
		if allowed, err = n.d.asToday(n.dir, allowed, heir); err != nil {
			return a, err
		}
	}
	a.Mode = a.Mode&ModeType | allowed.mode
	if a.Mode&ModeType == ModeSymlink {
		a.Mode = ModeSymlink | 0o777
	}
	a.Uid, a.Gid = allowed.uid, allowed.gid
	if a.IsDir() {
		a.Nlink = 1
	}
	if n.mtime != nil {
		a.Mtime, a.Ctime = *n.mtime, *n.mtime
	}
	return a, nil
}

func (n *historyPast) Lookup(_ context.Context, name string) (HistoryNode, error) {
	e, err := n.s.v.lookup(n.ino, name)
	if err != nil {
		return nil, err
	}
	return &historyPast{historyBase: n.historyBase, s: n.s, ino: e.ino, fixed: n.fixed}, nil
}

func (n *historyPast) ReadDir(ctx context.Context, after string, fn func(DirEntry) bool) error {
	return n.s.ReadDir(ctx, n.ino, after, fn)
}

func (n *historyPast) Readlink(ctx context.Context) (string, error) { return n.s.Readlink(ctx, n.ino) }

func (n *historyPast) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return n.s.ReadAt(ctx, n.ino, p, off)
}

// isACL reports whether an attribute holds an ACL: the permissions shown say
// more exactly who may do what.
func isACL(name string) bool { return strings.HasPrefix(name, "system.posix_acl_") }

func (n *historyPast) Getxattr(ctx context.Context, name string) ([]byte, error) {
	if isACL(name) {
		return nil, ErrNoAttr
	}
	return n.s.Getxattr(ctx, n.ino, name)
}

func (n *historyPast) Listxattr(ctx context.Context) ([]string, error) {
	list, err := n.s.Listxattr(ctx, n.ino)
	out := list[:0]
	for _, name := range list {
		if !isACL(name) {
			out = append(out, name)
		}
	}
	return out, err
}

// historyTags is .history/tags.
type historyTags struct{ historyBase }

// Attr lets those make tags who can change the directory.
func (t *historyTags) Attr(context.Context) (Attr, error) { return t.attr(ModeDir | 0o777) }

func (t *historyTags) Lookup(ctx context.Context, name string) (HistoryNode, error) {
	k := t.d.kept()
	rec, err := k.tag(name)
	if err != nil {
		return nil, absent(name, err)
	}
	n, err := t.at(ctx, rec.version, false)
	if err != nil {
		return nil, absent(name, err)
	}
	return n, nil
}

func (t *historyTags) ReadDir(ctx context.Context, after string, fn func(DirEntry) bool) error {
	k := t.d.kept()
	return k.tags(after, func(name string, rec tagRecord) (bool, error) {
		if related, err := k.related(rec.scope, t.dir); !related || err != nil {
			return err == nil, err
		}
		s, err := t.d.At(ctx, rec.version)
		if err == nil {
			_, err = s.v.inode(t.dir)
		}
		if err != nil { // it was not there yet
			err = absent(name, err)
			return isNotExist(err), ignoreAbsent(err)
		}
		return fn(DirEntry{Name: name, Type: ModeDir}), ctx.Err()
	})
}

func ignoreAbsent(err error) error {
	if isNotExist(err) {
		return nil
	}
	return err
}

func (t *historyTags) Mkdir(ctx context.Context, c Caller, name string) error {
	return t.d.setTag(ctx, c, t.dir, Version{}, name)
}

func (t *historyTags) Rmdir(ctx context.Context, c Caller, name string) error {
	return t.d.dropTag(ctx, c, t.dir, name)
}

// historyDeleted is .history/deleted.
type historyDeleted struct{ historyBase }

func (n *historyDeleted) Attr(context.Context) (Attr, error) { return n.attr(ModeDir | 0o555) }

// deletedListed is how many deleted names are listed.
const deletedListed = 200

// list returns what went last, by name.
func (n *historyDeleted) list(ctx context.Context) (map[string]DeletedEntry, error) {
	return remembered(&n.d.past, historyKey{cachedDeleted, n.dir}, n.d.Newest().Seq, func() (map[string]DeletedEntry, error) {
		out := map[string]DeletedEntry{}
		err := n.d.Deleted(ctx, n.dir, deletedListed, func(e DeletedEntry) bool { out[e.Name] = e; return true })
		return out, err
	})
}

func (n *historyDeleted) ReadDir(ctx context.Context, after string, fn func(DirEntry) bool) error {
	m, err := n.list(ctx)
	if err != nil {
		return absent("", err)
	}
	list := make([]DirEntry, 0, len(m))
	for _, e := range m {
		list = append(list, DirEntry{Name: e.Name, Type: e.Type})
	}
	sortEntries(list)
	listNames(list, after, fn)
	return nil
}

func (n *historyDeleted) Lookup(ctx context.Context, name string) (HistoryNode, error) {
	m, err := n.list(ctx)
	if err != nil {
		return nil, absent(name, err)
	}
	e, ok := m[name]
	if !ok {
		if e, err = n.d.deletedFrom(ctx, n.dir, name); err != nil {
			return nil, err
		}
	}
	s, err := n.d.At(ctx, e.Version)
	if err != nil {
		return nil, absent(name, err)
	}
	return n.past(s, e.Ino, false)
}

// deletedFrom finds a name that was deleted from a directory, however long ago.
func (d *Drive) deletedFrom(ctx context.Context, dir Ino, name string) (DeletedEntry, error) {
	e := DeletedEntry{Name: name}
	if len(name) > MaxName {
		return e, ErrNameTooLong
	}
	k := d.kept()
	if ino, err := k.v.lookupIno(nameOf{dir, name}); err != nil {
		return e, err
	} else if ino != 0 {
		return e, fmt.Errorf("%s is there: %w", showPath(name), ErrNotExist)
	}
	seq, ino, err := d.lastSeenBelow(ctx, k, dir, []string{name}, 1, k.head.seq)
	if err == nil && ino == 0 {
		err = fmt.Errorf("%s: %w", showPath(name), ErrNotExist)
	}
	if err != nil {
		return e, err
	}
	s, err := d.At(ctx, Version{d.writer, seq})
	if err != nil {
		return e, absent(name, err)
	}
	seq, err = d.beforeDeletion(ctx, k, s, nameOf{dir, name}, ino)
	e.Version, e.Ino = Version{d.writer, seq}, ino
	return e, err
}
