package fs

import (
	"context"
	"errors"
	"slices"
)

// docState is a document as it was from one version on until the next state.
type docState struct {
	version uint64 // the oldest kept one that shows it
	time    int64
	size    uint64
	ino     Ino
	name    string
	meant   bool // somebody finished writing it
	created bool
	reason  Reason
	program string
}

// docWalk finds the states of a document whose versions are kept, newest
// first. The index tells most of it. Where versions are not kept, or without an
// index, the snapshots do: a state made by a version that is not kept any more
// may still be seen in a later one that is. What it finds does not depend on
// the index.
type docWalk struct {
	d  *Drive
	k  *keptVersions
	it *docEvents

	tenure
	name    string
	known   uint64 // a version that has the inode
	renamed bool   // its name may have changed since the state given last
	newer   int64  // when the state given last was made; 0: none was
	partly  bool   // versions may be kept without what it held in them
}

// walkDocument begins with the states of ino that began before a version, the
// newest kept of which has it.
func (d *Drive) walkDocument(ctx context.Context, k *keptVersions, ino Ino, name string, below uint64) (*docWalk, error) {
	w := &docWalk{d: d, k: k, name: name, it: d.docEvents(ctx, k, ino, below)}
	t, err := d.tenureOf(ctx, k, w.it, ino, below)
	if err != nil {
		return nil, err
	}
	if w.partly, err = d.hasPolicy(k.v, ino); err != nil {
		return nil, err
	}
	return w, w.enter(t)
}

// hasPolicy reports whether the history of an inode may be kept shorter than
// that of the drive: a version then outlives the contents it had there.
func (d *Drive) hasPolicy(now *view, ino Ino) (bool, error) {
	for depth := 0; ino != RootIno && ino != 0 && depth < maxDepth; depth++ {
		if _, err := now.xattr(ino, RetainAttr); err == nil {
			return true, nil
		} else if !errors.Is(err, ErrNoAttr) {
			return false, err
		}
		up := Ino(0)
		several := false
		if err := now.parents(ino, func(p Ino, _ string) bool { several = up != 0; up = p; return !several }); err != nil {
			return false, err
		}
		if several {
			return true, nil
		}
		ino = up
	}
	return false, nil
}

// readable reports whether the contents of a state are kept.
func (w *docWalk) readable(ctx context.Context, s docState) (bool, error) {
	snap, err := w.d.At(ctx, Version{w.d.writer, s.version})
	if err != nil {
		return false, err
	}
	n, err := snap.v.inode(s.ino)
	if err != nil {
		return false, err
	}
	kept, seen := true, 0
	err = snap.v.extents(s.ino, 0, n.size, func(e extent) bool {
		kept = w.d.present(e.ref)
		seen++
		return kept && seen < 1024 // a file of more is rarely kept by half
	})
	return kept, err
}

func (w *docWalk) enter(t tenure) (err error) {
	w.tenure, w.renamed = t, false
	w.known, err = w.k.atOrBefore(t.below - 1)
	return err
}

// next returns the next older state.
func (w *docWalk) next(ctx context.Context) (s docState, found bool, err error) {
	for w.ino != 0 {
		if err := ctx.Err(); err != nil {
			return s, false, err
		}
		if s, found, err = w.step(ctx); err != nil {
			return s, found, err
		}
		if found && w.partly {
			kept, err := w.readable(ctx, s)
			if err != nil {
				return s, false, err
			}
			if !kept {
				continue
			}
		}
		if found {
			return s, true, nil
		}
		if err := w.back(ctx); err != nil {
			return s, false, err
		}
	}
	return s, false, nil
}

// back goes on with the inode the document was under before.
func (w *docWalk) back(ctx context.Context) error {
	t, err := w.d.tenureBefore(ctx, w.k, w.it, tenure{w.ino, ^uint64(0), w.floor, w.from})
	if err != nil {
		return err
	}
	return w.enter(t)
}

// step returns the next older state under the present inode.
func (w *docWalk) step(ctx context.Context) (docState, bool, error) {
	none := docState{}
	if w.below <= max(w.floor, 1) {
		return none, false, nil
	}
	e, ok, told, err := w.keptEvent()
	if err != nil {
		return none, false, err
	}
	if !told {
		since := max(w.floor, 1) - 1
		if ok {
			since = e.seq
		}
		w.renamed = true
		s, start, err := w.look(ctx, since)
		if err != nil {
			return none, false, err
		}
		if start > since {
			w.below, w.known = start, s.version
			return s, true, nil
		}
		if !ok {
			return none, false, nil
		}
	}
	w.it.take()
	w.below = e.seq
	s := docState{
		version: e.seq, time: e.time, size: e.size, ino: e.ino,
		meant: e.what&(didClose|didReplace) != 0, created: e.what&didCreate != 0 && w.from == 0,
		reason: e.reason, program: e.program,
	}
	if w.renamed || e.what&(didWrite|didReplace) == didReplace {
		snap, err := w.d.At(ctx, Version{w.d.writer, e.seq})
		if err != nil {
			return none, false, err
		}
		if err := w.named(ctx, snap.v); err != nil {
			return none, false, err
		}
		n, err := snap.v.inode(e.ino)
		if err != nil {
			return none, false, err
		}
		s.size = n.size // an editor may have written it in a version before
	}
	s.name, w.known = w.name, e.seq
	w.renamed = e.what&(didLink|didUnlink) != 0 && e.what&(didCreate|didReplace) == 0
	return s, true, nil
}

// keptEvent returns the next event that began a state, of a kept version. told
// means that nothing else can have happened since: all versions are kept.
func (w *docWalk) keptEvent() (e docEvent, ok, told bool, err error) {
	for {
		if e, ok = w.event(); !ok {
			return e, false, false, nil
		}
		if told, err = w.k.all(e.seq, w.below-1); told || err != nil {
			return e, true, told, err
		}
		if ok, err = w.k.has(e.seq); ok || err != nil {
			return e, ok, false, err
		}
		w.it.take()
	}
}

// event returns the index's next event that began a state.
func (w *docWalk) event() (docEvent, bool) {
	for {
		e, ok := w.it.peek()
		if !ok || e.ino != w.ino || e.seq < w.floor {
			return e, false
		}
		if e.seq < w.below && e.what&(didWrite|didCreate|didReplace) != 0 && e.what&didRemove == 0 {
			return e, true
		}
		w.renamed = w.renamed || e.what&(didLink|didUnlink) != 0
		w.it.take()
	}
}

// named finds what the document was called in a state: as in the one after it,
// if the inode had the same names. Otherwise, of several names, it keeps the
// one it had.
func (w *docWalk) named(ctx context.Context, v *view) error {
	after, err := w.d.At(ctx, Version{w.d.writer, w.known})
	if err != nil {
		return err
	}
	old, err := v.names(w.ino)
	if err != nil {
		return err
	}
	next, err := after.v.names(w.ino)
	if err != nil || len(old) == 0 || slices.Equal(old, next) {
		return err
	}
	if !slices.ContainsFunc(old, func(at nameOf) bool { return at.name == w.name }) {
		w.name = old[0].name
	}
	return nil
}

// names returns an inode's names in key order, up to a limit.
func (v *view) names(ino Ino) ([]nameOf, error) {
	var out []nameOf
	err := v.parents(ino, func(parent Ino, name string) bool {
		out = append(out, nameOf{parent, name})
		return len(out) < maxNames
	})
	return out, err
}

// look finds the newest state after version since that a kept version shows,
// and the version it began in; 0 if there is none.
func (w *docWalk) look(ctx context.Context, since uint64) (s docState, start uint64, err error) {
	for at := w.below - 1; at > since; at-- {
		if err := ctx.Err(); err != nil {
			return s, 0, err
		}
		if at, err = w.k.atOrBefore(at); err != nil || at <= since {
			return s, 0, err
		}
		v, err := w.d.version(at)
		if err != nil {
			return s, 0, err
		}
		n, err := w.d.snapshotOf(v).v.inode(w.ino)
		if err == nil {
			return w.stateOf(ctx, at, n)
		}
		if !isNotExist(err) {
			return s, 0, err
		}
		// It was deleted and brought back later, or not made yet.
		born, err := w.born(ctx)
		if err != nil || v.time < born {
			return s, 0, err
		}
	}
	return s, 0, nil
}

// born returns when the inode was made.
func (w *docWalk) born(ctx context.Context) (int64, error) {
	s, err := w.d.At(ctx, Version{w.d.writer, w.known})
	if err != nil {
		return 0, err
	}
	n, err := s.v.inode(w.ino)
	if err != nil {
		return 0, err
	}
	return n.btime.Std().UnixNano(), nil
}

// stateOf returns the state that version seen shows and the version it began
// in; n is the inode's record there.
func (w *docWalk) stateOf(ctx context.Context, seen uint64, n *inode) (s docState, start uint64, err error) {
	start = max(n.content, w.floor)
	if start == 0 { // never written
		before, err := w.k.lastBefore(n.btime.Std())
		if err != nil {
			return s, 0, err
		}
		start = before + 1
	}
	start = min(start, seen)
	first, was, err := w.firstShowing(start, seen, n)
	if err != nil {
		return s, 0, err
	}
	if err := w.named(ctx, was); err != nil {
		return s, 0, err
	}
	s = docState{version: first.seq, time: first.time, size: n.size, ino: w.ino, name: w.name, meant: true}
	e, ok, err := w.d.eventOf(first, w.ino)
	if err != nil {
		return s, 0, err
	}
	// Without an event, what began it is not kept: it is what remains.
	if ok && e.what&(didWrite|didCreate|didReplace) != 0 {
		s.meant = e.what&(didClose|didReplace) != 0
		s.created = e.what&didCreate != 0 && w.from == 0
		s.reason, s.program = e.reason, e.program
	}
	return s, start, nil
}

// firstShowing returns the oldest kept version from start to seen that has the
// inode with the contents of n, and its state.
func (w *docWalk) firstShowing(start, seen uint64, n *inode) (version, *view, error) {
	try := func(seq uint64) (version, *view, error) {
		v, err := w.d.version(seq)
		if err != nil {
			return v, nil, err
		}
		state := w.d.snapshotOf(v).v
		was, err := state.inode(w.ino)
		if err == nil && was.content != n.content {
			err = ErrNotExist
		}
		return v, state, err
	}
	var found version
	var state *view
	// Nearly always the first one has it. Files that were written before they
	// had a name are in no version until later.
	for lo, hi, at := start, seen, start; lo <= hi; at = lo + (hi-lo)/2 {
		seq, _, err := w.k.from(at, hi)
		if err != nil {
			return found, nil, err
		}
		if seq == 0 {
			hi = at - 1
			continue
		}
		v, s, err := try(seq)
		switch {
		case err == nil:
			found, state = v, s
			if at == lo {
				return found, state, nil
			}
			hi = at - 1
		case errors.Is(err, ErrNotExist):
			lo = seq + 1
		default:
			return found, nil, err
		}
	}
	if state == nil {
		return try(seen)
	}
	return found, state, nil
}
