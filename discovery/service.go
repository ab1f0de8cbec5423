package discovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options say who is announced, and how.
type Options struct {
	// Secret is the recognition secret of this device.
	Secret [32]byte
	// Port is the UDP port of its QUIC listener.
	Port int
	// Logger takes messages; slog.Default() if nil.
	Logger *slog.Logger
	// Clock says which hour it is; time.Now if nil. Everything else is measured
	// by the monotonic clock.
	Clock func() time.Time
	// Interfaces are the only ones used, by name; all that are fit if empty.
	Interfaces []string
	// NoMDNS and NoBeacon switch a method off.
	NoMDNS, NoBeacon bool
	// BeaconPort is used instead of the constant BeaconPort, if not 0. Only
	// devices of the same port hear each other's beacons, so tests that run
	// side by side choose one each.
	BeaconPort int
}

// Service announces this device and keeps the table of others. Its methods can
// be called at any time, from any goroutine, before and after Run too.
type Service struct {
	opts   Options
	logger *slog.Logger

	wake chan struct{} // of the loop: there is work in asks
	mdns chan struct{} // of the mDNS goroutine: something changed

	mu       sync.Mutex
	ran      bool
	table    *table
	limit    limiter
	entries  bucket // of what mDNS reports
	secrets  map[Key][32]byte
	hour     int64
	me       pseudonym
	own      map[pseudonym]bool // of this device around this hour
	name     string             // "" unless visible
	links    []iface
	skipped  map[string]string
	tried    map[attemptKey]attempt
	watchers map[chan struct{}]struct{}
	asks     asks
}

// asks is work for the loop.
type asks struct {
	look    bool            // everything anew
	changed bool            // the kernel told of a change of interfaces
	tell    bool            // what is announced changed
	answer  map[string]bool // beacons due on these links; true: that ask
	browse  bool            // for the mDNS goroutine: a new window
}

// New makes a service; Run starts it.
func New(opts Options) (*Service, error) {
	if opts.Secret == [32]byte{} {
		return nil, errors.New("discovery: no recognition secret")
	}
	if opts.Port < 1 || opts.Port > 65535 {
		return nil, fmt.Errorf("discovery: %d is not a port", opts.Port)
	}
	if opts.BeaconPort == 0 {
		opts.BeaconPort = BeaconPort
	}
	if opts.BeaconPort < 1 || opts.BeaconPort > 65535 {
		return nil, fmt.Errorf("discovery: %d is not a port for beacons", opts.BeaconPort)
	}
	if opts.Clock == nil {
		opts.Clock = time.Now
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	s := &Service{
		opts:     opts,
		logger:   opts.Logger,
		wake:     make(chan struct{}, 1),
		mdns:     make(chan struct{}, 1),
		table:    newTable(),
		tried:    map[attemptKey]attempt{},
		watchers: map[chan struct{}]struct{}{},
		asks:     asks{answer: map[string]bool{}},
	}
	s.turn(hourOf(opts.Clock()))
	return s, nil
}

// turn takes the pseudonyms of another hour. The caller holds mu, or is New.
func (s *Service) turn(hour int64) {
	s.hour = hour
	s.me = pseudonymOf(&s.opts.Secret, hour)
	s.own = map[pseudonym]bool{}
	around(&s.opts.Secret, hour, func(p pseudonym) { s.own[p] = true })
	if s.table.expect(s.secrets, hour) {
		s.notify()
	}
}

// SetKnown says which devices to recognise, by their recognition secrets. What
// is in the table already is recognised too, or becomes a stranger.
func (s *Service) SetKnown(known map[Key][32]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets = maps.Clone(known)
	if s.table.expect(s.secrets, s.hour) {
		s.notify()
	}
}

// SetVisible shows this device to strangers under a display name, or hides it
// if the name is "". The name is cut to 120 bytes and cleaned of what is not
// shown; SetVisible returns what is left of it.
func (s *Service) SetVisible(name string) string {
	name = cleanName(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.name != name {
		s.name = name
		s.asks.tell = true
		signal(s.wake)
		signal(s.mdns)
	}
	return name
}

// Devices lists who can be dialled, as it is now.
func (s *Service) Devices() []Device {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.table.devices(time.Now())
}

// Watch tells of changes of what Devices returns, and once at the beginning.
// Changes that nobody waits for become one; when only Last is another there is
// none. The channel is closed when ctx ends.
func (s *Service) Watch(ctx context.Context) <-chan struct{} {
	ch := make(chan struct{}, 1)
	ch <- struct{}{}
	s.mu.Lock()
	s.watchers[ch] = struct{}{}
	s.mu.Unlock()
	context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, ch)
		close(ch)
	})
	return ch
}

// notify wakes who watches. The caller holds mu.
func (s *Service) notify() {
	for ch := range s.watchers {
		signal(ch)
	}
}

// signal leaves one token, if there is none.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Failed says that dialling addr failed. It is not offered for 5 s, and twice
// as long after each further failure, up to 5 min; Poke and a change of the
// network end that. A device without another address is not listed meanwhile.
func (s *Service) Failed(addr netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table.failed(unmap(addr), time.Now()) {
		s.notify()
	}
}

// Worked says that a handshake at addr succeeded. It is offered first, and no
// other address takes its place.
func (s *Service) Worked(addr netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table.worked(unmap(addr)) {
		s.notify()
	}
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// Poke looks again now, by every method and on every interface: after sleep, or
// when somebody waits.
func (s *Service) Poke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asks.look = true
	signal(s.wake)
}

// Attempt is one method on one interface, and what came of it.
type Attempt struct {
	// Method is a name as in Device.Via, or "mdns announcement", or "" for an
	// interface that is not used at all.
	Method    string
	Interface string
	// When it was last tried; zero for an interface that is not used.
	When time.Time
	// Error is why it did not work, or why the interface is not used; "" if it
	// worked as far as one side can tell.
	Error string
	// Found is how many devices are heard this way.
	Found int
}

type attemptKey struct{ method, link string }

type attempt struct {
	at  time.Time
	err error
}

const announcement = "mdns announcement"

// Tried lists every method on every interface, with its last outcome, and the
// interfaces that are left out with the reason.
func (s *Service) Tried() []Attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	found := map[string]method{}
	for m := range methods {
		found[m.String()] = m
	}
	var out []Attempt
	for k, a := range s.tried {
		t := Attempt{Method: k.method, Interface: k.link, When: a.at}
		if a.err != nil {
			t.Error = a.err.Error()
		}
		if m, ok := found[k.method]; ok {
			t.Found = s.table.count(m, k.link, now)
		}
		out = append(out, t)
	}
	for name, why := range s.skipped {
		out = append(out, Attempt{Interface: name, Error: why})
	}
	slices.SortFunc(out, func(a, b Attempt) int {
		if c := strings.Compare(a.Interface, b.Interface); c != 0 {
			return c
		}
		return strings.Compare(a.Method, b.Method)
	})
	return out
}

// record notes an attempt, and logs when its outcome changes.
func (s *Service) record(method, name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.ContainsFunc(s.links, func(l iface) bool { return l.net.Name == name }) {
		return // it went away meanwhile
	}
	k := attemptKey{method, name}
	before := s.tried[k]
	s.tried[k] = attempt{at: time.Now(), err: err}
	switch {
	case err != nil && before.err == nil:
		s.logger.Debug("discovery does not work here", "method", method, "interface", name, "err", err)
	case err == nil && before.err != nil:
		s.logger.Debug("discovery works here again", "method", method, "interface", name)
	}
}
