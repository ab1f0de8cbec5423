package fs

import (
	"cmp"
	"errors"
	"maps"
	"slices"
)

// Operations of a DiffEntry and a FeedEntry.
const (
	OpAdded      = "added"
	OpChanged    = "changed"    // contents
	OpMoved      = "moved"      // to another name or directory
	OpDeleted    = "deleted"    // a name is gone
	OpAttributes = "attributes" // mode, owner, times, extended attributes
)

// DiffEntry is one difference between two states. Paths are from the root of
// the drive.
type DiffEntry struct {
	Op         string
	Path       string
	OldPath    string // of OpMoved
	Ino        Ino
	Type       uint32 // file type bits
	SizeBefore uint64
	SizeAfter  uint64
}

// effect is what became of one inode between two states.
type effect struct {
	ino          Ino
	old, new     *inode // nil: not there
	lost, gained []nameOf
	passed       []nameOf // names under which its document was kept in another inode
	content      bool     // its contents differ
	xattr        bool     // its extended attributes differ
}

// effects turns what became of inodes into what a person sees: a document that
// was saved under a new inode was changed, not deleted and made again, and what
// was made and deleted again never was.
type effects struct {
	a, b   pathCache
	byIno  map[Ino]*effect
	saved  map[Ino]struct{}                                    // inodes that took a document's name over by lineage
	delta  int64                                               // bytes of contents gained, once loaded
	within func(e *effect, before, after nameOf) (bool, error) // nil: everything
}

func newEffects(a, b *view) *effects {
	return &effects{a: newPathCache(a), b: newPathCache(b), byIno: map[Ino]*effect{}, saved: map[Ino]struct{}{}}
}

func (x *effects) of(ino Ino) *effect {
	e := x.byIno[ino]
	if e == nil {
		e = &effect{ino: ino}
		x.byIno[ino] = e
	}
	return e
}

// name notes that a name led to inode was and leads to inode is; 0 is none.
func (x *effects) name(at nameOf, was, is Ino) {
	if was == is {
		return
	}
	if was != 0 {
		e := x.of(was)
		e.lost = append(e.lost, at)
	}
	if is != 0 {
		e := x.of(is)
		e.gained = append(e.gained, at)
	}
}

// load reads the records of the inodes noted so far.
func (x *effects) load() error {
	for ino, e := range x.byIno {
		for _, s := range []struct {
			v *view
			n **inode
		}{{x.a.v, &e.old}, {x.b.v, &e.new}} {
			n, err := s.v.inode(ino)
			if err != nil && !isNotExist(err) {
				return err
			}
			*s.n = n
		}
		if e.new != nil && e.new.isRegular() {
			x.delta += int64(e.new.size)
		}
		if e.old != nil && e.old.isRegular() {
			x.delta -= int64(e.old.size)
		}
	}
	return nil
}

// entries returns the differences in the order of their paths.
func (x *effects) entries() ([]DiffEntry, error) {
	if err := x.joinSaves(); err != nil {
		return nil, err
	}
	var out []DiffEntry
	for _, ino := range slices.Sorted(maps.Keys(x.byIno)) {
		var err error
		if out, err = x.describe(out, x.byIno[ino]); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(out, func(p, q DiffEntry) int {
		return cmp.Or(cmp.Compare(p.Path, q.Path), cmp.Compare(opOrder(p.Op), opOrder(q.Op)), cmp.Compare(p.Ino, q.Ino))
	})
	// A file whose name now leads to another one that was there before has
	// other contents, such as the backup that an editor keeps.
	kept := out[:0]
	for _, e := range out {
		if n := len(kept) - 1; n >= 0 && e.Op == OpAdded && kept[n].Op == OpDeleted && kept[n].Path == e.Path &&
			e.Type == ModeRegular && kept[n].Type == ModeRegular {
			e.Op, e.SizeBefore = OpChanged, kept[n].SizeBefore
			kept[n] = e
			continue
		}
		kept = append(kept, e)
	}
	return kept, nil
}

// opOrder has a name be free before it is taken.
func opOrder(op string) int {
	return slices.Index([]string{OpDeleted, OpMoved, OpAdded, OpChanged, OpAttributes}, op)
}

// joinSaves finds names that passed from a file to a new one: the document of
// that name was changed.
func (x *effects) joinSaves() error {
	gained := map[nameOf]*effect{}
	for _, e := range x.byIno {
		if e.old == nil && e.new != nil && e.new.isRegular() {
			for _, at := range e.gained {
				gained[at] = e
			}
		}
	}
	if len(gained) == 0 {
		return nil
	}
	var failed error
	for _, e := range x.byIno {
		if e.old == nil || !e.old.isRegular() {
			continue
		}
		e.lost = slices.DeleteFunc(e.lost, func(at nameOf) bool {
			heir := gained[at]
			if heir == nil {
				return false
			}
			if e.new != nil && heir.new.from != e.ino {
				// An earlier heir may have come between.
				var backup bool
				if backup, failed = x.onlyBackup(e.ino, at.name); !backup || heir.new.from == 0 {
					return false
				}
			}
			heir.gained = slices.DeleteFunc(heir.gained, func(g nameOf) bool { return g == at })
			heir.passed = append(heir.passed, at)
			heir.old, heir.content, heir.xattr = e.old, true, false
			if heir.new.from != 0 {
				x.saved[heir.ino] = struct{}{}
			}
			return true
		})
		if failed != nil {
			return failed
		}
	}
	x.joinUndone()
	return nil
}

// joinUndone is joinSaves for a save that was taken back: the name passed back
// to the inode the document had before.
func (x *effects) joinUndone() {
	for _, e := range x.byIno {
		if e.old == nil || e.new != nil || e.old.from == 0 {
			continue
		}
		heir := x.byIno[e.old.from]
		if heir == nil || heir.old == nil || heir.new == nil {
			continue
		}
		e.lost = slices.DeleteFunc(e.lost, func(at nameOf) bool {
			i := slices.Index(heir.gained, at)
			if i < 0 {
				return false
			}
			heir.gained = slices.Delete(heir.gained, i, i+1)
			heir.passed = append(heir.passed, at)
			heir.old, heir.content, heir.xattr = e.old, true, false
			return true
		})
	}
}

// onlyBackup reports whether all names of an inode are those of backups.
func (x *effects) onlyBackup(ino Ino, base string) (bool, error) {
	only := true
	err := x.b.v.parents(ino, func(_ Ino, name string) bool {
		only = isBackup(name, base)
		return only
	})
	return only, err
}

// describe appends the entries of one inode.
func (x *effects) describe(out []DiffEntry, e *effect) ([]DiffEntry, error) {
	if e.old == nil && e.new == nil {
		return out, nil
	}
	d := DiffEntry{Ino: e.ino}
	if e.old != nil {
		d.Type, d.SizeBefore = e.old.mode&ModeType, e.old.size
	}
	if e.new != nil {
		d.Type, d.SizeAfter = e.new.mode&ModeType, e.new.size
	}
	if d.Type == ModeDir {
		d.SizeBefore, d.SizeAfter = 0, 0
	}
	add := func(op string, before, after nameOf) error {
		if x.within != nil {
			if in, err := x.within(e, before, after); !in || err != nil {
				return err
			}
		}
		d := d
		d.Op = op
		var err error
		switch op {
		case OpDeleted:
			d.Path, err = x.a.join(before)
			d.SizeAfter = 0
		case OpMoved:
			if d.OldPath, err = x.a.join(before); err == nil {
				d.Path, err = x.b.join(after)
			}
			if err == nil && d.Path == d.OldPath {
				return nil // its directory moved under it, and it moved back
			}
		default:
			d.Path, err = x.b.join(after)
			if op == OpAdded {
				d.SizeBefore = 0
			}
		}
		if err == nil {
			out = append(out, d)
		}
		return err
	}
	// Names lost and gained pair up as moves; within a directory first.
	lost, gained := slices.Clone(e.lost), slices.Clone(e.gained)
	slices.SortFunc(lost, compareNames)
	slices.SortFunc(gained, compareNames)
	moved := nameOf{}
	for len(lost) > 0 && len(gained) > 0 {
		i, j := 0, 0
		for n, l := range lost {
			if k := slices.IndexFunc(gained, func(g nameOf) bool { return g.parent == l.parent }); k >= 0 {
				i, j = n, k
				break
			}
		}
		if err := add(OpMoved, lost[i], gained[j]); err != nil {
			return nil, err
		}
		moved = gained[j]
		lost, gained = slices.Delete(lost, i, i+1), slices.Delete(gained, j, j+1)
	}
	for _, at := range lost {
		if err := add(OpDeleted, at, nameOf{}); err != nil {
			return nil, err
		}
	}
	for _, at := range gained {
		if err := add(OpAdded, nameOf{}, at); err != nil {
			return nil, err
		}
	}
	if e.old == nil || e.new == nil {
		return out, nil
	}
	op := ""
	switch {
	case e.content:
		op = OpChanged
	case e.xattr || e.old.mode != e.new.mode || e.old.uid != e.new.uid || e.old.gid != e.new.gid,
		!e.new.isDir() && e.old.mtime != e.new.mtime:
		op = OpAttributes
	default:
		return out, nil
	}
	for _, at := range e.passed {
		if err := add(op, at, at); err != nil {
			return out, err
		}
	}
	if len(e.passed) > 0 {
		return out, nil
	}
	if moved.name != "" || e.ino == RootIno {
		return out, add(op, moved, moved)
	}
	// Of several names the first within reach.
	names, err := x.b.v.names(e.ino)
	if err != nil {
		return out, err
	}
	for n, at := len(out), 0; at < len(names) && len(out) == n; at++ {
		if err := add(op, names[at], names[at]); err != nil {
			return out, err
		}
	}
	return out, nil
}

// maxNames is how many names of one file are looked at.
const maxNames = 256

// pathCache finds paths in a view, remembering those of directories.
type pathCache struct {
	v    *view
	dirs map[Ino]string
}

func newPathCache(v *view) pathCache { return pathCache{v, map[Ino]string{RootIno: ""}} }

// dir returns the path of a directory without a slash at the end.
func (p pathCache) dir(ino Ino) (string, error) {
	if s, ok := p.dirs[ino]; ok {
		return s, nil
	}
	s, err := p.v.path(ino)
	if err == nil {
		p.dirs[ino] = s
	}
	return s, err
}

func (p pathCache) join(at nameOf) (string, error) {
	if at.parent == 0 {
		return "/", nil
	}
	dir, err := p.dir(at.parent)
	return dir + "/" + at.name, err
}

// nameOf returns an inode's first name; the root has none.
func (p pathCache) nameOf(ino Ino) (nameOf, error) {
	if ino == RootIno {
		return nameOf{}, nil
	}
	var at nameOf
	err := p.v.parents(ino, func(parent Ino, name string) bool { at = nameOf{parent, name}; return false })
	if err == nil && at.parent == 0 {
		err = ErrNotExist
	}
	return at, err
}

// lookupIno returns where a name leads, 0 if nowhere.
func (v *view) lookupIno(at nameOf) (Ino, error) {
	e, err := v.lookup(at.parent, at.name)
	if errors.Is(err, ErrNotExist) {
		return 0, nil
	}
	return e.ino, err
}
