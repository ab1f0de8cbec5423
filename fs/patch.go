package fs

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
)

// patch is what undo, redo, restore and undelete do to the present state: some
// names shall lead to other inodes, and some inodes shall be, in whole or in
// part, what another state has. It is applied as one change.
type patch struct {
	names  map[nameOf]Ino // 0: no such name
	inodes map[Ino]inodePatch
	reason Reason
	undoes uint64
	// firstIno is the number of the first copy it makes, 0 if none: the drive
	// must not have given it away meanwhile.
	firstIno uint64
}

// part says what of an inode a patch sets.
type part uint8

const (
	partContent part = 1 << iota // size, extents, modification time
	partMode
	partOwner
	partTimes // modification and change time
	partXattr // all of them
	partWhole // the inode was gone: everything
)

type inodePatch struct {
	from  *view
	as    Ino // the inode in from; the same unless it is copied
	parts part
}

func newPatch(r Reason) *patch {
	return &patch{names: map[nameOf]Ino{}, inodes: map[Ino]inodePatch{}, reason: r}
}

func (p *patch) set(ino Ino, from *view, parts part) {
	ip := p.inodes[ino]
	p.inodes[ino] = inodePatch{from, ino, ip.parts | parts}
}

func (p *patch) empty() bool { return len(p.names) == 0 && len(p.inodes) == 0 }

// apply makes a patch one commit over the state in which it was computed:
// base is the number of changes the drive had then. stale reports that others
// changed the drive meanwhile, and nothing was done.
func (d *Drive) apply(ctx context.Context, p *patch, base uint64) (stale bool, v Version, err error) {
	d.commitMu.Lock()
	defer d.commitMu.Unlock()
	if err := ctx.Err(); err != nil {
		return false, Version{}, err
	}
	if err := d.begin(); err != nil {
		return false, Version{}, err
	}
	// What programs wrote into an unlinked file goes when it gets its old
	// contents back, and none of that must be on its way meanwhile.
	for ino := range p.inodes {
		if d.orphans[ino] != nil {
			d.settle(ino)
		}
	}
	if d.mutations != base || len(d.work.changes) > 0 || p.firstIno != 0 && p.firstIno != d.nextIno {
		d.mu.Unlock()
		return true, Version{}, nil
	}
	s := &session{program: "hearth"}
	told, err := d.applyLocked(s, p)
	if err != nil {
		// Nothing else is in the open layer: dropping it undoes the half.
		d.open = new(layer)
		d.work = newWork()
		d.nextIno, d.inodes, d.bytes = max(d.nextIno, d.head.nextIno), d.head.inodes, d.head.bytes
		d.mu.Unlock()
		return false, Version{}, err
	}
	d.work.reason, d.work.undoes = p.reason, p.undoes
	d.mutated()
	v = d.openVersion()
	notifier := d.notifier
	d.mu.Unlock()
	err = d.commitLocked(true)
	told.tell(notifier)
	return false, v, err
}

// told collects what the kernel has to hear.
type told struct {
	inodes  []Ino
	entries []nameOf
}

func (t *told) tell(n Notifier) {
	if n == nil {
		return
	}
	for _, ino := range t.inodes {
		n.InvalInode(ino)
	}
	for _, e := range t.entries {
		n.InvalEntry(e.parent, e.name)
	}
}

func (d *Drive) applyLocked(s *session, p *patch) (*told, error) {
	t := &told{}
	v := d.live()
	now := d.now()
	recount := map[Ino]struct{}{} // files whose names changed
	subdirs := map[Ino]int{}      // directories by how many subdirectories came
	touched := map[Ino]struct{}{} // directories whose entries changed
	fresh := map[Ino]*inode{}     // inodes that were not there
	links := map[Ino]uint32{}     // how many names those get
	d.work.grow(len(p.inodes) + len(p.names))

	inodes := make([]Ino, 0, len(p.inodes))
	for ino := range p.inodes {
		inodes = append(inodes, ino)
	}
	slices.Sort(inodes)
	for _, ino := range inodes {
		if err := d.patchInode(s, v, ino, p.inodes[ino], fresh); err != nil {
			return nil, err
		}
		t.inodes = append(t.inodes, ino)
	}

	names := make([]nameOf, 0, len(p.names))
	for n := range p.names {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b nameOf) int {
		return cmp.Or(cmp.Compare(a.parent, b.parent), cmp.Compare(a.name, b.name))
	})
	for _, at := range names {
		want := p.names[at]
		old, err := v.lookup(at.parent, at.name)
		if err != nil && !isNotExist(err) {
			return nil, err
		}
		if err == nil {
			if old.ino == want {
				continue
			}
			d.delLink(at.parent, at.name, old.ino)
			if old.typ == ModeDir {
				subdirs[at.parent]--
			}
			recount[old.ino] = struct{}{}
			d.note(s, change{what: didUnlink, ino: old.ino, parent: at.parent, name: at.name})
		}
		if want != 0 {
			n := fresh[want]
			if n != nil {
				links[want]++
			} else if n, err = v.inode(want); err != nil {
				return nil, fmt.Errorf("%s: %w", at.name, err)
			} else {
				recount[want] = struct{}{}
			}
			d.setLink(at.parent, at.name, want, n.mode)
			if n.isDir() {
				subdirs[at.parent]++
			}
			d.note(s, change{what: didLink, ino: want, parent: at.parent, name: at.name})
		}
		if _, new := fresh[at.parent]; !new {
			touched[at.parent] = struct{}{}
			t.entries = append(t.entries, at)
		}
	}

	for dir, n := range subdirs {
		if n == 0 {
			continue
		}
		rec, err := v.inode(dir)
		if err != nil {
			return nil, err
		}
		rec.nlink = uint32(int(rec.nlink) + n)
		d.open.put(inodeKey(dir), rec.encode())
	}
	for dir := range touched {
		ip, patched := p.inodes[dir]
		if patched && ip.parts&(partTimes|partWhole) != 0 {
			continue
		}
		rec, err := v.inode(dir)
		if err != nil {
			return nil, err
		}
		rec.mtime, rec.ctime = now, now
		d.putInode(dir, rec)
		t.inodes = append(t.inodes, dir)
	}
	for ino, n := range fresh {
		// It has just the names it was given: others there are none.
		if !(n.isDir() && links[ino] > 0 || n.nlink == links[ino]) {
			recount[ino] = struct{}{}
		}
	}
	for ino := range recount {
		gone, err := d.recount(s, v, ino, fresh)
		if err != nil {
			return nil, err
		}
		if !gone {
			t.inodes = append(t.inodes, ino)
		}
	}
	return t, nil
}

// recount sets a file's link count to the names it has; with none it goes.
func (d *Drive) recount(s *session, v *view, ino Ino, fresh map[Ino]*inode) (gone bool, err error) {
	n, err := v.inode(ino)
	if errors.Is(err, ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	var links uint32
	if err := v.parents(ino, func(Ino, string) bool { links++; return true }); err != nil {
		return false, err
	}
	if links == 0 {
		if n.isDir() {
			empty, err := v.dirEmpty(ino)
			if err != nil {
				return false, err
			}
			if !empty {
				return false, fmt.Errorf("directory %d: %w", ino, ErrNotEmpty)
			}
		}
		n.nlink = 0
		d.note(s, change{what: didRemove, ino: ino, delta: -int64(n.size)})
		return true, d.orphan(ino, n)
	}
	if !n.isDir() && n.nlink != links {
		n.nlink = links
		if _, new := fresh[ino]; !new {
			n.ctime = d.now()
		}
		d.putInode(ino, n)
	}
	return false, nil
}

// patchInode sets parts of one inode. Under mu, with nothing unsealed.
func (d *Drive) patchInode(s *session, v *view, ino Ino, ip inodePatch, fresh map[Ino]*inode) error {
	src, err := ip.from.inode(ip.as)
	if err != nil {
		return err
	}
	n, err := v.inode(ino)
	switch {
	case errors.Is(err, ErrNotExist):
		if ip.parts&partWhole == 0 {
			return err
		}
		rec := *src
		fresh[ino] = &rec
		if own := uint64(ino) & (1<<48 - 1); ino>>48 == Ino(d.writer) && own >= d.nextIno {
			d.nextIno = own + 1 // a copy: the patch numbered it
		}
		if d.orphans[ino] != nil { // who has it open sees it live on
			delete(d.orphans, ino)
			d.dropDirty(ino)
		}
		if rec.isDir() {
			rec.nlink = 2 // its subdirectories come by name
		}
		rec.before = src.changed
		rec.changed = d.openVersion()
		rec.content = d.openSeq
		d.open.put(inodeKey(ino), rec.encode())
		d.inodes++
		if rec.isRegular() {
			d.bytes += rec.size
		}
		if err := d.copyRecords(ip.from, ip.as, ino, kindXattr, kindExtent); err != nil {
			return err
		}
		d.note(s, change{what: didCreate | didWrite | didClose, ino: ino, delta: int64(rec.size), size: rec.size})
		return nil
	case err != nil:
		return err
	}
	var w what
	if ip.parts&(partContent|partWhole) != 0 && n.isRegular() && src.isRegular() {
		if err := d.clearRecords(v, ino, kindExtent); err != nil {
			return err
		}
		if err := d.copyRecords(ip.from, ip.as, ino, kindExtent, kindExtent); err != nil {
			return err
		}
		delta := int64(src.size) - int64(n.size)
		d.bytes += uint64(delta)
		n.size, n.sparse, n.content = src.size, src.sparse, d.openSeq
		n.mtime = src.mtime
		d.note(s, change{what: didWrite | didClose, ino: ino, delta: delta, size: n.size})
	}
	if ip.parts&(partMode|partWhole) != 0 {
		n.mode = n.mode&ModeType | src.mode&modePerm
		w |= didAttr
	}
	if ip.parts&(partOwner|partWhole) != 0 {
		n.uid, n.gid = src.uid, src.gid
		w |= didAttr
	}
	n.ctime = d.now()
	if ip.parts&(partTimes|partWhole) != 0 {
		n.mtime, n.ctime = src.mtime, src.ctime
		w |= didAttr
	}
	if ip.parts&(partXattr|partWhole) != 0 {
		if err := d.clearRecords(v, ino, kindXattr); err != nil {
			return err
		}
		if err := d.copyRecords(ip.from, ip.as, ino, kindXattr, kindXattr); err != nil {
			return err
		}
		w |= didXattr
	}
	d.putInode(ino, n)
	if w != 0 {
		d.note(s, change{what: w, ino: ino})
	}
	return nil
}

// copyRecords copies the records from one kind to another, without names, from
// an inode of another state.
func (d *Drive) copyRecords(from *view, as, ino Ino, first, last byte) error {
	lo, _ := kindRange(as, first)
	_, hi := kindRange(as, last)
	it := from.scan(lo, hi)
	for it.next() {
		kind := it.key[keyPrefix-1]
		if kind == kindParent {
			continue
		}
		if err := d.stillKept(it.key, it.value); err != nil {
			return fmt.Errorf("inode %d: %w", as, err)
		}
		key := it.key
		if as != ino {
			key = append(appendKey(nil, ino, kind), it.key[keyPrefix:]...)
		}
		d.open.put(key, bytes.Clone(it.value))
	}
	return it.err
}

func (d *Drive) clearRecords(v *view, ino Ino, kind byte) error {
	it := v.scan(kindRange(ino, kind))
	var keys [][]byte
	for it.next() {
		keys = append(keys, it.key)
	}
	for _, k := range keys {
		d.open.del(k)
	}
	return it.err
}

// settled commits what is open and returns the state after it, with the count
// of changes it stands for: what a patch is computed against.
func (d *Drive) settled(ctx context.Context) (*Snapshot, uint64, error) {
	for range 100 {
		if err := d.commit(ctx, false); err != nil {
			return nil, 0, err
		}
		d.mu.RLock()
		base, head, clean := d.mutations, d.head, d.committed == d.mutations
		d.mu.RUnlock()
		if clean {
			return d.snapshotOf(head), base, nil
		}
	}
	return nil, 0, fmt.Errorf("the drive is too busy: %w", ErrBusy)
}

// transact computes a patch against the present state and applies it, again if
// the drive changed meanwhile. A nil patch from make ends it.
func (d *Drive) transact(ctx context.Context, compute func(now *Snapshot) (*patch, error)) (Version, error) {
	for range 100 {
		now, base, err := d.settled(ctx)
		if err != nil {
			return Version{}, err
		}
		p, err := compute(now)
		if err != nil || p == nil {
			return Version{}, err
		}
		if p.empty() {
			return Version{}, ErrNothing
		}
		stale, v, err := d.apply(ctx, p, base)
		if err != nil || !stale {
			return v, err
		}
	}
	return Version{}, fmt.Errorf("the drive is too busy: %w", ErrBusy)
}
