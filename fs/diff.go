package fs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Diff calls fn for each difference at or below a path between two versions,
// in the order of paths. The path is that of version a, of b, or both.
func (d *Drive) Diff(ctx context.Context, path string, a, b Version, fn func(DiffEntry) error) error {
	x, err := d.At(ctx, a)
	if err != nil {
		return err
	}
	y, err := d.At(ctx, b)
	if err != nil {
		return err
	}
	before, err := x.Resolve(ctx, path)
	if err != nil && !isNotExist(err) {
		return err
	}
	after, err := y.Resolve(ctx, path)
	if err != nil && (before == 0 || !isNotExist(err)) {
		return err
	}
	return differences(ctx, x.v, y.v, before, after, fn)
}

// diffEntries reports what differs at or below scope between two states, in
// the order of paths. It costs what differs, whatever the scope.
func diffEntries(ctx context.Context, a, b *view, scope Ino, fn func(DiffEntry) error) error {
	return differences(ctx, a, b, scope, scope, fn)
}

// differences is diffEntries with a scope in each state: the same path may
// lead to another inode. 0 stands for that of the other state.
func differences(ctx context.Context, a, b *view, before, after Ino, fn func(DiffEntry) error) error {
	x := newEffects(a, b)
	if before != RootIno && after != RootIno {
		x.within = scopeOf(a, b, before, after)
	}
	n := 0
	err := diffViews(a, b, inodeKey(RootIno), nil, func(key, old, new []byte) error {
		if n++; n%1024 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		return x.record(key, old, new)
	})
	if err != nil {
		return err
	}
	if err := x.loadMissing(); err != nil {
		return err
	}
	list, err := x.entries()
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}

// record notes one record that differs.
func (x *effects) record(key, old, new []byte) error {
	ino := keyIno(key)
	switch keyKind(key) {
	case kindInode:
		e := x.of(ino)
		var err, err2 error
		if old != nil {
			e.old, err = decodeInode(old)
		}
		if new != nil {
			e.new, err2 = decodeInode(new)
		}
		if err := errors.Join(err, err2); err != nil {
			return fmt.Errorf("inode %d: %w", ino, err)
		}
		if e.old == nil || e.new == nil || !e.new.isRegular() {
			return nil
		}
		// What was deleted and brought back counts as set anew.
		same := false
		if e.new.content != foreseen || e.old.content == foreseen {
			if same, err = sameContent(x.a.v, x.b.v, ino, e.old, e.new); err != nil {
				return err
			}
		}
		e.content = !same
	case kindXattr:
		x.of(ino).xattr = true
	case kindParent:
		parent, name := keyParent(key)
		if new == nil {
			x.name(nameOf{parent, name}, ino, 0)
		} else if old == nil {
			x.name(nameOf{parent, name}, 0, ino)
		}
	}
	return nil
}

// loadMissing reads the inodes whose own record did not differ.
func (x *effects) loadMissing() error {
	for ino, e := range x.byIno {
		if e.old != nil || e.new != nil {
			continue
		}
		n, err := x.b.v.inode(ino)
		if isNotExist(err) {
			continue
		}
		if err != nil {
			return err
		}
		e.old, e.new = n, n
	}
	return nil
}

// scopeOf returns a test whether an entry lies at or below an inode, before or
// after.
func scopeOf(a, b *view, before, after Ino) func(*effect, nameOf, nameOf) (bool, error) {
	if before == 0 {
		before = after
	}
	if after == 0 {
		after = before
	}
	sides := []struct {
		v     *view
		scope Ino
		known map[Ino]bool
	}{{a, before, map[Ino]bool{}}, {b, after, map[Ino]bool{}}}
	return func(e *effect, old, new nameOf) (bool, error) {
		if e.ino == before || e.ino == after {
			return true, nil
		}
		for i, dir := range []Ino{old.parent, new.parent} {
			if dir == 0 {
				continue
			}
			s := sides[i]
			in, ok := s.known[dir]
			if !ok {
				var err error
				if in, err = s.v.inside(dir, s.scope); err != nil {
					return false, err
				}
				s.known[dir] = in
			}
			if in {
				return true, nil
			}
		}
		return false, nil
	}
}

// foresee returns what a patch would change.
func (d *Drive) foresee(now *Snapshot, p *patch) ([]DiffEntry, error) {
	l := new(layer)
	after := &view{append([]*layer{l}, now.v.layers...), now.v.tree}
	for _, ino := range slices.Sorted(maps.Keys(p.inodes)) {
		if err := p.inodes[ino].foresee(after, l, ino); err != nil {
			return nil, err
		}
	}
	touched := map[Ino]struct{}{}
	for _, at := range slices.SortedFunc(maps.Keys(p.names), compareNames) {
		want := p.names[at]
		old, err := after.lookupIno(at)
		if err != nil {
			return nil, err
		}
		if old == want {
			continue
		}
		if old != 0 {
			l.del(direntKey(at.parent, at.name))
			l.del(parentKey(old, at.parent, at.name))
			touched[old] = struct{}{}
		}
		if want != 0 {
			n, err := after.inode(want)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", at.name, err)
			}
			l.put(direntKey(at.parent, at.name), dirent{ino: want, typ: n.mode & ModeType}.encode())
			l.put(parentKey(want, at.parent, at.name), []byte{})
			delete(touched, want)
		}
	}
	for ino := range touched {
		if _, err := newPathCache(after).nameOf(ino); isNotExist(err) {
			l.del(inodeKey(ino))
		} else if err != nil {
			return nil, err
		}
	}
	var out []DiffEntry
	err := diffEntries(context.Background(), now.v, after, RootIno, func(e DiffEntry) error { out = append(out, e); return nil })
	return out, err
}

// foreseen is the sequence number of contents that a patch would set.
const foreseen = ^uint64(0)

// foresee puts into l what a patch makes of one inode.
func (ip inodePatch) foresee(after *view, l *layer, ino Ino) error {
	src, err := ip.from.inode(ip.as)
	if err != nil {
		return err
	}
	parts := ip.parts
	n, err := after.inode(ino)
	switch {
	case isNotExist(err) && parts&partWhole != 0:
		n = new(inode)
		*n = *src
	case err != nil:
		return err
	}
	if parts&partWhole != 0 {
		parts |= partContent | partMode | partOwner | partTimes | partXattr
	}
	if parts&partContent != 0 && n.isRegular() && src.isRegular() {
		if n.content != src.content {
			n.content = foreseen
		}
		n.size, n.mtime = src.size, src.mtime
	}
	if parts&partMode != 0 {
		n.mode = n.mode&ModeType | src.mode&modePerm
	}
	if parts&partOwner != 0 {
		n.uid, n.gid = src.uid, src.gid
	}
	if parts&partTimes != 0 {
		n.mtime = src.mtime
	}
	if parts&partXattr != 0 {
		var keys [][]byte
		it := after.scan(kindRange(ino, kindXattr))
		for it.next() {
			keys = append(keys, it.key)
		}
		if it.err != nil {
			return it.err
		}
		for _, k := range keys {
			l.del(k)
		}
		from := ip.from.scan(kindRange(ip.as, kindXattr))
		for from.next() {
			l.put(append(appendKey(nil, ino, kindXattr), from.key[keyPrefix:]...), slices.Clone(from.value))
		}
		if from.err != nil {
			return from.err
		}
	}
	l.put(inodeKey(ino), n.encode())
	return nil
}
