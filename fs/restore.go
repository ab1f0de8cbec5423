package fs

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
)

// RestoreOptions say what to bring back.
type RestoreOptions struct {
	// Path is the file or directory, as it was called at version At.
	Path string
	At   Version
	// Exact makes the directory exactly what it was: what came since goes.
	// Without it newer files stay.
	Exact bool
	// To, if not empty, is where a copy is put; its directory exists and it
	// does not.
	To     string
	DryRun bool
}

// Restore brings back a file or directory as it was, as one change.
func (d *Drive) Restore(ctx context.Context, o RestoreOptions) (Result, error) {
	old, err := d.At(ctx, o.At)
	if err != nil {
		return Result{}, err
	}
	ino, err := old.Resolve(ctx, o.Path)
	if err != nil {
		return Result{}, fmt.Errorf("at version %v: %w", o.At, err)
	}
	return d.bring(ctx, o.DryRun, func(now *Snapshot) (*patch, error) {
		r := &restorer{d: d, old: old.v, now: now.v, p: newPatch(ReasonRestore), exact: o.Exact, next: d.peekIno(), made: map[Ino]Ino{}}
		if o.To != "" {
			at, err := r.freePlace(o.To)
			if err != nil {
				return nil, err
			}
			return r.p, r.copyTree(ctx, ino, at)
		}
		r.top = ino
		at, err := r.place(old.v, ino, o.Path)
		if err != nil {
			return nil, err
		}
		if ino == RootIno {
			r.state(RootIno, RootIno)
			return r.p, r.children(ctx, RootIno)
		}
		return r.p, r.name(ctx, at, ino)
	})
}

// Undelete brings back what was deleted last under a path, or every deleted
// file of a directory that matches a pattern (path.Match) in the last element.
func (d *Drive) Undelete(ctx context.Context, pattern string, dryRun bool) (Result, error) {
	return d.bring(ctx, dryRun, func(now *Snapshot) (*patch, error) {
		r := &restorer{d: d, now: now.v, p: newPatch(ReasonRestore), next: d.peekIno(), made: map[Ino]Ino{}}
		paths := []string{pattern}
		if strings.ContainsAny(pattern, "*?[") {
			var err error
			if paths, err = d.deletedMatches(ctx, now, pattern); err != nil {
				return nil, err
			}
		}
		for _, p := range paths {
			if _, err := now.Resolve(ctx, p); err == nil {
				return nil, fmt.Errorf("%s is there: %w", p, ErrExist)
			}
			v, ino, err := d.FindDeleted(ctx, p)
			if err != nil {
				return nil, err
			}
			old, err := d.At(ctx, v)
			if err != nil {
				return nil, err
			}
			r.old = old.v
			at, err := r.place(old.v, ino, p)
			if err != nil {
				return nil, err
			}
			if err := r.name(ctx, at, ino); err != nil {
				return nil, err
			}
		}
		return r.p, nil
	})
}

// deletedMatches lists the deleted names of a directory that match a pattern.
func (d *Drive) deletedMatches(ctx context.Context, now *Snapshot, pattern string) ([]string, error) {
	dir, base := path.Split(pattern)
	if _, err := path.Match(base, ""); err != nil {
		return nil, fmt.Errorf("pattern %q: %w", base, ErrInvalid)
	}
	var out []string
	ino, err := now.Resolve(ctx, dir)
	if isNotExist(err) {
		return d.deletedWith(ctx, dir, base)
	}
	if err != nil {
		return nil, err
	}
	err = d.Deleted(ctx, ino, 0, func(e DeletedEntry) bool {
		if ok, _ := path.Match(base, e.Name); ok {
			out = append(out, path.Join(dir, e.Name))
		}
		return true
	})
	if err == nil && len(out) == 0 {
		err = fmt.Errorf("nothing deleted matches %s: %w", pattern, ErrNotExist)
	}
	return out, err
}

// deletedWith lists the names that match a pattern in a directory that was
// deleted itself.
func (d *Drive) deletedWith(ctx context.Context, dir, base string) ([]string, error) {
	v, ino, err := d.FindDeleted(ctx, dir)
	if err != nil {
		return nil, err
	}
	old, err := d.At(ctx, v)
	if err != nil {
		return nil, err
	}
	var out []string
	err = old.ReadDir(ctx, ino, "", func(e DirEntry) bool {
		if ok, _ := path.Match(base, e.Name); ok {
			out = append(out, path.Join(dir, e.Name))
		}
		return true
	})
	if err == nil && len(out) == 0 {
		err = fmt.Errorf("nothing deleted matches %s: %w", path.Join(dir, base), ErrNotExist)
	}
	return out, err
}

// bring computes a patch and applies it, or tells what it would do.
func (d *Drive) bring(ctx context.Context, dryRun bool, compute func(now *Snapshot) (*patch, error)) (Result, error) {
	var res Result
	var before *view
	v, err := d.transact(ctx, func(now *Snapshot) (*patch, error) {
		p, err := compute(now)
		if err != nil {
			return nil, err
		}
		before = now.v
		if dryRun {
			res.Entries, err = d.foresee(now, p)
			return nil, err
		}
		return p, nil
	})
	if err != nil || dryRun {
		return res, err
	}
	res.Version = v
	s, err := d.At(ctx, v)
	if err != nil {
		return res, err
	}
	err = diffEntries(ctx, before, s.v, RootIno, func(e DiffEntry) error { res.Entries = append(res.Entries, e); return nil })
	return res, err
}

// peekIno returns the next free inode number.
func (d *Drive) peekIno() uint64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.nextIno
}

// restorer builds the patch that brings parts of an old state back.
type restorer struct {
	d        *Drive
	old, now *view
	p        *patch
	exact    bool
	top      Ino         // the directory that becomes exactly what it was
	next     uint64      // inode number for the next copy
	made     map[Ino]Ino // copies: hard links stay links
}

// place returns where path's last element is or was, its directory being
// there now. A directory that is gone too comes back with it.
func (r *restorer) place(old *view, ino Ino, p string) (nameOf, error) {
	dir, base := path.Split(path.Clean("/" + p))
	if base == "" {
		return nameOf{}, nil
	}
	parent, err := r.now.resolve(dir)
	if errors.Is(err, ErrNotExist) {
		// Bring the way there back: only the directories themselves.
		was, err := old.resolve(dir)
		if err != nil {
			return nameOf{}, err
		}
		up, err := r.place(old, was, dir)
		if err != nil {
			return nameOf{}, err
		}
		r.state(was, was)
		r.p.names[up] = was
		return nameOf{was, base}, nil
	}
	if err != nil {
		return nameOf{}, err
	}
	if n, err := r.now.inode(parent); err != nil {
		return nameOf{}, err
	} else if !n.isDir() {
		return nameOf{}, fmt.Errorf("%s: %w", dir, ErrNotDir)
	}
	return nameOf{parent, base}, nil
}

// freePlace resolves a destination that must not exist yet.
func (r *restorer) freePlace(p string) (nameOf, error) {
	dir, base := path.Split(path.Clean("/" + p))
	if err := checkName(base); err != nil {
		return nameOf{}, err
	}
	parent, err := r.now.resolve(dir)
	if err != nil {
		return nameOf{}, err
	}
	if n, err := r.now.inode(parent); err != nil {
		return nameOf{}, err
	} else if !n.isDir() {
		return nameOf{}, fmt.Errorf("%s: %w", dir, ErrNotDir)
	}
	if _, err := r.now.lookup(parent, base); err == nil {
		return nameOf{}, fmt.Errorf("%s: %w", p, ErrExist)
	} else if !isNotExist(err) {
		return nameOf{}, err
	}
	return nameOf{parent, base}, nil
}

// state has an inode be as the old state has it.
func (r *restorer) state(ino, as Ino) {
	if _, err := r.now.inode(ino); isNotExist(err) {
		r.p.inodes[ino] = inodePatch{r.old, as, partWhole}
		return
	}
	r.p.inodes[ino] = inodePatch{r.old, as, partContent | partMode | partOwner | partTimes | partXattr}
}

// name has a name lead to an inode of the old state, with all below it.
func (r *restorer) name(ctx context.Context, at nameOf, ino Ino) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n, err := r.old.inode(ino)
	if err != nil {
		return err
	}
	present, err := r.now.lookup(at.parent, at.name)
	switch {
	case err == nil && present.ino == ino:
	case err == nil || isNotExist(err):
		// The inode lives on under another name: that one stays, and this name
		// gets a copy. Otherwise the inode itself comes back.
		if is, err := r.now.inode(ino); err == nil {
			if _, ours := r.p.inodes[ino]; !ours {
				if back, err := r.movesBack(ino, is); err != nil {
					return err
				} else if back {
					if err := r.clear(ctx, at, present, n); err != nil {
						return err
					}
					r.p.names[at] = ino
					break
				}
				if err := r.clear(ctx, at, present, n); err != nil {
					return err
				}
				return r.copyTree(ctx, ino, at)
			}
		} else if !isNotExist(err) {
			return err
		}
		if err := r.clear(ctx, at, present, n); err != nil {
			return err
		}
		r.p.names[at] = ino
	default:
		return err
	}
	same, err := r.same(ino, n)
	if err != nil {
		return err
	}
	if !same {
		r.state(ino, ino)
	}
	if n.isDir() {
		return r.children(ctx, ino)
	}
	return nil
}

// same reports whether an inode is now as it was.
func (r *restorer) same(ino Ino, was *inode) (bool, error) {
	is, err := r.now.inode(ino)
	if isNotExist(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if is.mode != was.mode || is.uid != was.uid || is.gid != was.gid || is.mtime != was.mtime && !is.isDir() {
		return false, nil
	}
	if same, err := sameContent(r.old, r.now, ino, was, is); err != nil || !same {
		return false, err
	}
	return sameRecords(r.old, r.now, ino, kindXattr)
}

// sameContent reports whether a file holds the same in two states. What undo or
// restore brought back is the same as before, but was set anew.
func sameContent(a, b *view, ino Ino, inA, inB *inode) (bool, error) {
	if inA.content == inB.content {
		return true, nil
	}
	if !inA.isRegular() || !inB.isRegular() || inA.size != inB.size {
		return false, nil
	}
	return sameRecords(a, b, ino, kindExtent)
}

// movesBack reports whether a file that lives on under another name loses that
// one, because that led elsewhere then: it is renamed, not copied.
func (r *restorer) movesBack(ino Ino, is *inode) (bool, error) {
	if !r.exact || is.isDir() {
		return false, nil
	}
	names, err := r.now.names(ino)
	if err != nil {
		return false, err
	}
	for _, at := range names {
		in, err := r.now.inside(at.parent, r.top)
		if err != nil {
			return false, err
		}
		was, err := r.old.lookupIno(at)
		if err != nil || !in || was == ino {
			return false, err
		}
	}
	return len(names) > 0 && len(names) < maxNames, nil
}

// clear makes room at a name that leads to something else now: a directory in
// the way of something else must go with all below it.
func (r *restorer) clear(ctx context.Context, at nameOf, present dirent, n *inode) error {
	if present.ino == 0 || present.typ != ModeDir {
		return nil
	}
	if !r.exact && !n.isDir() {
		return fmt.Errorf("%s is a directory now: %w", at.name, ErrConflict)
	}
	return r.removeBelow(ctx, present.ino)
}

func (r *restorer) removeBelow(ctx context.Context, dir Ino) error {
	var subdirs []Ino
	err := r.now.entries(dir, "", func(e DirEntry) bool {
		r.p.names[nameOf{dir, e.Name}] = 0
		if e.Type == ModeDir {
			subdirs = append(subdirs, e.Ino)
		}
		return true
	})
	if err != nil {
		return err
	}
	for _, s := range subdirs {
		if err := r.removeBelow(ctx, s); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// children brings back a directory's entries.
func (r *restorer) children(ctx context.Context, dir Ino) error {
	var list []DirEntry
	if err := r.old.entries(dir, "", func(e DirEntry) bool { list = append(list, e); return true }); err != nil {
		return err
	}
	had := make(map[string]struct{}, len(list))
	for _, e := range list {
		had[e.Name] = struct{}{}
		if err := r.name(ctx, nameOf{dir, e.Name}, e.Ino); err != nil {
			return err
		}
	}
	if !r.exact {
		return nil
	}
	var subdirs []Ino
	err := r.now.entries(dir, "", func(e DirEntry) bool {
		if _, ok := had[e.Name]; !ok {
			r.p.names[nameOf{dir, e.Name}] = 0
			if e.Type == ModeDir {
				subdirs = append(subdirs, e.Ino)
			}
		}
		return true
	})
	if err != nil {
		return err
	}
	for _, s := range subdirs {
		if err := r.removeBelow(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// copyTree has a name lead to a copy of an old inode, with all below it. Data
// is shared.
func (r *restorer) copyTree(ctx context.Context, ino Ino, at nameOf) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	copied, ok := r.made[ino]
	if !ok {
		if r.p.firstIno == 0 {
			r.p.firstIno = r.next
		}
		copied = Ino(r.d.writer)<<48 | Ino(r.next)
		r.next++
		r.made[ino] = copied
		r.p.inodes[copied] = inodePatch{r.old, ino, partWhole}
	}
	r.p.names[at] = copied
	n, err := r.old.inode(ino)
	if err != nil || !n.isDir() || ok {
		return err
	}
	var list []DirEntry
	if err := r.old.entries(ino, "", func(e DirEntry) bool { list = append(list, e); return true }); err != nil {
		return err
	}
	for _, e := range list {
		if err := r.copyTree(ctx, e.Ino, nameOf{copied, e.Name}); err != nil {
			return err
		}
	}
	return nil
}
