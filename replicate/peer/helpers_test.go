package peer

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

// patience is how long a test waits for what must happen at once.
const patience = 20 * time.Second

func testKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// listen opens an endpoint on loopback that is closed with the test.
func listen(t testing.TB, name string, change ...func(*Options)) *Endpoint {
	t.Helper()
	o := Options{Key: testKey(name), Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&o)
	}
	e, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// connect dials from one endpoint to another and returns both ends.
func connect(t testing.TB, from, to *Endpoint) (dialed, accepted *Conn) {
	t.Helper()
	return connectVia(t, from, to, to.Addr())
}

func connectVia(t testing.TB, from, to *Endpoint, addr netip.AddrPort) (dialed, accepted *Conn) {
	t.Helper()
	ctx := testContext(t)
	dialed, err := from.Dial(ctx, addr.String(), &to.self)
	if err != nil {
		t.Fatal(err)
	}
	accepted, err = to.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return dialed, accepted
}

// streamPair opens a stream on a and accepts it on b; one byte has passed.
func streamPair(t testing.TB, a, b *Conn) (opened, accepted *Stream) {
	t.Helper()
	ctx := testContext(t)
	opened, err := a.OpenStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := opened.Write([]byte{'!'}); err != nil {
		t.Fatal(err)
	}
	accepted, err = b.AcceptStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := accepted.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return opened, accepted
}

// ended waits for the end of a connection and returns the reason.
func ended(t testing.TB, c *Conn) error {
	t.Helper()
	select {
	case <-c.Context().Done():
	case <-time.After(patience):
		t.Fatal("the connection did not end")
	}
	return c.Err()
}

// cable is a UDP relay to one endpoint that can be unplugged.
type cable struct {
	near, far *net.UDPConn
	dialer    atomic.Pointer[netip.AddrPort]
	unplugged atomic.Bool
}

func newCable(t testing.TB, to netip.AddrPort) *cable {
	t.Helper()
	near, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	far, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{near: near, far: far}
	done := make(chan struct{}, 2)
	go c.carry(done, near.ReadFromUDPAddrPort, func(p []byte, from netip.AddrPort) {
		c.dialer.Store(&from)
		_, _ = far.Write(p)
	})
	go c.carry(done, far.ReadFromUDPAddrPort, func(p []byte, _ netip.AddrPort) {
		if to := c.dialer.Load(); to != nil {
			_, _ = near.WriteToUDPAddrPort(p, *to)
		}
	})
	t.Cleanup(func() {
		near.Close()
		far.Close()
		<-done
		<-done
	})
	return c
}

func (c *cable) carry(done chan<- struct{}, read func([]byte) (int, netip.AddrPort, error), pass func([]byte, netip.AddrPort)) {
	defer func() { done <- struct{}{} }()
	p := make([]byte, 1<<16)
	for {
		n, from, err := read(p)
		if err != nil {
			return
		}
		if !c.unplugged.Load() {
			pass(p[:n], from)
		}
	}
}

func (c *cable) addr() netip.AddrPort { return c.near.LocalAddr().(*net.UDPAddr).AddrPort() }
