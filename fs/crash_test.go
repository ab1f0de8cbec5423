package fs

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"hearth/log"
	"hearth/log/disk/crashfs"
)

type ctxType = context.Context

func isAny(err error, targets ...error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}

// known turns an error that was to be expected into none.
func known(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

// crashRun is a drive on a machine that crashes, beside its model.
type crashRun struct {
	*crashfs.Run
	store *log.Store
	drive *Drive

	now   *model
	acked string            // the state some Sync acknowledged last
	since []string          // states after it, oldest first
	kept  map[uint64]string // versions that were acknowledged, by sequence number
}

func (c *crashRun) options() log.StoreOptions {
	return log.StoreOptions{FS: c.FS, Dir: "/drive", Machine: "m", Inline: true, Tiny: true}
}

func (c *crashRun) driveOptions() Options {
	// No timer: the workload says when, so that a seed replays.
	return Options{Store: c.store, NoIndex: true, Delay: time.Hour}
}

func (c *crashRun) create() error {
	var err error
	if c.store, err = log.CreateStore(c.options(), "test"); err != nil {
		return err
	}
	c.drive, err = Create(ctx, c.driveOptions(), me)
	return err
}

func (c *crashRun) open() error {
	var err error
	if c.store, err = log.OpenStore(c.options()); err != nil {
		return fmt.Errorf("opening the store: %w", err)
	}
	if c.drive, err = Open(ctx, c.driveOptions()); err != nil {
		return fmt.Errorf("opening the drive: %w", err)
	}
	return nil
}

// shut ends the process without asking what worked.
func (c *crashRun) shut() {
	if c.drive != nil {
		_ = c.drive.Close(ctx)
		c.drive = nil
	}
	if c.store != nil {
		_ = c.store.Close()
		c.store = nil
	}
}

func (c *crashRun) sync() error {
	if err := c.drive.Sync(ctx); err != nil {
		return err
	}
	c.acked, c.since = c.now.dump(), nil
	c.kept[c.drive.Newest().Seq] = c.acked
	return nil
}

// check compares the drive after a reopening with the states it may be in:
// the one acknowledged last, or any after it.
func (c *crashRun) check() error {
	got, err := dumpDrive(c.drive)
	if err != nil {
		return fmt.Errorf("reading the drive: %w", err)
	}
	ok := got == c.acked
	for _, s := range c.since {
		ok = ok || got == s
	}
	if !ok {
		return fmt.Errorf("%w: the drive is in no state it was ever in:\n%s\nacknowledged:\n%s\nlast:\n%s", errWrongState, got, c.acked, c.now.dump())
	}
	for seq, want := range c.kept {
		s, err := c.drive.At(ctx, Version{0, seq})
		if err != nil {
			return fmt.Errorf("%w: version %d: %w", errWrongState, seq, err)
		}
		got, err := dumpSnapshot(s)
		if err != nil {
			return fmt.Errorf("%w: version %d: %w", errWrongState, seq, err)
		}
		if got != want {
			return fmt.Errorf("%w: version %d reads\n%s\nit was\n%s", errWrongState, seq, got, want)
		}
	}
	return nil
}

var errWrongState = errors.New("wrong")

// broken reports whether an error is the machine's, not the drive's fault.
func broken(err error) bool {
	return isAny(err, crashfs.ErrCrashed, crashfs.ErrKilled, log.ErrPoisoned, syscall.EIO, syscall.ENOSPC, ErrNoSpace)
}

// crashWorkload works on a drive through crashes and reopenings.
func crashWorkload(r *crashfs.Run) error {
	c := &crashRun{Run: r, kept: map[uint64]string{}, now: newModel()}
	defer c.shut()
	if err := c.create(); err != nil {
		return err
	}
	c.acked = c.now.dump()
	for range 3 {
		r.Arm(crashfs.Plan{Crash: 120, Fault: []float64{0, 0.01}[r.Rand.IntN(2)]})
		if err := c.work(); err != nil {
			return err
		}
		// Whatever happened, the machine starts again.
		c.shut()
		r.Reboot()
		if err := c.open(); err != nil {
			return fmt.Errorf("%w: %w", errWrongState, err)
		}
		if err := c.check(); err != nil {
			return err
		}
		// Go on from what is there: the model becomes it.
		if err := c.adopt(); err != nil {
			return err
		}
	}
	return nil
}

// work does random things until the machine breaks or it is enough.
func (c *crashRun) work() error {
	for range 40 {
		var err error
		if c.Rand.IntN(6) == 0 {
			err = c.sync()
		} else {
			err = c.now.step(c.drive, c.Rand)
			c.since = append(c.since, c.now.dump())
		}
		switch {
		case err == nil:
		case broken(err):
			if isAny(err, crashfs.ErrCrashed, crashfs.ErrKilled, log.ErrPoisoned) {
				return nil
			}
		default:
			return fmt.Errorf("%w: %w", errWrongState, err)
		}
	}
	return nil
}

// adopt makes the model what the drive is now.
func (c *crashRun) adopt() error {
	m, err := modelOf(c.drive)
	if err != nil {
		return err
	}
	c.now = m
	c.acked, c.since = m.dump(), nil
	return nil
}

// modelOf reads a drive into a model.
func modelOf(d *Drive) (*model, error) {
	nodes := map[Ino]*mnode{}
	var load func(ino Ino) (*mnode, error)
	load = func(ino Ino) (*mnode, error) {
		if n := nodes[ino]; n != nil {
			return n, nil
		}
		a, err := d.Getattr(ctx, ino)
		if err != nil {
			return nil, err
		}
		n := &mnode{mode: a.Mode}
		nodes[ino] = n
		names, err := d.Listxattr(ctx, ino)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			v, err := d.Getxattr(ctx, ino, name)
			if err != nil {
				return nil, err
			}
			if n.xattrs == nil {
				n.xattrs = map[string]string{}
			}
			n.xattrs[name] = fmt.Sprint(len(v), ":", sum(v))
		}
		switch {
		case a.IsDir():
			n.children = map[string]*mnode{}
			var list []DirEntry
			if err := d.ReadDir(ctx, ino, "", func(e DirEntry) bool { list = append(list, e); return true }); err != nil {
				return nil, err
			}
			for _, e := range list {
				if n.children[e.Name], err = load(e.Ino); err != nil {
					return nil, err
				}
			}
		case a.Mode&ModeType == ModeSymlink:
			n.target, err = d.Readlink(ctx, ino)
		case a.Size > 0:
			f, err := d.Open(ctx, me, ino, false)
			if err != nil {
				return nil, err
			}
			defer f.Close()
			n.data = make([]byte, a.Size)
			if _, err := f.ReadAt(ctx, n.data, 0); err != nil {
				return nil, err
			}
		}
		return n, err
	}
	root, err := load(RootIno)
	return &model{root}, err
}

func TestCrashes(t *testing.T) {
	crashfs.Explore(t, 60, 1, crashWorkload)
}

// Without crashes and faults, a long run of the same operations, reopened now
// and then.
func TestModel(t *testing.T) {
	crashfs.Explore(t, 10, 2, func(r *crashfs.Run) error {
		c := &crashRun{Run: r, kept: map[uint64]string{}, now: newModel()}
		defer c.shut()
		if err := c.create(); err != nil {
			return err
		}
		c.acked = c.now.dump()
		for i := range 300 {
			if err := c.now.step(c.drive, c.Rand); err != nil {
				return fmt.Errorf("step %d: %w", i, err)
			}
			if i%20 == 19 {
				if err := c.sync(); err != nil {
					return err
				}
				if i%60 == 59 {
					if err := c.drive.Close(ctx); err != nil {
						return err
					}
					if err := c.store.Close(); err != nil {
						return err
					}
					if err := c.open(); err != nil {
						return err
					}
				}
				if err := c.check(); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
