package replicate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"hearth/fs"
	"hearth/log"
)

// twin makes the device the author of a copy of a drive, which has forgotten
// that it is one.
func (d *device) twin(of *log.Store) (*log.Store, *fs.Drive) {
	d.t.Helper()
	dir := filepath.Join(d.t.TempDir(), "twin")
	if err := os.CopyFS(dir, os.DirFS(of.Dir())); err != nil {
		d.t.Fatal(err)
	}
	for _, secret := range []string{"keys"} {
		if err := os.Chmod(filepath.Join(dir, secret), 0o600); err != nil {
			d.t.Fatal(err)
		}
	}
	store, err := log.OpenStore(log.StoreOptions{Dir: dir})
	if err != nil {
		d.t.Fatal(err)
	}
	if err := store.Bind(); err != nil {
		d.t.Fatal(err)
	}
	drive, err := fs.Open(testContext(d.t), fs.Options{Store: store})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		if err := drive.Close(context.Background()); err != nil {
			d.t.Error(err)
		}
		if err := store.Close(); err != nil {
			d.t.Error(err)
		}
	})
	d.node.Add(store, drive, false)
	return store, drive
}

// via is a link by way of another device.
func via(link *Link, d *device) *Link {
	k := *link
	k.Device, k.Addresses = d.node.Key(), []string{d.addr()}
	return &k
}

func checkFork(t *testing.T, s *log.Store) {
	t.Helper()
	forks := s.Forks()
	if len(forks) == 0 {
		t.Fatal("no evidence")
	}
	v := s.Logs()[0].Verifier()
	for i := range forks {
		if err := forks[i].Verify(v); err != nil {
			t.Fatalf("the evidence does not hold: %v", err)
		}
	}
}

// forked is an author, a reader that follows it, and a holder that follows a
// copy of the author which has written on as well.
type forked struct {
	a, x, b, r       *device
	store, twin      *log.Store
	drive, twinDrive *fs.Drive
	reader, relay    *log.Store
	readerDrive      *fs.Drive
}

func newForked(t *testing.T, here, there int) *forked {
	f := &forked{a: newDevice(t, "a"), x: newDevice(t, "x"), b: newDevice(t, "b"), r: newDevice(t, "r")}
	f.store, f.drive = f.a.author()
	write(t, f.drive, "common", noise(1, 300_000))
	link := f.a.share(f.store, f.drive)
	f.twin, f.twinDrive = f.x.twin(f.store)
	for i := range here {
		write(t, f.drive, fmt.Sprint("here", i), noise(uint64(i), 70_000))
	}
	for i := range there {
		write(t, f.twinDrive, fmt.Sprint("there", i), noise(uint64(1000+i), 70_000))
	}
	f.reader = f.b.join(link, false)
	f.readerDrive = f.b.open(f.reader)
	hold := via(link, f.x)
	hold.Seed = nil
	f.relay = f.r.join(hold, true)
	awaitWhole(t, f.relay, f.twin)
	return f
}

func (f *forked) meet(t *testing.T) {
	t.Helper()
	if err := f.b.node.Connect(testContext(t), f.r.addr(), nil); err != nil {
		t.Fatal(err)
	}
}

func (f *forked) honest(t *testing.T, on *device, other *device) {
	t.Helper()
	if on.node.isBanned(other.node.Key()) || !on.node.connected(other.node.Key()) {
		t.Fatal("an honest peer was dropped")
	}
}

// A contradicting head that a peer passes on is kept as evidence, whether it is
// longer or shorter; the peer is not blamed, and reading goes on where it was.
func TestForkRelayed(t *testing.T) {
	for name, c := range map[string][2]int{"longer": {3, 9}, "shorter": {9, 3}, "much longer": {2, 700}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if testing.Short() && c[1] > 100 {
				t.Skip("hundreds of versions are slow under the race detector; make test makes them")
			}
			f := newForked(t, c[0], c[1])
			// The reader has the hashes up to its head, so that it can tell of
			// shorter heads as well.
			if got := read(t, f.readerDrive, "common", 0, 300_000); len(got) != 300_000 {
				t.Fatal("short")
			}
			f.meet(t)
			await(t, "the reader has evidence", func() bool { return len(f.reader.Forks()) > 0 })
			checkFork(t, f.reader)
			await(t, "so has the holder", func() bool { return len(f.relay.Forks()) > 0 })
			checkFork(t, f.relay)
			// On both branches it goes on.
			for range 3 {
				write(t, f.drive, fmt.Sprint("more", f.store.Own().Head().Size), []byte("hello"))
				write(t, f.twinDrive, fmt.Sprint("more", f.twin.Own().Head().Size), []byte("world"))
			}
			await(t, "the reader follows", func() bool { return f.reader.Logs()[0].Head().Root == f.store.Own().Head().Root })
			await(t, "the holder follows", func() bool { return f.relay.Logs()[0].Head().Root == f.twin.Own().Head().Root })
			if got := read(t, f.readerDrive, "here0", 0, 70_000); !bytes.Equal(got, noise(0, 70_000)) {
				t.Fatal("other contents")
			}
			f.honest(t, f.b, f.r)
			f.honest(t, f.r, f.b)
			if n := len(f.reader.Forks()); n > 4 {
				t.Fatalf("%d forks of one log", n)
			}
			// Evidence outlives the process.
			dir := filepath.Join(t.TempDir(), "again")
			if err := os.CopyFS(dir, os.DirFS(f.reader.Dir())); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Join(dir, "keys"), 0o600); err != nil {
				t.Fatal(err)
			}
			again, err := log.OpenStore(log.StoreOptions{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			if len(again.Health().Forks) == 0 {
				t.Fatal("the evidence is gone")
			}
		})
	}
}

// What a holder of the other branch serves does not verify, and is not held
// against it; what both branches have it serves all the same.
func TestForkServed(t *testing.T) {
	f := newForked(t, 6, 9)
	if err := f.a.node.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, "the author is gone", func() bool { return !f.b.node.connected(f.a.node.Key()) })
	f.meet(t)
	ctx := testContext(t)
	l := f.reader.Logs()[0]
	await(t, "they share the drive", func() bool { return len(f.b.node.sharing(f.reader.DriveID())) == 1 })
	common, other := -1, -1
	for i := range int(l.Head().Size) {
		if l.Holds(uint64(i)) {
			continue
		}
		a, err := f.store.Own().ReadStored(nil, uint64(i))
		if err != nil {
			t.Fatal(err)
		}
		b, err := f.twin.Own().ReadStored(nil, uint64(i))
		if err == nil && bytes.Equal(a, b) && common < 0 {
			common = i
		}
		if err == nil && !bytes.Equal(a, b) {
			other = i
		}
	}
	if common < 0 || other < 0 {
		t.Fatalf("no blocks to ask for: %d, %d", common, other)
	}
	s := f.b.node.sharing(f.reader.DriveID())[0]
	for _, i := range []int{other, common} {
		if err := s.get(ctx, s.urgent(), l, []uint64{uint64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if l.Holds(uint64(other)) || !l.Holds(uint64(common)) {
		t.Fatalf("held: of the other branch %v, of both %v", l.Holds(uint64(other)), l.Holds(uint64(common)))
	}
	f.honest(t, f.b, f.r)
}

// The author itself learns that its log was continued elsewhere.
func TestForkOfOwnLog(t *testing.T) {
	f := newForked(t, 3, 9)
	if err := f.a.node.Connect(testContext(t), f.r.addr(), nil); err != nil {
		t.Fatal(err)
	}
	await(t, "the author has evidence", func() bool { return len(f.store.Forks()) > 0 })
	checkFork(t, f.store)
	f.honest(t, f.a, f.r)
	if f.store.Health().Overtaken > 0 {
		t.Fatal("a fork is taken for a log that was rolled back")
	}
	if err := f.x.node.Connect(testContext(t), f.b.addr(), nil); err != nil {
		t.Fatal(err)
	}
	await(t, "the twin has evidence", func() bool { return len(f.twin.Forks()) > 0 })
	checkFork(t, f.twin)
}

// An author that was brought back from a backup is told that others have more.
func TestOvertaken(t *testing.T) {
	f := newForked(t, 0, 5)
	if err := f.a.node.Connect(testContext(t), f.r.addr(), nil); err != nil {
		t.Fatal(err)
	}
	await(t, "it is said", func() bool { return f.store.Health().Overtaken == f.twin.Own().Head().Size })
	if len(f.store.Forks()) > 0 {
		t.Fatal("it is taken for a fork")
	}
	f.honest(t, f.a, f.r)
}

// A peer that proves a true head falsely is dropped.
func TestFalseFork(t *testing.T) {
	for name, lie := range map[string]func(*log.HeadProof){
		"a false base":  func(p *log.HeadProof) { p.Base[0] ^= 1 },
		"no base":       func(p *log.HeadProof) { p.Base = nil },
		"a false proof": func(p *log.HeadProof) { p.Consistency[0][0] ^= 1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := newDevice(t, "a"), newDevice(t, "b")
			r := newLiar(t, "r", func(a *answering, q *request) (uint8, error) {
				if q.typ != msgProve || q.known == 0 {
					return a.one(q)
				}
				store, _, _ := a.s.node.shared(q.log.drive).state()
				l, err := store.Log(q.log.writer)
				if err != nil {
					return endCannot, nil
				}
				p, err := l.ProveHead(q.known)
				if err = errors.Join(err, l.AddBase(&p)); err != nil || len(p.Base) == 0 {
					return endCannot, nil
				}
				lie(&p)
				if len(p.Leaves) > 0 {
					p.Leaves[0] ^= 1
				}
				a.begin(msgProof)
				appendProof(&a.w, &p)
				return endOK, a.send(true)
			})
			store, drive := a.author()
			write(t, drive, "f", noise(1, 100_000))
			link := a.share(store, drive)
			reader := b.join(link, false)
			if err := b.node.Close(); err != nil {
				t.Fatal(err)
			}
			b = newDevice(t, "b2")
			write(t, drive, "g", noise(2, 100_000))
			held := holdWhole(t, a, r, store, link)
			b.node.Add(reader, nil, false)
			if err := b.node.Connect(testContext(t), r.addr(), nil); err != nil {
				t.Fatal(err)
			}
			await(t, "the liar is dropped", func() bool { return b.node.isBanned(r.node.Key()) })
			if len(reader.Forks()) > 0 || reader.Logs()[0].Head().Size >= held.Logs()[0].Head().Size {
				t.Fatal("the lie was believed")
			}
		})
	}
}
