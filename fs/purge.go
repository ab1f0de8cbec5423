package fs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"hearth/fs/tree"
)

// Purging removes a path for good: from the present, and from every version.
//
// A version is what its record leads to, so each version that knows of the
// purged is written once more without it (purgeversion.go), and one commit
// leads all records to the new blocks. Until that commit nothing has changed but
// the present, where the path was deleted; after it nothing that is kept refers
// to the old blocks, and they go like any waste, at once. A block that also holds
// contents of others is written once more with theirs alone (purgeshare.go).
// After a crash purging again does the rest.
//
// What is purged: what the path names now, and what it named in any version
// but for what has another place now; of a document also the inodes it was
// saved in before; of a directory all that was below it in any version, with
// the same exception. A hard link that leads out of there stops it.

// PurgeResult says what a purge did.
type PurgeResult struct {
	Inodes   int64 // that are gone
	Versions int64 // that were written once more
	Waste          // what was dropped
	Freed    int64 // by how much the store is smaller
	// Left says what it could not reach, one line each.
	Left []string
}

// LinkedError lists hard links that lead out of what is to be purged. It
// matches ErrConflict.
type LinkedError struct{ Paths []string }

func (e *LinkedError) Error() string {
	return fmt.Sprintf("hard links lead out of there, purge or remove them first: %s", strings.Join(e.Paths, ", "))
}

// Is reports whether target is ErrConflict.
func (e *LinkedError) Is(target error) bool { return target == ErrConflict }

// maxLeft bounds the lines of what a purge could not reach.
const maxLeft = 100

// Purge removes a path from the present and from every version, with all bytes
// and names. progress, which may be nil, is told of versions looked at.
func (d *Drive) Purge(ctx context.Context, path string, progress func(done, total int64)) (PurgeResult, error) {
	p := &purger{d: d, path: path, gone: roaring64.New(), left: map[string]struct{}{}, progress: progress}
	res, err := p.run(ctx)
	if err != nil {
		err = fmt.Errorf("purging %s: %w", path, err)
	}
	return res, err
}

// purger is one purge.
type purger struct {
	d        *Drive
	u        *Upkeep
	path     string
	progress func(done, total int64)
	gone     *roaring64.Bitmap // the inodes that are purged
	left     map[string]struct{}
	keys     [][]byte // of records with names that go, sorted
	share    sharing
	seen     *roaring64.Bitmap // pages looked at for extents that move
	surveyed int               // versions likewise
	clean    *roaring64.Bitmap // branch pages without traces of keys
	last     purgedRoot
	result   PurgeResult
}

func (p *purger) run(ctx context.Context) (PurgeResult, error) {
	d := p.d
	if err := d.commit(ctx, true); err != nil {
		return p.result, err
	}
	var err error
	if p.u, err = d.BeginUpkeep(ctx); err != nil {
		return p.result, err
	}
	defer p.u.End()
	for _, v := range p.u.all {
		v.keep = AllClasses
	}
	if err := p.find(ctx); err != nil {
		return p.result, err
	}
	p.result.Inodes = int64(p.gone.GetCardinality())
	if err := p.removePresent(ctx); err != nil {
		return p.result, err
	}
	if err := p.rewrite(ctx); err != nil {
		return p.result, err
	}
	for _, v := range p.u.all {
		v.keep = AllClasses
	}
	if p.result.Waste, err = p.u.Drop(ctx, SweepOptions{}); err != nil {
		return p.result, err
	}
	p.result.Freed, err = d.own.Erase(ctx)
	for line := range p.left {
		p.result.Left = append(p.result.Left, line)
	}
	slices.Sort(p.result.Left)
	return p.result, err
}

func (p *purger) leave(format string, args ...any) {
	if len(p.left) < maxLeft {
		p.left[fmt.Sprintf(format, args...)] = struct{}{}
	}
}

// find decides which inodes are purged, from the newest version back.
func (p *purger) find(ctx context.Context) error {
	var newer, present *view
	for i, v := range slices.Backward(p.u.all) {
		if err := ctx.Err(); err != nil {
			return err
		}
		c, err := p.u.commitOf(v)
		if err != nil {
			return err
		}
		state := p.u.viewOf(c)
		if err := p.findIn(ctx, state, newer); err != nil {
			return fmt.Errorf("version %d: %w", v.seq, err)
		}
		if present == nil {
			present = state
			if err := p.linked(state); err != nil {
				return err
			}
		}
		newer = state
		if p.progress != nil {
			p.progress(int64(len(p.u.all)-i), int64(2*len(p.u.all)))
		}
	}
	if err := p.spare(present); err != nil {
		return err
	}
	if p.gone.IsEmpty() {
		return ErrNotExist
	}
	return nil
}

// findIn adds what a version has at or below the path, given the next newer
// version, which was looked at before.
func (p *purger) findIn(ctx context.Context, state, newer *view) error {
	ino, err := state.resolve(p.path)
	switch {
	case err == nil && ino == RootIno:
		return fmt.Errorf("the root of a drive cannot be purged: %w", ErrInvalid)
	case err == nil:
		err = p.add(ctx, state, ino)
	case isNotExist(err) || errors.Is(err, ErrNotDir):
		err = nil
	}
	if err != nil || newer == nil || p.gone.IsEmpty() {
		return err
	}
	return diffViews(newer, state, appendKey(nil, 1, 0), nil, func(key, _, old []byte) error {
		if old == nil || !p.isGone(keyIno(key)) {
			return nil
		}
		switch keyKind(key) {
		case kindDirent:
			e, err := decodeDirent(old)
			if err != nil {
				return err
			}
			return p.add(ctx, state, e.ino)
		case kindInode:
			return p.lineage(old)
		}
		return nil
	})
}

func (p *purger) isGone(ino Ino) bool { return p.gone.Contains(uint64(ino)) }

// lineage adds the inode that a document was in before.
func (p *purger) lineage(record []byte) error {
	n, err := decodeInode(record)
	if err == nil && n.from != 0 {
		p.gone.Add(uint64(n.from))
	}
	return err
}

// add adds an inode and what is below it.
func (p *purger) add(ctx context.Context, state *view, ino Ino) error {
	if ino == RootIno || !p.gone.CheckedAdd(uint64(ino)) {
		return ctx.Err()
	}
	b, err := state.get(inodeKey(ino))
	if err != nil {
		return err
	}
	if b != nil {
		if err := p.lineage(b); err != nil {
			return err
		}
	}
	var below []Ino
	if err := state.entries(ino, "", func(e DirEntry) bool { below = append(below, e.Ino); return true }); err != nil {
		return err
	}
	for _, child := range below {
		if err := p.add(ctx, state, child); err != nil {
			return err
		}
	}
	return nil
}

// linked refuses a purge if something that is there now has names both below
// the path and elsewhere.
func (p *purger) linked(present *view) error {
	var paths []string
	for it := p.gone.Iterator(); it.HasNext(); {
		ino := Ino(it.Next())
		inside, outside, err := p.places(present, ino)
		if err != nil {
			return err
		}
		if inside {
			paths = append(paths, outside...)
		}
		if len(paths) > maxLeft {
			break
		}
	}
	if len(paths) > 0 {
		return &LinkedError{paths}
	}
	return nil
}

// places tells whether an inode has a name that is purged, and its other ones.
func (p *purger) places(present *view, ino Ino) (inside bool, outside []string, err error) {
	target, err := present.resolve(p.path)
	if err != nil && !isNotExist(err) && !errors.Is(err, ErrNotDir) {
		return false, nil, err
	}
	dir, base := splitPath(p.path)
	parent, err := present.resolve(dir)
	if err != nil && !isNotExist(err) && !errors.Is(err, ErrNotDir) {
		return false, nil, err
	}
	var names []nameOf
	if err := present.parents(ino, func(up Ino, name string) bool { names = append(names, nameOf{up, name}); return true }); err != nil {
		return false, nil, err
	}
	for _, at := range names {
		in := ino == target && at == nameOf{parent, base}
		if !in && target != 0 && ino != target {
			if in, err = present.inside(at.parent, target); err != nil {
				return false, nil, err
			}
		}
		if in {
			inside = true
			continue
		}
		up, err := present.path(at.parent)
		if err != nil {
			return false, nil, err
		}
		outside = append(outside, strings.TrimSuffix(up, "/")+"/"+at.name)
	}
	return inside, outside, nil
}

func splitPath(path string) (dir, base string) {
	path = strings.TrimRight(path, "/")
	i := strings.LastIndexByte(path, '/')
	return path[:i+1], path[i+1:]
}

// spare takes out what once was at or below the path and has another place
// now: it is something else's document.
func (p *purger) spare(present *view) error {
	for it := p.gone.Clone().Iterator(); it.HasNext(); {
		ino := Ino(it.Next())
		b, err := present.get(inodeKey(ino))
		if err != nil {
			return err
		}
		if b == nil {
			continue
		}
		_, outside, err := p.places(present, ino)
		if err != nil {
			return err
		}
		if len(outside) > 0 {
			p.gone.Remove(uint64(ino))
			p.leave("%s was there once, and has its place elsewhere now", outside[0])
		}
	}
	return nil
}

// removePresent deletes the path where programs see it, and ends what they
// have open of it.
func (p *purger) removePresent(ctx context.Context) error {
	d := p.d
	_, err := d.transact(ctx, func(now *Snapshot) (*patch, error) {
		patch := newPatch(ReasonPurge)
		var names func(dir Ino) error
		names = func(dir Ino) error {
			var subdirs []Ino
			err := now.v.entries(dir, "", func(e DirEntry) bool {
				patch.names[nameOf{dir, e.Name}] = 0
				if e.Type == ModeDir {
					subdirs = append(subdirs, e.Ino)
				}
				p.gone.Add(uint64(e.Ino)) // it may have come just now
				return true
			})
			for _, sub := range subdirs {
				if err == nil {
					err = names(sub)
				}
			}
			return err
		}
		ino, err := now.v.resolve(p.path)
		if isNotExist(err) || errors.Is(err, ErrNotDir) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if err := p.linked(now.v); err != nil {
			return nil, err
		}
		p.gone.Add(uint64(ino))
		dir, base := splitPath(p.path)
		parent, err := now.v.resolve(dir)
		if err != nil {
			return nil, err
		}
		patch.names[nameOf{parent, base}] = 0
		return patch, names(ino)
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for ino := range d.orphans {
		if p.isGone(ino) {
			d.settle(ino)
			delete(d.orphans, ino)
			d.dropDirty(ino)
		}
	}
	if len(d.orphans) == 0 {
		return d.spill.reset()
	}
	return nil
}

// rewrite writes the versions that know of the purged once more, and makes the
// commit that puts them in the place of the old ones.
func (p *purger) rewrite(ctx context.Context) error {
	d, u := p.d, p.u
	if err := u.catchUp(); err != nil {
		return err
	}
	if err := p.survey(ctx); err != nil {
		return err
	}
	d.index.expect()
	var update indexUpdate
	done := map[uint64]*purgedVersion{}
	next := 0
	pass := func() error {
		if err := u.catchUp(); err != nil {
			return err
		}
		for ; next < len(u.all); next++ {
			if err := ctx.Err(); err != nil {
				return err
			}
			v := u.all[next]
			if err := p.surveyOthers(ctx, next); err != nil {
				return err
			}
			pv, err := p.version(v, &update)
			if err != nil {
				return fmt.Errorf("version %d: %w", v.seq, err)
			}
			if pv != nil {
				done[v.seq] = pv
			}
			if p.progress != nil {
				p.progress(int64(len(u.all)+next), int64(2*len(u.all)))
			}
		}
		return nil
	}
	for range 10 { // until what is committed meanwhile is little
		before := next
		if err := pass(); err != nil {
			return err
		}
		if next-before < 8 {
			break
		}
	}
	d.commitMu.Lock()
	defer d.commitMu.Unlock()
	if err := pass(); err != nil {
		return err
	}
	if err := p.replace(done); err != nil {
		return err
	}
	if err := d.commitHidden(true, ReasonUpkeep); err != nil {
		return err
	}
	for _, v := range u.all {
		if pv := done[v.seq]; pv != nil {
			v.index = pv.index
		}
	}
	p.result.Versions = int64(len(done))
	update.last = true
	d.index.update(&update)
	return nil
}

// replace puts the rewritten versions in the place of the old ones. Under
// commitMu; the newest version is among those looked at.
func (p *purger) replace(done map[uint64]*purgedVersion) error {
	d := p.d
	d.sealMu.Lock()
	defer d.sealMu.Unlock()
	if err := d.begin(); err != nil {
		return err
	}
	defer d.mu.Unlock()
	for seq, pv := range done {
		if seq == d.head.seq {
			// The present is the same; the next commit gives it its record.
			d.head = version{pv.commit, pv.index}
			d.base = tree.New(&d.pages, d.cache, pv.commit.root)
			d.buffer = layerOf(pv.commit.buffer)
			continue
		}
		rec := versionRecord{index: pv.index, time: pv.commit.time, hidden: pv.commit.reason == ReasonUpkeep}
		d.open.put(versionKey(Version{d.writer, seq}), rec.encode())
	}
	layers := []*layer{d.open}
	for _, o := range d.orphans {
		layers = append(layers, o.layer)
	}
	for _, l := range layers {
		if err := p.share.relocateLayer(l); err != nil {
			return err
		}
	}
	d.snapshots.clear()
	d.mutations++ // what was computed from the versions as they were is stale
	return nil
}

// clear forgets all snapshots.
func (c *snapshotCache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.order.Init()
	clear(c.m)
}
