package discovery

import (
	"net/netip"
	"time"
)

// Limits of the table.
const (
	devicesMax   = 256
	addressesMax = 16
)

// How long what was heard holds.
const (
	beaconTTL  = 8 * time.Second  // three beacons and a bit
	doubtAfter = 5 * time.Second  // of silence: ask before giving up
	mdnsTTL    = 50 * time.Second // two rounds and a bit
	spareTTL   = 2*sparingWindow + 10*time.Second
	byeTTL     = 2 * time.Second // after a goodbye, to answer in
	wakeTTL    = 4 * time.Second // after sleep, to be heard again in
)

// How long an address that failed is left alone: doubled with each failure.
const (
	distrustFirst = 5 * time.Second
	distrustMost  = 5 * time.Minute
)

// method is a way of being heard.
type method uint8

const (
	byMulticast4 method = iota
	byMulticast6
	byBroadcast4
	byMDNS
	methods
)

func (m method) String() string {
	return [...]string{"ipv4 multicast", "ipv6 multicast", "ipv4 broadcast", "mdns", ""}[min(m, methods)]
}

func (m method) ttl() time.Duration {
	if m == byMDNS {
		return spareTTL // if there is a device at all
	}
	return beaconTTL
}

// sighting is one thing heard: somebody, at an address, on one of our links.
type sighting struct {
	who  pseudonym
	name string
	addr netip.AddrPort // with its zone if it is link-local
	link string         // name of our interface
	via  method
	bye  bool
}

// life is when something was last heard, and so how long it is thought to be
// there.
type life struct {
	beacon, mdns time.Time
}

func (l *life) heard(via method, now time.Time) {
	if via == byMDNS {
		l.mdns = now
	} else {
		l.beacon = now
	}
}

// end is when it counts as lost. Beacons are the finer evidence. After their
// silence mDNS keeps something alive only if it heard it when the silence had
// begun to be noticed, and so was asked about: an answer from before the cable
// was pulled says nothing.
func (l *life) end() time.Time {
	var end time.Time
	if !l.beacon.IsZero() {
		end = l.beacon.Add(beaconTTL)
	}
	if !l.mdns.IsZero() && (l.beacon.IsZero() || l.mdns.After(l.beacon.Add(doubtAfter))) {
		end = later(end, l.mdns.Add(mdnsTTL))
	}
	return end
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// address is one address of a device.
type address struct {
	life
	via      [methods]time.Time
	fails    int
	distrust time.Time // not shown before
	worked   bool
}

// link is a device on one of our links. It counts as lost as a whole: a pulled
// cable takes all addresses behind it.
type link struct {
	life
	doubt time.Time // lost then if not heard before; zero for no doubt
	asked time.Time // the silence after which beacon was asked about
	addrs map[netip.AddrPort]*address
}

func (l *link) end() time.Time {
	end := l.life.end()
	if !l.doubt.IsZero() && l.doubt.Before(end) {
		return l.doubt
	}
	return end
}

// entry is one device. A known device keeps its entry from one pseudonym to the
// next; a stranger of the next hour is another stranger.
type entry struct {
	who         pseudonym // as last heard
	key         Key
	known       bool
	name        string
	named       time.Time // when a beacon last said what the name is
	first, last time.Time
	links       map[string]*link
}

func (e *entry) addresses() int {
	n := 0
	for _, l := range e.links {
		n += len(l.addrs)
	}
	return n
}

// identity is what entries are told apart by: the key of a known device, the
// pseudonym of a stranger.
type identity struct {
	known bool
	key   Key
	who   pseudonym
}

// table is who was heard. It does no I/O, has no clock, and is not safe for
// concurrent use.
type table struct {
	entries map[identity]*entry
	secrets map[Key][32]byte
	hour    int64
	names   map[pseudonym]Key // of the known, around this hour
}

func newTable() *table {
	return &table{entries: map[identity]*entry{}, names: map[pseudonym]Key{}}
}

// expect sets whom the table recognises, and by the pseudonyms of which hours.
// It reports whether an entry is another now.
func (t *table) expect(secrets map[Key][32]byte, hour int64) bool {
	t.secrets, t.hour = secrets, hour
	t.names = make(map[pseudonym]Key, 3*len(secrets))
	for key, secret := range secrets {
		around(&secret, hour, func(p pseudonym) { t.names[p] = key })
	}
	changed := false
	old := t.entries
	t.entries = make(map[identity]*entry, len(old))
	for _, e := range old {
		id := t.identify(e.who)
		if _, still := secrets[e.key]; e.known && still {
			id = identity{known: true, key: e.key} // its hour may have passed meanwhile
		}
		changed = changed || e.known != id.known || e.key != id.key
		e.known, e.key = id.known, id.key
		if twin, ok := t.entries[id]; ok {
			twin.merge(e)
		} else {
			t.entries[id] = e
		}
	}
	return changed
}

func (t *table) identify(who pseudonym) identity {
	if key, ok := t.names[who]; ok {
		return identity{known: true, key: key}
	}
	return identity{who: who}
}

// merge takes over what was heard of the same device under another pseudonym.
func (e *entry) merge(o *entry) {
	if o.last.After(e.last) {
		e.who, e.name, e.last = o.who, o.name, o.last
	}
	if o.first.Before(e.first) {
		e.first = o.first
	}
	for name, l := range o.links {
		mine, ok := e.links[name]
		if !ok {
			mine = &link{life: l.life, doubt: l.doubt, asked: l.asked, addrs: map[netip.AddrPort]*address{}}
			e.links[name] = mine
		}
		mine.beacon, mine.mdns = later(mine.beacon, l.beacon), later(mine.mdns, l.mdns)
		for ap, a := range l.addrs {
			if _, ok := mine.addrs[ap]; !ok && e.addresses() < addressesMax {
				mine.addrs[ap] = a
			}
		}
	}
}

// heard takes one sighting. changed: there is something new to see; fresh: the
// device was not known on this link, or says goodbye, so that an exchange of
// beacons is due.
func (t *table) heard(s sighting, now time.Time) (changed, fresh bool) {
	id := t.identify(s.who)
	e, ok := t.entries[id]
	if s.bye {
		if ok {
			fresh = e.leave(s, now)
		}
		return false, fresh
	}
	if !ok {
		if !t.room(id) {
			return false, false
		}
		e = &entry{who: s.who, key: id.key, known: id.known, first: now, links: map[string]*link{}}
		t.entries[id] = e
		changed = true
	}
	e.last = now
	if e.who != s.who {
		e.who, changed = s.who, true
	}
	changed = e.call(s, now) || changed
	l, ok := e.links[s.link]
	if !ok {
		l = &link{addrs: map[netip.AddrPort]*address{}}
		e.links[s.link] = l
		fresh = true
	}
	l.life.heard(s.via, now)
	l.doubt = time.Time{}
	a, ok := l.addrs[s.addr]
	if !ok {
		if !e.room() {
			return changed, fresh
		}
		a = &address{}
		l.addrs[s.addr] = a
		changed = true
		if !e.known {
			t.take(s.addr, e)
		}
	}
	a.life.heard(s.via, now)
	if now.Sub(a.via[s.via]) > s.via.ttl() {
		changed = true
	}
	a.via[s.via] = now
	return changed, fresh
}

// leave notes a goodbye, and reports whether it is to be asked about. Only
// beacons say goodbye, so only who was heard by beacon, from there, can.
func (e *entry) leave(s sighting, now time.Time) bool {
	l, ok := e.links[s.link]
	if !ok || l.addrs[s.addr] == nil || l.beacon.IsZero() || !l.doubt.IsZero() {
		return false
	}
	l.doubt = now.Add(byeTTL)
	return true
}

// call sets the display name. What mDNS says is older than what a beacon said
// a moment ago: its record is renewed after a change, and may have been
// answered before.
func (e *entry) call(s sighting, now time.Time) bool {
	switch {
	case s.via != byMDNS:
		e.named = now
	case !e.named.IsZero() && now.Sub(e.named) < beaconTTL:
		return false
	}
	changed := e.name != s.name
	e.name = s.name
	return changed
}

// take removes an address from all other strangers. It has one device behind
// it: the stranger of this hour is the one of the last, who is now forgotten.
func (t *table) take(ap netip.AddrPort, by *entry) {
	for _, e := range t.entries {
		if e == by || e.known {
			continue
		}
		for _, l := range e.links {
			delete(l.addrs, ap)
		}
	}
}

// room makes room for one more device. Strangers make way for anyone, those
// nobody can see first, then the longest silent.
func (t *table) room(id identity) bool {
	if len(t.entries) < devicesMax {
		return true
	}
	var worst *entry
	for _, e := range t.entries {
		if e.known {
			continue
		}
		if worst == nil || (e.name == "") != (worst.name == "") && e.name == "" ||
			(e.name == "") == (worst.name == "") && e.last.Before(worst.last) {
			worst = e
		}
	}
	if worst == nil {
		return false
	}
	delete(t.entries, identity{who: worst.who})
	return true
}

// room makes room for one more address: one that failed makes way, others stay,
// so that lies cannot push out the truth.
func (e *entry) room() bool {
	if e.addresses() < addressesMax {
		return true
	}
	var from *link
	var worst netip.AddrPort
	fails := 0
	for _, l := range e.links {
		for ap, a := range l.addrs {
			if a.fails > fails {
				from, worst, fails = l, ap, a.fails
			}
		}
	}
	if from == nil {
		return false
	}
	delete(from.addrs, worst)
	return true
}

// sweep drops what was not heard for too long. ask are the links on which
// somebody has become silent and should be asked.
func (t *table) sweep(now time.Time) (changed bool, ask []string) {
	for id, e := range t.entries {
		for name, l := range e.links {
			if !now.Before(l.end()) {
				delete(e.links, name)
				changed = true
				continue
			}
			if !l.beacon.IsZero() && l.asked != l.beacon && now.Sub(l.beacon) > doubtAfter {
				l.asked = l.beacon
				ask = append(ask, name)
			}
			for ap, a := range l.addrs {
				end := a.life.end()
				if a.beacon.IsZero() && !l.beacon.IsZero() {
					end = a.mdns.Add(spareTTL) // beacons say that the device is there
				}
				if !now.Before(end) {
					delete(l.addrs, ap)
					changed = true
				} else if !a.distrust.IsZero() && !now.Before(a.distrust) {
					a.distrust = time.Time{}
					changed = true
				}
			}
			if len(l.addrs) == 0 {
				delete(e.links, name)
				changed = true
			}
		}
		if len(e.links) == 0 {
			delete(t.entries, id)
			changed = true
		}
	}
	return changed, ask
}

// beaconed reports whether somebody is heard, and everybody by beacon: mDNS then
// has nothing to say that is not known.
func (t *table) beaconed(now time.Time) bool {
	for _, e := range t.entries {
		for _, l := range e.links {
			if now.Sub(l.beacon) > beaconTTL {
				return false
			}
		}
	}
	return len(t.entries) > 0
}

// keepLinks forgets what was heard on links that are gone.
func (t *table) keepLinks(have func(name string) bool) bool {
	changed := false
	for id, e := range t.entries {
		for name := range e.links {
			if !have(name) {
				delete(e.links, name)
				changed = true
			}
		}
		if len(e.links) == 0 {
			delete(t.entries, id)
			changed = true
		}
	}
	return changed
}

// doubt has everybody heard anew by then, or dropped: after sleep nothing heard
// before it counts.
func (t *table) doubt(by time.Time) {
	for _, e := range t.entries {
		for _, l := range e.links {
			if l.doubt.IsZero() || by.Before(l.doubt) {
				l.doubt = by
			}
		}
	}
}

// each calls fn for every address that is ap.
func (t *table) each(ap netip.AddrPort, fn func(*address)) {
	for _, e := range t.entries {
		for _, l := range e.links {
			if a, ok := l.addrs[ap]; ok {
				fn(a)
			}
		}
	}
}

func (t *table) failed(ap netip.AddrPort, now time.Time) bool {
	changed := false
	t.each(ap, func(a *address) {
		wait := distrustMost
		if a.fails < 6 {
			wait = min(distrustFirst<<a.fails, distrustMost)
		}
		a.fails++
		a.worked = false
		a.distrust = now.Add(wait)
		changed = true
	})
	return changed
}

func (t *table) worked(ap netip.AddrPort) bool {
	changed := false
	t.each(ap, func(a *address) {
		changed = changed || !a.worked || a.fails > 0
		a.fails, a.distrust, a.worked = 0, time.Time{}, true
	})
	return changed
}

// forgive lets every address be tried again: the network is another now.
func (t *table) forgive() bool {
	changed := false
	for _, e := range t.entries {
		for _, l := range e.links {
			for _, a := range l.addrs {
				changed = changed || !a.distrust.IsZero()
				a.fails, a.distrust = 0, time.Time{}
			}
		}
	}
	return changed
}
