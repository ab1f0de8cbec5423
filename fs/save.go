package fs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"syscall"
	"time"

	"hearth/fs/tree"
	"hearth/log"
	"hearth/log/seal"
)

// bufferLimit is how many bytes of changes a commit carries in its root
// buffer before they are folded into pages: commits stay small, and a fold
// rewrites each page it touches for many changes at once.
const bufferLimit = 8 << 10

// openLimit is the share of the memory bound that uncommitted metadata may
// take before a commit is made without anybody asking.
func (d *Drive) openLimit() int64 { return d.memory / 4 }

// Sync returns when everything done so far is durable.
func (d *Drive) Sync(ctx context.Context) error {
	d.own.Hurry()
	return d.commit(ctx, true)
}

// Save makes a version of everything done so far, if there is anything. It is
// as durable as written data: Sync makes sure.
func (d *Drive) Save(ctx context.Context) error { return d.commit(ctx, false) }

// commit makes a version of everything done before the call, unless another
// commit already has. With durable it returns once that is synced. Callers
// share commits: whoever gets the lock commits for all who wait for it.
func (d *Drive) commit(ctx context.Context, durable bool) error {
	d.mu.RLock()
	need := d.mutations
	done := d.synced >= need || !durable && d.committed >= need
	failed := d.failed
	d.mu.RUnlock()
	if failed != nil {
		return failed
	}
	if done {
		return nil
	}
	d.commitMu.Lock()
	defer d.commitMu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.RLock()
	done = d.synced >= need || !durable && d.committed >= need
	d.mu.RUnlock()
	if done {
		return nil
	}
	return d.commitLocked(durable)
}

// commitLocked freezes the open layer and makes it a version. Under commitMu.
func (d *Drive) commitLocked(durable bool) error {
	fz, err := d.freeze()
	if err != nil {
		d.thaw(fz, err)
		return err
	}
	return d.finish(fz, durable)
}

// finish makes what was frozen a version. Under commitMu.
func (d *Drive) finish(fz *frozenWork, durable bool) error {
	next, stored, err := d.build(fz)
	if err == nil {
		var index uint64
		index, _, err = d.own.Commit(stored, durable)
		next.version.index = index
	}
	if err != nil {
		err = fmt.Errorf("version %d of drive %s: %w", fz.seq, d.store.ID(), noSpace(err))
		d.thaw(fz, err)
		return err
	}
	d.mu.Lock()
	d.head, d.base, d.buffer, d.frozen = next.version, next.base, next.buffer, nil
	d.committed = fz.mutations
	if durable {
		d.synced, d.unsaved = fz.mutations, time.Time{}
		if d.mutations != fz.mutations {
			d.arm() // what came meanwhile waits for the next one
		}
	}
	d.mu.Unlock()
	d.index.committed(next.version, durable)
	d.waiters.wake()
	return nil
}

// frozenWork is what a commit in flight works on.
type frozenWork struct {
	seq       uint64
	layer     *layer
	work      *work
	mutations uint64
	nextIno   uint64
	inodes    uint64
	bytes     uint64
	prev      version
}

// freeze turns the open layer into the frozen one, with all unsealed contents
// sealed and placed in it.
func (d *Drive) freeze() (*frozenWork, error) {
	d.sealMu.Lock()
	defer d.sealMu.Unlock()
	d.mu.Lock()
	fz := &frozenWork{
		seq: d.openSeq, layer: d.open, work: d.work, mutations: d.mutations,
		nextIno: d.nextIno, inodes: d.inodes, bytes: d.bytes, prev: d.head,
	}
	d.frozen, d.open, d.work = d.open, new(layer), newWork()
	d.openSeq++
	if d.head.commit != nil {
		rec := versionRecord{index: d.head.index, time: d.head.time, hidden: d.head.reason == ReasonUpkeep}
		fz.layer.put(versionKey(Version{d.writer, d.head.seq}), rec.encode())
	}
	batch := d.detach(maxDirty*2, true)
	base := &view{[]*layer{fz.layer, d.buffer}, d.base}
	d.mu.Unlock()
	_, err := d.sealRuns(batch, base, fz.layer, true)
	return fz, err
}

// built is a version ready to be appended.
type built struct {
	version version
	base    *tree.Tree
	buffer  *layer
}

// build folds the frozen layer and encodes its commit block.
func (d *Drive) build(fz *frozenWork) (*built, []byte, error) {
	b := &built{base: d.base, buffer: overlay(fz.layer, d.buffer)}
	changes := b.buffer.changes()
	size := 0
	for _, c := range changes {
		size += len(c.Key) + len(c.Value) + 4
	}
	root := d.base.Root()
	if size > bufferLimit {
		var err error
		if root, err = d.base.Apply(changes); err != nil {
			return nil, nil, err
		}
		b.base, b.buffer, changes = tree.New(&d.pages, d.cache, root), new(layer), nil
	}
	now := d.clock().UnixNano()
	if fz.prev.commit != nil && now <= fz.prev.time {
		now = fz.prev.time + 1 // time never goes backwards along a log
	}
	c := &commit{
		seq: fz.seq, time: now, reason: fz.work.reason, undoes: fz.work.undoes,
		root: root, nextIno: fz.nextIno, inodes: fz.inodes, bytes: fz.bytes,
		buffer: changes, actors: fz.work.actors, changes: fz.work.changes,
	}
	if fz.prev.commit != nil {
		c.parent = fz.prev.index + 1
	}
	for i := range c.changes {
		if _, ok := fz.work.closed[c.changes[i].ino]; ok && c.changes[i].what&didWrite != 0 {
			c.changes[i].what |= didClose
		}
	}
	plain, err := c.encode(func(p []byte) (uint64, error) { return d.appendBlock(seal.Commit, p) })
	if err != nil {
		return nil, nil, err
	}
	stored, err := d.store.Keys().Seal(nil, seal.Commit, plain)
	b.version.commit = c
	return b, stored, err
}

// thaw puts a frozen layer whose commit failed back under the open one, so
// that the next commit tries again: a full disk loses nothing that is still
// in memory. Records are restamped with the version they will now be part of.
func (d *Drive) thaw(fz *frozenWork, cause error) {
	d.sealMu.Lock()
	defer d.sealMu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if errors.Is(cause, log.ErrPoisoned) {
		d.failed = cause
	}
	// open's records were made against frozen's: join their stamps.
	seq := fz.seq
	d.openSeq--
	join := func(l *layer) {
		var fixed []tree.Change
		l.m.Scan(func(k string, v []byte) bool {
			if v == nil || len(k) != keyPrefix || k[8] != kindInode {
				return true
			}
			n, err := decodeInode(v)
			if err != nil || n.changed.Seq <= seq {
				return true
			}
			n.changed.Seq = seq
			n.content = min(n.content, seq)
			if n.before.Seq == seq {
				if old, ok := fz.layer.m.Get(k); ok && old != nil {
					if m, err := decodeInode(old); err == nil {
						n.before = m.before
					}
				}
			}
			fixed = append(fixed, tree.Change{Key: []byte(k), Value: n.encode()})
			return true
		})
		for _, c := range fixed {
			l.put(c.Key, c.Value)
		}
	}
	join(d.open)
	d.open = overlay(d.open, fz.layer)
	d.frozen = nil
	later := d.work
	d.work = fz.work
	for _, a := range later.actors {
		if _, ok := d.work.index[a.id]; !ok {
			d.work.index[a.id] = len(d.work.actors)
			d.work.actors = append(d.work.actors, a)
		}
	}
	for _, c := range later.changes {
		c.actor = d.work.index[later.actors[c.actor].id]
		d.work.changes = append(d.work.changes, c)
	}
	for ino := range later.closed {
		d.work.closed[ino] = struct{}{}
	}
	maps.Copy(d.work.writer, later.writer)
	maps.Copy(d.work.maker, later.maker)
	d.arm()
	d.changed.Broadcast()
}

// saver commits what nobody asked to be made durable, at the latest delay
// after the first unsaved change. It ends with the drive.
func (d *Drive) saver() {
	defer d.wg.Done()
	timer := time.NewTimer(d.delay)
	defer timer.Stop()
	for {
		select {
		case <-d.stopped.Done():
			return
		case <-d.kick:
		}
		for due, ok := d.saveDue(); ok; due, ok = d.saveDue() {
			if due > 0 {
				timer.Reset(due)
				select {
				case <-d.stopped.Done():
					return
				case <-timer.C:
				}
				continue // others may have committed meanwhile
			}
			if err := d.commit(d.stopped, true); err != nil {
				if d.stopped.Err() != nil {
					return
				}
				d.logger.Error("saving changes", "drive", d.store.ID(), "error", err)
			}
		}
	}
}

// saveDue returns how long the saver may still wait; not ok if there is nothing
// to save, and it has to be woken when there is.
func (d *Drive) saveDue() (due time.Duration, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed = !d.unsaved.IsZero() && d.failed == nil
	return d.delay - time.Since(d.unsaved), d.armed
}

// arm has the saver commit within the delay. A program that asks for
// durability again and again does not wake it each time. Under mu.
func (d *Drive) arm() {
	d.unsaved = time.Now()
	if d.armed {
		return
	}
	d.armed = true
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// crowded reports whether uncommitted metadata has outgrown its share. Under mu.
func (d *Drive) crowded() bool { return d.open.bytes > d.openLimit() }

// relieve commits when uncommitted metadata has outgrown its share of memory.
// It is called without locks, after a change.
func (d *Drive) relieve(ctx context.Context) error {
	d.mu.RLock()
	crowded := d.crowded()
	d.mu.RUnlock()
	if !crowded {
		return nil
	}
	return d.commit(ctx, false)
}

// noSpace makes a full disk recognisable as ErrNoSpace.
func noSpace(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return errors.Join(ErrNoSpace, err)
	}
	return err
}
