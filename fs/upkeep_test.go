package fs

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/cockroachdb/pebble/v2"

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
	seqs := []uint64{d.head.seq}
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
	crashfs.Explore(t, 12, 3, func(r *crashfs.Run) error {
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
	n := 24
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

// keptChanges returns what the index says of changes, once it is written.
func (td *testDrive) keptChanges() map[string]string {
	td.t.Helper()
	x := td.index
	if !x.await(ctx, td.Newest().Seq) {
		td.t.Fatalf("the index is broken: %v", x.broken)
	}
	x.mu.Lock()
	for x.expecting && x.broken == nil {
		x.wake.Wait()
	}
	x.mu.Unlock()
	x.dbMu.RLock()
	defer x.dbMu.RUnlock()
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte("c"), UpperBound: []byte("d")})
	if err != nil {
		td.t.Fatal(err)
	}
	defer it.Close()
	out := map[string]string{}
	for ok := it.First(); ok; ok = it.Next() {
		out[string(it.Key())] = string(it.Value())
	}
	return out
}

// After a sweep the index is what it would be if it were built anew.
func TestSweepKeepsTheIndex(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	td := newTestDrive(t, Options{Delay: time.Hour, Clock: func() time.Time { return now }})
	for i := range 60 {
		name := fmt.Sprint("f", i%7)
		td.put(RootIno, name, random(100*i, uint64(i)))
		if i%11 == 5 {
			if err := td.Unlink(ctx, me, RootIno, name); err != nil {
				t.Fatal(err)
			}
		}
		if err := td.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Minute)
	}
	u, err := td.BeginUpkeep(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range u.Versions() {
		if i%5 == 0 {
			u.Keep(i, AllClasses)
		}
	}
	if _, err := u.Thin(ctx, now.Add(-30*time.Minute), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Drop(ctx, SweepOptions{Grace: -1}); err != nil {
		t.Fatal(err)
	}
	u.End()
	swept := td.keptChanges()
	dir := td.index.dir
	td.shut()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	td.reopen()
	if rebuilt := td.keptChanges(); !maps.Equal(swept, rebuilt) {
		t.Errorf("the index has %d entries after a sweep, %d after it was rebuilt", len(swept), len(rebuilt))
	}
}

// What is found again while it is swept stays; what is condemned is not found.
func TestSweepAndDeduplication(t *testing.T) {
	td := newTestDrive(t, Options{Delay: time.Hour})
	data := random(1<<20, 1)
	put := func(name string) {
		td.put(RootIno, name, data)
		if err := td.Sync(ctx); err != nil {
			t.Fatal(err)
		}
	}
	put("a")
	if err := td.Unlink(ctx, me, RootIno, "a"); err != nil {
		t.Fatal(err)
	}
	if err := td.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	u, err := td.BeginUpkeep(ctx)
	if err != nil {
		t.Fatal(err)
	}
	td.snapshots.clear()
	clear(td.upkeep.used)
	if _, err := u.Thin(ctx, time.Time{}, nil); err != nil {
		t.Fatal(err)
	}
	set, err := u.waste(ctx, SweepOptions{})
	if err != nil || set.GetCardinality() < 10 {
		t.Fatalf("%d blocks are waste, %v", set.GetCardinality(), err)
	}
	size := td.own.Size()
	put("b") // finds the blocks of a
	if grown := td.own.Size() - size; grown > 5 {
		t.Fatalf("%d blocks were appended", grown)
	}
	if _, err := u.condemn(ctx, set, time.Now(), SweepOptions{Grace: -1}); err != nil {
		t.Fatal(err)
	}
	u.End()
	if !bytes.Equal(td.get(RootIno, "b"), data) {
		t.Fatal("what was found again went")
	}
	all := roaring64.New()
	all.AddRange(0, td.own.Size())
	td.upkeep.condemned.Store(all)
	size = td.own.Size()
	put("c")
	if grown := td.own.Size() - size; grown < 10 {
		t.Fatalf("condemned blocks were found: only %d were appended", grown)
	}
	td.upkeep.condemned.Store(nil)
	td.reopen()
	for _, name := range []string{"b", "c"} {
		if !bytes.Equal(td.get(RootIno, name), data) {
			t.Errorf("%s differs", name)
		}
	}
}

func TestCoalesce(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	td := newTestDrive(t, Options{Delay: time.Hour, Clock: func() time.Time { return now }})
	data := random(200_000, 1)
	ino := td.put(RootIno, "db", data)
	f, err := td.Open(ctx, me, ino, false)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		p := random(1000, uint64(i))
		if _, err := f.WriteAt(ctx, p, int64(i*1500)); err != nil {
			t.Fatal(err)
		}
		copy(data[i*1500:], p)
		if err := f.Fsync(ctx); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	count := func() int {
		exts, err := collect(td.live(), ino, 0, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		return len(exts)
	}
	if n, err := td.Coalesce(ctx, CoalesceOptions{}); n != 0 || err != nil {
		t.Fatalf("a file in use: %d, %v", n, err)
	}
	now = now.Add(2 * time.Hour)
	before, a := count(), td.Newest()
	attr, err := td.Getattr(ctx, ino)
	if err != nil {
		t.Fatal(err)
	}
	n, err := td.Coalesce(ctx, CoalesceOptions{})
	if err != nil || n == 0 {
		t.Fatalf("%d, %v", n, err)
	}
	if after := count(); after*8 > before {
		t.Errorf("%d extents became %d", before, after)
	}
	if got, err := td.Getattr(ctx, ino); err != nil || got != attr {
		t.Errorf("%+v became %+v, %v", attr, got, err)
	}
	if b := td.newest(); b.reason != ReasonUpkeep || len(b.changes) != 0 || b.seq == a.Seq {
		t.Errorf("version %d of reason %d", b.seq, b.reason)
	}
	if !bytes.Equal(td.content(ino), data) {
		t.Error("contents differ")
	}
	if n, err := td.Coalesce(ctx, CoalesceOptions{}); n != 0 || err != nil {
		t.Errorf("again: %d, %v", n, err)
	}
	td.reopen()
	if !bytes.Equal(td.content(ino), data) {
		t.Error("contents differ after reopening")
	}
	td.verified()
}

// Folders with policies of their own: what a version keeps of which policy it
// shows, for every other it says that it is not kept.
func TestSweepByClass(t *testing.T) {
	crashfs.Explore(t, 12, 7, func(r *crashfs.Run) error {
		c := newSweepRun(r)
		defer c.shut()
		if err := c.create(); err != nil {
			return err
		}
		for range 4 {
			if err := c.work(50); err != nil {
				return err
			}
			dir, path := c.now.pick(r.Rand)
			if ino, err := c.drive.Resolve(ctx, "/"+strings.Join(path, "/")); err != nil {
				return err
			} else if ino != RootIno {
				policy := fmt.Sprint("policy ", r.Rand.IntN(2))
				if err := c.drive.Setxattr(ctx, me, ino, RetainAttr, []byte(policy), 0); err != nil {
					return err
				}
				if dir.xattrs == nil {
					dir.xattrs = map[string]string{}
				}
				dir.xattrs[RetainAttr] = fmt.Sprint(len(policy), ":", sum([]byte(policy)))
			}
			if err := c.drive.Sync(ctx); err != nil {
				return err
			}
			if err := c.sweepClasses(); err != nil {
				return err
			}
			if err := c.verify(); err != nil {
				return err
			}
		}
		got, err := dumpDrive(c.drive)
		if err == nil && got != c.now.dump() {
			err = fmt.Errorf("%w: the drive shows\n%s\nnot\n%s", errWrongState, got, c.now.dump())
		}
		return err
	})
}

// sweepClasses sweeps with random masks, and reads every file of every version
// there is then.
func (c *sweepRun) sweepClasses() error {
	u, err := c.drive.BeginUpkeep(ctx)
	if err != nil {
		return err
	}
	defer u.End()
	before := map[uint64]map[Ino]string{}
	read := func(v *kept) (map[Ino]string, error) {
		cm, err := u.commitOf(v)
		if err != nil {
			return nil, err
		}
		s := c.drive.snapshotOf(version{cm, v.index})
		out := map[Ino]string{}
		it := s.v.scan(appendKey(nil, 1, 0), nil)
		for it.next() {
			if keyKind(it.key) != kindInode {
				continue
			}
			n, err := decodeInode(it.value)
			if err != nil {
				return nil, err
			}
			if !n.isRegular() || n.size == 0 {
				continue
			}
			b := make([]byte, n.size)
			if _, err := s.ReadAt(ctx, keyIno(it.key), b, 0); err != nil {
				if !errors.Is(err, ErrNotKept) {
					return nil, err
				}
				out[keyIno(it.key)] = "not kept"
				continue
			}
			out[keyIno(it.key)] = fmt.Sprint(sum(b))
		}
		return out, it.err
	}
	for i, v := range u.all {
		if before[v.seq], err = read(v); err != nil {
			return err
		}
		u.Keep(i, Classes(c.Rand.IntN(1<<len(u.classes.policies))))
	}
	if _, err := u.Thin(ctx, time.Time{}, nil); err != nil {
		return err
	}
	if _, err := u.Drop(ctx, SweepOptions{Grace: -1}); err != nil {
		return err
	}
	for _, v := range slices.Backward(u.all) {
		if before[v.seq] == nil {
			continue // the upkeep's own
		}
		after, err := read(v)
		if err != nil {
			return err
		}
		cm, err := u.commitOf(v)
		if err != nil {
			return err
		}
		state := u.viewOf(cm)
		for ino, was := range before[v.seq] {
			class, err := u.classes.of(ino, state)
			if err != nil {
				return err
			}
			if is := after[ino]; is != was && (is != "not kept" || class&v.keep != 0) {
				return fmt.Errorf("%w: version %d keeps %b: inode %d of %b read %s, now %s", errWrongState, v.seq, v.keep, ino, class, was, is)
			}
		}
	}
	return nil
}

// On a full disk, what is deleted makes room once it was swept.
func TestSweepOnFullDisk(t *testing.T) {
	crashfs.Explore(t, 4, 8, func(r *crashfs.Run) error {
		c := newSweepRun(r)
		defer c.shut()
		r.FS.SetCapacity(40 << 20)
		if err := c.create(); err != nil {
			return err
		}
		fill := func() (int, error) {
			for i := 0; ; i++ {
				f, _, err := c.drive.Create(ctx, me, RootIno, fmt.Sprint("f", i), 0o644)
				if err == nil {
					_, err = f.WriteAt(ctx, random(1<<20, r.Rand.Uint64()), 0)
					f.Close()
				}
				if err == nil {
					err = c.drive.Sync(ctx)
				}
				if errors.Is(err, ErrNoSpace) {
					return i, nil
				}
				if err != nil {
					return i, err
				}
			}
		}
		for round := range 3 {
			n, err := fill()
			if err != nil || n < 3 {
				return fmt.Errorf("%w: round %d took %d files: %w", errWrongState, round, n, err)
			}
			for i := range n + 1 {
				if err := known(c.drive.Unlink(ctx, me, RootIno, fmt.Sprint("f", i)), ErrNotExist); err != nil {
					return fmt.Errorf("%w: deleting on a full disk: %w", errWrongState, err)
				}
			}
			if err := c.drive.Sync(ctx); err != nil {
				return fmt.Errorf("%w: saving on a full disk: %w", errWrongState, err)
			}
			u, err := c.drive.BeginUpkeep(ctx)
			if err != nil {
				return err
			}
			_, err = u.Thin(ctx, time.Time{}, nil)
			if err == nil {
				_, err = u.Drop(ctx, SweepOptions{Grace: -1})
			}
			if err == nil {
				_, err = u.Reclaim(ctx)
			}
			u.End()
			if err != nil {
				return fmt.Errorf("%w: sweeping a full disk: %w", errWrongState, err)
			}
		}
		return c.verify()
	})
}
