package fs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"hearth/fs/tree"
	"hearth/log"
)

// Upkeep: thinning the history and giving back the space of what no version
// needs. What is kept for how long is the caller's to say (package tiering);
// here is how versions and blocks go without anything else going with them.
//
//	thin     hidden commits take version records out of the tree (upkeepthin.go)
//	mark     what the versions that stay refer to (upkeepmark.go)
//	condemn  what is left is not deduplicated against any more
//	recheck  what was committed or opened since may refer to it after all
//	drop     it is recorded as dropped; the log frees the space (upkeepdrop.go)
//
// A crash between any two of these costs nothing: a version without a record
// is not a version any more, a block that nothing refers to is found again by
// the next sweep, and a block is dropped only while nothing refers to it.

// ErrNotKept is the error of what an old version once held and is not kept any
// more: by the policy of its folder, or because it was purged. It comes with
// ErrNoVersion and, if it was found out by reading, with log.ErrDropped.
var ErrNotKept = errors.New("no longer kept")

// notKept makes the error of a dropped block one that says why.
func notKept(err error) error {
	if errors.Is(err, log.ErrDropped) {
		return fmt.Errorf("%w: %w: %w", ErrNotKept, ErrNoVersion, err)
	}
	return err
}

// upkeepState is what a drive remembers for its upkeep.
type upkeepState struct {
	one       chan struct{} // held by the one upkeep, purge or verification at a time
	condemned atomic.Pointer[roaring64.Bitmap]
	// placing is read-locked by who appends a data block outside sealMu, until a
	// layer refers to it: a sweep must not take such a block for waste.
	placing sync.RWMutex

	pinsMu sync.Mutex
	pins   map[Version]int
	used   map[Version]time.Time // when a version was last opened
}

func (s *upkeepState) isCondemned(index uint64) bool {
	set := s.condemned.Load()
	return set != nil && set.Contains(index)
}

// stillKept refuses a record of an old version whose block is gone, or on its
// way: nothing may bring it back into the present.
func (d *Drive) stillKept(key, value []byte) error {
	ref, ok, err := blockOf(key, value)
	if err != nil || !ok || ref.Writer != d.writer {
		return err
	}
	if !d.own.Present(ref.Index) || d.upkeep.isCondemned(ref.Index) {
		return fmt.Errorf("block %v: %w: %w", ref, ErrNotKept, ErrNoVersion)
	}
	return nil
}

// lease is how long a version that was opened stays, even if nobody pinned it:
// who reads it, or brings something back from it, is done by then.
const lease = 10 * time.Minute

// Pin keeps a version until release is called. Pin first, then call At: if
// that succeeds, the version stays.
func (d *Drive) Pin(v Version) (release func()) {
	s := &d.upkeep
	s.pinsMu.Lock()
	defer s.pinsMu.Unlock()
	if s.pins == nil {
		s.pins = map[Version]int{}
	}
	s.pins[v]++
	return sync.OnceFunc(func() {
		s.pinsMu.Lock()
		defer s.pinsMu.Unlock()
		if s.pins[v]--; s.pins[v] == 0 {
			delete(s.pins, v)
		}
	})
}

// leased notes that a version is opened, and returns its snapshot if there is
// one: in one step, so that a sweep sees the lease or takes the snapshot away.
func (d *Drive) leased(v Version) *Snapshot {
	now := d.clock()
	s := &d.upkeep
	s.pinsMu.Lock()
	defer s.pinsMu.Unlock()
	if s.used == nil || len(s.used) > 4096 {
		old := s.used
		s.used = map[Version]time.Time{}
		for k, at := range old {
			if now.Sub(at) < lease {
				s.used[k] = at
			}
		}
	}
	s.used[v] = now
	return d.snapshots.get(v)
}

// held reports whether a version is pinned or was just opened. Under pinsMu.
func (s *upkeepState) held(v Version, now time.Time) bool {
	if s.pins[v] > 0 {
		return true
	}
	at, ok := s.used[v]
	return ok && now.Sub(at) < lease && !now.Before(at)
}

// exclusive waits until no other upkeep, purge or verification is going on.
func (d *Drive) exclusive(ctx context.Context) (release func(), err error) {
	select {
	case d.upkeep.one <- struct{}{}:
		return func() { <-d.upkeep.one }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-d.stopped.Done():
		return nil, fmt.Errorf("drive %s is closed: %w", d.store.ID(), ErrStale)
	}
}

// commitUpkeep makes a version of what prepare puts into the open layer, which
// it does under mu. The version is hidden; but if programs changed something
// since the last one, that is in it, and it is an ordinary one.
func (d *Drive) commitUpkeep(durable bool, prepare func() error) error {
	d.commitMu.Lock()
	defer d.commitMu.Unlock()
	if err := d.begin(); err != nil {
		return err
	}
	err := prepare()
	d.mu.Unlock()
	if err != nil {
		return err
	}
	return d.commitHidden(durable, ReasonUpkeep)
}

// commitHidden commits what is open, for a reason of its own if nobody did
// anything. Under commitMu.
func (d *Drive) commitHidden(durable bool, reason Reason) error {
	fz, err := d.freeze()
	if err != nil {
		d.thaw(fz, err)
		return err
	}
	ours := len(fz.work.changes) == 0
	if ours {
		fz.work.reason = reason
	}
	if err := d.finish(fz, durable); err != nil {
		d.mu.Lock()
		if ours { // what comes into it from now on is work
			d.work.reason = ReasonWork
		}
		d.mu.Unlock()
		return err
	}
	return nil
}

// Classes is a set of policies, as bits: see [Upkeep.Policies].
type Classes uint64

// AllClasses is every policy there is or will be.
const AllClasses = ^Classes(0)

// KeptVersion is a version a drive has, for those who decide whether it stays.
type KeptVersion struct {
	Version Version
	Time    time.Time
	// Hidden versions are the drive's own upkeep: nobody misses them.
	Hidden bool
	// Held versions are pinned, were opened just now, or have a tag; the newest
	// one is held too.
	Held bool
}

// Upkeep is the upkeep of a drive while it goes on. There is one at a time.
// Its methods are called from one goroutine.
type Upkeep struct {
	d       *Drive
	cache   *tree.Cache
	all     []*kept
	classes *classes
	release func()
}

// kept is a version with what became of it.
type kept struct {
	seq    uint64
	index  uint64
	time   int64
	hidden bool
	held   bool
	keep   Classes // of what it keeps the contents; 0: it goes
	still  bool    // it is known to delete nothing
}

// upkeepCache is how many bytes of pages a sweep keeps. It has a cache of its
// own: its walk through all there is must not push out what programs use.
const upkeepCache = 16 << 20

// BeginUpkeep begins the upkeep of a drive, once no other is going on. The
// caller ends it with End.
func (d *Drive) BeginUpkeep(ctx context.Context) (*Upkeep, error) {
	release, err := d.exclusive(ctx)
	if err != nil {
		return nil, err
	}
	u := &Upkeep{d: d, cache: tree.NewCache(upkeepCache), release: release}
	if err := u.load(ctx); err != nil {
		release()
		return nil, fmt.Errorf("upkeep of drive %s: %w", d.store.ID(), err)
	}
	return u, nil
}

// End ends the upkeep.
func (u *Upkeep) End() { u.release() }

// newest returns the newest commit.
func (d *Drive) newest() version {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.head
}

// viewOf returns the state of a version, read through the upkeep's own cache.
func (u *Upkeep) viewOf(c *commit) *view {
	return &view{[]*layer{layerOf(c.buffer)}, tree.New(&u.d.pages, u.cache, c.root)}
}

// load lists the versions and the policies.
func (u *Upkeep) load(ctx context.Context) error {
	d := u.d
	head := d.newest()
	state := u.viewOf(head.commit)
	lo, hi := versionKey(Version{d.writer, 0}), versionKey(Version{d.writer, ^uint64(0)})
	it := state.scan(lo, hi)
	for it.next() {
		rec, err := decodeVersionRecord(it.value)
		if err != nil {
			return err
		}
		u.all = append(u.all, &kept{seq: keyVersion(it.key).Seq, index: rec.index, time: rec.time, hidden: rec.hidden})
	}
	if it.err != nil {
		return it.err
	}
	u.all = append(u.all, &kept{seq: head.seq, index: head.index, time: head.time, hidden: head.reason == ReasonUpkeep, held: true})

	tagged, err := taggedVersions(state)
	if err != nil {
		return err
	}
	now := d.clock()
	d.upkeep.pinsMu.Lock()
	for _, v := range u.all {
		_, tag := tagged[Version{d.writer, v.seq}]
		v.held = v.held || tag || d.upkeep.held(Version{d.writer, v.seq}, now)
		if v.held {
			v.keep = AllClasses
		}
	}
	d.upkeep.pinsMu.Unlock()
	u.classes, err = findClasses(ctx, state)
	return err
}

// Versions returns the versions the drive has, oldest first. The last is the
// newest and always stays.
func (u *Upkeep) Versions() []KeptVersion {
	out := make([]KeptVersion, len(u.all))
	for i, v := range u.all {
		out[i] = KeptVersion{Version: Version{u.d.writer, v.seq}, Time: unixNano(v.time), Hidden: v.hidden, Held: v.held}
	}
	return out
}

// Policies returns the retention policies of the drive as they were written,
// by the bits of their classes. The first is of the whole drive, "" if it has
// none; the others are of folders and files.
func (u *Upkeep) Policies() []string { return slices.Clone(u.classes.policies) }

// Keep says of which policies version i (in the order of Versions) keeps the
// contents, in addition to what was said before. One that keeps none goes.
func (u *Upkeep) Keep(i int, c Classes) { u.all[i].keep |= c }

// Kept returns what was said to Keep.
func (u *Upkeep) Kept(i int) Classes { return u.all[i].keep }

// commitOf reads the commit block of a version.
func (u *Upkeep) commitOf(v *kept) (*commit, error) {
	c, err := u.d.readCommit(log.Ref{Writer: u.d.writer, Index: v.index})
	if err == nil && c.seq != v.seq {
		err = fmt.Errorf("its block holds version %d: %w", c.seq, ErrDamaged)
	}
	if err != nil {
		return nil, fmt.Errorf("version %d: %w", v.seq, err)
	}
	v.still = len(c.more) == 0 && !slices.ContainsFunc(c.changes, func(ch change) bool { return ch.what&didRemove != 0 })
	return c, nil
}

// Deed is what a version is a part of.
type Deed struct {
	// Changes are the ids of the changes it belongs to; none if it changed
	// nothing.
	Changes []uint64
	// Alone says that it is more than work: an undo, a restore, a tag. What
	// went before is not to be told as a part of it.
	Alone bool
}

// Deed returns what version i is a part of.
func (u *Upkeep) Deed(i int) (Deed, error) {
	c, err := u.commitOf(u.all[i])
	if err != nil {
		return Deed{}, err
	}
	deed := Deed{Changes: make([]uint64, len(c.actors)), Alone: c.reason != ReasonWork}
	for j, a := range c.actors {
		deed.Changes[j] = a.id
	}
	return deed, nil
}
