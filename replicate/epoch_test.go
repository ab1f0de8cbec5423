package replicate

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"path/filepath"
	"testing"

	"hearth/fs"
	"hearth/log"
)

// invite makes a link of its own.
func (d *device) invite(store *log.Store, drive *fs.Drive, name string, hold bool) *Link {
	d.t.Helper()
	seed := sha256.Sum256([]byte(d.t.Name() + name))
	link := &Link{
		Drive: store.DriveID(), Hold: store.HoldSecret(), Epoch: store.HoldEpoch(), Seed: &seed, Name: store.Name(),
		Device: d.node.Key(), Addresses: []string{d.addr()},
	}
	make := store.LinkBoxes
	if hold {
		link.Seed, link.Holder, make = nil, seed, store.HoldBoxes
	}
	controls, err := make(seed)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := drive.Announce(testContext(d.t), controls); err != nil {
		d.t.Fatal(err)
	}
	link, err = ParseLink(link.String())
	if err != nil {
		d.t.Fatal(err)
	}
	return link
}

// revoke revokes a link.
func revoke(t testing.TB, store *log.Store, drive *fs.Drive, k *Link) {
	t.Helper()
	id, err := k.Recipient()
	if err != nil {
		t.Fatal(err)
	}
	controls, err := store.Revoke(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := drive.Announce(testContext(t), controls); err != nil {
		t.Fatal(err)
	}
}

// tryJoin joins a drive, or says why that is refused.
func (d *device) tryJoin(k *Link, keep bool) (*log.Store, error) {
	d.t.Helper()
	ctx := testContext(d.t)
	d.node.Want(k.Drive, k.Hold)
	for _, a := range k.Addresses {
		if err := d.node.Connect(ctx, a, &k.Device); err != nil {
			d.t.Fatal(err)
		}
	}
	g, err := d.node.Genesis(ctx, k.Drive)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(d.t.TempDir(), "joined")
	store, err := log.JoinStore(log.StoreOptions{Dir: dir}, k.Joined(g, "films"))
	if err != nil {
		return nil, err
	}
	d.t.Cleanup(func() {
		d.node.Remove(store.DriveID())
		if err := store.Close(); err != nil {
			d.t.Error(err)
		}
	})
	d.node.Add(store, nil, keep)
	return store, d.node.AwaitHead(ctx, store, k.Seed != nil)
}

func (d *device) mustJoin(k *Link, keep bool) *log.Store {
	d.t.Helper()
	store, err := d.tryJoin(k, keep)
	if err != nil {
		d.t.Fatal(err)
	}
	return store
}

// One link of several is revoked. Who joined by it is told so, and gets nothing
// new; all others go on, whatever they may do, and so does who joins by a link
// that was made before, or after.
func TestRevoke(t *testing.T) {
	a, b, c, h, x := newDevice(t, "a"), newDevice(t, "b"), newDevice(t, "c"), newDevice(t, "h"), newDevice(t, "x")
	store, drive := a.author()
	old := noise(1, 1<<20)
	write(t, drive, "old", old)
	toB, toC := a.invite(store, drive, "b", false), a.invite(store, drive, "c", false)
	toH, toX := a.invite(store, drive, "h", true), a.invite(store, drive, "x", true)
	atB, atC, atH, atX := b.mustJoin(toB, false), c.mustJoin(toC, false), h.mustJoin(toH, true), x.mustJoin(toX, true)
	driveB, driveC := b.open(atB), c.open(atC)
	read(t, driveC, "old", 0, 1000)
	whole := func(l *log.Log) bool {
		_, n := l.NextMissing(0, 1)
		return l.Head().Size == store.Own().Head().Size && n == 0
	}
	await(t, "both holders have everything", func() bool { return whole(atH.Logs()[0]) && whole(atX.Logs()[0]) })
	sameVersion := func(d *fs.Drive) bool { return d.Newest() == drive.Newest() }
	await(t, "both readers are up to date", func() bool { return sameVersion(driveB) && sameVersion(driveC) })

	last := driveC.Newest()
	revoke(t, store, drive, toC)
	secret := []byte("nothing for c")
	write(t, drive, "new", secret)
	await(t, "the other reader sees the new version", func() bool { return sameVersion(driveB) })
	if got := read(t, driveB, "new", 0, 100); !bytes.Equal(got, secret) {
		t.Fatalf("read %q", got)
	}
	await(t, "the revoked reader is told", atC.Ended)
	if driveC.Newest() != last || atC.Logs()[0].Head().Size >= store.Own().Head().Size {
		t.Fatalf("the revoked reader got version %v", driveC.Newest())
	}
	if got := read(t, driveC, "old", 0, 1000); !bytes.Equal(got, old[:1000]) {
		t.Fatal("what was read before cannot be any more")
	}
	await(t, "the holders go on", func() bool { return whole(atH.Logs()[0]) && whole(atX.Logs()[0]) })
	if atB.Ended() || atH.Ended() || atX.Ended() || atB.HoldEpoch() != 1 || atH.HoldSecret() != store.HoldSecret() {
		t.Fatal("others were revoked")
	}

	// A holder, too.
	sizeX := atX.Logs()[0].Head().Size
	revoke(t, store, drive, toX)
	write(t, drive, "newer", secret)
	await(t, "the revoked holder is told", atX.Ended)
	await(t, "the other one goes on", func() bool { return whole(atH.Logs()[0]) })
	if atX.Logs()[0].Head().Size != sizeX {
		t.Fatal("the revoked holder got more")
	}

	// Who comes now.
	for _, k := range []*Link{toC, toX} {
		if _, err := newDevice(t, "late"+k.Name).tryJoin(k, false); !errors.Is(err, log.ErrRevoked) {
			t.Fatalf("joining by a revoked link: %v", err)
		}
	}
	e, f := newDevice(t, "e"), newDevice(t, "f")
	fresh := a.invite(store, drive, "f", false)
	driveE, driveF := e.open(e.mustJoin(toB, false)), f.open(f.mustJoin(fresh, false))
	for _, d := range []*fs.Drive{driveE, driveF} {
		if got := read(t, d, "old", 0, len(old)); !bytes.Equal(got, old) {
			t.Fatal("other contents")
		}
		if got := read(t, d, "newer", 0, 100); !bytes.Equal(got, secret) {
			t.Fatalf("read %q", got)
		}
	}

	// What the revoked one kept is of no use to it.
	if err := a.node.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.node.Connect(testContext(t), f.addr(), nil); err != nil {
		t.Fatal(err)
	}
	await(t, "the other device says that there is a newer epoch", func() bool { return len(c.node.telling(store.DriveID())) == 1 })
	if got := len(c.node.sharing(store.DriveID())); got != 0 {
		t.Fatalf("%d devices share the drive with a revoked one", got)
	}
}

// Who was away while a link was revoked catches up with anybody who knows, also
// without the author and from one that joined later.
func TestCatchUp(t *testing.T) {
	a, b, c, f := newDevice(t, "a"), newDevice(t, "b"), newDevice(t, "c"), newDevice(t, "f")
	store, drive := a.author()
	write(t, drive, "old", []byte("old"))
	toB, toC := a.invite(store, drive, "b", false), a.invite(store, drive, "c", false)
	atB := b.mustJoin(toB, false)
	driveB := b.open(atB)
	b.node.Disconnect(a.addr())
	b.node.mu.Lock()
	for s := range b.node.sessions {
		s.end(0, "")
	}
	b.node.mu.Unlock()
	await(t, "the connection is gone", func() bool { return len(b.node.Peers()) == 0 })
	revoke(t, store, drive, toC)
	revoke(t, store, drive, a.invite(store, drive, "d", true))
	write(t, drive, "new", []byte("new"))
	fresh := a.invite(store, drive, "f", false)
	driveF := f.open(f.mustJoin(fresh, false))
	if got := read(t, driveF, "new", 0, 10); string(got) != "new" {
		t.Fatalf("read %q", got)
	}
	if err := a.node.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.node.Connect(testContext(t), f.addr(), nil); err != nil {
		t.Fatal(err)
	}
	await(t, "the device catches up", func() bool { return driveB.Newest() == drive.Newest() })
	if got := read(t, driveB, "new", 0, 10); string(got) != "new" {
		t.Fatalf("read %q", got)
	}
	toC.Addresses, toC.Device = []string{f.addr()}, f.node.Key()
	if _, err := c.tryJoin(toC, false); !errors.Is(err, log.ErrRevoked) {
		t.Fatalf("joining by a revoked link: %v", err)
	}
}
