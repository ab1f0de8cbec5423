package discovery

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/grandcat/zeroconf"
)

// mDNS by zeroconf v1.0.0, which is used around its faults:
//
//   - A browser reports an instance once, stops asking after the first hit and
//     never reports a departure. So a browser lives for one window, the next
//     begins before it ends, and the table does the expiry. And every responder
//     is an instance of another name, or browsers that have reported the last
//     one would not see what is new about it.
//   - Register takes the host's name for the record, and the addresses of that
//     moment. RegisterProxy without addresses asks the interface at every
//     answer, so each link gets its own; the host is called like the instance.
//   - A TXT string over 255 bytes cannot be packed: see nameMax.
//   - Changing the text of a server races with its answers, so a change is a
//     new server.
//   - The sockets take the multicast of all interfaces (IP_MULTICAST_ALL), and
//     entries do not say by which they came: one browser per interface would
//     hear the same. One browser asks on all, and addresses are given to the
//     link whose network they are of; a link-local address goes with the others
//     of its record, or, alone, to every link it could be of.
//   - The browser leaks a socket if one family fails; so each family has one of
//     its own.
const (
	mdnsService  = "_hearth._udp"
	mdnsDomain   = "local"
	browseWindow = 20 * time.Second
	browseGap    = time.Second // between windows, however many ask
	// sparingWindow is how long a window is while beacons reach everybody: each
	// question is answered by all, and each answer heard by all.
	sparingWindow = 2 * time.Minute
	serverYouth   = 100 * time.Millisecond // a server counts its goroutines late: see stop
	entryRate     = 50                     // entries a second that are looked at
	entryBurst    = 2 * devicesMax
)

// notice is what is announced, and where.
type notice struct {
	who   pseudonym
	name  string
	links []iface
}

func (n notice) equal(o notice) bool {
	return n.who == o.who && n.name == o.name && slices.EqualFunc(n.links, o.links, iface.equal)
}

// notice is what is to be announced now. Loopback is used only when there is
// nothing else: a server's answers go out on all interfaces, and an address of
// loopback is nothing to tell a network. Two daemons of one machine hear each
// other on its other interfaces too.
func (s *Service) notice() (n notice, browse bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = notice{who: s.me, name: s.name, links: mdnsLinks(s.links)}
	browse, s.asks.browse = s.asks.browse, false
	return n, browse
}

func mdnsLinks(links []iface) []iface {
	outer := slices.DeleteFunc(slices.Clone(links), func(l iface) bool { return l.loopback })
	if len(outer) > 0 {
		return outer
	}
	return links
}

// responder answers for this device.
type responder struct {
	notice
	server *zeroconf.Server // nil if there is none
	born   time.Time
}

// stop says goodbye and ends the server. Its goroutines add themselves to what
// Shutdown waits for when they first run, so it is given the time to have them.
func (r *responder) stop() {
	if r.server == nil {
		return
	}
	if wait := time.Until(r.born.Add(serverYouth)); wait > 0 {
		<-time.After(wait)
	}
	r.server.Shutdown()
	r.server = nil
}

// runMDNS keeps one responder and one window of browsing.
func (s *Service) runMDNS(ctx context.Context) {
	r := &responder{}
	defer func() { r.stop() }()
	var now *window
	defer func() { now.close() }()
	var asked bool
	var began time.Time
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		want, browse := s.notice()
		asked = asked || browse
		expired := time.Since(began) >= s.browseFor(time.Now())
		if !want.equal(r.notice) || r.server == nil && expired {
			r.stop()
			r = s.respond(want)
		}
		if expired || asked && time.Since(began) >= browseGap {
			next := s.browse(ctx, want.links)
			now.close()
			now, asked, began = next, false, time.Now()
		}
		wait := browseWindow
		if asked {
			wait = browseGap
		}
		if wait -= time.Since(began); wait <= 0 { // it goes on; whether it may is looked at again
			wait = browseWindow
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-s.mdns:
		case <-timer.C:
		}
	}
}

// browseFor is how long a window lasts.
func (s *Service) browseFor(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table.beaconed(now) {
		return sparingWindow
	}
	return browseWindow
}

// respond starts a responder. A failure is recorded, and tried again with the
// next window.
func (s *Service) respond(n notice) *responder {
	r := &responder{notice: n, born: time.Now()}
	if len(n.links) == 0 {
		return r
	}
	var nets []net.Interface
	var ips []string
	for _, l := range n.links {
		nets = append(nets, l.net)
		if l.loopback { // zeroconf finds no address there
			for _, p := range l.prefixes {
				ips = append(ips, p.Addr().String())
			}
		}
	}
	var nonce [4]byte
	rand.Read(nonce[:]) // never fails
	instance := n.who.String() + "-" + hex.EncodeToString(nonce[:])
	server, err := zeroconf.RegisterProxy(instance, mdnsService, mdnsDomain, s.opts.Port, instance, ips,
		text{who: n.who, name: n.name}.strings(), nets)
	if err != nil {
		err = fmt.Errorf("announce by mdns: %w", err)
	} else {
		r.server = server
	}
	for _, l := range n.links {
		s.record(announcement, l.net.Name, err)
	}
	return r
}

// window is a browser of each family, and who reads what they find.
type window struct {
	cancel context.CancelFunc
	done   []chan struct{}
}

// close ends a window and waits until all of it has ended. A nil window is
// none.
func (w *window) close() {
	if w == nil {
		return
	}
	w.cancel()
	for _, d := range w.done {
		<-d
	}
}

// browse opens a window on the given links.
func (s *Service) browse(ctx context.Context, links []iface) *window {
	ctx, cancel := context.WithCancel(ctx)
	w := &window{cancel: cancel}
	errs := map[string][]error{}
	works := map[string]bool{}
	for _, family := range []struct {
		traffic zeroconf.IPType
		has     func(iface) bool
	}{{zeroconf.IPv4, iface.has4}, {zeroconf.IPv6, iface.has6}} {
		var nets []net.Interface
		for _, l := range links {
			if family.has(l) {
				nets = append(nets, l.net)
			}
		}
		if len(nets) == 0 {
			continue
		}
		done, err := s.browseFamily(ctx, family.traffic, nets, links)
		if done != nil {
			w.done = append(w.done, done)
		}
		for _, n := range nets {
			if err == nil {
				works[n.Name] = true
			} else {
				errs[n.Name] = append(errs[n.Name], err)
			}
		}
	}
	for _, l := range links {
		var err error
		if !works[l.net.Name] { // one family suffices
			err = errors.Join(errs[l.net.Name]...)
		}
		s.record(byMDNS.String(), l.net.Name, err)
	}
	return w
}

// browseFamily starts one browser. done is closed when it has ended, which it
// does with ctx; the goroutine that reads its entries reads to the last, since
// a browser that cannot deliver does not end.
func (s *Service) browseFamily(ctx context.Context, t zeroconf.IPType, nets []net.Interface, links []iface) (done chan struct{}, err error) {
	resolver, err := zeroconf.NewResolver(zeroconf.SelectIPTraffic(t), zeroconf.SelectIfaces(nets))
	if err != nil {
		return nil, fmt.Errorf("browse by mdns: %w", err)
	}
	entries := make(chan *zeroconf.ServiceEntry)
	done = make(chan struct{})
	go func() {
		defer close(done)
		for e := range entries {
			s.entry(e, links, time.Now())
		}
	}()
	if err := resolver.Browse(ctx, mdnsService, mdnsDomain, entries); err != nil {
		return done, fmt.Errorf("browse by mdns: %w", err) // Browse has ended what it began
	}
	return done, nil
}

// entry takes one service that a browser found.
func (s *Service) entry(e *zeroconf.ServiceEntry, links []iface, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.entries.take(now, entryRate, entryBurst) {
		return
	}
	t, err := parseText(e.Text)
	if err != nil || e.Port < 1 || e.Port > 65535 {
		s.logger.Debug("not a service of hearth", "port", e.Port, "err", err)
		return
	}
	if s.own[t.who] {
		return
	}
	changed, answer := false, false
	for _, p := range place(e, links) {
		if !slices.ContainsFunc(s.links, func(l iface) bool { return l.net.Name == p.link }) {
			continue // it went away meanwhile
		}
		c, fresh := s.table.heard(sighting{who: t.who, name: t.name, link: p.link, via: byMDNS,
			addr: netip.AddrPortFrom(p.addr, uint16(e.Port))}, now)
		changed = changed || c
		if fresh {
			s.asks.answer[p.link] = s.asks.answer[p.link] || false
			answer = true
		}
	}
	if changed {
		s.notify()
	}
	if answer {
		signal(s.wake)
	}
}

// placed is an address and the link it is on.
type placed struct {
	addr netip.Addr
	link string
}

// place finds the links that the addresses of an entry are on. Those of none
// are left out, so nobody can have us dial beyond a link.
func place(e *zeroconf.ServiceEntry, links []iface) []placed {
	var out []placed
	var local []netip.Addr
	on := map[string]bool{}
	for _, ip := range slices.Concat(e.AddrIPv4, e.AddrIPv6) {
		a, ok := netip.AddrFromSlice(ip)
		a = a.Unmap()
		if !ok || len(out)+len(local) >= addressesMax {
			continue
		}
		if a.Is6() && a.IsLinkLocalUnicast() {
			local = append(local, a)
			continue
		}
		for _, l := range links {
			if l.onLink(a) {
				out = append(out, placed{a, l.net.Name})
				on[l.net.Name] = true
			}
		}
	}
	for _, a := range local {
		for _, l := range links {
			if l.has6() && l.onLink(a) && (len(on) == 0 || on[l.net.Name]) {
				out = append(out, placed{a.WithZone(l.net.Name), l.net.Name})
			}
		}
	}
	return out[:min(len(out), addressesMax)]
}
