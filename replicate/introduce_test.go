package replicate

import (
	"bytes"
	"encoding/binary"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"hearth/log"
	"hearth/replicate/peer"
)

// connectedTo reports whether a device is connected to another one.
func (d *device) connectedTo(o *device) bool { return d.node.connected(o.node.Key()) }

// Two devices that know only the author's address find each other through it,
// and again, after one of them began anew, without it.
func TestIntroduced(t *testing.T) {
	t.Parallel()
	met := make(chan Contact, 10)
	a := newNodeDevice(t, "a", Options{Introduce: true})
	b := newNodeDevice(t, "b", Options{Introduce: true})
	c := newNodeDevice(t, "c", Options{Introduce: true, Introduced: func(k Contact) { met <- k }})
	store, drive := a.author()
	write(t, drive, "old", []byte("first"))
	link := a.share(store, drive)
	held := b.join(link, true)
	joined := c.join(link, false)
	d := c.open(joined)

	var contact Contact
	ctx := testContext(t)
	for contact.Key != b.node.Key() {
		select {
		case contact = <-met:
		case <-ctx.Done():
			t.Fatal("nobody introduced them")
		}
	}
	if contact.Addr != b.addr() {
		t.Errorf("it was met at %s, not %s", contact.Addr, b.addr())
	}
	for _, p := range c.node.Peers() {
		if p.Key == a.node.Key() && p.By != ([32]byte{}) {
			t.Error("who was dialed as the user said was introduced")
		}
	}

	// While one is away, the author writes something, which only the other one
	// has when the author goes.
	if err := c.node.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, drive, "new", []byte("second"))
	await(t, "the other one has it", func() bool { return whole(held, store) })
	if err := a.node.Close(); err != nil {
		t.Fatal(err)
	}
	again := newNodeDevice(t, "c", Options{Introduce: true, Contacts: []Contact{contact}})
	again.node.Add(joined, d, false)
	d.SetWalker(again.node.Walker(joined.DriveID()))
	await(t, "the new version is here", func() bool { return d.Newest() == drive.Newest() })
	if got := read(t, d, "new", 0, 100); string(got) != "second" {
		t.Fatalf("read %q", got)
	}
	peers := again.node.Peers()
	if len(peers) != 1 || peers[0].By != a.node.Key() {
		t.Fatalf("peers %+v", peers)
	}
}

// Nobody is told of devices that share another drive, nor of one that does not
// want that, until it does.
func TestWhoIsIntroduced(t *testing.T) {
	t.Parallel()
	a := newNodeDevice(t, "a", Options{Introduce: true})
	shy := newNodeDevice(t, "shy", Options{})
	other := newNodeDevice(t, "other", Options{Introduce: true})
	b, c := newNodeDevice(t, "b", Options{Introduce: true}), newNodeDevice(t, "c", Options{Introduce: true})
	store, drive := a.author()
	link := a.share(store, drive)
	store2, drive2 := a.author()
	shy.join(link, false)
	other.join(a.share(store2, drive2), false)
	b.join(link, false)
	c.join(link, false)
	await(t, "they find each other", func() bool { return b.connectedTo(c) })
	if shy.connectedTo(b) || shy.connectedTo(c) || other.connectedTo(b) || other.connectedTo(c) || other.connectedTo(shy) {
		t.Fatal("others were introduced")
	}
	for _, d := range []*device{b, c, other, shy} {
		for _, at := range d.node.contacts.list() {
			if at.key == shy.node.Key() || at.key == other.node.Key() || d == other || d == shy {
				t.Errorf("%s was told of %v", d.name, at)
			}
		}
	}
	shy.node.SetIntroductions(true)
	await(t, "it is introduced", func() bool { return shy.connectedTo(b) && shy.connectedTo(c) })
}

func (k *contacts) list() []located {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Collect(maps.Keys(k.all))
}

// say sends a peer messages of the control stream, as if all was well, once it
// knows that a drive is shared.
func (d *device) say(id log.DriveID, to *device, messages ...[]byte) {
	d.t.Helper()
	key := to.node.Key()
	if _, err := d.node.Reach(testContext(d.t), to.addr(), &key); err != nil {
		d.t.Fatal(err)
	}
	await(d.t, "the other side knows that they share a drive", func() bool {
		return slices.ContainsFunc(to.node.sharing(id), func(s *session) bool { return s.conn.Peer() == d.node.Key() })
	})
	for _, s := range d.node.allSessions() {
		if s.conn.Peer() != key {
			continue
		}
		for _, m := range messages {
			if err := s.write(m); err != nil {
				d.t.Log("the other side has enough:", err)
				return
			}
		}
	}
}

// victim is somebody who knows nothing of Hearth, and counts what comes.
type victim struct {
	conn           *net.UDPConn
	packets, bytes atomic.Int64
}

func newVictim(t *testing.T) *victim {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	v := &victim{conn: conn}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			v.packets.Add(1)
			v.bytes.Add(int64(n))
		}
	}()
	t.Cleanup(func() { _ = conn.Close(); <-done })
	return v
}

func (v *victim) addr() netip.AddrPort { return v.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// keyOf is a device that does not exist.
func keyOf(i int) (key peer.Key) {
	binary.BigEndian.PutUint64(key[:], uint64(i)+1)
	return key
}

// What a device says of others can cost those few packets, and nobody else
// anything.
func TestFalseIntroductions(t *testing.T) {
	t.Parallel()
	b := newNodeDevice(t, "b", Options{Introduce: true})
	a := newNodeDevice(t, "a", Options{Introduce: true})
	liar := newNodeDevice(t, "liar", Options{})
	store, drive := a.author()
	link := a.share(store, drive)
	b.join(link, false)
	liar.join(link, false)
	v := newVictim(t)
	id := store.DriveID()

	// Thousands of devices that are no devices, and some that are others.
	stranger := newNodeDevice(t, "stranger", Options{})
	lies := []located{
		{b.node.Key(), v.addr()},
		{a.node.Key(), v.addr()},
		{liar.node.Key(), v.addr()},
		{keyOf(1 << 20), netip.MustParseAddrPort(stranger.addr())},
		{keyOf(1 << 21), netip.MustParseAddrPort(b.addr())},
		{keyOf(1 << 22), netip.MustParseAddrPort("169.254.1.1:1")},
		{keyOf(1 << 23), netip.MustParseAddrPort("[::]:7")},
	}
	messages := [][]byte{(&introduction{drive: id, devices: lies}).encode()}
	for i := range maxPeersHeard - 2 {
		in := introduction{drive: id}
		for j := range maxPeers {
			in.devices = append(in.devices, located{keyOf(i*maxPeers + j), v.addr()})
		}
		messages = append(messages, in.encode())
	}
	liar.say(id, b, messages...)
	await(t, "it has tried what it is going to", func() bool {
		b.node.contacts.mu.Lock()
		defer b.node.contacts.mu.Unlock()
		return len(b.node.contacts.attempts) >= meetHourByTo && b.node.contacts.dialing == 0
	})
	packets, n := v.packets.Load(), v.bytes.Load()
	t.Logf("%d packets, %d bytes", packets, n)
	if packets == 0 || packets > meetHourByTo*10 {
		t.Errorf("the victim got %d packets", packets)
	}
	known := b.node.contacts.list()
	if len(known) > maxContactsBy+4 { // and those that the author told of
		t.Errorf("%d devices are remembered", len(known))
	}
	for _, at := range known {
		if at.key == b.node.Key() || at.addr.Addr().IsLinkLocalUnicast() || at.addr.Addr().IsUnspecified() {
			t.Errorf("%v is remembered", at)
		}
	}
	if b.node.connected(stranger.node.Key()) || b.node.isBanned(liar.node.Key()) || b.node.isBanned(stranger.node.Key()) {
		t.Error("somebody else is blamed, or connected")
	}
	if len(b.node.Peers()) != 2 {
		t.Errorf("peers %+v", b.node.Peers())
	}

	// Who comes later is introduced all the same.
	c := newNodeDevice(t, "c", Options{Introduce: true})
	c.join(link, false)
	await(t, "an honest introduction counts", func() bool { return b.connectedTo(c) })
	if n := v.packets.Load(); n > meetHourByTo*10 {
		t.Errorf("the victim got %d packets", n)
	}

	// Too many of them break the protocol.
	liar.say(id, b, slices.Repeat(messages[:1], 100*maxPeersHeard)...)
	await(t, "it is disconnected", func() bool { return !b.connectedTo(liar) })
}

// A device that shares no drive, whatever was said, is left.
func TestIntroducedStranger(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes the time that a device may take to say what it shares; make test takes it")
	}
	t.Parallel()
	b := newNodeDevice(t, "b", Options{Introduce: true})
	a, stranger := newNodeDevice(t, "a", Options{}), newNodeDevice(t, "stranger", Options{})
	store, drive := a.author()
	b.join(a.share(store, drive), false)
	a.say(store.DriveID(), b, (&introduction{drive: store.DriveID(), devices: []located{{stranger.node.Key(), netip.MustParseAddrPort(stranger.addr())}}}).encode())
	await(t, "it is dialed", func() bool { return b.connectedTo(stranger) })
	await(t, "it is left", func() bool { return !b.connectedTo(stranger) })
	if !b.connectedTo(a) {
		t.Error("others were left")
	}
}

// One that was forgotten, or banned, is not met by being introduced.
func TestForgottenIsNotIntroduced(t *testing.T) {
	t.Parallel()
	a := newNodeDevice(t, "a", Options{Introduce: true})
	c := newNodeDevice(t, "c", Options{Introduce: true})
	bad := newNodeDevice(t, "bad", Options{})
	b := newNodeDevice(t, "b", Options{Introduce: true, Forgotten: [][32]byte{c.node.Key()}, Banned: map[[32]byte]string{bad.node.Key(): "it lied"}})
	store, drive := a.author()
	link := a.share(store, drive)
	c.node.Forget(b.node.Key()) // so that it does not dial either
	for _, d := range []*device{c, bad, b} {
		d.join(link, false)
	}
	bad.node.SetIntroductions(true)
	d := newNodeDevice(t, "d", Options{Introduce: true})
	d.join(link, false)
	await(t, "the others meet", func() bool { return b.connectedTo(d) && c.connectedTo(d) })
	if b.connectedTo(c) || b.connectedTo(bad) {
		t.Fatal("who was forgotten or banned was met")
	}
	for _, at := range b.node.contacts.list() {
		if at.key == c.node.Key() || at.key == bad.node.Key() {
			t.Errorf("%v is remembered", at)
		}
	}
}

func TestPassable(t *testing.T) {
	for _, c := range []struct {
		addr, other string
		ok          bool
	}{
		{"192.0.2.7:29443", "198.51.100.1", true},
		{"192.0.2.7:29443", "192.168.1.2", true},
		{"192.0.2.7:29443", "127.0.0.1", true},
		{"[2001:db8::7]:1", "2001:db8::8", true},
		{"192.0.2.7:0", "198.51.100.1", false},
		{"127.0.0.1:1", "127.0.0.1", true},
		{"127.0.0.1:1", "192.168.1.2", false},
		{"127.0.0.1:1", "198.51.100.1", false},
		{"[::1]:1", "127.0.0.1", true},
		{"[::1]:1", "2001:db8::8", false},
		{"192.168.1.2:1", "192.168.1.3", true},
		{"192.168.1.2:1", "127.0.0.1", true},
		{"192.168.1.2:1", "fe80::1%lo", true},
		{"192.168.1.2:1", "198.51.100.1", false},
		{"10.1.1.1:1", "2001:db8::8", false},
		{"100.64.0.1:1", "198.51.100.1", false},
		{"100.64.0.1:1", "100.64.0.2", true},
		{"[fd00::1]:1", "198.51.100.1", false},
		{"[fd00::1]:1", "fd00::2", true},
		{"169.254.1.1:1", "169.254.1.2", false},
		{"[fe80::1%lo]:1", "fe80::2%lo", false},
		{"[fe80::1]:1", "fe80::2%lo", false},
		{"0.0.0.0:1", "127.0.0.1", false},
		{"[::]:1", "127.0.0.1", false},
		{"224.0.0.1:1", "192.168.1.2", false},
		{"[ff02::1]:1", "fe80::1%lo", false},
		{"255.255.255.255:1", "192.168.1.2", false},
		{"[::ffff:127.0.0.1]:1", "127.0.0.1", false},
		{"[::ffff:192.0.2.7]:1", "198.51.100.1", false},
	} {
		if got := passable(netip.MustParseAddrPort(c.addr), netip.MustParseAddr(c.other)); got != c.ok {
			t.Errorf("%s is told to %s: %v", c.addr, c.other, got)
		}
	}
}

// What many liars say in some hours makes a device try few of it.
func TestAttemptsAreBounded(t *testing.T) {
	t.Parallel()
	k, err := newContacts(&Options{})
	if err != nil {
		t.Fatal(err)
	}
	drive := log.DriveID{1}
	with := company{drives: map[log.DriveID]int{drive: 0}}
	start := time.Unix(1_700_000_000, 0)
	host := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i % 5)}), uint16(1000+i))
	}
	type tries struct {
		all, by, to int
	}
	hours := map[int]map[string]int{}
	most := tries{}
	next := 0
	for now := start; now.Before(start.Add(6 * time.Hour)); now = now.Add(20 * time.Second) {
		for liar := range 20 {
			k.add(located{keyOf(next), host(next)}, keyOf(1<<30+liar), drive, false, now)
			next++
		}
		dial, met, _ := k.next(with, now)
		if len(met) > 0 || len(dial) > meetAtOnce {
			t.Fatalf("%d met, %d dialed", len(met), len(dial))
		}
		hour := int(now.Sub(start) / time.Hour)
		if hours[hour] == nil {
			hours[hour] = map[string]int{}
		}
		for _, c := range dial {
			for what, m := range map[string]*int{"all": &most.all, "by" + string(c.by[:]): &most.by, "to" + c.addr.Addr().String(): &most.to} {
				hours[hour][what]++
				*m = max(*m, hours[hour][what])
			}
			k.dialed(c, peer.ErrNoAnswer, now)
		}
		if len(k.all) > maxContacts || len(k.attempts) > meetHour {
			t.Fatalf("%d contacts, %d attempts are remembered", len(k.all), len(k.attempts))
		}
	}
	t.Logf("at most %+v in an hour", most)
	if most.all > meetHour || most.by > meetHourBy || most.to > meetHourTo || most.all == 0 {
		t.Errorf("%+v in an hour", most)
	}
}

// A device that was there is looked for again and again, one that never was is
// not for long, and none if there are enough others.
func TestWhoIsLookedFor(t *testing.T) {
	t.Parallel()
	at := located{keyOf(1), netip.MustParseAddrPort("192.0.2.1:1")}
	k, err := newContacts(&Options{Contacts: []Contact{{Key: at.key, Addr: at.addr.String()}}})
	if err != nil {
		t.Fatal(err)
	}
	drive, now := log.DriveID{1}, time.Unix(1_700_000_000, 0)
	never := located{keyOf(2), netip.MustParseAddrPort("192.0.2.2:1")}
	k.add(never, keyOf(3), drive, false, now)
	for _, with := range []company{
		{},
		{drives: map[log.DriveID]int{drive: enoughPeers}},
		{drives: map[log.DriveID]int{drive: 0}, at: map[peer.Key][]netip.AddrPort{at.key: nil, never.key: nil}},
		{drives: map[log.DriveID]int{drive: 0}, dialing: map[string]bool{at.addr.String(): true, never.addr.String(): true}},
	} {
		if dial, _, again := k.next(with, now); len(dial) > 0 || again != 0 {
			t.Fatalf("%d are looked for with %+v, and in %v", len(dial), with, again)
		}
	}
	if dial, _, _ := k.next(company{drives: map[log.DriveID]int{{9}: 0}}, now); len(dial) != 1 || dial[0].located != at {
		t.Fatal("for another drive somebody else is looked for")
	} else {
		k.dialed(dial[0], peer.ErrNoAnswer, now)
	}
	count := map[located]int{}
	with := company{drives: map[log.DriveID]int{drive: 0}}
	for end := now.Add(10 * time.Hour); now.Before(end); {
		dial, _, again := k.next(with, now)
		for _, c := range dial {
			count[c.located]++
			k.dialed(c, peer.ErrNoAnswer, now)
		}
		now = now.Add(max(again, time.Second))
	}
	if count[never] != len(meetAgain)+1 || count[at] < remeetOften || count[at] > remeetOften+20 {
		t.Fatalf("tried %d and %d times", count[never], count[at])
	}
	// Hours later somebody says again that it is there.
	k.add(never, keyOf(3), drive, false, now)
	liar := located{keyOf(4), netip.MustParseAddrPort("192.0.2.4:1")}
	k.add(liar, keyOf(5), drive, false, now)
	with.banned = map[peer.Key]bool{keyOf(5): true} // so what it said counts no more
	with.at = map[peer.Key][]netip.AddrPort{at.key: {at.addr}}
	dial, met, _ := k.next(with, now)
	if len(dial) != 1 || dial[0].located != never {
		t.Fatalf("%d are looked for", len(dial))
	}
	if len(met) != 1 || met[0].Addr != at.addr.String() {
		t.Fatalf("met %+v", met)
	}
	if _, met, _ := k.next(with, now); len(met) > 0 {
		t.Fatal("it is told twice")
	}
	if bytes.Equal(met[0].Key[:], never.key[:]) {
		t.Fatal("who was not there was met")
	}
}
