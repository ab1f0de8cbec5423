package log_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"hearth/log"
	"hearth/log/disk"
	"hearth/log/disk/crashfs"
	"hearth/log/seal"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
)

const crashDir = "/drive/log-0000"

var crashSigner = log.NewSigner([32]byte{42})

// crashCase is what a crash test varies.
type crashCase struct {
	reserve  int64 // capacity of the disk beyond what is in use; 0: plenty
	fault    float64
	read     float64
	keep     bool // failed syncs keep the cache
	rollover bool // begin close to the end of a segment
	mutate   func(*crashfs.Mutant)
}

// crasher is one run.
type crasher struct {
	crashCase
	*crashfs.Run
	m      crashModel
	base   int // entries that were there from the start; few of them are read again
	l      *log.Log
	epochs uint32
}

func (c *crasher) options() log.Options {
	var d disk.FS = c.FS
	if c.mutate != nil {
		m := &crashfs.Mutant{FS: c.FS}
		c.mutate(m)
		d = m
	}
	return crashOptions(d)
}

func crashOptions(d disk.FS) log.Options {
	return log.Options{
		FS: d, Dir: crashDir, Signer: crashSigner, Inline: true,
		Reserve: "/drive/reserve",
		Logger:  slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

// crashRuns returns the workload of one case.
func crashRuns(cc crashCase) func(*crashfs.Run) error {
	return func(r *crashfs.Run) error {
		c := &crasher{crashCase: cc, Run: r}
		if err := c.prepare(); err != nil {
			return err
		}
		for round := range 2 + c.Rand.IntN(4) {
			if err := c.session(); err != nil {
				return fmt.Errorf("round %d: %w", round, err)
			}
			if err := c.inspect(); err != nil {
				return fmt.Errorf("after round %d: %w", round, err)
			}
		}
		return nil
	}
}

func (c *crasher) prepare() error {
	c.m.drops, c.m.mayDrop = roaring64.New(), roaring64.New()
	if c.rollover {
		base := rolloverBase()
		c.Start(base.disk)
		c.m.acked, c.m.heads = base.m.acked, base.m.heads
		c.base = len(base.m.acked)
	} else {
		if err := c.FS.MkdirAll("/drive"); err != nil {
			return err
		}
		c.FS.SyncAll()
	}
	if c.keep {
		c.FS.SetSyncFailure(crashfs.KeepCache)
	}
	return nil
}

// session opens the log and works on it while things fail, until the machine
// or the process ends.
func (c *crasher) session() error {
	plan := crashfs.Plan{Crash: []int{20, 100, 400}[c.Rand.IntN(3)], ReadFault: c.read}
	if c.Rand.IntN(2) == 0 {
		plan.Fault = c.fault
	}
	if c.Rand.IntN(8) == 0 {
		plan.Crash = 0
	}
	c.Arm(plan)
	if c.reserve > 0 {
		c.FS.SetCapacity(c.FS.Used() + c.Rand.Int64N(c.reserve))
	}
	for range 1 + c.Rand.IntN(3) {
		if err := c.open(); err != nil {
			return err
		}
		if c.l == nil {
			break
		}
		if err := c.work(10 + c.Rand.IntN(60)); err != nil {
			return err
		}
		if c.Rand.IntN(3) == 0 && c.reserve > 0 {
			c.FS.SetCapacity(crashfs.DefaultCapacity)
		}
		err := c.l.Close()
		c.Logf("close: %v", err)
	}
	if c.FS.Down() == nil && c.Rand.IntN(3) == 0 {
		c.Kill()
	} else {
		c.PowerLoss()
		c.m.losses++
	}
	c.FS.SetCapacity(crashfs.DefaultCapacity)
	return nil
}

// open opens the log, creating it if it never was. It tries again when it
// meets a fault; c.l is nil if the machine is down or faults go on.
func (c *crasher) open() (err error) {
	c.l = nil
	for range 10 {
		if c.FS.Down() != nil {
			return nil
		}
		if len(c.m.heads) == 0 {
			c.l, err = c.createOrOpen()
		} else {
			c.l, err = log.OpenLog(c.options())
		}
		c.Logf("open: %v", err)
		if err == nil {
			return c.m.shown(c.l)
		}
		if !injected(err) {
			return fmt.Errorf("opening: %w", err)
		}
	}
	return nil
}

// createOrOpen is for a log of which nothing was ever acknowledged: what a
// creation that was cut short left is replaced.
func (c *crasher) createOrOpen() (*log.Log, error) {
	l, err := log.OpenLog(c.options())
	if err == nil || injected(err) {
		return l, err
	}
	if err := c.FS.RemoveAll(crashDir); err != nil {
		return nil, err
	}
	if err := c.FS.MkdirAll(crashDir); err != nil {
		return nil, err
	}
	return log.CreateLog(c.options())
}

// injected reports whether an error comes from the disk.
func injected(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, crashfs.ErrCrashed)
}

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
			err = c.l.Settle()
			c.Logf("settle: %v", err)
			err = c.tolerate(err)
		case 16:
			err = c.drop()
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
	most := []int{100, 1000, 5000, 70_000, seal.MaxStored}[c.Rand.IntN(5)]
	if c.rollover && c.Rand.IntN(3) == 0 {
		most = seal.MaxStored
	}
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
	return c.appended(record{stored: stored}, index, err)
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
	return c.appended(record{stored: stored, control: true}, index, err)
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
// happened, and that must be for want of space.
func (c *crasher) refused(next uint64, err error) error {
	if errors.Is(err, log.ErrPoisoned) || c.FS.Down() != nil {
		return nil
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("failed without poisoning the log: %w", err)
	}
	if c.l.Size() != next {
		return fmt.Errorf("on a full disk the log went from %d to %d entries", next, c.l.Size())
	}
	return nil
}

func (c *crasher) commit(sync bool) error {
	r := record{stored: c.block()}
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

// inspect opens a copy of what is on the disk and reads all of it.
func (c *crasher) inspect() error {
	if len(c.m.heads) == 0 {
		return nil
	}
	l, err := log.OpenLog(crashOptions(c.FS.Clone()))
	if err != nil {
		return fmt.Errorf("opening: %w", err)
	}
	entries, err := c.m.match(l)
	if err != nil {
		return err
	}
	if err := c.m.consistent(l); err != nil {
		return err
	}
	for i := range entries {
		if i < c.base && c.Rand.IntN(50) > 0 {
			continue
		}
		if err := c.readEntry(l, entries, i, false); err != nil {
			return err
		}
	}
	if c.base == 0 || c.Rand.IntN(10) == 0 {
		err := l.Verify(context.Background(), func(d log.Damage) {
			if err == nil {
				err = fmt.Errorf("damage without rot: %v", d)
			}
		}, nil)
		if err != nil {
			return fmt.Errorf("verifying: %w", err)
		}
	}
	for _, d := range l.Health().Damage {
		if d.Index != log.NoEntry {
			return fmt.Errorf("damage without rot: %v", d)
		}
		c.Logf("health: %v", d)
	}
	return l.Close()
}

// rolloverBase is a log whose tail is almost full, made once.
var rolloverBase = sync.OnceValue(func() (base struct {
	disk *crashfs.FS
	m    crashModel
}) {
	base.disk = crashfs.New(1)
	must(base.disk.MkdirAll("/drive"))
	l, err := log.CreateLog(crashOptions(base.disk))
	must(err)
	rng := rand.New(rand.NewPCG(1, 1))
	const segment = 64 << 20
	for sum := 0; sum < segment-900<<10; {
		r := record{stored: make([]byte, seal.MaxStored)}
		fillRandom(rng, r.stored)
		_, err := l.Append(r.stored)
		must(err)
		base.m.acked = append(base.m.acked, r)
		sum += len(r.stored)
	}
	r := record{stored: []byte("commit")}
	_, head, err := l.Commit(r.stored, true)
	must(err)
	base.m.acked = append(base.m.acked, r)
	base.m.heads = append(base.m.heads, head)
	must(l.Close())
	base.disk.SyncAll()
	return base
})

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func TestCrash(t *testing.T) {
	for name, cc := range map[string]crashCase{
		"power":     {},
		"faults":    {fault: 0.02},
		"stale":     {fault: 0.05, keep: true},
		"reads":     {fault: 0.01, read: 0.01},
		"full":      {reserve: 10 << 20},
		"full/eio":  {reserve: 10 << 20, fault: 0.02},
		"rollover":  {rollover: true},
		"rollover2": {rollover: true, fault: 0.03},
	} {
		t.Run(name, func(t *testing.T) {
			crashfs.Explore(t, 50, 1, crashRuns(cc))
		})
	}
}

// TestCrashNotices breaks promises of the disk: a harness that does not notice
// would not notice a log that forgets to ask for them.
func TestCrashNotices(t *testing.T) {
	for name, cc := range map[string]crashCase{
		"no datasync":          {mutate: func(m *crashfs.Mutant) { m.NoDatasync = true }},
		"no datasync, seg":     {mutate: func(m *crashfs.Mutant) { m.NoDatasync, m.Only = true, []string{"/seg/"} }},
		"late datasync":        {mutate: func(m *crashfs.Mutant) { m.LateDatasync, m.Only = true, []string{"/seg/"} }},
		"no syncdir":           {mutate: func(m *crashfs.Mutant) { m.NoSyncDir = true }},
		"no syncdir, rollover": {rollover: true, mutate: func(m *crashfs.Mutant) { m.NoSyncDir = true }},
		"no rewrite":           {fault: 0.05, keep: true, mutate: func(m *crashfs.Mutant) { m.NoRewrite = true }},
	} {
		t.Run(name, func(t *testing.T) {
			f := crashfs.Search(500, 1, crashRuns(cc))
			if f == nil {
				t.Fatal("not noticed in 500 runs")
			}
			t.Logf("noticed in run %d: %v", f.Index, f.Err)
		})
	}
}
