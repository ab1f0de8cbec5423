package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"hearth/fs/tree"
	"hearth/log"
)

// stateCheck checks one version.
type stateCheck struct {
	*verifier
	at     Version
	state  *view
	newest bool
	commit *commit
}

func (s *stateCheck) damage(path, block, problem string) {
	s.tell(Damage{Path: path, Version: s.at, Block: block, Problem: problem})
}

// pathOf returns a path of an inode, as far as one can be told.
func (s *stateCheck) pathOf(ino Ino) string {
	p, err := s.state.path(ino)
	if err != nil {
		return fmt.Sprintf("(inode %d)", ino)
	}
	return p
}

// content goes through the pages that were not looked at in a newer version,
// and the blocks they refer to. whole reports that all could be read.
func (s *stateCheck) content(ctx context.Context) (whole bool, err error) {
	whole = true
	record := func(key, value []byte) {
		if err := s.record(key, value); err != nil {
			s.damage(s.pathOf(keyIno(key)), "", err.Error())
			whole = false
		}
	}
	for _, ch := range s.commit.buffer {
		if !ch.Delete {
			record(ch.Key, ch.Value)
		}
	}
	// The newest version's own pages must not have been dropped, so that they
	// are looked at for it first; what an older one shares with it is done.
	err = s.state.tree.Walk(ctx, func(ref log.Ref, height uint8) (bool, error) {
		if !s.pages.CheckedAdd(pageNumber(ref)) {
			return false, nil
		}
		if height > 1 {
			return true, nil
		}
		err := s.state.tree.Leaf(ref, func(key, value []byte) error {
			if !validKey(key) {
				return &tree.DamageError{Ref: ref, Reason: "a key that is none of a drive's"}
			}
			record(key, value)
			return nil
		})
		return err == nil, err
	})
	if err == nil {
		return whole, nil
	}
	if ctx.Err() != nil || !isDamage(err) {
		return false, err
	}
	var page *tree.DamageError
	block := ""
	if errors.As(err, &page) {
		block = page.Ref.String()
	}
	var stored *log.DamageError
	if errors.As(err, &stored) {
		block = log.Ref{Writer: stored.Writer, Index: stored.Index}.String()
	}
	s.damage("", block, "a page of the tree cannot be read: "+err.Error())
	return false, nil
}

// record decodes a record, and checks that the block it refers to is there.
func (s *stateCheck) record(key, value []byte) error {
	switch keyKind(key) {
	case kindInode:
		_, err := decodeInode(value)
		return err
	case kindDirent:
		_, err := decodeDirent(value)
		return err
	case kindVersion:
		_, err := decodeVersionRecord(value)
		return err
	case kindExtent, kindXattr:
		ref, ok, err := blockOf(key, value)
		if err != nil || !ok {
			return err
		}
		if problem, bad := s.problem(ref, s.newest && s.current(key, value)); bad {
			s.damage(s.pathOf(keyIno(key)), ref.String(), problem)
		}
	}
	return nil
}

// current reports whether a record of a page still stands, and is not replaced
// in the root buffer.
func (s *stateCheck) current(key, value []byte) bool {
	b, err := s.state.get(key)
	return err == nil && bytes.Equal(b, value)
}

// structure checks that what the version holds fits together: all of it, or
// what differs from a newer state that was checked.
func (s *stateCheck) structure(ctx context.Context, newer *view) error {
	var err error
	if newer == nil {
		err = s.everything(ctx)
	} else {
		err = s.differing(ctx, newer)
	}
	if err == nil || ctx.Err() != nil || !isDamage(err) {
		return err
	}
	s.damage("", "", "the version cannot be checked as a whole: "+err.Error())
	return nil
}

// everything checks all inodes of a state.
func (s *stateCheck) everything(ctx context.Context) error {
	last := Ino(0)
	var inodes, size uint64
	it := s.state.scan(appendKey(nil, 1, 0), nil)
	for it.next() {
		if ino := keyIno(it.key); ino != last {
			if err := ctx.Err(); err != nil {
				return err
			}
			last = ino
			if err := s.inode(ino); err != nil {
				return err
			}
		}
		if keyKind(it.key) == kindInode {
			inodes++
			if n, err := decodeInode(it.value); err == nil && n.isRegular() {
				size += n.size
			}
		}
	}
	if it.err != nil {
		return it.err
	}
	if inodes != s.commit.inodes || size != s.commit.bytes {
		s.damage("", "", fmt.Sprintf("it holds %d inodes and %d bytes, and says %d and %d", inodes, size, s.commit.inodes, s.commit.bytes))
	}
	return nil
}

// differing checks the inodes that differ from a state that was checked, and
// those that a differing name belongs to.
func (s *stateCheck) differing(ctx context.Context, checked *view) error {
	changed := map[Ino]struct{}{}
	err := diffViews(checked, s.state, appendKey(nil, 1, 0), nil, func(key, old, now []byte) error {
		changed[keyIno(key)] = struct{}{}
		switch keyKind(key) {
		case kindParent:
			p, _ := keyParent(key)
			changed[p] = struct{}{}
		case kindDirent:
			for _, b := range [][]byte{old, now} {
				if b == nil {
					continue
				}
				e, err := decodeDirent(b)
				if err != nil {
					return err
				}
				changed[e.ino] = struct{}{}
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	for ino := range changed {
		if err := s.inode(ino); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// inode checks all records of one inode, and those that have to match them.
func (s *stateCheck) inode(ino Ino) error {
	wrong := func(format string, args ...any) {
		s.damage(s.pathOf(ino), "", fmt.Sprintf(format, args...))
	}
	n, err := s.state.inode(ino)
	if isNotExist(err) {
		lo, hi := inoRange(ino)
		it := s.state.scan(lo, hi)
		if it.next() {
			wrong("records of inode %d, which does not exist", ino)
		}
		return it.err
	}
	if err != nil {
		return err
	}
	var subdirs uint32
	var broken error
	err = s.state.entries(ino, "", func(e DirEntry) bool {
		child, err := s.state.inode(e.Ino)
		switch {
		case isNotExist(err):
			wrong("its entry %q leads to inode %d, which does not exist", e.Name, e.Ino)
		case err != nil:
			broken = err
			return false
		case child.mode&ModeType != e.Type:
			wrong("its entry %q is of type %o, inode %d of %o", e.Name, e.Type, e.Ino, child.mode&ModeType)
		}
		if b, err := s.state.get(parentKey(e.Ino, ino, e.Name)); err != nil {
			broken = err
			return false
		} else if b == nil {
			wrong("its entry %q is not known to inode %d", e.Name, e.Ino)
		}
		if !n.isDir() {
			wrong("it is no directory and has an entry %q", e.Name)
		}
		if e.Type == ModeDir {
			subdirs++
		}
		return true
	})
	if err := errors.Join(err, broken); err != nil {
		return err
	}
	var names uint32
	err = s.state.parents(ino, func(p Ino, name string) bool {
		names++
		e, err := s.state.lookup(p, name)
		switch {
		case isNotExist(err):
			wrong("its name %q is not in directory %d", name, p)
		case err != nil:
			broken = err
			return false
		case e.ino != ino:
			wrong("its name %q in directory %d leads to inode %d", name, p, e.ino)
		}
		return true
	})
	if err := errors.Join(err, broken); err != nil {
		return err
	}
	switch {
	case ino == RootIno:
		if names != 0 || !n.isDir() {
			wrong("the root has %d names and mode %o", names, n.mode)
		}
		if n.nlink != 2+subdirs {
			wrong("it has %d links and %d directories", n.nlink, subdirs)
		}
	case n.isDir():
		if names != 1 {
			wrong("a directory with %d names", names)
		}
		if n.nlink != 2+subdirs {
			wrong("it has %d links and %d directories", n.nlink, subdirs)
		}
	case n.nlink != names || names == 0:
		wrong("it has %d links and %d names", n.nlink, names)
	}
	return s.extents(ino, n, wrong)
}

// extents checks that a file's extents fit its size and each other.
func (s *stateCheck) extents(ino Ino, n *inode, wrong func(string, ...any)) error {
	var at uint64
	it := s.state.scan(kindRange(ino, kindExtent))
	for it.next() {
		e, err := decodeExtent(uint64(keyOffset(it.key)), it.value)
		if err != nil {
			return fmt.Errorf("inode %d: %w", ino, err)
		}
		switch {
		case !n.isRegular():
			wrong("it is no regular file and has contents")
			return nil
		case e.ref.Writer == spillWriter:
			wrong("contents at %d are outside the log", e.off)
		case e.off < at:
			wrong("contents at %d are there twice", e.off)
		case e.off > at && !n.sparse:
			wrong("contents from %d to %d are missing", at, e.off)
		case e.end() > n.size:
			wrong("contents at %d reach beyond its size %d", e.off, n.size)
		}
		at = e.end()
	}
	if it.err == nil && n.isRegular() && at < n.size && !n.sparse {
		wrong("contents from %d to %d are missing", at, n.size)
	}
	return it.err
}
