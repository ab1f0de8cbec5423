package discovery

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/grandcat/zeroconf"
)

// base is a moment without a monotonic clock, as good as any.
var base = time.Date(2026, 2, 20, 13, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return base.Add(time.Duration(seconds * float64(time.Second))) }

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func secretOf(b byte) [32]byte { return [32]byte{b, 1} }

func keyOf(b byte) Key { return Key{b, 2} }

// whoOf is a pseudonym that nobody's secret makes.
func whoOf(n int) pseudonym {
	var p pseudonym
	binary.BigEndian.PutUint32(p[12:], uint32(n)+1)
	return p
}

func beaconFrom(who pseudonym, addr string) sighting {
	return sighting{who: who, addr: addrPort(addr), link: "eth0", via: byMulticast4}
}

func mdnsFrom(who pseudonym, addr string) sighting {
	s := beaconFrom(who, addr)
	s.via = byMDNS
	return s
}

func (t *table) addrs(now time.Time) []string {
	var out []string
	for _, d := range t.devices(now) {
		for _, a := range d.Addrs {
			out = append(out, a.String())
		}
	}
	return out
}

func TestKnownAreRecognised(t *testing.T) {
	tab := newTable()
	hour := hourOf(base)
	secret := secretOf(1)
	tab.expect(map[Key][32]byte{keyOf(1): secret}, hour)
	for h := hour - 2; h <= hour+2; h++ {
		tab := newTable()
		tab.expect(map[Key][32]byte{keyOf(1): secret}, hour)
		tab.heard(beaconFrom(pseudonymOf(&secret, h), "192.0.2.9:1"), base)
		d := tab.devices(base)
		want := h >= hour-1 && h <= hour+1
		if len(d) != 1 || d[0].Known != want || (d[0].Key == keyOf(1)) != want {
			t.Errorf("with a clock %d hours away: %+v", h-hour, d)
		}
	}
	// One entry through the change of the hour, with its first sight.
	tab.heard(beaconFrom(pseudonymOf(&secret, hour), "192.0.2.9:1"), at(0))
	tab.expect(tab.secrets, hour+1)
	tab.heard(beaconFrom(pseudonymOf(&secret, hour+1), "192.0.2.9:1"), at(3))
	if d := tab.devices(at(3)); len(d) != 1 || d[0].First != at(0) || d[0].ID != pseudonymOf(&secret, hour+1).id() {
		t.Errorf("after the hour: %+v", d)
	}
}

func TestSetKnownSortsTheTable(t *testing.T) {
	tab := newTable()
	hour := hourOf(base)
	secret := secretOf(1)
	now, before := pseudonymOf(&secret, hour), pseudonymOf(&secret, hour-1)
	tab.expect(nil, hour)
	tab.heard(beaconFrom(before, "192.0.2.9:1"), at(0))
	tab.heard(beaconFrom(now, "192.0.2.9:2"), at(1))
	if d := tab.devices(at(1)); len(d) != 2 || d[0].Known || d[1].Known {
		t.Fatalf("strangers: %+v", d)
	}
	if !tab.expect(map[Key][32]byte{keyOf(1): secret}, hour) {
		t.Error("to know somebody is no change")
	}
	d := tab.devices(at(1))
	if len(d) != 1 || !d[0].Known || len(d[0].Addrs) != 2 || d[0].First != at(0) || d[0].ID != now.id() {
		t.Fatalf("two pseudonyms of one device: %+v", d)
	}
	if !tab.expect(nil, hour) {
		t.Error("to forget somebody is no change")
	}
	if d := tab.devices(at(1)); len(d) != 1 || d[0].Known || d[0].Key != (Key{}) {
		t.Errorf("forgotten: %+v", d)
	}
}

func TestSilence(t *testing.T) {
	type step struct {
		at   float64
		say  *sighting
		want int  // devices after it
		ask  bool // somebody is asked
	}
	who := whoOf(1)
	here := beaconFrom(who, "192.0.2.9:1")
	mdns := mdnsFrom(who, "192.0.2.9:1")
	bye := here
	bye.bye = true
	false1, false2 := bye, bye
	false1.addr, false2.link = addrPort("192.0.2.8:1"), "eth1"
	for name, steps := range map[string][]step{
		"a beacon holds 8 s": {{0, &here, 1, false}, {4.9, nil, 1, false}, {5.1, nil, 1, true}, {6, nil, 1, false},
			{7.9, nil, 1, false}, {8, nil, 0, false}},
		"asked once a silence":                           {{0, &here, 1, false}, {6, nil, 1, true}, {7, &here, 1, false}, {12.5, nil, 1, true}},
		"mdns holds 50 s":                                {{0, &mdns, 1, false}, {49, nil, 1, false}, {50, nil, 0, false}},
		"an old answer of mdns does not outlive beacons": {{0, &here, 1, false}, {4, &mdns, 1, false}, {7.9, nil, 1, true}, {8, nil, 0, false}},
		"an answer to the question does":                 {{0, &here, 1, false}, {5.2, nil, 1, true}, {5.5, &mdns, 1, false}, {30, nil, 1, false}, {56, nil, 0, false}},
		"goodbye, no answer":                             {{0, &here, 1, false}, {1, &bye, 1, false}, {2.9, nil, 1, false}, {3, nil, 0, false}},
		"goodbye, answered":                              {{0, &here, 1, false}, {1, &bye, 1, false}, {1.2, &here, 1, false}, {7, nil, 1, true}},
		"goodbye from elsewhere":                         {{0, &here, 1, false}, {1, &false1, 1, false}, {1, &false2, 1, false}, {5, nil, 1, false}},
		"mdns says no goodbye":                           {{0, &mdns, 1, false}, {1, &bye, 1, false}, {9, nil, 1, false}},
		"goodbye of nobody":                              {{0, &bye, 0, false}},
	} {
		tab := newTable()
		for _, s := range steps {
			if s.say != nil {
				tab.heard(*s.say, at(s.at))
			}
			_, ask := tab.sweep(at(s.at))
			if got := len(tab.devices(at(s.at))); got != s.want || (len(ask) > 0) != s.ask {
				t.Errorf("%s: %d devices after %g s, asked %v", name, got, s.at, ask)
			}
		}
	}
}

func TestSleepDoubtsAll(t *testing.T) {
	tab := newTable()
	tab.heard(beaconFrom(whoOf(1), "192.0.2.1:1"), at(0))
	tab.heard(mdnsFrom(whoOf(2), "192.0.2.2:1"), at(0))
	tab.heard(mdnsFrom(whoOf(3), "192.0.2.3:1"), at(0))
	tab.doubt(at(1).Add(wakeTTL))
	tab.heard(mdnsFrom(whoOf(3), "192.0.2.3:1"), at(2))
	tab.sweep(at(5.1))
	if got := tab.addrs(at(5.1)); !slices.Equal(got, []string{"192.0.2.3:1"}) {
		t.Errorf("after sleep: %v", got)
	}
}

func TestWhatIsAChange(t *testing.T) {
	tab := newTable()
	a := beaconFrom(whoOf(1), "192.0.2.1:1")
	named := a
	named.name = "Anna"
	stale := mdnsFrom(whoOf(1), "192.0.2.1:1")
	other := a
	other.link, other.addr = "wlan0", addrPort("198.51.100.1:1")
	for i, c := range []struct {
		s              sighting
		changed, fresh bool
	}{
		{a, true, true}, {a, false, false}, {named, true, false}, {named, false, false},
		{stale, true, false}, // a new way, though its name is from before
		{stale, false, false}, {other, true, true}, {named, true, false},
	} {
		changed, fresh := tab.heard(c.s, at(float64(i)/10))
		if changed != c.changed || fresh != c.fresh {
			t.Errorf("step %d: changed %v, fresh %v", i, changed, fresh)
		}
	}
	d := tab.devices(at(1))
	if len(d) != 1 || d[0].Name != "Anna" || !slices.Equal(d[0].Via, []string{"ipv4 multicast", "mdns"}) {
		t.Errorf("%+v", d)
	}
	if tab.keepLinks(func(name string) bool { return true }) || !tab.keepLinks(func(name string) bool { return name == "wlan0" }) {
		t.Error("links")
	}
	if got := tab.addrs(at(1)); !slices.Equal(got, []string{"198.51.100.1:1"}) {
		t.Errorf("without eth0: %v", got)
	}
}

func TestFailures(t *testing.T) {
	tab := newTable()
	bad, good := addrPort("192.0.2.1:1"), addrPort("192.0.2.2:1")
	tab.heard(beaconFrom(whoOf(1), bad.String()), at(0))
	tab.heard(beaconFrom(whoOf(1), good.String()), at(0))
	tab.worked(good)
	if got := tab.addrs(at(0)); !slices.Equal(got, []string{good.String(), bad.String()}) {
		t.Fatalf("what worked is not first: %v", got)
	}
	wait := 5.0
	now := 0.0
	for range 8 {
		if !tab.failed(bad, at(now)) {
			t.Fatal("a failure is no change")
		}
		tab.heard(beaconFrom(whoOf(1), bad.String()), at(now+wait-0.1)) // to hear it is no proof
		tab.heard(beaconFrom(whoOf(1), good.String()), at(now+wait-0.1))
		if got := tab.addrs(at(now + wait - 0.1)); !slices.Equal(got, []string{good.String()}) {
			t.Fatalf("%g s after a failure: %v", wait-0.1, got)
		}
		if changed, _ := tab.sweep(at(now + wait)); !changed || len(tab.addrs(at(now+wait))) != 2 {
			t.Fatalf("%g s after a failure: %v", wait, tab.addrs(at(now+wait)))
		}
		now += wait
		wait = min(2*wait, 300)
	}
	tab.failed(bad, at(now))
	tab.failed(good, at(now))
	if got := tab.devices(at(now)); len(got) != 0 {
		t.Errorf("a device without a working address is listed: %+v", got)
	}
	if !tab.forgive() || len(tab.addrs(at(now))) != 2 {
		t.Error("forgiven addresses are not offered")
	}
	if tab.failed(addrPort("192.0.2.77:1"), at(now)) {
		t.Error("an address of nobody failed")
	}
}

func TestBounds(t *testing.T) {
	tab := newTable()
	known := map[Key][32]byte{}
	for i := range 10 {
		known[keyOf(byte(i))] = secretOf(byte(i))
	}
	tab.expect(known, hourOf(base))
	for i := range 10 {
		secret := secretOf(byte(i))
		tab.heard(beaconFrom(pseudonymOf(&secret, hourOf(base)), "192.0.2.9:1"), at(0))
	}
	shown := beaconFrom(whoOf(-1), "192.0.2.9:3")
	shown.name = "Anna"
	tab.heard(shown, at(0))
	for i := range 3 * devicesMax {
		tab.heard(beaconFrom(whoOf(i), netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 9).String()), at(1+float64(i)/1000))
	}
	devices := tab.devices(at(2))
	if len(tab.entries) != devicesMax || len(devices) != devicesMax {
		t.Fatalf("%d entries, %d devices", len(tab.entries), len(devices))
	}
	for i := range 10 {
		if !devices[i].Known {
			t.Errorf("strangers pushed out the known: %+v", devices[i])
		}
	}
	if devices[10].Name != "Anna" {
		t.Errorf("strangers nobody can see pushed out one that is visible: %+v", devices[10])
	}

	tab = newTable()
	tab.heard(beaconFrom(whoOf(1), "192.0.2.1:1"), at(0))
	tab.failed(addrPort("192.0.2.1:1"), at(0))
	for port := range 100 {
		tab.heard(beaconFrom(whoOf(1), netip.AddrPortFrom(netip.MustParseAddr("192.0.2.2"), uint16(port+1)).String()), at(1))
	}
	got := tab.addrs(at(1))
	if len(got) != addressesMax || slices.Contains(got, "192.0.2.1:1") || !slices.Contains(got, "192.0.2.2:1") {
		t.Errorf("the failed makes way and the first stay: %v", got)
	}
}

func TestAnAddressIsOfOneStranger(t *testing.T) {
	tab := newTable()
	tab.heard(beaconFrom(whoOf(1), "192.0.2.1:1"), at(0))
	tab.heard(beaconFrom(whoOf(2), "192.0.2.1:1"), at(1)) // the next hour
	if d := tab.devices(at(1)); len(d) != 1 || d[0].ID != whoOf(2).id() {
		t.Errorf("%+v", d)
	}
}

func TestOrderOfAddresses(t *testing.T) {
	tab := newTable()
	want := []string{"127.0.0.1:1", "192.0.2.1:1", "[2001:db8::1]:1", "[fe80::1%eth0]:1"}
	for _, a := range slices.Backward(want) {
		tab.heard(beaconFrom(whoOf(1), a), at(0))
	}
	if got := tab.addrs(at(0)); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

func TestLimits(t *testing.T) {
	var l limiter
	one := netip.MustParseAddr("192.0.2.1")
	count := func(n int, from func(i int) netip.Addr, now time.Time) (taken int) {
		for i := range n {
			if l.allow(from(i), now) {
				taken++
			}
		}
		return taken
	}
	same := func(int) netip.Addr { return one }
	if got := count(10000, same, at(0)); got != sourceBurst {
		t.Errorf("%d of a flood from one source", got)
	}
	if got := count(10000, same, at(1)); got != sourceRate {
		t.Errorf("%d a second later", got)
	}
	if !l.allow(netip.MustParseAddr("192.0.2.2"), at(1)) {
		t.Error("a flood from one source drowns another")
	}
	many := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	if got := count(100000, many, at(2)); got > totalBurst || len(l.sources) > sourcesMax {
		t.Errorf("%d of a flood from everywhere, %d sources", got, len(l.sources))
	}
	count(1, func(int) netip.Addr { return netip.MustParseAddr("192.0.2.3") }, at(60))
	if len(l.sources) != 1 {
		t.Errorf("%d sources are remembered", len(l.sources))
	}
}

func TestOnLink(t *testing.T) {
	eth := iface{prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24"), netip.MustParsePrefix("2001:db8:1::7/64")}}
	lo := iface{loopback: true, prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}}
	for a, want := range map[string][2]bool{
		"192.0.2.1":       {true, false},
		"192.0.2.255":     {false, false},
		"198.51.100.1":    {false, false},
		"127.0.0.1":       {false, true},
		"fe80::1":         {true, false},
		"2001:db8:1::9":   {true, false},
		"2001:db8:2::9":   {false, false},
		"0.0.0.0":         {false, false},
		"224.0.0.251":     {false, false},
		"255.255.255.255": {false, false},
		"::":              {false, false},
	} {
		addr := netip.MustParseAddr(a)
		if got := [2]bool{eth.onLink(addr), lo.onLink(addr)}; got != want {
			t.Errorf("%s: on eth0 and lo: %v", a, got)
		}
	}
	for p, want := range map[string]string{"192.0.2.7/24": "192.0.2.255", "10.1.2.3/9": "10.127.255.255",
		"127.0.0.1/8": "127.255.255.255", "192.0.2.6/30": "192.0.2.7", "192.0.2.6/31": "invalid IP", "192.0.2.6/32": "invalid IP",
		"fe80::1/64": "invalid IP"} {
		if got := broadcastOf(netip.MustParsePrefix(p)).String(); got != want {
			t.Errorf("the broadcast address of %s is %s", p, got)
		}
	}
}

func TestPlace(t *testing.T) {
	named := func(name string, prefixes ...string) iface {
		l := iface{net: net.Interface{Name: name}}
		for _, p := range prefixes {
			l.prefixes = append(l.prefixes, netip.MustParsePrefix(p))
		}
		return l
	}
	links := []iface{named("eth0", "192.0.2.7/24", "fe80::7/64"), named("eth1", "198.51.100.7/24", "fe80::8/64"), named("eth2", "203.0.113.7/24")}
	for _, c := range []struct{ in, want []string }{
		{[]string{"192.0.2.1"}, []string{"192.0.2.1 eth0"}},
		{[]string{"192.0.2.1", "fe80::1"}, []string{"192.0.2.1 eth0", "fe80::1%eth0 eth0"}},
		{[]string{"fe80::1"}, []string{"fe80::1%eth0 eth0", "fe80::1%eth1 eth1"}},
		{[]string{"8.8.8.8", "127.0.0.1", "::1", "2001:db8::1"}, nil},
	} {
		e := &zeroconf.ServiceEntry{}
		for _, a := range c.in {
			e.AddrIPv6 = append(e.AddrIPv6, net.ParseIP(a))
		}
		var got []string
		for _, p := range place(e, links) {
			got = append(got, p.addr.String()+" "+p.link)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%v is %v", c.in, got)
		}
	}
	e := &zeroconf.ServiceEntry{}
	for i := range 1000 {
		e.AddrIPv6 = append(e.AddrIPv6, net.IP{0xfe, 0x80, 13: 0, 14: byte(i >> 8), 15: byte(i)})
	}
	if got := len(place(e, links)); got > addressesMax {
		t.Errorf("%d addresses of one record", got)
	}
}

func TestBeaconsThatReachAllSpareMDNS(t *testing.T) {
	tab := newTable()
	if tab.beaconed(at(0)) {
		t.Error("nobody was heard")
	}
	tab.heard(beaconFrom(whoOf(1), "192.0.2.1:1"), at(0))
	tab.heard(mdnsFrom(whoOf(1), "192.0.2.9:1"), at(0))
	if !tab.beaconed(at(1)) {
		t.Error("all are heard by beacon")
	}
	// An address that only mDNS knows stays as long as mDNS is asked seldom.
	for s := 2.0; s < spareTTL.Seconds()-1; s += 2 {
		tab.heard(beaconFrom(whoOf(1), "192.0.2.1:1"), at(s))
		tab.sweep(at(s))
	}
	now := spareTTL.Seconds() - 1
	if n := len(tab.addrs(at(now))); n != 2 {
		t.Errorf("%d addresses are left", n)
	}
	tab.heard(beaconFrom(whoOf(1), "192.0.2.1:1"), at(now+2))
	tab.sweep(at(now + 2))
	if n := len(tab.addrs(at(now + 2))); n != 1 {
		t.Errorf("%d addresses are left when mDNS was asked and did not say it again", n)
	}
	// One that only mDNS hears, and one whose beacons end, need it.
	if tab.beaconed(at(now + 2 + beaconTTL.Seconds() + 1)) {
		t.Error("its beacons have ended")
	}
	tab.heard(mdnsFrom(whoOf(2), "192.0.2.2:1"), at(now+2))
	if tab.beaconed(at(now + 2)) {
		t.Error("one was never heard by beacon")
	}
}
