package discovery

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// peer is a running service.
type peer struct {
	*Service
	t    *testing.T
	n    byte
	stop func() // and wait
}

// startPeer runs device n on loopback.
func startPeer(t *testing.T, n byte, change func(*Options)) *peer {
	t.Helper()
	opts := Options{Secret: secretOf(n), Port: 4400 + int(n), Interfaces: []string{"lo"}, Logger: slog.New(slog.DiscardHandler)}
	change(&opts)
	s, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	p := &peer{Service: s, t: t, n: n, stop: sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ran:
			if err != nil {
				t.Errorf("device %d: %v", n, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("device %d does not end", n)
		}
	})}
	t.Cleanup(p.stop)
	return p
}

// knows tells a peer whom to recognise.
func (p *peer) knows(others ...byte) {
	known := map[Key][32]byte{}
	for _, o := range others {
		known[keyOf(o)] = secretOf(o)
	}
	p.SetKnown(known)
}

// until waits until the list of devices is as wanted, and returns how long that
// took.
func (p *peer) until(most time.Duration, what string, is func([]Device) bool) time.Duration {
	p.t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), most+busy)
	defer cancel()
	for range p.Watch(ctx) {
		if is(p.Devices()) {
			return time.Since(start)
		}
	}
	p.t.Fatalf("device %d: not %s within %v: %+v, having tried %+v", p.n, what, most, p.Devices(), p.Tried())
	return 0
}

// sees is that device n is known and has an address.
func sees(n byte) func([]Device) bool {
	return func(all []Device) bool {
		return slices.ContainsFunc(all, func(d Device) bool { return d.Known && d.Key == keyOf(n) })
	}
}

func not(is func([]Device) bool) func([]Device) bool { return func(d []Device) bool { return !is(d) } }

// freePort is a UDP port that nobody has.
func freePort(t *testing.T) int {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).Port
}

func beaconOnly(port int) func(*Options) {
	return func(o *Options) { o.NoMDNS, o.BeaconPort = true, port }
}

func mdnsOnly(o *Options) { o.NoBeacon = true }

func TestTwoHomesOfOneMachine(t *testing.T) {
	port := freePort(t)
	for _, c := range []struct {
		name   string
		change func(*Options)
		via    []string
		lost   time.Duration // after an end; 0 if it takes too long to wait for
	}{
		{"beacon", beaconOnly(port), []string{byMulticast4.String(), byMulticast6.String(), byBroadcast4.String()}, 4 * time.Second},
		{"mdns", mdnsOnly, []string{byMDNS.String()}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := startPeer(t, 1, c.change)
			a.knows(2)
			b := startPeer(t, 2, c.change)
			b.knows(1)
			t.Logf("the new one sees the old one after %v", b.until(2*time.Second, "seen", sees(1)))
			t.Logf("and the old one the new one after %v more", a.until(2*time.Second, "seen", sees(2)))
			d := a.Devices()[0]
			if d.ID != pseudonymOf(&b.opts.Secret, b.hour).id() || d.Name != "" || d.First.IsZero() || d.Last.Before(d.First) {
				t.Errorf("%+v", d)
			}
			for _, v := range d.Via {
				if !slices.Contains(c.via, v) {
					t.Errorf("heard by %s", v)
				}
			}
			if !slices.Contains(d.Addrs, netip.MustParseAddrPort("127.0.0.1:4402")) {
				t.Errorf("its addresses are %v", d.Addrs)
			}
			if tried := a.Tried(); !slices.ContainsFunc(tried, func(x Attempt) bool {
				return x.Interface == "lo" && x.Method == d.Via[0] && x.Error == "" && x.Found > 0 && !x.When.IsZero()
			}) {
				t.Errorf("it tried %+v", tried)
			}
			b.stop()
			if c.lost > 0 {
				t.Logf("gone %v after its end", a.until(c.lost, "gone", not(sees(2))))
			}
			if left := b.Devices(); len(left) != 0 {
				t.Errorf("a service that ended lists %+v", left)
			}
		})
	}
}

func TestVisible(t *testing.T) {
	port := freePort(t)
	for name, change := range map[string]func(*Options){"beacon": beaconOnly(port), "mdns": mdnsOnly} {
		t.Run(name, func(t *testing.T) {
			a := startPeer(t, 3, change)
			b := startPeer(t, 4, change)
			id := pseudonymOf(&b.opts.Secret, b.hour).id()
			stranger := func(name string) func([]Device) bool {
				return func(all []Device) bool {
					return slices.ContainsFunc(all, func(d Device) bool { return d.ID == id && !d.Known && d.Name == name })
				}
			}
			a.until(10*time.Second, "a stranger", stranger(""))
			if got := b.SetVisible("Zoë's \x1blaptop "); got != "Zoë's laptop" {
				t.Errorf("visible as %q", got)
			}
			t.Logf("visible after %v", a.until(10*time.Second, "visible", stranger("Zoë's laptop")))
			long := b.SetVisible(strings.Repeat("🦊", 100))
			a.until(10*time.Second, "visible by a long name", stranger(long))
			b.SetVisible("")
			t.Logf("invisible after %v", a.until(10*time.Second, "invisible", stranger("")))
		})
	}
}

// clock is an hour that tests set.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func TestTheHourTurns(t *testing.T) {
	port := freePort(t)
	for name, change := range map[string]func(*Options){"beacon": beaconOnly(port), "mdns": mdnsOnly} {
		t.Run(name, func(t *testing.T) {
			c := &clock{t: base}
			timed := func(o *Options) {
				change(o)
				o.Clock = c.now
			}
			a := startPeer(t, 5, timed)
			a.knows(6)
			b := startPeer(t, 6, timed)
			a.until(10*time.Second, "seen", sees(6))
			first := a.Devices()[0]
			c.add(time.Hour)
			id := pseudonymOf(&b.opts.Secret, hourOf(c.now())).id()
			t.Logf("recognised in the next hour after %v", a.until(10*time.Second, "recognised under its next pseudonym", func(all []Device) bool {
				return sees(6)(all) && slices.ContainsFunc(all, func(d Device) bool { return d.ID == id && d.First.Equal(first.First) })
			}))
		})
	}
}

func TestFailedAddressesOfAService(t *testing.T) {
	port := freePort(t)
	a := startPeer(t, 7, beaconOnly(port))
	a.knows(8)
	startPeer(t, 8, beaconOnly(port))
	a.until(10*time.Second, "seen", sees(8))
	a.until(10*time.Second, "dropped", func(all []Device) bool {
		for _, d := range all {
			for _, addr := range d.Addrs {
				a.Failed(addr)
			}
		}
		return !sees(8)(all)
	})
	a.Poke()
	a.until(10*time.Second, "there again", sees(8))
	addr := netip.AddrPortFrom(netip.MustParseAddr("::ffff:127.0.0.1"), 4408)
	a.Worked(addr)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.table.each(unmap(addr), func(x *address) {
		if !x.worked {
			t.Error("a mapped address is another")
		}
	})
}

// TestUnbelievable sends what a stranger on the network might.
func TestUnbelievable(t *testing.T) {
	port := freePort(t)
	a := startPeer(t, 9, beaconOnly(port))
	b := startPeer(t, 10, beaconOnly(port)) // of the same machine, and it hears all that
	a.knows(10)
	a.until(10*time.Second, "seen", sees(10))
	conn, err := net.Dial("udp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i := range 5000 {
		conn.Write(beacon{kind: kindHere, who: whoOf(i), port: 9}.append(nil)) // to this machine alone
		conn.Write([]byte(strings.Repeat("x", i%2000)))
	}
	a.until(10*time.Second, "still there", sees(10))
	b.until(10*time.Second, "alone with one", func(all []Device) bool {
		return len(all) == 1 // nobody who wrote to one machine
	})
}

func TestWatchNeverBlocks(t *testing.T) {
	s, err := New(Options{Secret: secretOf(1), Port: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ch := s.Watch(ctx)
	for range 10 {
		s.mu.Lock()
		s.notify()
		s.mu.Unlock()
	}
	<-ch
	select {
	case <-ch:
		t.Error("changes do not become one")
	default:
	}
	cancel()
	select {
	case _, open := <-ch:
		if open {
			t.Error("a token after the end")
		}
	case <-time.After(5 * time.Second):
		t.Error("the channel is not closed")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notify()
	if len(s.watchers) != 0 {
		t.Error("a watcher is left")
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{Port: 1}, {Secret: secretOf(1)}, {Secret: secretOf(1), Port: 65536},
		{Secret: secretOf(1), Port: 1, BeaconPort: -1}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
	p := startPeer(t, 11, func(o *Options) { o.Interfaces = []string{"no such"}; o.BeaconPort = freePort(t) })
	p.until(10*time.Second, "idle", func(all []Device) bool { return len(all) == 0 })
	p.stop()
	if err := p.Run(context.Background()); !errors.Is(err, ErrRan) {
		t.Errorf("a second run: %v", err)
	}
	if slept(time.Hour, time.Hour) || !slept(time.Hour, time.Second) || !slept(0, 4*time.Second) {
		t.Error("sleep is a jump of the wall clock")
	}
}
