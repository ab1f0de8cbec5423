package log

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"hearth/log/disk/crashfs"
)

// TestReplicaCrashes crashes the machine, or the process, while a replica is
// filled, with operations of the disk that fail. What was settled is there, what
// is there is what was added, and nothing of it is damaged. What was evicted may
// come back, whole.
func TestReplicaCrashes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	a := newAuthor(t, filepath.Join(t.TempDir(), "a"))
	defer a.Close()
	// The head that follows each one.
	proofs := map[uint64]HeadProof{}
	for _, n := range []int{1, 300, 5, 1500, 40} {
		size := a.Head().Size
		a.grow(t, r, n)
		p, err := a.ProveHead(size)
		if err != nil {
			t.Fatal(err)
		}
		proofs[size] = p
	}
	crashfs.Explore(t, 60, 1, func(run *crashfs.Run) error {
		c := &replicaRun{Run: run, a: a, proofs: proofs, settled: map[uint64]bool{}}
		for range 4 {
			if err := c.life(); err != nil {
				return err
			}
		}
		return nil
	})
}

type replicaRun struct {
	*crashfs.Run
	a       *author
	proofs  map[uint64]HeadProof
	l       *Log
	known   Head // that the store remembers
	settled map[uint64]bool
	wrong   error
}

// life is from one opening to the next crash.
func (c *replicaRun) life() error {
	if err := c.open(); err != nil {
		return fmt.Errorf("opening: %w", err)
	}
	if err := c.check(); err != nil {
		return err
	}
	c.Arm(crashfs.Plan{Crash: 150, Fault: 0.01})
	for range 40 {
		if err := c.step(); err != nil {
			break
		}
	}
	err := c.l.Close()
	c.Logf("closed: %v", err)
	c.Reboot()
	return c.wrong
}

func (c *replicaRun) open() (err error) {
	o := replicaOptions(c.a, "/r")
	o.FS, o.Inline, o.Known = c.FS, true, c.known
	there, err := isReplica(c.FS, "/r")
	if err != nil {
		return err
	}
	if there {
		c.l, err = openReplica(o)
	} else {
		if len(c.settled) > 0 {
			return errors.New("the replica is gone")
		}
		c.l, err = createReplica(o)
	}
	return err
}

func (c *replicaRun) step() error {
	l := c.l
	switch c.Rand.IntN(8) {
	case 0:
		p, ok := c.proofs[l.Known().Size]
		if !ok {
			return nil
		}
		_, err := l.Advance(p)
		return err
	case 1:
		var now []uint64
		for i := range l.Size() {
			if l.Holds(i) {
				now = append(now, i)
			}
		}
		if err := l.Settle(); err != nil {
			return err
		}
		c.known = l.Head()
		for _, i := range now {
			c.settled[i] = true
		}
		return nil
	case 2:
		if l.Size() == 0 {
			return nil
		}
		// Whether or not it succeeds, the blocks may be gone from here on.
		set := someOf(rand.New(rand.NewPCG(c.Rand.Uint64(), 0)), l.Size())
		for i := range c.settled {
			if set.Contains(i) && !c.a.control[i] {
				delete(c.settled, i)
			}
		}
		before := l.Head()
		if _, err := l.Evict(context.Background(), set); err != nil {
			return err
		}
		c.known = before
		for i := range l.Size() {
			if set.Contains(i) && !c.a.control[i] && l.Holds(i) {
				c.wrong = fmt.Errorf("entry %d was evicted and is here", i)
			}
		}
		return nil
	case 3:
		if l.Size() == 0 {
			return nil
		}
		first := c.Rand.Uint64N(l.Size())
		for i := first; i < min(first+200, l.Size()); i++ {
			if err := c.a.send(l, i); err != nil {
				return err
			}
		}
		return nil
	}
	if l.Head().Size == 0 {
		return nil
	}
	for range 1 + c.Rand.IntN(10) {
		if err := c.a.send(l, c.Rand.Uint64N(l.Head().Size)); err != nil {
			return err
		}
	}
	return nil
}

func (c *replicaRun) check() error {
	l := c.l
	if l.Head().Size < c.known.Size {
		return fmt.Errorf("the head has %d entries, and %d were settled", l.Head().Size, c.known.Size)
	}
	for i := range c.settled {
		if !l.Holds(i) {
			return fmt.Errorf("entry %d was settled and is gone", i)
		}
	}
	for i := range l.Size() {
		b, err := l.ReadStored(nil, i)
		switch {
		case errors.Is(err, ErrMissing) && !l.Holds(i):
		case err != nil:
			return fmt.Errorf("entry %d: %w", i, err)
		case !bytes.Equal(b, c.a.entries[i]):
			return fmt.Errorf("entry %d is another one", i)
		}
	}
	var damage error
	err := l.Verify(context.Background(), func(d Damage) { damage = errors.New(d.String()) }, nil)
	return errors.Join(err, damage)
}
