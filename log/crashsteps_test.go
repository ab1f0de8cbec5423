package log_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"hearth/log"
	"hearth/log/seal"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
)

// work does n random things.
func (c *crasher) work(n int) error {
	for range n {
		if c.FS.Down() != nil || c.l.Health().Poisoned != nil {
			return nil
		}
		var err error
		switch c.Rand.IntN(20) {
		case 0, 1, 2, 3, 4, 5, 6, 7:
			err = c.append()
		case 8, 9, 10, 11, 12:
			err = c.commit(true)
		case 13:
			err = c.commit(false)
		case 14:
			err = c.control()
		case 15:
			err = c.settle()
		case 16:
			if err = c.drop(); err == nil && c.s != nil {
				err = c.addKey()
			}
		case 17:
			err = c.reclaim()
		default:
			err = c.look()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// block makes up a stored block: often small, sometimes large.
func (c *crasher) block() []byte {
	most := []int{100, 100, 1000, 1000, 5000, 5000, 20_000, seal.MaxStored}[c.Rand.IntN(8)]
	b := make([]byte, 1+c.Rand.IntN(most))
	fillRandom(c.Rand, b)
	return b
}

func fillRandom(rng *rand.Rand, b []byte) {
	seed := rng.Uint64()
	for i := range b {
		b[i] = byte(seed >> 56)
		seed = seed*6364136223846793005 + 1442695040888963407
	}
}

func (c *crasher) append() error {
	stored := c.block()
	put := c.l.Append
	if c.Rand.IntN(3) == 0 {
		put = c.l.AppendMeta
	}
	index, err := put(stored)
	c.Logf("append %d: %d, %v", len(stored), index, err)
	return c.appended(blockRecord(stored), index, err)
}

func (c *crasher) settle() error {
	var err error
	if c.s != nil {
		err = c.s.Settle()
	} else {
		err = c.l.Settle()
	}
	c.Logf("settle: %v", err)
	return c.tolerate(err)
}

// addKey begins a key epoch for sealing, now and then.
func (c *crasher) addKey() error {
	if c.Rand.IntN(3) > 0 {
		return nil
	}
	epoch := uint32(len(c.m.keys) + 1)
	key := [32]byte{byte(epoch), byte(c.Rand.IntN(256))}
	err := c.s.AddReadKey(epoch, key)
	c.Logf("key %d: %v", epoch, err)
	if err != nil {
		return c.tolerate(err)
	}
	c.m.keys = append(c.m.keys, key)
	return nil
}

// control appends a control entry: news of what was dropped, or any other.
func (c *crasher) control() error {
	c.epochs++
	var e log.Control = &log.EpochBegun{Epoch: c.epochs}
	if set := c.m.dropped(); c.Rand.IntN(2) == 0 && !set.IsEmpty() {
		e = &log.Dropped{Set: set}
	}
	stored, err := log.EncodeControl(e)
	if err != nil {
		return err
	}
	index, err := c.l.AppendControl(e)
	c.Logf("control: %d, %v", index, err)
	return c.appended(controlRecord(stored), index, err)
}

// drop drops a random range of blocks, or random ones.
func (c *crasher) drop() error {
	n := c.Rand.IntN(len(c.m.acked) + 1)
	set := roaring64.New()
	odds := []int{1, 1, 2, 10}[c.Rand.IntN(4)]
	for i := c.Rand.IntN(n + 1); i < n-1; i++ {
		if !c.m.acked[i].control && c.Rand.IntN(odds) == 0 {
			set.Add(uint64(i))
		}
	}
	err := c.l.Drop(context.Background(), set)
	c.Logf("drop %v: %v", set.GetCardinality(), err)
	if err == nil {
		c.m.drops.Or(set)
		return nil
	}
	c.m.mayDrop.Or(set)
	return c.tolerate(err)
}

// reclaim frees the space of what was dropped.
func (c *crasher) reclaim() error {
	var freed int64
	var err error
	if c.l.Size() == c.l.Head().Size && c.Rand.IntN(2) == 0 {
		freed, err = c.l.Erase(context.Background())
		c.Logf("erase: %d, %v", freed, err)
	} else {
		freed, err = c.l.Reclaim(context.Background(), int64(c.Rand.IntN(2))<<20)
		c.Logf("reclaim: %d, %v", freed, err)
	}
	return c.tolerate(err)
}

// tolerate passes over errors that the disk explains.
func (c *crasher) tolerate(err error) error {
	if c.fault > 0 || c.read > 0 || injected(err) || errors.Is(err, log.ErrPoisoned) {
		return nil
	}
	return err
}

// appended takes note of what an append says.
func (c *crasher) appended(r record, index uint64, err error) error {
	next := uint64(len(c.m.acked) + len(c.m.tail))
	if err != nil {
		return c.refused(next, err)
	}
	if index != next {
		return fmt.Errorf("appended at %d, expected %d", index, next)
	}
	c.m.tail = append(c.m.tail, r)
	return nil
}

// refused checks a call that failed: unless the log is poisoned, nothing
// happened, and it was the disk.
func (c *crasher) refused(next uint64, err error) error {
	if errors.Is(err, log.ErrPoisoned) || c.FS.Down() != nil {
		return nil
	}
	if !injected(err) {
		return err
	}
	if c.l.Size() != next {
		return fmt.Errorf("a call failed, and the log went from %d to %d entries: %w", next, c.l.Size(), err)
	}
	return nil
}

func (c *crasher) commit(sync bool) error {
	r := blockRecord(c.block())
	index, head, err := c.l.Commit(r.stored, sync)
	c.Logf("commit %d, %v: %d, head %d, %v", len(r.stored), sync, index, head.Size, err)
	if !sync {
		return c.appended(r, index, err)
	}
	entries := append(c.m.tail[:len(c.m.tail):len(c.m.tail)], r)
	if err != nil {
		clean := !errors.Is(err, log.ErrPoisoned) && c.FS.Down() == nil
		c.m.tries = append(c.m.tries, try{entries: entries, clean: clean, losses: c.m.losses})
		return c.refused(uint64(len(c.m.acked)+len(c.m.tail)), err)
	}
	c.m.acked = append(c.m.acked[:len(c.m.acked):len(c.m.acked)], entries...)
	c.m.tail, c.m.tries = nil, nil
	if head.Size != uint64(len(c.m.acked)) || index != head.Size-1 {
		return fmt.Errorf("commit %d with a head of %d, expected %d", index, head.Size, len(c.m.acked))
	}
	if head.Root != rootOf(c.m.acked) {
		return fmt.Errorf("the root of %d entries is not theirs", head.Size)
	}
	c.m.heads = append(c.m.heads, head)
	return nil
}

// look reads an entry of the running log.
func (c *crasher) look() error {
	all := append(c.m.acked[:len(c.m.acked):len(c.m.acked)], c.m.tail...)
	if len(all) == 0 {
		return nil
	}
	index := c.Rand.IntN(len(all))
	return c.readEntry(c.l, all, index, c.read > 0 || c.FS.Down() != nil)
}

// readEntry checks an entry. With shaky, it may be that it cannot be read.
func (c *crasher) readEntry(l *log.Log, all []record, index int, shaky bool) error {
	got, err := l.ReadStored(nil, uint64(index))
	dropped, maybe := c.m.drops.Contains(uint64(index)), c.m.mayDrop.Contains(uint64(index))
	switch {
	case errors.Is(err, log.ErrDropped) && (dropped || maybe):
	case err != nil && shaky:
		return nil
	case err != nil:
		return fmt.Errorf("reading %d of %d: %w", index, len(all), err)
	case dropped:
		return fmt.Errorf("entry %d of %d was dropped and can be read", index, len(all))
	case !bytes.Equal(got, all[index].stored):
		return fmt.Errorf("entry %d of %d reads as another", index, len(all))
	}
	if all[index].control {
		return nil
	}
	d, err := l.Descriptor(uint64(index))
	if err == nil && d != log.Describe(all[index].stored) {
		return fmt.Errorf("the descriptor of entry %d is another's", index)
	}
	if err != nil && !shaky {
		return fmt.Errorf("descriptor %d of %d: %w", index, len(all), err)
	}
	return nil
}
