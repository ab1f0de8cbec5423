package fs

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"hearth/fs/tree"
	"hearth/log"
	"hearth/log/disk/crashfs"
	"hearth/log/seal"
)

// sweepRun is a drive that is swept at random while things happen to it.
type sweepRun struct {
	*crashfs.Run
	store *log.Store
	drive *Drive
	now   *model
	clock time.Time
	reads map[uint64]string // what each version shows
}

func newSweepRun(r *crashfs.Run) *sweepRun {
	return &sweepRun{Run: r, now: newModel(), clock: time.Unix(1_800_000_000, 0), reads: map[uint64]string{}}
}

func (c *sweepRun) storeOptions() log.StoreOptions {
	return log.StoreOptions{FS: c.FS, Dir: "/drive", Machine: "m", Inline: true, Tiny: true}
}

func (c *sweepRun) driveOptions() Options {
	return Options{Store: c.store, NoIndex: true, Delay: time.Hour, Clock: func() time.Time { return c.clock }}
}

func (c *sweepRun) create() error {
	var err error
	if c.store, err = log.CreateStore(c.storeOptions(), "test"); err != nil {
		return err
	}
	c.drive, err = Create(ctx, c.driveOptions(), me)
	return err
}

func (c *sweepRun) open() error {
	var err error
	if c.store, err = log.OpenStore(c.storeOptions()); err != nil {
		return fmt.Errorf("opening the store: %w", err)
	}
	if c.drive, err = Open(ctx, c.driveOptions()); err != nil {
		return fmt.Errorf("opening the drive: %w", err)
	}
	return nil
}

func (c *sweepRun) shut() {
	if c.drive != nil {
		_ = c.drive.Close(ctx)
		c.drive = nil
	}
	if c.store != nil {
		_ = c.store.Close()
		c.store = nil
	}
}

// versions lists the versions there are.
func (c *sweepRun) versions() ([]uint64, error) {
	u, err := c.drive.BeginUpkeep(ctx)
	if err != nil {
		return nil, err
	}
	defer u.End()
	var out []uint64
	for _, v := range u.Versions() {
		out = append(out, v.Version.Seq)
	}
	return out, nil
}

// look reads every version, and compares those that were read before.
func (c *sweepRun) look() error {
	seqs, err := c.versions()
	if err != nil {
		return err
	}
	for _, seq := range seqs {
		s, err := c.drive.At(ctx, Version{0, seq})
		if err != nil {
			return fmt.Errorf("%w: version %d: %w", errWrongState, seq, err)
		}
		got, err := dumpSnapshot(s)
		if err != nil {
			return fmt.Errorf("%w: version %d: %w", errWrongState, seq, err)
		}
		if want, ok := c.reads[seq]; ok && got != want {
			return fmt.Errorf("%w: version %d reads\n%s\nit was\n%s", errWrongState, seq, got, want)
		}
		c.reads[seq] = got
	}
	c.clock = c.clock.Add(time.Hour) // what was opened is not in use any more
	return nil
}

// sweep keeps some versions and checks that nothing else is left.
func (c *sweepRun) sweep() error {
	u, err := c.drive.BeginUpkeep(ctx)
	if err != nil {
		return err
	}
	defer u.End()
	gone := map[uint64]bool{}
	for i, v := range u.Versions() {
		if c.Rand.IntN(3) == 0 {
			u.Keep(i, AllClasses)
		} else if u.Kept(i) == 0 {
			gone[v.Version.Seq] = true
		}
	}
	n, err := u.Thin(ctx, c.clock.Add(-time.Duration(c.Rand.IntN(5))*time.Hour), nil)
	if err != nil {
		return err
	}
	if n > len(gone) || n < len(gone)-1 { // the newest that is not hidden stays
		return fmt.Errorf("%w: %d versions went of %d", errWrongState, n, len(gone))
	}
	if _, err := u.Drop(ctx, SweepOptions{Grace: -1}); err != nil {
		return err
	}
	end := u.all[len(u.all)-1].index
	if err := c.exact(end); err != nil {
		return err
	}
	if c.Rand.IntN(2) == 0 {
		_, err = u.Reclaim(ctx)
	} else {
		_, err = c.drive.own.Erase(ctx)
	}
	return err
}

// exact checks that below end there are the blocks that versions or the
// present need, and no others.
func (c *sweepRun) exact(end uint64) error {
	d := c.drive
	needed := roaring64.New()
	states, err := c.states(needed)
	if err != nil {
		return err
	}
	for _, v := range states {
		it := v.scan(nil, nil)
		for it.next() {
			ref, ok, err := blockOf(it.key, it.value)
			if err != nil {
				return err
			}
			if ok && ref.Writer == d.writer {
				needed.Add(ref.Index)
			}
		}
		if it.err != nil {
			return it.err
		}
		err := v.tree.Walk(ctx, func(ref log.Ref, _ uint8) (bool, error) { needed.Add(ref.Index); return true, nil })
		if err != nil {
			return err
		}
	}
	for i := range end {
		if d.own.IsControl(i) {
			continue
		}
		if have, need := d.own.Present(i), needed.Contains(i); have != need {
			return fmt.Errorf("%w: block %d: is there %v, is needed %v", errWrongState, i, have, need)
		}
	}
	return nil
}

// states returns the state of every version, and notes their commit blocks.
func (c *sweepRun) states(commits *roaring64.Bitmap) ([]*view, error) {
	d := c.drive
	var out []*view
	for _, o := range d.orphans {
		out = append(out, &view{[]*layer{o.layer}, tree.New(&d.pages, nil, tree.Root{})})
	}
	out = append(out, d.live())
	it := d.live().scan(kindRange(0, kindVersion))
	for seqs := []uint64{d.head.seq}; ; seqs = nil {
		for it.next() {
			seqs = append(seqs, keyVersion(it.key).Seq)
		}
		for _, seq := range seqs {
			v, err := d.version(seq)
			if err != nil {
				return nil, err
			}
			commits.Add(v.index)
			commits.AddMany(v.more)
			out = append(out, d.snapshotOf(v).v)
		}
		return out, it.err
	}
}

// lists checks that the change list of every version tells what differs from
// the version before it.
func (c *sweepRun) lists() error {
	seqs, err := c.versions()
	if err != nil {
		return err
	}
	var before *view
	for _, seq := range seqs {
		v, err := c.drive.version(seq)
		if err != nil {
			return err
		}
		changes, err := c.drive.allChanges(0, v.commit)
		if err != nil {
			return err
		}
		state := c.drive.snapshotOf(v).v
		if before != nil {
			told := map[Ino]what{}
			for _, ch := range changes {
				told[ch.ino] |= ch.what
			}
			err := diffViews(before, state, appendKey(nil, 1, 0), nil, func(key, old, now []byte) error {
				if keyKind(key) != kindInode {
					return nil
				}
				w := told[keyIno(key)]
				ok := true
				switch {
				case old == nil:
					ok = w&didCreate != 0
				case now == nil:
					ok = w&didRemove != 0
				default:
					a, err := decodeInode(old)
					if err != nil {
						return err
					}
					b, err := decodeInode(now)
					if err != nil {
						return err
					}
					ok = a.content == b.content || w&didWrite != 0
				}
				if !ok {
					return fmt.Errorf("%w: version %d says %#x of inode %d", errWrongState, seq, w, keyIno(key))
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		before = state
	}
	return nil
}

func (c *sweepRun) verify() error {
	var all []Damage
	_, err := c.drive.Verify(ctx, func(d Damage) { all = append(all, d) }, nil)
	if err == nil && len(all) > 0 {
		err = fmt.Errorf("%w: verification found %d: %+v", errWrongState, len(all), all[0])
	}
	return err
}

// work does random things and sweeps now and then.
func (c *sweepRun) work(steps int) error {
	for i := range steps {
		var err error
		switch c.Rand.IntN(12) {
		case 0, 1:
			err = c.drive.Sync(ctx)
		case 2:
			err = c.drive.cut(ctx)
		default:
			err = c.now.step(c.drive, c.Rand)
		}
		c.clock = c.clock.Add(time.Duration(c.Rand.IntN(3)) * time.Second)
		if err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return nil
}

func TestSweepLeavesWhatIsNeeded(t *testing.T) {
	crashfs.Explore(t, 25, 3, func(r *crashfs.Run) error {
		c := newSweepRun(r)
		defer c.shut()
		if err := c.create(); err != nil {
			return err
		}
		// A file that is open and has no name keeps its contents.
		f, a, err := c.drive.Create(ctx, me, RootIno, "unlinked", 0o600)
		if err != nil {
			return err
		}
		secret := random(300_000, 1)
		if _, err := f.WriteAt(ctx, secret, 0); err != nil {
			return err
		}
		if err := c.drive.Sync(ctx); err != nil {
			return err
		}
		c.drive.Ref(a.Ino, 1)
		if err := c.drive.Unlink(ctx, me, RootIno, "unlinked"); err != nil {
			return err
		}
		for range 5 {
			if err := c.work(40); err != nil {
				return err
			}
			if err := c.look(); err != nil {
				return err
			}
			if err := c.sweep(); err != nil {
				return err
			}
			got := make([]byte, len(secret))
			if _, err := f.ReadAt(ctx, got, 0); err != nil || string(got) != string(secret) {
				return fmt.Errorf("%w: a file without a name: %w", errWrongState, err)
			}
			for _, check := range []func() error{c.look, c.lists, c.verify} {
				if err := check(); err != nil {
					return err
				}
			}
		}
		f.Close()
		if got, err := dumpDrive(c.drive); err != nil || got != c.now.dump() {
			return fmt.Errorf("%w: the drive shows\n%s\nnot\n%s\n%w", errWrongState, got, c.now.dump(), err)
		}
		return nil
	})
}

func TestSweepCrashes(t *testing.T) {
	n := 40
	if testing.Short() {
		n = 10
	}
	crashfs.Explore(t, n, 4, func(r *crashfs.Run) error {
		c := newSweepRun(r)
		defer c.shut()
		if err := c.create(); err != nil {
			return err
		}
		for range 3 {
			if err := c.work(40); err != nil {
				return err
			}
			if err := c.drive.Sync(ctx); err != nil {
				return err
			}
			if err := c.look(); err != nil {
				return err
			}
			want, err := dumpDrive(c.drive)
			if err != nil {
				return err
			}
			r.Arm(crashfs.Plan{Crash: 60, Fault: []float64{0, 0.02}[r.Rand.IntN(2)]})
			if err := c.sweep(); err != nil && !broken(err) && r.FS.Down() == nil {
				return err
			}
			c.shut()
			r.Reboot()
			if err := c.open(); err != nil {
				return fmt.Errorf("%w: %w", errWrongState, err)
			}
			for _, check := range []func() error{c.look, c.lists, c.verify, c.sweep, c.look, c.verify} {
				if err := check(); err != nil {
					if !errors.Is(err, errWrongState) {
						err = fmt.Errorf("%w: %w", errWrongState, err)
					}
					return err
				}
			}
			if got, err := dumpDrive(c.drive); err != nil || got != want {
				return fmt.Errorf("%w: the drive shows\n%s\nnot\n%s\n%w", errWrongState, got, want, err)
			}
		}
		return nil
	})
}

// rawBlocks decrypts every block that can be found in the segment files.
func rawBlocks(t testing.TB, s *log.Store, fn func(index uint64, plain []byte)) {
	t.Helper()
	own := s.Own()
	for i := range own.Size() {
		if own.IsControl(i) {
			continue
		}
		for _, kind := range []seal.Kind{seal.Data, seal.Page, seal.Commit} {
			if plain, err := own.ReadBlock(nil, i, kind); err == nil {
				fn(i, plain)
			}
		}
	}
}
