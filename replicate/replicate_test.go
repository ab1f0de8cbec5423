package replicate

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"hearth/fs"
	"hearth/log"
)

var me = fs.Caller{Uid: 1000, Gid: 1000}

// device is a device of a test: a node, and the drives that it has.
type device struct {
	t    testing.TB
	name string
	node *Node
}

func newDevice(t testing.TB, name string) *device {
	t.Helper()
	return newLiar(t, name, nil)
}

// newLiar returns a device that answers as it is told.
func newLiar(t testing.TB, name string, respond func(*answering, *request) (uint8, error)) *device {
	t.Helper()
	return newNodeDevice(t, name, Options{respond: respond})
}

// newNodeDevice returns a device whose node has these options.
func newNodeDevice(t testing.TB, name string, o Options) *device {
	t.Helper()
	seed := sha256.Sum256([]byte(t.Name() + name))
	level := slog.LevelWarn
	if testing.Verbose() {
		level = slog.LevelDebug
	}
	logger := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: level})).With("device", name)
	o.Key, o.Listen, o.Name, o.Logger = ed25519.NewKeyFromSeed(seed[:]), "127.0.0.1:0", name, logger
	n, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return &device{t: t, name: name, node: n}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(string(bytes.TrimSpace(p)))
	return len(p), nil
}

func (d *device) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(d.node.Port())) }

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// author makes a drive on the device.
func (d *device) author() (*log.Store, *fs.Drive) {
	d.t.Helper()
	ctx := testContext(d.t)
	store, err := log.CreateStore(log.StoreOptions{Dir: filepath.Join(d.t.TempDir(), "drive")}, "films")
	if err != nil {
		d.t.Fatal(err)
	}
	drive, err := fs.Create(ctx, fs.Options{Store: store}, me)
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

// share makes a link with which a drive can be read.
func (d *device) share(store *log.Store, drive *fs.Drive) *Link {
	d.t.Helper()
	seed := sha256.Sum256([]byte(d.t.Name() + "link"))
	controls, err := store.LinkBoxes(seed)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := drive.Announce(testContext(d.t), controls); err != nil {
		d.t.Fatal(err)
	}
	link, err := ParseLink((&Link{
		Drive: store.DriveID(), Hold: store.HoldSecret(), Seed: &seed, Name: store.Name(),
		Device: d.node.Key(), Addresses: []string{d.addr()},
	}).String())
	if err != nil {
		d.t.Fatal(err)
	}
	return link
}

// join joins a drive.
func (d *device) join(k *Link, keep bool) *log.Store {
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
		d.t.Fatal(err)
	}
	store, err := log.JoinStore(log.StoreOptions{Dir: filepath.Join(d.t.TempDir(), "joined")},
		log.Joined{Genesis: g, Name: "films", Hold: k.Hold, Link: k.Seed})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		d.node.Remove(store.DriveID())
		if err := store.Close(); err != nil {
			d.t.Error(err)
		}
	})
	d.node.Add(store, nil, keep)
	if err := d.node.AwaitHead(ctx, store, k.Seed != nil); err != nil {
		d.t.Fatal(err)
	}
	return store
}

// open opens a joined drive.
func (d *device) open(store *log.Store) *fs.Drive {
	d.t.Helper()
	drive, err := fs.Open(testContext(d.t), fs.Options{Store: store})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		if err := drive.Close(context.Background()); err != nil {
			d.t.Error(err)
		}
	})
	drive.SetWalker(d.node.Walker(store.DriveID()))
	d.node.Add(store, drive, false)
	return drive
}

func write(t testing.TB, d *fs.Drive, name string, data []byte) {
	t.Helper()
	ctx := testContext(t)
	f, _, err := d.Create(ctx, me, fs.RootIno, name, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(ctx, data, 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Sync(ctx); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, d *fs.Drive, name string, off int64, n int) []byte {
	t.Helper()
	ctx := testContext(t)
	s := d.Current()
	s.Prepare(ctx, fs.Walk{Op: fs.WalkPath, Name: name, Off: uint64(off), Len: uint64(n)})
	ino, err := s.Resolve(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, n)
	got, err := s.ReadAt(ctx, ino, p, off)
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return p[:got]
}

func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// A drive that was joined is read without being downloaded, and follows its
// author.
func TestJoin(t *testing.T) {
	a, b := newDevice(t, "a"), newDevice(t, "b")
	store, drive := a.author()
	big := noise(1, 40<<20)
	write(t, drive, "big", big)
	for i := range 50 {
		write(t, drive, fmt.Sprint("small", i), noise(uint64(i), 100))
	}
	link := a.share(store, drive)
	begun := time.Now()
	joined := b.join(link, false)
	d := b.open(joined)
	if got := read(t, d, "big", 17<<20, 64<<10); !bytes.Equal(got, big[17<<20:][:64<<10]) {
		t.Fatal("other contents")
	}
	peers := b.node.Peers()
	if len(peers) != 1 || peers[0].Name != "a" || len(peers[0].Drives) != 1 {
		t.Fatalf("peers %+v", peers)
	}
	t.Logf("joined and read in %v, %d bytes received", time.Since(begun), peers[0].Received)
	if peers[0].Received > 512<<10 {
		t.Errorf("%d bytes received for 64 KiB", peers[0].Received)
	}
	// Live.
	was := d.Newest()
	begun = time.Now()
	write(t, drive, "new", []byte("hello"))
	for d.Newest() == was {
		if time.Since(begun) > time.Minute {
			t.Fatal("no newer version came")
		}
		select {
		case <-joined.Logs()[0].Changed():
		case <-time.After(time.Millisecond):
		}
	}
	if got := read(t, d, "new", 0, 100); string(got) != "hello" {
		t.Fatalf("read %q", got)
	}
	t.Logf("a new version came after %v", time.Since(begun))
	if _, _, err := d.Create(testContext(t), me, fs.RootIno, "mine", 0o644); err == nil {
		t.Fatal("a joined drive was changed")
	}
	// The whole of it, in order.
	if got := read(t, d, "big", 0, len(big)); !bytes.Equal(got, big) {
		t.Fatal("other contents")
	}
}

// Whoever holds a drive has all of it, cannot read it, and serves it when its
// author is gone.
func TestHold(t *testing.T) {
	a, h, b := newDevice(t, "a"), newDevice(t, "h"), newDevice(t, "b")
	store, drive := a.author()
	big := noise(1, 20<<20)
	write(t, drive, "big", big)
	link := a.share(store, drive)
	hold := *link
	hold.Seed = nil
	held := h.join(&hold, true)
	if held.CanRead() {
		t.Fatal("a holder can read")
	}
	await(t, "the holder has everything", func() bool {
		l := held.Logs()[0]
		_, n := l.NextMissing(0, 1)
		return l.Head().Size == store.Own().Head().Size && n == 0
	})
	if err := a.node.Close(); err != nil {
		t.Fatal(err)
	}
	link.Addresses, link.Device = []string{h.addr()}, h.node.Key()
	d := b.open(b.join(link, false))
	if got := read(t, d, "big", 0, len(big)); !bytes.Equal(got, big) {
		t.Fatal("other contents")
	}
}

func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("it does not come about: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A reader that is a little behind meets tiles that only the author's newer
// tree has. They are no lie.
func TestLive(t *testing.T) {
	a, b := newDevice(t, "a"), newDevice(t, "b")
	store, drive := a.author()
	write(t, drive, "f", []byte("00000000"))
	link := a.share(store, drive)
	d := b.open(b.join(link, false))
	ctx := testContext(t)
	ino, err := drive.Resolve(ctx, "f")
	if err != nil {
		t.Fatal(err)
	}
	f, err := drive.Open(ctx, me, ino, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range 400 { // more entries than a tile has
		text := fmt.Sprintf("%08d", i)
		if _, err := f.WriteAt(ctx, []byte(text), 0); err != nil {
			t.Fatal(err)
		}
		if err := drive.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		if i%10 > 0 {
			_ = read(t, d, "f", 0, 8) // whatever is there by now
			continue
		}
		await(t, "the newest contents are seen", func() bool { return string(read(t, d, "f", 0, 8)) == text })
	}
	if len(b.node.Peers()) != 1 || b.node.isBanned(a.node.Key()) {
		t.Fatal("an honest peer was dropped")
	}
}
