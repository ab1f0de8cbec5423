package peer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestConnect(t *testing.T) {
	t.Parallel()
	a, b := listen(t, "a"), listen(t, "b")
	ca, cb := connect(t, a, b)
	if ca.Peer() != b.Self() || cb.Peer() != a.Self() {
		t.Fatalf("keys: %s and %s", ca.Peer(), cb.Peer())
	}
	if !ca.Dialed() || cb.Dialed() {
		t.Fatal("roles are wrong")
	}
	if ca.Remote() != b.Addr() || cb.Remote() != a.Addr() {
		t.Fatalf("addresses: %s and %s", ca.Remote(), cb.Remote())
	}
	xa, err := ca.Exporter("EXPORTER-test", []byte("context"), 40)
	if err != nil {
		t.Fatal(err)
	}
	xb, err := cb.Exporter("EXPORTER-test", []byte("context"), 40)
	if err != nil || !bytes.Equal(xa, xb) || len(xa) != 40 {
		t.Fatalf("exported %x and %x, %v", xa, xb, err)
	}

	for _, pair := range [][2]*Conn{{ca, cb}, {cb, ca}} { // either side opens streams
		sa, sb := streamPair(t, pair[0], pair[1])
		if sa.ID() != sb.ID() || sa.Conn() != pair[0] {
			t.Fatalf("streams %d and %d", sa.ID(), sb.ID())
		}
		if _, err := sa.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if err := sa.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(sb); err != nil || string(got) != "ping" {
			t.Fatalf("read %q, %v", got, err)
		}
		if _, err := sb.Write([]byte("pong")); err != nil { // the other way is still open
			t.Fatal(err)
		}
		if err := sb.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(sa); err != nil || string(got) != "pong" {
			t.Fatalf("read %q, %v", got, err)
		}
	}
	if s := ca.Stats(); s.Sent == 0 || s.Received == 0 || s.Window == 0 || ca.RTT() <= 0 {
		t.Fatalf("counters %+v", s)
	}
	if a.Count() != 1 || b.Count() != 1 {
		t.Fatalf("%d and %d connections", a.Count(), b.Count())
	}
}

func TestBothFamilies(t *testing.T) {
	t.Parallel()
	a := listen(t, "a", func(o *Options) { o.Listen = "" })
	b := listen(t, "b", func(o *Options) { o.Listen = "" })
	for _, host := range []string{"127.0.0.1", "::1", "localhost"} {
		addr := net.JoinHostPort(host, strconv.Itoa(b.Port()))
		c, err := a.Dial(testContext(t), addr, nil)
		if err != nil && host == "::1" {
			t.Logf("no IPv6 here: %v", err)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Remote().Addr(); got.Is4In6() {
			t.Errorf("%s: remote address %s", host, got)
		}
		if _, err := b.Accept(testContext(t)); err != nil {
			t.Fatal(err)
		}
		c.Close(CodeDone, "")
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	a, b := listen(t, "a"), listen(t, "b")
	ca, cb := connect(t, a, b)
	sa, _ := streamPair(t, ca, cb)
	if ca.Err() != nil {
		t.Fatal(ca.Err())
	}
	cb.Close(CodeUser+5, "no\nmore\x1b[31m of this\xff "+strings.Repeat("é", 300))
	cb.Close(CodeUser+6, "again")

	var e *CloseError
	if err := ended(t, ca); !errors.As(err, &e) || !e.Remote || e.Code != CodeUser+5 || !errors.Is(err, net.ErrClosed) {
		t.Fatalf("the other side saw %v", err)
	}
	if !strings.HasPrefix(e.Text, "no?more?[31m of this") || len(e.Text) > maxCloseText || strings.ContainsAny(e.Text, "\n\x1b") || !utf8.ValidString(e.Text) {
		t.Fatalf("text %q", e.Text)
	}
	if err := ended(t, cb); !errors.As(err, &e) || e.Remote || e.Code != CodeUser+5 {
		t.Fatalf("this side saw %v", err)
	}
	for what, f := range map[string]func() error{
		"read":   func() error { _, err := sa.Read(make([]byte, 1)); return err },
		"write":  func() error { _, err := sa.Write([]byte{1}); return err },
		"open":   func() error { _, err := ca.OpenStream(testContext(t)); return err },
		"accept": func() error { _, err := ca.AcceptStream(testContext(t)); return err },
	} {
		if err := f(); !errors.As(err, &e) || !e.Remote || e.Code != CodeUser+5 {
			t.Errorf("%s after the end: %v", what, err)
		}
	}
}

func TestEndpointClose(t *testing.T) {
	t.Parallel()
	a, b := listen(t, "a"), listen(t, "b")
	ca, _ := connect(t, a, b)
	accepted := make(chan error, 1)
	go func() {
		_, err := b.Accept(context.Background())
		accepted <- err
	}()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	var e *CloseError
	if err := ended(t, ca); !errors.As(err, &e) || e.Code != CodeShutdown || !e.Remote {
		t.Fatalf("the other side saw %v", err)
	}
	if err := <-accepted; !errors.Is(err, ErrClosed) {
		t.Fatalf("Accept: %v", err)
	}
	if _, err := b.Accept(testContext(t)); !errors.Is(err, ErrClosed) {
		t.Fatalf("Accept after Close: %v", err)
	}
	if _, err := b.Dial(testContext(t), a.Addr().String(), nil); !errors.Is(err, ErrClosed) {
		t.Fatalf("Dial after Close: %v", err)
	}
}

func TestStreams(t *testing.T) {
	t.Parallel()
	a, b := listen(t, "a"), listen(t, "b", func(o *Options) { o.MaxStreams = 2 })
	ca, cb := connect(t, a, b)

	// One that never speaks costs no more than the deadline.
	s1, r1 := streamPair(t, ca, cb)
	if err := r1.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := r1.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read of a silent stream: %v", err)
	}

	// No more streams than allowed, until one ends on both sides.
	_, _ = streamPair(t, ca, cb)
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := ca.OpenStream(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a stream too many: %v", err)
	}
	r1.Cancel(CodeUser + 7)
	var cancelled *CancelError
	if _, err := s1.Read(make([]byte, 1)); !errors.As(err, &cancelled) || !cancelled.Remote || cancelled.Code != CodeUser+7 {
		t.Fatalf("read of a cancelled stream: %v", err)
	}
	s1.Cancel(CodeDone)
	if _, err := s1.Write([]byte{1}); !errors.As(err, &cancelled) {
		t.Fatalf("write to a cancelled stream: %v", err)
	}
	if _, err := ca.OpenStream(testContext(t)); err != nil {
		t.Fatal(err)
	}

	gone, leave := context.WithCancelCause(context.Background())
	leave(io.ErrNoProgress)
	if _, err := cb.AcceptStream(gone); !errors.Is(err, io.ErrNoProgress) {
		t.Fatalf("AcceptStream: %v", err)
	}
}

func TestUnplugged(t *testing.T) {
	t.Parallel()
	short := func(o *Options) { o.IdleTimeout = 2 * time.Second }
	a, b := listen(t, "a", short), listen(t, "b", short)
	wire := newCable(t, b.Addr())
	ca, cb := connectVia(t, a, b, wire.addr())
	streamPair(t, ca, cb)

	// A connection where nothing happens lives on.
	idle := time.NewTimer(4 * time.Second)
	defer idle.Stop()
	select {
	case <-ca.Context().Done():
		t.Fatal(ca.Err())
	case <-cb.Context().Done():
		t.Fatal(cb.Err())
	case <-idle.C:
	}
	wire.unplugged.Store(true)
	begin := time.Now()
	if err := ended(t, ca); !errors.Is(err, ErrLost) {
		t.Fatal(err)
	}
	if err := ended(t, cb); !errors.Is(err, ErrLost) {
		t.Fatal(err)
	}
	t.Logf("noticed after %v", time.Since(begin))
}

// A device that was killed and started again says so with a stateless reset:
// its peers need not wait for silence.
func TestRestartIsNoticed(t *testing.T) {
	t.Parallel()
	long := func(o *Options) { o.IdleTimeout = 10 * time.Minute }
	a, b := listen(t, "a", long), listen(t, "b", long)
	ca, cb := connect(t, a, b)
	s, _ := streamPair(t, ca, cb)
	addr := b.Addr().String()
	if err := b.udp.Close(); err != nil { // as a killed process does
		t.Fatal(err)
	}
	b2, err := Listen(Options{Key: testKey("b"), Listen: addr})
	if err != nil {
		t.Fatal(err)
	}
	defer b2.Close()
	b.closing.Do(func() { b.cancel(); _ = b.listener.Close(); _ = b.transport.Close() })
	if _, err := s.Write([]byte("still there?")); err != nil {
		t.Fatal(err)
	}
	if err := ended(t, ca); !errors.Is(err, ErrLost) {
		t.Fatal(err)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for what, o := range map[string]Options{
		"no key":      {},
		"bad key":     {Key: make([]byte, 5)},
		"limit":       {Key: testKey("a"), MaxConns: -1},
		"window":      {Key: testKey("a"), ConnWindow: 1 << 40},
		"idle time":   {Key: testKey("a"), IdleTimeout: -1},
		"memory":      {Key: testKey("a"), Memory: -1},
		"max streams": {Key: testKey("a"), MaxStreams: -1},
	} {
		if _, err := Listen(o); !errors.Is(err, ErrOptions) {
			t.Errorf("%s: %v", what, err)
		}
	}
	a := listen(t, "a")
	if _, err := Listen(Options{Key: testKey("b"), Listen: a.Addr().String()}); err == nil {
		t.Error("listened on a port that is taken")
	}
}
