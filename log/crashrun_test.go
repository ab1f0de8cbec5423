package log_test

import (
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
			if err := c.episode(); err != nil {
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

// episode opens the log and works on it while things fail, until the machine
// or the process ends.
func (c *crasher) episode() error {
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
		if c.Rand.IntN(3) == 0 {
			break // the process ends without closing it
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
			crashfs.Explore(t, 25, 1, crashRuns(cc))
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
