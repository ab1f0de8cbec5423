package crashfs

import (
	"cmp"
	"math/rand/v2"
	"slices"
)

// Mode says what a crash does to what was not synced.
type Mode uint8

// The modes. Whatever the mode, what was synced is kept.
const (
	// Mixed takes one of the others, and the odds, from the seed, and not the
	// same for every file and directory.
	Mixed Mode = iota
	// DropAll loses everything unsynced, KeepAll nothing.
	DropAll
	KeepAll
	// Ordered keeps the operations of each file and directory up to some
	// moment; the one at that moment is torn.
	Ordered
	// AnyOps keeps each operation or not; some of those kept are torn.
	AnyOps
	// AnySectors keeps each sector of each operation or not.
	AnySectors
)

// Crash returns the file system as it is found after a power loss: a machine
// without processes, faults or plans, with the same capacity. From now on c
// returns ErrCrashed. Called again, it returns another outcome of the same
// crash.
func (c *FS) Crash(seed uint64) *FS { return c.CrashWith(seed, Mixed) }

// CrashWith is Crash with a choice of what is lost.
func (c *FS) CrashWith(seed uint64, m Mode) *FS {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down == ErrKilled {
		panic("crashfs: Crash of a killed process; the machine is what Kill returned")
	}
	c.down = ErrCrashed
	after := c.survivors(newRand(seed), m)
	if after.used > after.total {
		// More is taken than there is: space was reused whose release is lost,
		// which no disk allows. Then nothing is lost.
		all := c.survivors(newRand(seed), KeepAll)
		all.rng = after.rng
		return all
	}
	return after
}

// Kill returns the file system as the next process finds it after this one was
// killed: all that was written is there, synced or not. Handles are gone, and
// c returns ErrKilled. Faults and plans end.
func (c *FS) Kill() *FS {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down != nil {
		panic("crashfs: Kill of a machine that is already gone")
	}
	c.down = ErrKilled
	return c.duplicate(func(n *inode) {
		if n.stale && c.rng.IntN(2) == 0 {
			n.cur = replay(n.dur, n.ops, keepAll{}) // the pages were evicted
			n.stale = false
		}
	})
}

// Clone returns a machine in the same state: what is synced, what is not and
// the capacity, without handles, faults or plans. Files that have handles but
// no name are left out. c goes on as before.
func (c *FS) Clone() *FS {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.duplicate(func(*inode) {})
}

// successor returns an empty FS for what comes after c.
func (c *FS) successor() *FS {
	return &FS{
		rng:       rand.New(rand.NewPCG(c.rng.Uint64(), 1)),
		nextIno:   c.nextIno,
		total:     c.total,
		ops:       c.ops,
		fuse:      -1,
		onFailure: c.onFailure,
	}
}

// duplicate copies every inode that has a name, now or durably.
func (c *FS) duplicate(each func(copied *inode)) *FS {
	d := c.successor()
	made := make(map[*inode]*inode)
	var dup func(n *inode) *inode
	dup = func(n *inode) *inode {
		if n == nil || made[n] != nil {
			return made[n]
		}
		m := &inode{ino: n.ino, mtime: n.mtime, stale: n.stale, names: n.names}
		made[n] = m
		if !n.isDir() {
			m.cur, m.dur = n.cur.clone(), n.dur.clone()
			m.ops, m.opBytes = slices.Clip(n.ops), n.opBytes
			each(m)
			if m.names > 0 {
				d.used += m.cur.blocks
			}
			return m
		}
		m.kids = &kids{current: make(map[string]*inode), durable: make(map[string]*inode)}
		for _, name := range sortedNames(n.kids.current) {
			m.kids.current[name] = dup(n.kids.current[name])
		}
		for _, name := range sortedNames(n.kids.durable) {
			m.kids.durable[name] = dup(n.kids.durable[name])
		}
		return m
	}
	d.root = dup(c.root)
	for _, op := range c.pending {
		copied := &dirOp{}
		for _, e := range op.entries {
			copied.entries = append(copied.entries, entry{dup(e.dir), e.name, dup(e.n)})
		}
		d.pending = append(d.pending, copied)
	}
	return d
}

// survivors builds the file system that is found after a crash.
func (c *FS) survivors(rng *rand.Rand, m Mode) *FS {
	d := &FS{
		rng:       rng,
		nextIno:   c.nextIno,
		total:     c.total,
		ops:       c.ops,
		fuse:      -1,
		onFailure: c.onFailure,
	}
	entries := c.survivingEntries(rng, m)
	made := make(map[*inode]*inode)
	var build func(n *inode) *inode
	build = func(n *inode) *inode {
		if done := made[n]; done != nil {
			if n.isDir() {
				return nil // a directory has one name; a check of the disk drops the other
			}
			done.names++
			return done
		}
		s := &inode{ino: n.ino, mtime: n.mtime, names: 1}
		made[n] = s
		if !n.isDir() {
			s.dur = n.dur.clone()
			if len(n.ops) > 0 {
				s.dur = replay(s.dur, n.ops, newLoss(rng, m))
			}
			s.cur = s.dur.clone()
			d.used += s.cur.blocks
			return s
		}
		s.kids = &kids{current: make(map[string]*inode), durable: make(map[string]*inode)}
		kept := entries[n]
		if kept == nil {
			kept = n.kids.durable
		}
		for _, name := range sortedNames(kept) {
			if kid := build(kept[name]); kid != nil {
				s.kids.current[name] = kid
				s.kids.durable[name] = kid
			}
		}
		return s
	}
	d.root = build(c.root)
	return d
}

// survivingEntries returns the entries of those directories that had changes
// pending.
func (c *FS) survivingEntries(rng *rand.Rand, m Mode) map[*inode]map[string]*inode {
	if m == Mixed {
		m = []Mode{DropAll, KeepAll, Ordered, Ordered, AnyOps, AnyOps}[rng.IntN(6)]
	}
	odds := []float64{0.1, 0.5, 0.9}[rng.IntN(3)]
	journal := rng.IntN(2) == 0 // one order for all directories
	left := make(map[*inode]int)
	cut := rng.IntN(len(c.pending) + 1)
	result := make(map[*inode]map[string]*inode)
	count := make(map[*inode]int)
	for _, op := range c.pending {
		for _, e := range op.entries {
			count[e.dir]++
		}
	}
	for i, op := range c.pending {
		keep := true
		for _, e := range op.entries {
			if _, ok := result[e.dir]; !ok {
				kept := make(map[string]*inode, len(e.dir.kids.durable))
				for name, n := range e.dir.kids.durable {
					kept[name] = n
				}
				result[e.dir] = kept
				left[e.dir] = rng.IntN(count[e.dir] + 1)
			}
		}
		switch m {
		case DropAll:
			keep = false
		case Ordered:
			if journal {
				keep = i < cut
				break
			}
			for _, e := range op.entries {
				left[e.dir]--
				keep = keep && left[e.dir] >= 0
			}
			if !keep {
				for _, e := range op.entries {
					left[e.dir] = 0
				}
			}
		case AnyOps, AnySectors:
			keep = rng.Float64() < odds
		}
		if keep {
			for _, e := range op.entries {
				e.apply(result[e.dir])
			}
		}
	}
	return result
}

func sortedNames(m map[string]*inode) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.SortFunc(names, cmp.Compare[string])
	return names
}
