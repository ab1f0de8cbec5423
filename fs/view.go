package fs

import (
	"errors"
	"fmt"
	"math"
)

// What every reader needs from a state: inodes, names, extents, attributes.

func (v *view) inode(ino Ino) (*inode, error) {
	b, err := v.get(inodeKey(ino))
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", ino, err)
	}
	if b == nil {
		return nil, fmt.Errorf("inode %d: %w", ino, ErrNotExist)
	}
	return decodeInode(b)
}

func (v *view) lookup(parent Ino, name string) (dirent, error) {
	b, err := v.get(direntKey(parent, name))
	if err != nil {
		return dirent{}, err
	}
	if b == nil {
		return dirent{}, ErrNotExist
	}
	return decodeDirent(b)
}

// entries calls fn for each entry of a directory after the name after, in
// name order, until it returns false.
func (v *view) entries(dir Ino, after string, fn func(DirEntry) bool) error {
	lo, hi := kindRange(dir, kindDirent)
	if after != "" {
		lo = append(direntKey(dir, after), 0)
	}
	it := v.scan(lo, hi)
	for it.next() {
		e, err := decodeDirent(it.value)
		if err != nil {
			return err
		}
		if !fn(DirEntry{Name: keyName(it.key), Ino: e.ino, Type: e.typ}) {
			return nil
		}
	}
	return it.err
}

// entriesPlus is entries with what attr tells of each inode that is not known
// already (known may be nil).
func (v *view) entriesPlus(dir Ino, after string, known func(Ino) bool, attr func(Ino) (Attr, error), fn func(DirEntry, Attr) bool) error {
	var inner error
	err := v.entries(dir, after, func(e DirEntry) bool {
		var a Attr
		if known == nil || !known(e.Ino) {
			if a, inner = attr(e.Ino); inner != nil {
				return false
			}
		}
		return fn(e, a)
	})
	return errors.Join(err, inner)
}

func (v *view) dirEmpty(dir Ino) (bool, error) {
	empty := true
	err := v.entries(dir, "", func(DirEntry) bool { empty = false; return false })
	return empty, err
}

// extents calls fn for each extent that overlaps [lo, hi), in order, cut to it.
func (v *view) extents(ino Ino, lo, hi uint64, fn func(extent) bool) error {
	if lo >= hi {
		return nil
	}
	// An extent is at most maxBlock long, so one that overlaps lo starts at
	// most that far before it.
	from := uint64(0)
	if lo > maxBlock {
		from = lo - maxBlock
	}
	_, end := kindRange(ino, kindExtent)
	if hi < math.MaxInt64 {
		end = extentKey(ino, hi)
	}
	it := v.scan(extentKey(ino, from), end)
	for it.next() {
		e, err := decodeExtent(uint64(keyOffset(it.key)), it.value)
		if err != nil {
			return fmt.Errorf("inode %d at %d: %w", ino, keyOffset(it.key), err)
		}
		if e.end() <= lo {
			continue
		}
		if !fn(e.slice(lo, hi)) {
			return nil
		}
	}
	return it.err
}

func (v *view) xattr(ino Ino, name string) ([]byte, error) {
	b, err := v.get(xattrKey(ino, name))
	if err != nil {
		return nil, err
	}
	if b == nil {
		return nil, ErrNoAttr
	}
	return b, nil
}

func (v *view) xattrs(ino Ino, fn func(name string, record []byte) error) error {
	it := v.scan(kindRange(ino, kindXattr))
	for it.next() {
		if err := fn(keyName(it.key), it.value); err != nil {
			return err
		}
	}
	return it.err
}

// parents calls fn for each name of an inode.
func (v *view) parents(ino Ino, fn func(parent Ino, name string) bool) error {
	it := v.scan(kindRange(ino, kindParent))
	for it.next() {
		p, name := keyParent(it.key)
		if !fn(p, name) {
			return nil
		}
	}
	return it.err
}

// maxDepth bounds walks up the tree: PATH_MAX leaves no room for more, and a
// damaged parent record must not send a walk in circles.
const maxDepth = 2100

// path returns a path of an inode from the root of the drive ("/a/b"): the
// first of its names in key order. Without one it is ErrNotExist.
func (v *view) path(ino Ino) (string, error) {
	var parts []string
	size := 0
	for depth := 0; ino != RootIno; depth++ {
		if depth > maxDepth {
			return "", fmt.Errorf("inode %d: parents go in circles: %w", ino, ErrDamaged)
		}
		var parent Ino
		var name string
		if err := v.parents(ino, func(p Ino, n string) bool { parent, name = p, n; return false }); err != nil {
			return "", err
		}
		if parent == 0 {
			return "", fmt.Errorf("inode %d has no name: %w", ino, ErrNotExist)
		}
		parts = append(parts, name)
		size += 1 + len(name)
		ino = parent
	}
	if len(parts) == 0 {
		return "/", nil
	}
	b := make([]byte, 0, size)
	for i := len(parts) - 1; i >= 0; i-- {
		b = append(append(b, '/'), parts[i]...)
	}
	return string(b), nil
}
