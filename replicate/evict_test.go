package replicate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"hearth/fs"
	"hearth/log"
)

// contents returns what a path of a drive consists of.
func contents(t testing.TB, d *fs.Drive, path string) *fs.Contents {
	t.Helper()
	ctx := testContext(t)
	s := d.Current()
	ino, err := s.Resolve(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Contents(ctx, ino)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// stored returns st_blocks of a file.
func stored(t testing.TB, d *fs.Drive, path string) uint64 {
	t.Helper()
	ctx := testContext(t)
	s := d.Current()
	ino, err := s.Resolve(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.Getattr(ctx, ino)
	if err != nil {
		t.Fatal(err)
	}
	return a.Blocks
}

func bring(t testing.TB, d *device, store *log.Store, c *fs.Contents) {
	t.Helper()
	told := 0
	if err := d.node.Bring(testContext(t), store, c.Blocks(true), func() { told++ }); err != nil {
		t.Fatal(err)
	}
	if c.Local() != c.Bytes || told == 0 {
		t.Fatalf("%d bytes of %d are here, told %d times", c.Local(), c.Bytes, told)
	}
}

// everything makes sure that a device keeps all of a drive.
func everything(t testing.TB, held, author *log.Store) {
	t.Helper()
	await(t, "the holder has everything", func() bool {
		l := held.Logs()[0]
		_, n := l.NextMissing(0, 1)
		return l.Head().Size == author.Own().Head().Size && n == 0
	})
}

// What was brought here comes from all who have it, and can be read when nobody
// is there any more; st_blocks tells how much it is.
func TestBring(t *testing.T) {
	a, h, b := newDevice(t, "a"), newDevice(t, "h"), newDevice(t, "b")
	store, drive := a.author()
	ctx := testContext(t)
	if _, err := drive.Mkdir(ctx, me, fs.RootIno, "dir", 0o755); err != nil {
		t.Fatal(err)
	}
	big := noise(1, 24<<20)
	write(t, drive, "big", big)
	dir, err := drive.Resolve(ctx, "dir")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		f, _, err := drive.Create(ctx, me, dir, fmt.Sprint("small", i), 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(ctx, noise(uint64(i), 700), 0); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if err := drive.Setxattr(ctx, me, dir, "user.long", noise(5, 20_000), 0); err != nil {
		t.Fatal(err)
	}
	if err := drive.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	link := a.share(store, drive)
	everything(t, h.join(link, true), store)
	joined := b.join(link, false)
	d := b.open(joined)
	if err := b.node.Connect(ctx, h.addr(), nil); err != nil {
		t.Fatal(err)
	}
	await(t, "both share the drive", func() bool { return len(b.node.sharing(store.DriveID())) == 2 })

	c := contents(t, d, "/")
	if c.Files != 301 || c.Size != uint64(len(big)+300*700) || c.Bytes != c.Size || c.Local() != 0 {
		t.Fatalf("%d files, %d bytes, %d in blocks, %d here", c.Files, c.Size, c.Bytes, c.Local())
	}
	if n := stored(t, d, "big"); n != 1 {
		t.Fatalf("st_blocks of what is elsewhere is %d", n)
	}
	read(t, d, "big", 10<<20, 1<<20)
	if n := stored(t, d, "big"); n < 2048 || n > 4096+2*aheadMost*512 {
		t.Fatalf("st_blocks is %d after 1 MiB was read", n)
	}
	bring(t, b, joined, c)
	if n := stored(t, d, "big"); n != uint64(len(big))/512 {
		t.Fatalf("st_blocks is %d of %d", n, len(big)/512)
	}
	for _, p := range b.node.Peers() {
		if p.Received < 2<<20 {
			t.Errorf("%d bytes came from %s", p.Received, p.Name)
		}
	}
	for _, node := range []*Node{a.node, h.node} {
		if err := node.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, d, "big", 0, len(big)); !bytes.Equal(got, big) {
		t.Fatal("other contents")
	}
	for i := range 300 {
		if got := read(t, d, fmt.Sprint("dir/small", i), 0, 1000); !bytes.Equal(got, noise(uint64(i), 700)) {
			t.Fatal("other contents of a small file")
		}
	}
	if v, err := d.Current().Getxattr(ctx, dir, "user.long"); err != nil || !bytes.Equal(v, noise(5, 20_000)) {
		t.Fatalf("a long attribute: %v", err)
	}
}

// What nobody has is said, after all that somebody has was brought; who says
// nothing, or lies, does not keep it from coming.
func TestBringFromSome(t *testing.T) {
	t.Parallel()
	for name, lie := range map[string]func(*answering, *request) (uint8, error){
		"nothing": lies["nothing"], "that it has nothing": lies["that it has nothing"], "a reset": lies["a reset"], "wrong bytes": lies["wrong bytes"],
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := testContext(t)
			a, b := newDevice(t, "a"), newDevice(t, "b")
			begun := make(chan struct{})
			h := newLiar(t, "h", func(a *answering, q *request) (uint8, error) {
				select {
				case <-begun:
					if q.typ == msgGet {
						return lie(a, q)
					}
				default:
				}
				return a.one(q)
			})
			store, drive := a.author()
			write(t, drive, "f", noise(1, 6<<20))
			write(t, drive, "g", noise(2, 2<<20))
			link := a.share(store, drive)
			everything(t, h.join(link, true), store)
			joined := b.join(link, false)
			d := b.open(joined)
			f, g := contents(t, d, "f"), contents(t, d, "g")
			if err := b.node.Connect(ctx, h.addr(), nil); err != nil {
				t.Fatal(err)
			}
			await(t, "both share the drive", func() bool { return len(b.node.sharing(store.DriveID())) == 2 })
			close(begun)
			bring(t, b, joined, f)
			if err := a.node.Close(); err != nil {
				t.Fatal(err)
			}
			if err := b.node.Bring(ctx, joined, g.Blocks(true), nil); !errors.Is(err, log.ErrMissing) {
				t.Fatalf("what nobody has: %v", err)
			}
			if f.Local() != f.Bytes || g.Local() == g.Bytes {
				t.Fatal("other blocks are here")
			}
		})
	}
}

// A Bring that is ended leaves what has arrived, also for the next daemon.
func TestBringEnds(t *testing.T) {
	t.Parallel()
	a, b := newDevice(t, "a"), newDevice(t, "b")
	store, drive := a.author()
	write(t, drive, "f", noise(1, 30<<20))
	joined := b.join(a.share(store, drive), false)
	d := b.open(joined)
	c := contents(t, d, "f")
	ctx, cancel := context.WithCancel(testContext(t))
	err := b.node.Bring(ctx, joined, c.Blocks(true), func() {
		if c.Local() > 4<<20 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if c.Local() < 4<<20 || c.Local() == c.Bytes {
		t.Fatalf("%d bytes of %d are here", c.Local(), c.Bytes)
	}
	bring(t, b, joined, c)
}

func evict(t testing.TB, d *device, store *log.Store, c *fs.Contents) Evicted {
	t.Helper()
	e, err := d.node.Evict(testContext(t), store, c.Blocks(false), nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// Blocks are evicted that another device proves to have, and no others; they
// come back when they are read.
func TestEvict(t *testing.T) {
	t.Parallel()
	a, b := newDevice(t, "a"), newDevice(t, "b")
	store, drive := a.author()
	data := noise(1, 8<<20)
	write(t, drive, "f", data)
	write(t, drive, "g", noise(2, 1<<20))
	joined := b.join(a.share(store, drive), false)
	d := b.open(joined)
	f := contents(t, d, "f")
	bring(t, b, joined, contents(t, d, "/"))

	holders := func(want uint64) {
		t.Helper()
		hs := a.node.Holders(testContext(t), store, f.Blocks(false))
		if len(hs) != 1 || hs[0].Name != "b" || hs[0].Err != nil || f.In(hs[0].Has) != want {
			t.Fatalf("holders %+v, %d bytes", hs, f.In(hs[0].Has))
		}
	}
	holders(f.Bytes)
	e := evict(t, b, joined, f)
	if f.Local() != 0 || e.Stay.Count() != 0 || e.Gone.Count() != f.Blocks(false).Count() || e.Freed < 7<<20 || e.Asked != 1 {
		t.Fatalf("%d bytes are here, %d blocks stay, %d are gone, %d bytes free", f.Local(), e.Stay.Count(), e.Gone.Count(), e.Freed)
	}
	holders(0)
	if n := stored(t, d, "f"); n != 1 {
		t.Fatalf("st_blocks is %d", n)
	}
	if n := stored(t, d, "g"); n != 2048 {
		t.Fatalf("st_blocks of another file is %d", n)
	}
	if got := read(t, d, "f", 0, len(data)); !bytes.Equal(got, data) {
		t.Fatal("other contents")
	}
	if f.Local() != f.Bytes {
		t.Fatal("what was read is not here")
	}
	// Pages and commits stay: the tree can be read without anybody.
	evict(t, b, joined, contents(t, d, "/"))
	if err := a.node.Close(); err != nil {
		t.Fatal(err)
	}
	if c := contents(t, d, "/"); c.Files != 2 || c.Local() != 0 {
		t.Fatalf("%d files, %d bytes here", c.Files, c.Local())
	}
	if l := joined.Logs()[0]; !l.Holds(l.Size() - 1) {
		t.Fatal("the newest commit is not here")
	}
}

// Without a proof nothing is evicted, whatever peers say.
func TestEvictLiars(t *testing.T) {
	for name, c := range map[string]struct {
		lie    func(a *answering, q *request) (uint8, error)
		banned bool
	}{
		"a false proof": {func(a *answering, q *request) (uint8, error) {
			return pretend(a, q, func(slice, []byte) [32]byte { return [32]byte{1} })
		}, true},
		"a proof without the nonce": {func(a *answering, q *request) (uint8, error) {
			return pretend(a, q, func(c slice, b []byte) [32]byte {
				q.nonce = [32]byte{}
				return q.proof(a.s.node.Key(), a.s.other, c, b)
			})
		}, true},
		"a proof made by another device": {func(a *answering, q *request) (uint8, error) {
			return pretend(a, q, func(c slice, b []byte) [32]byte { return q.proof([32]byte{7}, a.s.node.Key(), c, b) })
		}, true},
		"a proof made for another device": {func(a *answering, q *request) (uint8, error) {
			return pretend(a, q, func(c slice, b []byte) [32]byte { return q.proof(a.s.node.Key(), [32]byte{7}, c, b) })
		}, true},
		"a proof of a part": {func(a *answering, q *request) (uint8, error) {
			return pretend(a, q, func(c slice, b []byte) [32]byte { return q.proof(a.s.node.Key(), a.s.other, c, b[:len(b)-1]) })
		}, true},
		"a proof of another block": {func(a *answering, q *request) (uint8, error) {
			return pretend(a, q, func(c slice, b []byte) [32]byte { return q.proof(a.s.node.Key(), a.s.other, c, append(b, 0)) })
		}, true},
		"what was not asked for": {func(a *answering, q *request) (uint8, error) {
			a.begin(msgHeld)
			a.w.Uvarint(1 << 30)
			a.w.Raw(make([]byte, 32))
			return endOK, a.send(true)
		}, false},
		"blocks": {func(a *answering, q *request) (uint8, error) {
			a.begin(msgBlock)
			a.w.Uvarint(q.slices[0].index)
			a.w.Raw([]byte("it"))
			return endOK, a.send(true)
		}, false},
		"nothing":        {func(*answering, *request) (uint8, error) { return endOK, nil }, false},
		"that it cannot": {func(*answering, *request) (uint8, error) { return endCannot, nil }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newLiar(t, "a", func(a *answering, q *request) (uint8, error) {
				if q.typ == msgProbe {
					return c.lie(a, q)
				}
				return a.one(q)
			})
			b := newDevice(t, "b")
			store, drive := a.author()
			write(t, drive, "f", noise(1, 3<<20))
			joined := b.join(a.share(store, drive), false)
			d := b.open(joined)
			f := contents(t, d, "f")
			bring(t, b, joined, f)
			e := evict(t, b, joined, f)
			if f.Local() != f.Bytes || e.Gone.Count() != 0 || e.Stay.Count() != f.Blocks(false).Count() || e.Freed != 0 {
				t.Fatalf("%d bytes of %d are here, %d blocks stay, %d are gone", f.Local(), f.Bytes, e.Stay.Count(), e.Gone.Count())
			}
			if b.node.isBanned(a.node.Key()) != c.banned {
				t.Fatalf("banned: %v", !c.banned)
			}
		})
	}
}

// pretend answers a PROBE with proofs of its own.
func pretend(a *answering, q *request, proof func(c slice, block []byte) [32]byte) (uint8, error) {
	store, _, _ := a.s.node.shared(q.log.drive).state()
	l, err := store.Log(q.log.writer)
	if err != nil {
		return endUnknown, nil
	}
	for _, c := range q.slices {
		b, err := l.ReadStored(nil, c.index)
		if err != nil {
			return endCannot, nil
		}
		p := proof(c, b)
		a.begin(msgHeld)
		a.w.Uvarint(c.index)
		a.w.Raw(p[:])
		if err := a.send(true); err != nil {
			return 0, err
		}
	}
	return endOK, nil
}

// Nobody evicts what nobody else has, and of several devices that evict the same
// at the same time, one keeps it.
func TestEvictTogether(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	a := newDevice(t, "a")
	store, drive := a.author()
	data := noise(1, 2<<20)
	write(t, drive, "f", data)
	link := a.share(store, drive)
	var devices []*device
	var stores []*log.Store
	var all []*fs.Contents
	for i := range 3 {
		d := newDevice(t, fmt.Sprint("d", i))
		joined := d.join(link, false)
		c := contents(t, d.open(joined), "f")
		bring(t, d, joined, c)
		for _, other := range devices {
			if err := d.node.Connect(ctx, other.addr(), nil); err != nil {
				t.Fatal(err)
			}
		}
		devices, stores, all = append(devices, d), append(stores, joined), append(all, c)
	}
	if err := a.node.Close(); err != nil {
		t.Fatal(err)
	}
	for _, d := range devices {
		await(t, "the others share the drive", func() bool { return len(d.node.sharing(store.DriveID())) == 2 })
	}
	for round := range 10 {
		var group sync.WaitGroup
		for i := range devices {
			group.Go(func() {
				if _, err := devices[i].node.Evict(ctx, stores[i], all[i].Blocks(false), nil); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		for i := range all[0].Blocks(false)[0].GetCardinality() {
			index, err := all[0].Blocks(false)[0].Select(i)
			if err != nil {
				t.Fatal(err)
			}
			copies := 0
			for _, s := range stores {
				if s.Logs()[0].Holds(index) {
					copies++
				}
			}
			if copies == 0 {
				t.Fatalf("round %d: nobody has block %d any more", round, index)
			}
		}
		for i := range devices {
			if round%3 > 0 && all[i].Local() < all[i].Bytes {
				bring(t, devices[i], stores[i], all[i])
			}
		}
	}
	// One after the other: the last one keeps it.
	for i := range devices {
		if all[i].Local() < all[i].Bytes { // they may have kept a part each
			bring(t, devices[i], stores[i], all[i])
		}
	}
	for i := range devices {
		evict(t, devices[i], stores[i], all[i])
	}
	held := 0
	for i := range devices {
		if all[i].Local() == all[i].Bytes {
			held++
		}
	}
	if held == 0 {
		t.Fatal("nobody keeps all of it")
	}
}
