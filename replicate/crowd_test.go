package replicate

import (
	"bytes"
	"fmt"
	"testing"

	"hearth/log"
)

// meet connects a device to another.
func (d *device) meet(others ...*device) {
	d.t.Helper()
	for _, o := range others {
		key := o.node.Key()
		if err := d.node.Connect(testContext(d.t), o.addr(), &key); err != nil {
			d.t.Fatal(err)
		}
	}
}

// holder is a device that keeps the drive of a link whole.
func holder(t *testing.T, name string, k *Link) (*device, *log.Store) {
	d := newDevice(t, name)
	hold := *k
	hold.Seed = nil
	return d, d.join(&hold, true)
}

func whole(store, author *log.Store) bool {
	l := store.Logs()[0]
	_, n := l.NextMissing(0, 1)
	return l.Head().Size == author.Own().Head().Size && n == 0
}

// received is what came to a device from its peers, in bytes.
func (d *device) received() (n uint64) {
	for _, p := range d.node.Peers() {
		n += p.Received
	}
	return n
}

// Peers that have different parts of a drive complete each other, and a third
// one, without its author.
func TestHalves(t *testing.T) {
	a := newDevice(t, "a")
	store, drive := a.author()
	data := noise(3, 16<<20)
	write(t, drive, "f", data)
	link := a.share(store, drive)
	// Two that read a half each, from a drive that they do not keep.
	b, c := newDevice(t, "b"), newDevice(t, "c")
	first, second := b.join(link, false), c.join(link, false)
	half := len(data) / 2
	if got := read(t, b.open(first), "f", 0, half+1<<20); !bytes.Equal(got, data[:half+1<<20]) {
		t.Fatal("other contents")
	}
	if got := read(t, c.open(second), "f", int64(half)-1<<20, half+1<<20); !bytes.Equal(got, data[half-1<<20:]) {
		t.Fatal("other contents")
	}
	await(t, "what is read ahead has come", func() bool { return !first.Logs()[0].Holds(1<<30) && idle(b) && idle(c) })
	if err := a.node.Close(); err != nil {
		t.Fatal(err)
	}
	d := newDevice(t, "d")
	link.Device, link.Addresses = b.node.Key(), []string{b.addr()}
	joined := d.join(link, false)
	d.meet(c)
	opened := d.open(joined)
	if got := read(t, opened, "f", 0, len(data)); !bytes.Equal(got, data) {
		t.Fatal("other contents")
	}
	if peers := d.node.Peers(); len(peers) != 2 || peers[0].Received < uint64(half)/2 || peers[1].Received < uint64(half)/2 {
		t.Errorf("not both have helped: %+v", peers)
	}
	// Whoever keeps all has nothing to wait for that is nowhere.
	d.node.Add(joined, opened, true)
	c.meet(b)
	c.node.Add(second, nil, true)
	await(t, "two halves make a whole, but for what nobody has", func() bool {
		l := second.Logs()[0]
		for i := range l.Head().Size {
			if !l.Holds(i) && joined.Logs()[0].Holds(i) {
				return false
			}
		}
		return true
	})
}

func idle(d *device) bool {
	for _, s := range d.node.allSessions() {
		if s.inFlight.Load() > 0 {
			return false
		}
	}
	return true
}

// A holder that goes away in the middle costs no more than the time to ask
// another one.
func TestVanishing(t *testing.T) {
	a := newDevice(t, "a")
	store, drive := a.author()
	write(t, drive, "f", noise(4, 48<<20))
	link := a.share(store, drive)
	h, held := holder(t, "h", link)
	await(t, "the holder has everything", func() bool { return whole(held, store) })
	b, kept := holder(t, "b", link)
	b.meet(h)
	await(t, "the holder has begun", func() bool { return b.received() > 1<<20 })
	if err := a.node.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, "the other holder completes it", func() bool { return whole(kept, store) })
}

// Many that copy a drive at once give it to each other: its author does not
// send it to each of them.
func TestSwarm(t *testing.T) {
	const leechers = 5
	a := newDevice(t, "a")
	store, drive := a.author()
	const size = 32 << 20
	write(t, drive, "f", noise(5, size))
	link := a.share(store, drive)
	// What limits is what the author sends; here every answer of it waits.
	var stores []*log.Store
	var devices []*device
	for i := range leechers {
		d := newDevice(t, fmt.Sprint("l", i))
		d.meet(devices...)
		devices = append(devices, d)
	}
	for _, d := range devices {
		hold := *link
		hold.Seed = nil
		stores = append(stores, d.join(&hold, true))
	}
	await(t, "all have everything", func() bool {
		for _, s := range stores {
			if !whole(s, store) {
				return false
			}
		}
		return true
	})
	var sent uint64
	for _, p := range a.node.Peers() {
		sent += p.Sent
	}
	t.Logf("the author sent %d times the drive to %d", sent/size, leechers)
	var twice uint64
	for _, d := range devices {
		twice += d.received()
	}
	if most := uint64(leechers * (size + size/5)); twice > most {
		t.Errorf("%d bytes were received, of %d that were needed", twice, leechers*size)
	}
}

// What a peer says it has takes no more memory than a peer is worth.
func TestHoldingsBound(t *testing.T) {
	h := newHoldings()
	for i := range 12 {
		var ranges []span
		for k := range uint64(maxHoldsRanges) {
			ranges = append(ranges, span{(uint64(i)*maxHoldsRanges + k) << 17, 1})
		}
		h.add(logName{writer: 1}, ranges)
	}
	h.add(logName{writer: 2}, []span{{0, maxIndex}})
	var used uint64
	for _, b := range h.logs {
		used += b.GetSizeInBytes()
	}
	if used > maxHoldsMemory {
		t.Fatalf("%d bytes", used)
	}
	small := newHoldings()
	name := logName{writer: 3}
	small.add(name, []span{{0, 16 << 20}, {17 << 20, 5}})
	if !small.has(name, 16<<20-1) || small.has(name, 16<<20) || small.count(name, 17<<20+2) != 16<<20+2 {
		t.Fatal("not what was said")
	}
	small.lacks(name, []uint64{7})
	if small.has(name, 7) || !small.hasAll(name, []uint64{6, 8}) {
		t.Fatal("what was gone is remembered otherwise")
	}
	small.add(name, []span{{7, 1}})
	small.lacks(name, []uint64{8})
	if !small.has(name, 7) || small.has(name, 8) {
		t.Fatal("what is said again does not count")
	}
	if small.forgive(); !small.has(name, 8) {
		t.Fatal("a peer is never asked again")
	}
}

// A window opens on a path that delivers, and closes on one that does not.
func TestWindow(t *testing.T) {
	w := newWindow()
	first := w.open()
	w.asked(8)
	for range 800 {
		w.took(64<<10, 0)
	}
	w.begun = w.begun.Add(-rateTime)
	w.took(64<<10, 0)
	if w.open() < first {
		t.Errorf("%d entries after %d, though 50 MiB came in a tenth of a second", w.open(), first)
	}
	for range 20 {
		w.begun = w.begun.Add(-10 * rateTime)
		w.took(64<<10, 0)
	}
	if limit := w.limit; limit > 2*windowLeast {
		t.Errorf("a window of %d bytes for 64 KiB a second", limit)
	}
	if w.room(4) > w.open()-8 {
		t.Error("what is in flight has room")
	}
}
