package log_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
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
	reserve int64 // capacity of the disk beyond what is in use; 0: plenty
	fault   float64
	read    float64
	keep    bool // failed syncs keep the cache
	store   bool // a whole store rather than one log
	mutate  func(*crashfs.Mutant)
}

// crasher is one run.
type crasher struct {
	crashCase
	*crashfs.Run
	m      crashModel
	l      *log.Log
	s      *log.Store // that l belongs to, if the case is of a store
	epochs uint32
	// created: creating the log returned nil, so it is there whatever happens
	created bool
	id      string // of the store
}

// disk returns the disk as the log is to see it.
func (c *crasher) disk() disk.FS {
	if c.mutate == nil {
		return c.FS
	}
	m := &crashfs.Mutant{FS: c.FS}
	c.mutate(m)
	return m
}

func crashOptions(d disk.FS) log.Options {
	return log.Options{
		FS: d, Dir: crashDir, Signer: crashSigner, Inline: true, Tiny: true,
		Reserve: "/drive/reserve", Logger: quiet,
	}
}

func storeOptions(d disk.FS, seed uint64) log.StoreOptions {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return log.StoreOptions{
		FS: d, Dir: "/drive", Machine: "here", Inline: true, Tiny: true, Logger: quiet,
		Random: rand.NewChaCha8(key),
	}
}

var quiet = slog.New(slog.DiscardHandler)

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
	if err := c.FS.MkdirAll("/drive"); err != nil {
		return err
	}
	c.FS.SyncAll()
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
		c.close()
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
		if c.created {
			c.l, c.s, err = c.openOn(c.disk())
		} else {
			c.l, c.s, err = c.create()
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

// openOn opens what was created.
func (c *crasher) openOn(d disk.FS) (*log.Log, *log.Store, error) {
	if !c.store {
		l, err := log.OpenLog(crashOptions(d))
		return l, nil, err
	}
	s, err := log.OpenStore(storeOptions(d, c.Seed))
	if err != nil {
		return nil, nil, err
	}
	switch {
	case s.ID() != c.id:
		err = fmt.Errorf("the drive %s is now %s", c.id, s.ID())
	case s.Copied():
		err = errors.New("the store says that it was copied")
	case len(s.Forks()) > 0:
		err = errors.New("the store says that a log has forked")
	}
	return s.Own(), s, err
}

// create creates the log or store. What a creation that was cut short left is
// removed.
func (c *crasher) create() (*log.Log, *log.Store, error) {
	if err := c.FS.RemoveAll("/drive"); err != nil {
		return nil, nil, err
	}
	if c.store {
		s, err := log.CreateStore(storeOptions(c.disk(), c.Seed), "home")
		if err != nil {
			return nil, nil, err
		}
		c.created, c.id = true, s.ID()
		return s.Own(), s, c.m.begins(s.Own())
	}
	if err := c.FS.MkdirAll(crashDir); err != nil {
		return nil, nil, err
	}
	if err := c.FS.SyncDir("/"); err != nil {
		return nil, nil, err
	}
	l, err := log.CreateLog(crashOptions(c.disk()))
	c.created = err == nil
	return l, nil, err
}

func (c *crasher) close() {
	var err error
	if c.s != nil {
		err = c.s.Close()
	} else {
		err = c.l.Close()
	}
	c.Logf("close: %v", err)
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

// inspect opens a copy of what is on the disk and reads all of it.
func (c *crasher) inspect() error {
	if !c.created {
		return nil
	}
	l, s, err := c.openOn(c.FS.Clone())
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
	var why error
	for i := range entries {
		if err := c.readEntry(l, entries, i, false); err != nil {
			return err
		}
	}
	err = l.Verify(context.Background(), func(d log.Damage) {
		if why == nil {
			why = fmt.Errorf("damage without rot: %v", d)
		}
	}, nil)
	if err = errors.Join(err, why); err != nil {
		return fmt.Errorf("verifying: %w", err)
	}
	for _, d := range l.Health().Damage {
		if d.Index != log.NoEntry {
			return fmt.Errorf("damage without rot: %v", d)
		}
		c.Logf("health: %v", d)
	}
	if s != nil {
		return errors.Join(c.m.hasKeys(s), s.Close())
	}
	return l.Close()
}

// TestRandomCrashes is the crash test of the log: HEARTH_CRASHES sets the
// number of runs of each case, of about four crashes each.
func TestRandomCrashes(t *testing.T) {
	for name, cc := range map[string]crashCase{
		"power":        {},
		"faults":       {fault: 0.02},
		"stale cache":  {fault: 0.05, keep: true},
		"read faults":  {fault: 0.01, read: 0.01},
		"full":         {reserve: 600 << 10},
		"full, faults": {reserve: 600 << 10, fault: 0.02},
		"store":        {store: true},
		"store, all":   {store: true, reserve: 2 << 20, fault: 0.02, read: 0.001},
	} {
		t.Run(name, func(t *testing.T) {
			crashfs.Explore(t, 40, 1, crashRuns(cc))
		})
	}
}

// TestRandomCrashesNotice breaks promises of the disk: a harness that does not
// notice would not notice a log that forgets to ask for them.
func TestRandomCrashesNotice(t *testing.T) {
	for name, cc := range map[string]crashCase{
		"no datasync":       {mutate: func(m *crashfs.Mutant) { m.NoDatasync = true }},
		"no datasync, seg":  {mutate: func(m *crashfs.Mutant) { m.NoDatasync, m.Only = true, []string{"/seg/"} }},
		"late datasync":     {mutate: func(m *crashfs.Mutant) { m.LateDatasync, m.Only = true, []string{"/seg/"} }},
		"no syncdir":        {mutate: func(m *crashfs.Mutant) { m.NoSyncDir = true }},
		"no syncdir, seg":   {mutate: func(m *crashfs.Mutant) { m.NoSyncDir, m.Only = true, []string{"/seg"} }},
		"no rewrite":        {fault: 0.05, keep: true, mutate: func(m *crashfs.Mutant) { m.NoRewrite = true }},
		"torn files":        {mutate: func(m *crashfs.Mutant) { m.TornWriteFile = true }},
		"torn files, store": {store: true, mutate: func(m *crashfs.Mutant) { m.TornWriteFile = true }},
		"no syncdir, store": {store: true, mutate: func(m *crashfs.Mutant) { m.NoSyncDir = true }},
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
