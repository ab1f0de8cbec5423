package log_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"hearth/log"
	"hearth/log/disk"
	"hearth/log/disk/crashfs"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
)

// crowd is a run in which several goroutines use one log. Which of them is
// first at the disk is not ours to choose, so its seeds do not replay exactly.
type crowd struct {
	*crashfs.Run
	l     *log.Log
	fault float64

	mu      sync.Mutex
	put     map[uint64][]byte // what was appended, by index
	commits map[string]bool   // blocks of synced commits that were tried
	heads   []log.Head
	drops   *roaring64.Bitmap // perhaps dropped
}

// block makes up a block that no other is equal to.
func (c *crowd) block(rng *rand.Rand, who int, n uint64) []byte {
	b := make([]byte, 16+rng.IntN([]int{50, 500, 5000, 40_000}[rng.IntN(4)]))
	binary.LittleEndian.PutUint64(b, uint64(who))
	binary.LittleEndian.PutUint64(b[8:], n)
	fillRandom(rng, b[16:])
	return b
}

// crowdOptions are for a log that works in the background, too.
func crowdOptions(d disk.FS) log.Options {
	o := crashOptions(d)
	o.Inline = false
	return o
}

// over reports whether an error ends the work of the crowd.
func over(err error) bool {
	return errors.Is(err, crashfs.ErrCrashed) || errors.Is(err, log.ErrPoisoned)
}

func (c *crowd) appender(who int, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, uint64(who)))
	for n := range uint64(300) {
		b := c.block(rng, who, n)
		index, err := c.l.Append(b)
		if err != nil {
			return err
		}
		c.mu.Lock()
		other, taken := c.put[index]
		c.put[index] = b
		c.mu.Unlock()
		if taken {
			return fmt.Errorf("two blocks at %d, of %d and %d bytes", index, len(other), len(b))
		}
		got, err := c.l.ReadStored(nil, index)
		if err == nil && !bytes.Equal(got, b) {
			return fmt.Errorf("block %d reads as another right after it was appended", index)
		}
		// A sync that fails, perhaps of somebody else, takes from the file
		// what was not durable.
		if err != nil && c.fault == 0 && c.FS.Down() == nil && !errors.Is(err, log.ErrDropped) {
			return err
		}
	}
	return nil
}

func (c *crowd) committer(who int, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, uint64(who)))
	for n := range uint64(100) {
		b := c.block(rng, who, n)
		c.mu.Lock()
		c.commits[string(b)] = true
		c.mu.Unlock()
		index, head, err := c.l.Commit(b, true)
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.put[index] = b
		c.heads = append(c.heads, head)
		c.mu.Unlock()
		if head.Size != index+1 {
			return fmt.Errorf("commit %d with a head of %d", index, head.Size)
		}
	}
	return nil
}

func (c *crowd) sweeper(seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 20 {
		size := c.l.Head().Size
		set := roaring64.New()
		for range size / 4 {
			if i := rng.Uint64N(size); i != size-1 {
				set.Add(i)
			}
		}
		c.mu.Lock()
		c.drops.Or(set)
		c.mu.Unlock()
		err := c.l.Drop(context.Background(), set)
		if err == nil {
			_, err = c.l.Reclaim(context.Background(), 0)
		}
		if err != nil && c.fault > 0 {
			return nil // the disk explains it
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// check opens what is on the disk and compares.
func (c *crowd) check() error {
	l, err := log.OpenLog(crowdOptions(c.FS))
	if err != nil {
		return fmt.Errorf("opening: %w", err)
	}
	head := l.Head()
	for _, h := range c.heads {
		if h.Size > head.Size {
			return fmt.Errorf("rolled back: a head of %d was shown, now there are %d", h.Size, head.Size)
		}
		root, err := l.Root(h.Size)
		if err != nil {
			return err
		}
		if root != h.Root {
			return fmt.Errorf("forked: the root of %d entries is not the one that was shown", h.Size)
		}
	}
	for i := range head.Size {
		got, err := l.ReadStored(nil, i)
		want, known := c.put[i]
		switch {
		case errors.Is(err, log.ErrDropped) && c.drops.Contains(i):
			continue
		case err != nil:
			return err
		case known && !bytes.Equal(got, want):
			return fmt.Errorf("block %d of %d reads as another", i, head.Size)
		case i == head.Size-1 && !c.commits[string(got)]:
			return fmt.Errorf("the last of %d entries is no commit", head.Size)
		}
		c.put[i] = got
	}
	for i := range c.put {
		if i >= head.Size {
			delete(c.put, i)
		}
	}
	if head.Size > 0 {
		c.heads = append(c.heads, head)
	}
	c.l = l
	return nil
}

func (c *crowd) episode() error {
	c.fault = []float64{0, 0.003}[c.Rand.IntN(2)]
	c.Arm(crashfs.Plan{Crash: 600, Fault: c.fault})
	c.FS.SetCapacity(c.FS.Used() + 1<<20 + c.Rand.Int64N(64<<20))
	seed := c.Rand.Uint64()
	work := []func() error{
		func() error { return c.appender(1, seed) },
		func() error { return c.appender(2, seed) },
		func() error { return c.committer(3, seed) },
		func() error { return c.committer(4, seed) },
		func() error { return c.sweeper(seed) },
	}
	errs := make([]error, len(work))
	var wg sync.WaitGroup
	for i, f := range work {
		wg.Go(func() { errs[i] = f() })
	}
	wg.Wait()
	_ = c.l.Close() // of a log on a machine that may be down
	for _, err := range errs {
		if err != nil && !over(err) && c.FS.Down() == nil && !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.ENOSPC) {
			return err
		}
	}
	c.PowerLoss()
	c.FS.SetCapacity(crashfs.DefaultCapacity)
	return c.check()
}

func TestRandomCrashesInACrowd(t *testing.T) {
	crashfs.Explore(t, 20, 1, func(r *crashfs.Run) error {
		c := &crowd{Run: r, put: make(map[uint64][]byte), commits: make(map[string]bool), drops: roaring64.New()}
		if err := r.FS.MkdirAll(crashDir); err != nil {
			return err
		}
		r.FS.SyncAll()
		l, err := log.CreateLog(crowdOptions(r.FS))
		if err != nil {
			return err
		}
		c.l = l
		for round := range 3 {
			if err := c.episode(); err != nil {
				return fmt.Errorf("round %d: %w", round, err)
			}
		}
		return nil
	})
}
