package fs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// UndoOptions say what to undo.
type UndoOptions struct {
	// Path limits the undo to a file or directory and what is below it; ""
	// or "/": the whole drive.
	Path   string
	DryRun bool
	// Force undoes also what was changed again later; the later state stays
	// in the history.
	Force bool
	// Limit is of how many affected files at most the entries of what was done
	// are wanted, which takes longer than to do it; 0: however many there are.
	Limit int
}

// Result says what undo, redo, restore or undelete did, or would do.
type Result struct {
	Version Version // the version it made; zero after a dry run
	Change  Change  // what was undone, or redone
	Entries []DiffEntry
	Omitted bool // there are no entries, because there would be more than wanted
}

// ConflictError lists what keeps an undo from happening: later changes to the
// same files. It matches ErrConflict.
type ConflictError struct{ Paths []string }

func (e *ConflictError) Error() string {
	if len(e.Paths) == 1 {
		return fmt.Sprintf("%s was changed again since", e.Paths[0])
	}
	return fmt.Sprintf("%s and %d more were changed again since", e.Paths[0], len(e.Paths)-1)
}

// Is reports whether target is ErrConflict.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// Undo takes back the newest change of which something within the path is not
// undone yet: the rest of it, if other parts are.
func (d *Drive) Undo(ctx context.Context, o UndoOptions) (Result, error) {
	return d.reverse(ctx, o, ReasonUndo)
}

// Redo takes back the newest undo, or what is left of it, if nothing was
// changed since.
func (d *Drive) Redo(ctx context.Context, o UndoOptions) (Result, error) {
	return d.reverse(ctx, o, ReasonRedo)
}

// reverse makes the inverse of the change that is to be undone, or redone.
func (d *Drive) reverse(ctx context.Context, o UndoOptions, reason Reason) (Result, error) {
	var res Result
	var before, after *view
	v, err := d.transact(ctx, func(now *Snapshot) (*patch, error) {
		scope, err := d.scope(ctx, now, o.Path)
		if err != nil {
			return nil, err
		}
		undone, err := d.reversalsIn(ctx, scope, o.Path)
		if err != nil {
			return nil, err
		}
		done, p, err := d.newestInverse(ctx, now, scope, undone, reason, o.Force)
		if err != nil {
			return nil, err
		}
		p.reason, p.undoes = reason, done.id
		told := done
		if reason == ReasonRedo { // people redo what was undone, not the undoing
			switch told, err = d.changeByID(ctx, now, scope, done.undoes); {
			case errors.Is(err, ErrNothing):
				told = done
			case err != nil:
				return nil, err
			default:
				told.within(done)
			}
		}
		if res.Change, err = d.describe(ctx, told); err != nil {
			return nil, err
		}
		before = now.v
		if o.DryRun {
			res.Entries, err = d.foresee(now, p)
			return nil, err
		}
		return p, nil
	})
	if err != nil || o.DryRun {
		return res, err
	}
	res.Version = v
	if o.Limit > 0 && res.Change.Files > o.Limit {
		res.Omitted = true
		return res, nil
	}
	s, err := d.At(ctx, v)
	if err != nil {
		return res, err
	}
	after = s.v
	err = diffEntries(ctx, before, after, RootIno, func(e DiffEntry) error { res.Entries = append(res.Entries, e); return nil })
	return res, err
}

// scope finds the inode an operation is limited to. A path that is gone now is
// looked for in what was deleted.
func (d *Drive) scope(ctx context.Context, now *Snapshot, path string) (Ino, error) {
	if path == "" || path == "/" {
		return RootIno, nil
	}
	ino, err := now.Resolve(ctx, path)
	if errors.Is(err, ErrNotExist) {
		return d.deletedInode(ctx, now, path)
	}
	return ino, err
}

// doneChange is a change with what it touched, and where.
type doneChange struct {
	id          uint64
	reason      Reason
	undoes      uint64
	program     string
	uid         uint32
	first, last version
	started     int64
	inodes      map[Ino]touch    // contents, attributes
	names       map[nameOf]touch // entries
	delta       int64
	verbs       what
}

// touch says in which versions a change touched something first and last.
type touch struct {
	first, last uint64
	what        what
}

func (t touch) add(seq uint64, w what) touch {
	if t.first == 0 || seq < t.first {
		t.first = seq
	}
	t.last = max(t.last, seq)
	t.what |= w
	return t
}

// doneChanges calls fn for each change that touched scope, in the order of their
// last versions, newest first, until it returns false. A change is complete
// when fn sees it.
func (d *Drive) doneChanges(ctx context.Context, now *Snapshot, scope Ino, fn func(*doneChange) (bool, error)) error {
	open := map[uint64]*doneChange{}
	enough := false // fn has seen what it wanted; what is open is not complete
	emit := func(below uint64) (bool, error) {
		// Ids hold the version a change began in: below it nothing more comes.
		// One that ended before another waits until that is complete, too.
		var ready []*doneChange
		var waiting uint64
		for id, c := range open {
			if id>>8 > below || below == 0 {
				ready = append(ready, c)
			} else {
				waiting = max(waiting, c.last.seq)
			}
		}
		slices.SortFunc(ready, func(a, b *doneChange) int {
			return cmp.Or(cmp.Compare(b.last.seq, a.last.seq), cmp.Compare(b.id, a.id))
		})
		for _, c := range ready {
			if c.last.seq < waiting {
				break
			}
			delete(open, c.id)
			if more, err := fn(c); err != nil || !more {
				enough = true
				return false, err
			}
		}
		return true, nil
	}
	err := d.versionsBack(ctx, version{now.c, 0}, func(v version) (bool, error) {
		if more, err := emit(v.seq); err != nil || !more {
			return false, err
		}
		if v.reason == ReasonUpkeep || v.reason == ReasonTag || v.reason == ReasonGenesis {
			return true, nil
		}
		changes, err := d.allChanges(d.writer, v.commit)
		if err != nil {
			return false, err
		}
		in := d.scopeTest(v, scope)
		for _, ch := range changes {
			inside, err := in(ch)
			if err != nil {
				return false, err
			}
			a := v.actors[ch.actor]
			c := open[a.id]
			if !inside && !c.named(ch) {
				continue
			}
			if c == nil {
				c = &doneChange{id: a.id, reason: v.reason, undoes: v.undoes, program: a.program, uid: a.uid, last: v, inodes: map[Ino]touch{}, names: map[nameOf]touch{}}
				open[a.id] = c
			}
			c.first, c.started = v, a.since
			c.add(v.seq, ch)
		}
		return true, nil
	})
	if err != nil || enough {
		return err
	}
	_, err = emit(0)
	return err
}

// named reports whether a change is to a name that c changed later, too: where
// that led in between is nothing to go back to.
func (c *doneChange) named(ch change) bool {
	if c == nil || ch.what&(didLink|didUnlink) == 0 {
		return false
	}
	_, ok := c.names[nameOf{ch.parent, ch.name}]
	return ok
}

func (c *doneChange) add(seq uint64, ch change) {
	if ch.what&(didLink|didUnlink) != 0 {
		k := nameOf{ch.parent, ch.name}
		c.names[k] = c.names[k].add(seq, ch.what)
	}
	if ch.what&(didCreate|didWrite|didAttr|didXattr|didRemove|didReplace) != 0 {
		c.inodes[ch.ino] = c.inodes[ch.ino].add(seq, ch.what)
	}
	c.delta += ch.delta
	c.verbs |= ch.what
}

// versionsBack calls fn for each kept version from v on back.
func (d *Drive) versionsBack(ctx context.Context, v version, fn func(version) (bool, error)) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		more, err := fn(v)
		if err != nil || !more || v.seq <= 1 {
			return err
		}
		if v, err = d.versionBefore(v.seq); errors.Is(err, ErrNoVersion) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// versionBefore returns the newest kept version older than seq.
func (d *Drive) versionBefore(seq uint64) (version, error) {
	for s := seq - 1; s > 0; s-- {
		v, err := d.version(s)
		if !errors.Is(err, ErrNoVersion) {
			return v, err
		}
		if seq-s < 64 {
			continue // thinned ones nearby
		}
		if s, err = d.keptBefore(s); err != nil {
			return version{}, err
		}
		return d.version(s)
	}
	return version{}, fmt.Errorf("before version %d: %w", seq, ErrNoVersion)
}

// keptBefore finds the newest kept version at or before seq.
func (d *Drive) keptBefore(seq uint64) (uint64, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var found uint64
	v := d.live()
	lo, hi := uint64(1), seq+1
	// Halve the range towards the last record in it: records are few when
	// versions are thinned, and the scan of a half stops at its first hit.
	for lo < hi {
		mid := lo + (hi-lo)/2
		it := v.scan(versionKey(Version{d.writer, mid}), versionKey(Version{d.writer, hi}))
		if it.next() {
			found = keyVersion(it.key).Seq
			lo = found + 1
		} else {
			hi = mid
		}
		if it.err != nil {
			return 0, it.err
		}
	}
	if found == 0 {
		return 0, fmt.Errorf("before version %d: %w", seq, ErrNoVersion)
	}
	return found, nil
}

// before returns the state a change found when it first touched something in
// version seq.
func (d *Drive) before(ctx context.Context, seq uint64) (*Snapshot, error) {
	v, err := d.versionBefore(seq)
	if err != nil {
		return nil, fmt.Errorf("the state before version %d is no longer kept: %w", seq, err)
	}
	return d.At(ctx, Version{d.writer, v.seq})
}

// pastStates remembers the states that one undo compares with: a change of
// 100,000 names found and left a handful.
type pastStates struct {
	d      *Drive
	before map[uint64]*Snapshot
	after  map[uint64]*Snapshot
}

func (d *Drive) pastStates() *pastStates {
	return &pastStates{d, map[uint64]*Snapshot{}, map[uint64]*Snapshot{}}
}

// around returns the states before and after a touch.
func (p *pastStates) around(ctx context.Context, t touch) (pre, post *Snapshot, err error) {
	if pre = p.before[t.first]; pre == nil {
		if pre, err = p.d.before(ctx, t.first); err != nil {
			return nil, nil, err
		}
		p.before[t.first] = pre
	}
	if post = p.after[t.last]; post == nil {
		if post, err = p.d.At(ctx, Version{p.d.writer, t.last}); err != nil {
			return nil, nil, err
		}
		p.after[t.last] = post
	}
	return pre, post, nil
}

// newestInverse finds the newest change that has something left to take back,
// and computes what does so. For undo these are the changes that are no undo
// themselves; for redo the undos that no other change came after.
func (d *Drive) newestInverse(ctx context.Context, now *Snapshot, scope Ino, undone reversals, reason Reason, force bool) (*doneChange, *patch, error) {
	var found *doneChange
	var inverse *patch
	err := d.doneChanges(ctx, now, scope, func(c *doneChange) (bool, error) {
		rest := undone.rest(c)
		switch {
		case c.reason == ReasonRedo, c.reason == ReasonUndo && reason == ReasonUndo:
			return true, nil
		case c.reason != ReasonUndo && reason == ReasonRedo:
			return false, nil
		}
		// A change that began and ended within one version, as a chmod of a
		// file that was just made, has left nothing to take back by itself.
		p, err := d.inverse(ctx, now, rest, scope, force)
		if err != nil || p.empty() {
			return true, err
		}
		found, inverse = rest, p
		return false, nil
	})
	if err == nil && found == nil {
		err = fmt.Errorf("nothing to %v: %w", reason, ErrNothing)
	}
	return found, inverse, err
}

// changeByID finds a change.
func (d *Drive) changeByID(ctx context.Context, now *Snapshot, scope Ino, id uint64) (*doneChange, error) {
	var found *doneChange
	err := d.doneChanges(ctx, now, scope, func(c *doneChange) (bool, error) {
		if c.id == id {
			found = c
		}
		return found == nil, nil
	})
	if err == nil && found == nil {
		err = fmt.Errorf("change %d: %w", id, ErrNothing)
	}
	return found, err
}

// inverse computes what takes a change back, merged with what was done since.
func (d *Drive) inverse(ctx context.Context, now *Snapshot, c *doneChange, scope Ino, force bool) (*patch, error) {
	p := newPatch(ReasonUndo)
	past := d.pastStates()
	conflicts := map[string]struct{}{}
	conflict := func(ino Ino, otherwise string) {
		path, err := now.v.path(ino)
		if err != nil {
			path = otherwise
		}
		conflicts[path] = struct{}{}
	}
	for _, at := range slices.SortedFunc(maps.Keys(c.names), compareNames) {
		t := c.names[at]
		pre, post, err := past.around(ctx, t)
		if err != nil {
			return nil, err
		}
		was, is, at3, err := three(pre.v, post.v, now.v, at)
		switch {
		case err != nil:
			return nil, err
		case was == is, at3 == was: // a name in passing, or free again
			continue
		case at3 != is && !force:
			conflict(at3, at.name)
			continue
		}
		p.names[at] = was
		if was == 0 {
			continue
		}
		if _, err := now.v.inode(was); errors.Is(err, ErrNotExist) {
			// As it was before the change touched it, which may be earlier.
			if t, ok := c.inodes[was]; ok {
				if pre, _, err = past.around(ctx, t); err != nil {
					return nil, err
				}
			}
			p.set(was, pre.v, partWhole)
		} else if err != nil {
			return nil, err
		}
	}
	for _, ino := range slices.Sorted(maps.Keys(c.inodes)) {
		if err := d.inverseInode(ctx, past, now, p, ino, c.inodes[ino], force, conflict); err != nil {
			return nil, err
		}
	}
	if len(conflicts) > 0 {
		return nil, &ConflictError{slices.Sorted(maps.Keys(conflicts))}
	}
	return p, d.completeNames(now, p, scope)
}

// three looks a name up in three states; 0 stands for absent.
func three(pre, post, now *view, at nameOf) (was, is, present Ino, err error) {
	for _, q := range []struct {
		v   *view
		out *Ino
	}{{pre, &was}, {post, &is}, {now, &present}} {
		e, err := q.v.lookup(at.parent, at.name)
		if err != nil && !isNotExist(err) {
			return 0, 0, 0, err
		}
		*q.out = e.ino
	}
	return was, is, present, nil
}

func compareNames(a, b nameOf) int {
	if a.parent != b.parent {
		if a.parent < b.parent {
			return -1
		}
		return 1
	}
	switch {
	case a.name < b.name:
		return -1
	case a.name > b.name:
		return 1
	}
	return 0
}

// inverseInode adds to p what takes back the changes to one inode.
func (d *Drive) inverseInode(ctx context.Context, past *pastStates, now *Snapshot, p *patch, ino Ino, t touch, force bool, conflict func(Ino, string)) error {
	pre, post, err := past.around(ctx, t)
	if err != nil {
		return err
	}
	was, err := pre.v.inode(ino)
	if isNotExist(err) {
		// The change made it: it goes with its names. Edits of it since would
		// be lost to sight.
		is, err := now.v.inode(ino)
		if isNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		made, err := post.v.inode(ino)
		if isNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if is.isRegular() && !force {
			if same, err := sameContent(post.v, now.v, ino, made, is); err != nil {
				return err
			} else if !same {
				conflict(ino, "")
			}
		}
		return nil
	}
	if err != nil {
		return err
	}
	present, err := now.v.inode(ino)
	if isNotExist(err) {
		return nil // comes back whole by its names, if at all
	}
	if err != nil {
		return err
	}
	is, err := post.v.inode(ino)
	if isNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var parts part
	if t.what&didWrite != 0 && is.isRegular() && was.content != present.content {
		switch same, err := sameContent(post.v, now.v, ino, is, present); {
		case err != nil:
			return err
		case same || force:
			parts |= partContent
		default:
			conflict(ino, "")
		}
	}
	if t.what&didAttr != 0 {
		if was.mode != is.mode && present.mode == is.mode {
			parts |= partMode
		}
		if (was.uid != is.uid || was.gid != is.gid) && present.uid == is.uid && present.gid == is.gid {
			parts |= partOwner
		}
		if was.mtime != is.mtime && present.mtime == is.mtime {
			parts |= partTimes
		}
	}
	if t.what&didXattr != 0 {
		same, err := sameRecords(post.v, now.v, ino, kindXattr)
		if err != nil {
			return err
		}
		if same || force {
			parts |= partXattr
		} else {
			conflict(ino, "")
		}
	}
	if parts != 0 {
		p.set(ino, pre.v, parts)
	}
	return nil
}

// sameRecords reports whether an inode's records of a kind are equal in two
// states.
func sameRecords(a, b *view, ino Ino, kind byte) (bool, error) {
	lo, hi := kindRange(ino, kind)
	x, y := a.scan(lo, hi), b.scan(lo, hi)
	for {
		m, n := x.next(), y.next()
		if err := errors.Join(x.err, y.err); err != nil {
			return false, err
		}
		if m != n {
			return false, nil
		}
		if !m {
			return true, nil
		}
		if string(x.key) != string(y.key) || string(x.value) != string(y.value) {
			return false, nil
		}
	}
}

// completeNames refuses a patch that would leave names in directories that are
// gone, or inodes whose other names lie outside the scope.
func (d *Drive) completeNames(now *Snapshot, p *patch, scope Ino) error {
	for at, want := range p.names {
		if want == 0 {
			continue
		}
		if ip, ok := p.inodes[at.parent]; ok && ip.parts&partWhole != 0 {
			continue
		}
		if _, err := now.v.inode(at.parent); isNotExist(err) {
			return fmt.Errorf("%s: its directory is gone: %w", at.name, ErrConflict)
		} else if err != nil {
			return err
		}
	}
	if scope == RootIno {
		return nil
	}
	for ino, ip := range p.inodes {
		if ip.parts == 0 {
			continue
		}
		var outside string
		err := now.v.parents(ino, func(parent Ino, name string) bool {
			if in, err := now.v.inside(parent, scope); err == nil && !in && ino != scope {
				outside, _ = now.v.path(parent)
				outside += "/" + name
			}
			return outside == ""
		})
		if err != nil {
			return err
		}
		if outside != "" {
			return fmt.Errorf("a hard link leads out of there, to %s: %w", outside, ErrConflict)
		}
	}
	return nil
}

// inside reports whether ino is dir or below it.
func (v *view) inside(ino, dir Ino) (bool, error) {
	for depth := 0; ino != dir; depth++ {
		if ino == RootIno || ino == 0 || depth > maxDepth {
			return dir == RootIno, nil
		}
		up := Ino(0)
		if err := v.parents(ino, func(p Ino, _ string) bool { up = p; return false }); err != nil {
			return false, err
		}
		ino = up
	}
	return true, nil
}

// scopeTest returns a test whether a change of version v lies within scope,
// then or before.
func (d *Drive) scopeTest(v version, scope Ino) func(change) (bool, error) {
	if scope == RootIno {
		return func(change) (bool, error) { return true, nil }
	}
	state := d.snapshotOf(v).v
	var earlier *view
	known := map[Ino]bool{}
	inside := func(ino Ino) (bool, error) {
		if ino == 0 {
			return false, nil
		}
		if in, ok := known[ino]; ok {
			return in, nil
		}
		in, err := state.inside(ino, scope)
		if err == nil && !in {
			if earlier == nil {
				if old, err := d.versionBefore(v.seq); err == nil {
					earlier = d.snapshotOf(old).v
				} else {
					earlier = state
				}
			}
			in, err = earlier.inside(ino, scope)
		}
		known[ino] = in
		return in, err
	}
	return func(c change) (bool, error) {
		if c.ino == scope || c.parent == scope {
			return true, nil
		}
		if in, err := inside(c.parent); in || err != nil {
			return in, err
		}
		return inside(c.ino)
	}
}
