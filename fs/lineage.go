package fs

import (
	"errors"
	"slices"
	"strings"
)

// Lineage: programs save a document by making a new file and giving it the old
// one's name. The new inode then continues the document: its record says which
// inode it succeeds. An edge B succeeds A is stored when, within one change, a
// name passes from A to B, B was made in that change, and A ends without a
// name or only with that of a backup. So `mv report old; mv new report`, a log
// rotation and an unrelated overwrite join nothing.

type nameOf struct {
	parent Ino
	name   string
}

// handover is what a session remembers of names within one change.
type handover struct {
	change   uint64
	born     map[Ino]struct{}    // inodes it made
	released map[nameOf]Ino      // names it took from an inode
	awaits   map[Ino]successor   // inodes that still have another name, and who has the old one
	passed   map[Ino]struct{}    // inodes whose documents went on in others
	loose    map[Ino]struct{}    // inodes it made that continue no document
	saves    map[nameOf]struct{} // names under which a document went on in a new inode
}

type successor struct {
	ino Ino
	nameOf
}

// handoverLimit bounds what is remembered: a program that touches more names
// than this in one change is not an editor.
const handoverLimit = 1024

func (s *session) names() *handover {
	h := &s.handover
	if h.change != s.id || len(h.born)+len(h.released)+len(h.awaits)+len(h.passed) > handoverLimit {
		*h = handover{change: s.id, born: map[Ino]struct{}{}, released: map[nameOf]Ino{}, awaits: map[Ino]successor{}, passed: map[Ino]struct{}{},
			loose: map[Ino]struct{}{}, saves: map[nameOf]struct{}{}}
	}
	return h
}

// isBackup reports whether name is what editors call the backup of base.
func isBackup(name, base string) bool { return slices.Contains(backupBases(name), base) }

// backupBases returns what files may be called of which name is the backup.
func backupBases(name string) []string {
	var out []string
	for _, way := range []struct{ before, after string }{
		{"", "~"}, {"", ".bak"}, {"", ".BAK"}, {"", ".backup"}, {"", ".save"}, {"#", "#"}, {".", "~"},
	} {
		if base, ok := strings.CutPrefix(name, way.before); ok {
			if base, ok = strings.CutSuffix(base, way.after); ok && base != "" {
				out = append(out, base)
			}
		}
	}
	// Emacs's numbered backups: base.~12~
	if i := strings.LastIndex(name, ".~"); i > 0 {
		if n, ok := strings.CutSuffix(name[i+2:], "~"); ok && strings.Trim(n, "0123456789") == "" {
			out = append(out, name[:i])
		}
	}
	return out
}

// born notes that s made ino. Under mu, after the change was noted.
func (d *Drive) born(s *session, ino Ino) {
	h := s.names()
	h.born[ino], h.loose[ino] = struct{}{}, struct{}{}
}

// hasSaved reports whether all that s made in its present change is a document
// saved under a new inode, and done: what an editor does each time somebody
// presses save. Under mu.
func (s *session) hasSaved() bool {
	h := &s.handover
	return h.change == s.id && len(h.saves) == 1 && len(h.loose) == 0
}

// released notes that s took a name from ino; the name may pass to another.
// Under mu.
func (d *Drive) released(s *session, parent Ino, name string, ino Ino) {
	s.names().released[nameOf{parent, name}] = ino
}

// gained notes that s gave ino a name, and stores the edge if this is how a
// document was saved. Under mu.
func (d *Drive) gained(s *session, parent Ino, name string, ino Ino) error {
	h := s.names()
	key := nameOf{parent, name}
	from, ok := h.released[key]
	if !ok || from == ino {
		return nil
	}
	if _, ok := h.born[ino]; !ok {
		return nil
	}
	// A document goes on in one file. What has the name under which the old
	// one was put aside is not it, such as the next temporary file.
	if _, ok := h.passed[from]; ok {
		return nil
	}
	delete(h.released, key)
	ended, err := d.ended(from, name)
	if err != nil {
		return err
	}
	if !ended {
		h.awaits[from] = successor{ino, key}
		return nil
	}
	return d.succeed(s, ino, from, key)
}

// ended reports whether an inode has no name left but those of backups of
// base. Under mu.
func (d *Drive) ended(ino Ino, base string) (bool, error) {
	if d.orphans[ino] != nil {
		return true, nil
	}
	only := true
	err := d.live().parents(ino, func(_ Ino, name string) bool {
		only = isBackup(name, base)
		return only
	})
	return only, err
}

// gone notes that ino lost a name, and stores the edge that waited for it.
// Under mu.
func (d *Drive) gone(s *session, ino Ino) error {
	h := s.names()
	if _, ok := h.loose[ino]; ok && (d.orphans[ino] != nil || d.nameless(ino)) {
		delete(h.loose, ino)
	}
	next, ok := h.awaits[ino]
	if !ok {
		return nil
	}
	ended, err := d.ended(ino, next.name)
	if err != nil || !ended {
		return err
	}
	delete(h.awaits, ino)
	return d.succeed(s, next.ino, ino, next.nameOf)
}

// nameless reports whether an inode is gone. Under mu.
func (d *Drive) nameless(ino Ino) bool {
	_, err := d.live().inode(ino)
	return isNotExist(err)
}

// succeed stores the edge: ino continues the document that from was, as far
// as ino still has that name.
func (d *Drive) succeed(s *session, ino, from Ino, at nameOf) error {
	v := d.live()
	e, err := v.lookup(at.parent, at.name)
	if errors.Is(err, ErrNotExist) || err == nil && e.ino != ino {
		return nil
	}
	if err != nil {
		return err
	}
	n, err := v.inode(ino)
	if err != nil {
		return err
	}
	if !n.isRegular() || n.from != 0 {
		return nil
	}
	h := s.names()
	h.passed[from], h.saves[at] = struct{}{}, struct{}{}
	delete(h.loose, ino)
	// The document was last seen under the old inode in the version before
	// this one. If no version has it, the edge leads to where that one came from.
	below := &view{[]*layer{d.buffer}, d.base}
	if d.frozen != nil {
		below.layers = []*layer{d.frozen, d.buffer}
	}
	old, err := below.inode(from)
	switch {
	case err == nil && old.isRegular():
		n.from, n.fromAt = from, Version{d.writer, d.openSeq - 1}
	case errors.Is(err, ErrNotExist):
		mid, err := d.viewOf(from).inode(from)
		if err != nil || mid.from == 0 {
			return nil // nothing of the document was ever kept
		}
		n.from, n.fromAt = mid.from, mid.fromAt
	case err != nil:
		return err
	default:
		return nil
	}
	if err := d.inheritPolicies(below, from, ino); err != nil {
		return err
	}
	d.putInode(ino, n)
	d.note(s, change{what: didReplace, ino: ino, parent: n.from})
	return nil
}
