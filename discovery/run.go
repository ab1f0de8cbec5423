package discovery

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// The rhythm of beacons and of looking around.
const (
	beaconEvery = 2500 * time.Millisecond // three within beaconTTL
	quickEvery  = 500 * time.Millisecond  // at first, and after a change
	quickRounds = 2
	answerGap   = 300 * time.Millisecond // between beacons on one link, however many ask
	tickEvery   = time.Second            // expiry, the hour, the clock
	scanEvery   = 10 * time.Second       // when the kernel tells of changes
	scanOften   = 2 * time.Second        // when it does not
	scanSettle  = 100 * time.Millisecond // changes come in bursts
	sleepJump   = 3 * time.Second        // of the wall clock against the monotonic one
)

// ErrRan is returned by a second Run of a service.
var ErrRan = errors.New("discovery: a service runs once")

// round is the state of one link's beacons.
type round struct {
	last, next time.Time
	quick      int
	ask        bool
}

// soon brings the next beacon forward.
func (r *round) soon(now time.Time, ask bool) {
	r.ask = r.ask || ask
	if at := later(now, r.last.Add(answerGap)); at.Before(r.next) {
		r.next = at
	}
}

// loop is the one goroutine that sends beacons and expires what was heard.
type loop struct {
	s        *Service
	ctx      context.Context
	wg       *sync.WaitGroup
	radio    radio
	rounds   map[string]*round
	links    []iface
	told     bool // the kernel tells of changes
	stirred  bool // and did since the last scan
	scanAt   time.Time
	previous time.Time
}

// Run announces this device and listens for others until ctx ends. Then it says
// goodbye, forgets everybody, and returns nil; a network that does not work is
// told of by Tried and is no error.
func (s *Service) Run(ctx context.Context) error {
	s.mu.Lock()
	ran := s.ran
	s.ran = true
	s.mu.Unlock()
	if ran {
		return ErrRan
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	l := &loop{s: s, ctx: ctx, wg: &wg, rounds: map[string]*round{}, previous: time.Now(),
		radio: radio{port: uint16(s.opts.BeaconPort), joined: map[membership]error{}}}
	defer func() {
		cancel()
		l.goodbye()
		l.radio.close() // ends the readers
		wg.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.table = newTable()
		s.table.expect(s.secrets, s.hour)
		s.links, s.skipped = nil, nil
		clear(s.tried)
		s.notify()
	}()
	if f, err := watchLinks(); err != nil {
		s.logger.Debug("network interfaces are polled", "err", err)
	} else {
		l.told = true
		wg.Go(func() {
			if err := follow(ctx, f, s.linksChanged); err != nil {
				s.logger.Warn("changes of network interfaces are noticed late", "err", err)
			}
		})
	}
	l.scan(time.Now())
	if !s.opts.NoMDNS {
		wg.Go(func() { s.runMDNS(ctx) })
	}
	l.run()
	return nil
}

func (s *Service) linksChanged() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asks.changed = true
	signal(s.wake)
}

func (l *loop) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	tick := time.Now()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-timer.C:
		case <-l.s.wake:
		}
		now := time.Now()
		l.work(now)
		if !now.Before(tick) {
			tick = now.Add(tickEvery)
			l.tick(now)
		}
		if !now.Before(l.scanAt) {
			l.scan(now)
		}
		next := tick
		if l.scanAt.Before(next) {
			next = l.scanAt
		}
		if at := l.beacons(now); !at.IsZero() && at.Before(next) {
			next = at
		}
		timer.Reset(time.Until(next))
	}
}

// work does what others asked for.
func (l *loop) work(now time.Time) {
	s := l.s
	s.mu.Lock()
	a := s.asks
	s.asks = asks{answer: map[string]bool{}, browse: a.browse}
	s.mu.Unlock()
	if a.look {
		l.look(now)
	}
	if a.changed {
		l.scanAt, l.stirred = now.Add(scanSettle), true
	}
	if a.tell {
		l.announce(now, false)
	}
	for name, ask := range a.answer {
		if r, ok := l.rounds[name]; ok {
			r.soon(now, ask)
		}
	}
}

// look does everything anew.
func (l *loop) look(now time.Time) {
	s := l.s
	l.scan(now)
	l.announce(now, true)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table.forgive() {
		s.notify()
	}
	s.asks.browse = true
	signal(s.mdns)
}

// announce sends beacons on all links at once, and again soon after: one alone
// may be lost.
func (l *loop) announce(now time.Time, ask bool) {
	for _, r := range l.rounds {
		r.quick = quickRounds
		r.soon(now, ask)
	}
}

// slept reports whether the wall clock moved otherwise than the monotonic one:
// the machine slept (Linux stops the monotonic clock then), or somebody set the
// clock, and looking again does no harm.
func slept(wall, monotonic time.Duration) bool { return (wall - monotonic).Abs() > sleepJump }

func (l *loop) tick(now time.Time) {
	s := l.s
	if slept(now.Round(0).Sub(l.previous.Round(0)), now.Sub(l.previous)) {
		s.logger.Debug("the clock jumped; looking for devices again")
		s.mu.Lock()
		s.table.doubt(now.Add(wakeTTL))
		s.mu.Unlock()
		l.look(now)
	}
	l.previous = now
	hour := hourOf(s.opts.Clock())
	s.mu.Lock()
	turned := hour != s.hour
	if turned {
		s.turn(hour)
		signal(s.mdns)
	}
	changed, ask := s.table.sweep(now)
	if changed {
		s.notify()
	}
	if len(ask) > 0 {
		s.asks.browse = true
		signal(s.mdns)
	}
	s.mu.Unlock()
	if turned {
		// The old pseudonym gets no goodbye: that would put both into one
		// second. It is forgotten within seconds anyway.
		l.announce(now, false)
	}
	for _, name := range ask {
		if r, ok := l.rounds[name]; ok {
			r.soon(now, true)
		}
	}
}

// scan looks which interfaces there are.
func (l *loop) scan(now time.Time) {
	s := l.s
	l.scanAt = now.Add(scanOften)
	if l.told {
		l.scanAt = now.Add(scanEvery)
	}
	links, skipped, err := scan(s.opts.Interfaces)
	if err != nil { // keep what there was
		s.logger.Warn("network interfaces are unknown", "err", err)
		return
	}
	rounds := map[string]*round{}
	changed := len(links) != len(l.links)
	for _, i := range links {
		old := slices.IndexFunc(l.links, func(o iface) bool { return o.equal(i) })
		if r, ok := l.rounds[i.net.Name]; ok && old >= 0 {
			rounds[i.net.Name] = r
			if l.stirred { // perhaps an address became usable (RFC 4862, section 5.4)
				r.soon(now, false)
			}
			continue
		}
		changed = true
		rounds[i.net.Name] = &round{next: now, quick: quickRounds, ask: true}
	}
	l.links, l.rounds, l.stirred = links, rounds, false
	l.use(skipped, changed)
	if s.opts.NoBeacon {
		return
	}
	for _, conn := range l.radio.open(l.ctx) {
		l.wg.Go(func() { s.receive(l.ctx, conn) })
	}
	l.radio.join(links)
}

// use has the service take beacons and mDNS answers of the scanned links, and
// of no others.
func (l *loop) use(skipped map[string]string, changed bool) {
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.skipped = skipped
	if !changed {
		return
	}
	s.links = l.links
	forgiven := s.table.forgive()
	dropped := s.table.keepLinks(func(name string) bool { return l.rounds[name] != nil })
	if forgiven || dropped {
		s.notify()
	}
	for k := range s.tried {
		if l.rounds[k.link] == nil {
			delete(s.tried, k)
		}
	}
	s.asks.browse = true
	signal(s.mdns)
}

// beacons sends what is due, and returns when the next is; zero for never.
func (l *loop) beacons(now time.Time) time.Time {
	if l.s.opts.NoBeacon {
		return time.Time{}
	}
	var next time.Time
	for _, i := range l.links {
		r := l.rounds[i.net.Name]
		if !now.Before(r.next) {
			kind := kindHere
			if r.ask {
				kind = kindAsk
			}
			l.send(i, kind)
			wait := beaconEvery - time.Duration(rand.Int64N(int64(beaconEvery/10))) // so that devices fall out of step
			if r.quick > 0 {
				r.quick--
				wait = quickEvery
			}
			r.last, r.next, r.ask = now, now.Add(wait), false
		}
		if next.IsZero() || r.next.Before(next) {
			next = r.next
		}
	}
	return next
}

func (l *loop) send(i iface, kind beaconKind) {
	s := l.s
	s.mu.Lock()
	b := beacon{kind: kind, who: s.me, port: uint16(s.opts.Port), name: s.name}
	s.mu.Unlock()
	l.radio.send(b.append(nil), i, func(m method, err error) { s.record(m.String(), i.net.Name, err) })
}

func (l *loop) goodbye() {
	if l.s.opts.NoBeacon {
		return
	}
	for _, i := range l.links {
		l.send(i, kindBye)
	}
}

// receive reads one socket until it is closed.
func (s *Service) receive(ctx context.Context, conn *net.UDPConn) {
	buf := make([]byte, beaconMax+1) // one more, so that a longer datagram does not look like one cut to fit
	r, err := newReader(conn)
	if err != nil {
		s.logger.Error("beacons are not heard", "err", err)
		return
	}
	pause := time.NewTimer(0)
	defer pause.Stop()
	wait, read := true, 0
	for {
		n, oob, from, err := r.read(buf, wait)
		wait = false
		rest := gatherTime
		switch {
		case err == nil:
			s.datagram(buf[:n], oob, from, time.Now())
			read++
			continue
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		case !errors.Is(err, errDrained):
			s.logger.Debug("a beacon could not be read", "err", err)
			rest = tickEvery // an error that lasts shall not keep a core busy
		}
		flood := read > gatherMost
		if read = 0; flood {
			wait = true
			continue
		}
		pause.Reset(rest)
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
			wait = true
		}
	}
}

// datagram takes one datagram.
func (s *Service) datagram(b, oob []byte, from netip.AddrPort, now time.Time) {
	source := from.Addr().Unmap().WithZone("")
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.limit.allow(source, now) {
		return
	}
	a, err := parseBeacon(b)
	if err != nil {
		s.logger.Debug("not a beacon", "from", source, "err", err)
		return
	}
	if s.own[a.who] {
		return
	}
	index, to, ok := arrival(oob)
	if !ok {
		return
	}
	at := slices.IndexFunc(s.links, func(l iface) bool { return l.net.Index == index })
	if at < 0 {
		return
	}
	l := s.links[at]
	via, ok := sentBy(l, to)
	if !ok || !l.onLink(source) {
		return
	}
	if source.Is6() && source.IsLinkLocalUnicast() {
		source = source.WithZone(l.net.Name)
	}
	changed, fresh := s.table.heard(sighting{
		who: a.who, name: a.name, addr: netip.AddrPortFrom(source, a.port), link: l.net.Name, via: via,
		bye: a.kind == kindBye,
	}, now)
	if changed {
		s.notify()
	}
	if fresh || a.kind == kindAsk {
		name := l.net.Name
		s.asks.answer[name] = s.asks.answer[name] || a.kind == kindBye
		signal(s.wake)
	}
}

// sentBy tells by the destination how a beacon was sent. Routers forward
// neither these groups nor broadcasts, but they would forward a datagram to
// this machine alone: it may come from anywhere, and is not taken.
func sentBy(l iface, to netip.Addr) (method, bool) {
	switch {
	case to == group4:
		return byMulticast4, true
	case to == group6:
		return byMulticast6, true
	case to == limited4 || slices.Contains(l.broadcasts(), to):
		return byBroadcast4, true
	}
	return 0, false
}
