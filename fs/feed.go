package fs

import (
	"context"
	"fmt"
	"sync"
	"time"
)

func unixNano(ns int64) time.Time { return time.Unix(0, ns).UTC() }

// feedWaiters wakes those who follow the drive's versions.
type feedWaiters struct {
	mu     sync.Mutex
	ch     chan struct{}
	closed bool
}

// wait returns a channel that is closed at the next version, or when the drive
// closes.
func (w *feedWaiters) wait() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ch == nil {
		w.ch = make(chan struct{})
		if w.closed {
			close(w.ch)
		}
	}
	return w.ch
}

func (w *feedWaiters) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ch != nil && !w.closed {
		close(w.ch)
		w.ch = nil
	}
}

func (w *feedWaiters) closeAll() {
	w.wake()
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
}

// WaitVersion returns once there is a version newer than seq.
func (d *Drive) WaitVersion(ctx context.Context, seq uint64) error {
	for {
		next := d.waiters.wait()
		if d.Newest().Seq > seq {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.stopped.Done():
			return ErrStale
		case <-next:
		}
	}
}

// FeedEntry is what one version changed of one file or directory.
type FeedEntry struct {
	Version Version
	Time    time.Time
	Op      string // of a DiffEntry: OpAdded, OpChanged, ...
	Path    string
	OldPath string // of OpMoved
	Ino     Ino
	Type    uint32 // file type bits
	Size    uint64 // after it
	Change  uint64 // id of the Change it belongs to; 0 if that is not kept
	Program string
	Uid     uint32
	Reason  Reason
}

// Feed calls fn for what every version after since changed, in the order of
// versions; the zero version asks for all. With follow it then waits for more,
// until ctx ends or the drive closes. Whoever applies all entries has the
// newest tree: what versions changed that are not kept any more comes with the
// next one that is. Within a version entries are in the order of their paths.
func (d *Drive) Feed(ctx context.Context, since Version, follow bool, fn func(FeedEntry) error) error {
	if since.Seq != 0 && since.Writer != d.writer {
		return fmt.Errorf("version %v: no such writer: %w", since, ErrNoVersion)
	}
	k := d.kept()
	if since.Seq > k.head.seq {
		return fmt.Errorf("version %v: the newest is %v: %w", since, Version{d.writer, k.head.seq}, ErrNoVersion)
	}
	// From a version that is not kept the state before it is the last known:
	// some of what is given then is known already.
	at, err := k.atOrBefore(since.Seq)
	if err != nil {
		return err
	}
	before := d.nothing()
	if at != 0 {
		s, err := d.At(ctx, Version{d.writer, at})
		if err != nil {
			return err
		}
		before = s.v
	}
	for {
		for next := at + 1; ; next = at + 1 {
			if err := ctx.Err(); err != nil {
				return err
			}
			seq, _, err := k.from(next, k.head.seq)
			if err != nil {
				return err
			}
			if seq == 0 {
				break
			}
			v, err := d.version(seq)
			if isNoVersion(err) {
				break // swept meanwhile
			}
			if err != nil {
				return err
			}
			after := d.snapshotOf(v).v
			if err := d.feedVersion(ctx, before, after, v, seq == next, fn); err != nil {
				return err
			}
			at, before = seq, after
		}
		if at >= k.head.seq {
			if !follow {
				return nil
			}
			if err := d.WaitVersion(ctx, at); err != nil {
				return err
			}
		}
		k = d.kept()
	}
}

// feedVersion gives the entries of one version. If the one before it is what
// before shows, its own list of changes says where to look.
func (d *Drive) feedVersion(ctx context.Context, before, after *view, v version, adjacent bool, fn func(FeedEntry) error) error {
	if v.reason == ReasonTag && adjacent {
		return nil
	}
	entry := FeedEntry{Version: Version{d.writer, v.seq}, Time: unixNano(v.time), Reason: v.reason}
	give := func(e DiffEntry, by *actor) error {
		f := entry
		f.Op, f.Path, f.OldPath, f.Ino, f.Type, f.Size = e.Op, e.Path, e.OldPath, e.Ino, e.Type, e.SizeAfter
		if by != nil {
			f.Change, f.Program, f.Uid = by.id, by.program, by.uid
		}
		return fn(f)
	}
	if !adjacent || v.reason == ReasonUpkeep || v.reason == ReasonGenesis {
		return diffEntries(ctx, before, after, RootIno, func(e DiffEntry) error { return give(e, nil) })
	}
	changes, err := d.allChanges(d.writer, v.commit)
	if err != nil {
		return err
	}
	x := newEffects(before, after)
	by := map[Ino]*actor{}
	names := map[nameOf]struct{}{}
	for _, c := range changes {
		if c.what&(didLink|didUnlink) != 0 {
			names[nameOf{c.parent, c.name}] = struct{}{}
		}
		if c.ino == 0 || c.what == didTag {
			continue
		}
		e := x.of(c.ino)
		e.content = e.content || c.what&didWrite != 0
		e.xattr = e.xattr || c.what&didXattr != 0
		if by[c.ino] == nil || c.what&didWrite != 0 {
			by[c.ino] = &v.actors[c.actor]
		}
	}
	for at := range names {
		was, err := before.lookupIno(at)
		if err != nil {
			return err
		}
		is, err := after.lookupIno(at)
		if err != nil {
			return err
		}
		x.name(at, was, is)
	}
	if err := x.load(); err != nil {
		return err
	}
	list, err := x.entries()
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := give(e, by[e.Ino]); err != nil {
			return err
		}
	}
	return nil
}
