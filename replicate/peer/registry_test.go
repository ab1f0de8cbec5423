package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

func TestTooManyOfOnePeer(t *testing.T) {
	t.Parallel()
	a, b := listen(t, "a"), listen(t, "b", func(o *Options) { o.MaxPerPeer = 2 })
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	accepted := acceptAll(ctx, b)

	first, err := a.Dial(ctx, b.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	<-accepted
	if _, err := a.Dial(ctx, b.Addr().String(), nil); err != nil {
		t.Fatal(err)
	}
	<-accepted
	third, err := a.Dial(ctx, b.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var e *CloseError
	if err := ended(t, third); !errors.Is(err, ErrTooMany) || !errors.As(err, &e) || !e.Remote {
		t.Fatalf("the third saw %v", err)
	}
	first.Close(CodeDone, "")
	for b.Count() > 1 { // b hears of it
		runtime.Gosched()
	}
	if _, err := a.Dial(ctx, b.Addr().String(), nil); err != nil {
		t.Fatal(err)
	}
	<-accepted // there is room again

	// The limit holds for those who dial, too.
	limited := listen(t, "c", func(o *Options) { o.MaxPerPeer = 1 })
	if _, err := limited.Dial(ctx, a.Addr().String(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := limited.Dial(ctx, a.Addr().String(), nil); !errors.Is(err, ErrTooMany) {
		t.Fatalf("Dial: %v", err)
	}
}

// Keys cost nothing: a crowd of strangers must not keep a friend out.
func TestStrangersMakeRoom(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	b := listen(t, "b", func(o *Options) { o.MaxConns = 3 })
	var theirs []*Conn
	for i := range 3 {
		c, mine := connect(t, listen(t, fmt.Sprint("stranger", i)), b)
		if i == 0 {
			mine.Known()
			mine.Known()
		}
		theirs = append(theirs, c)
	}
	friend, mine := connect(t, listen(t, "friend"), b)
	mine.Known()
	if err := ended(t, theirs[1]); !errors.Is(err, ErrTooMany) { // the oldest that is not known
		t.Fatal(err)
	}
	if b.Count() != 3 {
		t.Fatalf("%d connections", b.Count())
	}
	late, mine := connect(t, listen(t, "late"), b)
	mine.Known()
	if err := ended(t, theirs[2]); !errors.Is(err, ErrTooMany) {
		t.Fatal(err)
	}
	// Now all are known: nobody else comes in, and nobody has to go.
	accepting, cancel := context.WithCancel(ctx)
	defer cancel()
	acceptAll(accepting, b)
	refused, err := listen(t, "refused").Dial(ctx, b.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := ended(t, refused); !errors.Is(err, ErrTooMany) {
		t.Fatal(err)
	}
	for _, c := range []*Conn{theirs[0], friend, late} {
		if c.Err() != nil {
			t.Error(c.Err())
		}
	}
}

// acceptAll accepts until ctx ends.
func acceptAll(ctx context.Context, e *Endpoint) <-chan *Conn {
	out := make(chan *Conn)
	go func() {
		for {
			c, err := e.Accept(ctx)
			if err != nil {
				return
			}
			select {
			case out <- c:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

func TestHandshakeLimits(t *testing.T) {
	t.Parallel()
	o, err := (Options{Key: testKey("a")}).withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	r := newRegistry(&o)
	var cancels []context.CancelFunc
	for i := range maxHandshakes {
		if got := r.crowded(); got != (i >= verifyHandshakes) {
			t.Fatalf("crowded after %d: %v", i, got)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancels = append(cancels, cancel)
		if _, err := r.begin(ctx, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.begin(context.Background(), nil); !errors.Is(err, ErrTooMany) {
		t.Fatalf("a handshake too many: %v", err)
	}
	for _, cancel := range cancels {
		cancel()
	}
	for r.crowded() {
		runtime.Gosched()
	}
	ctx, err := r.begin(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	a := ctx.Value(attemptKey{}).(*attempt)
	a.end()
	a.end() // counts once
	r.shut()
	if _, err := r.begin(context.Background(), nil); err == nil {
		t.Fatal("a handshake after the end")
	}
}

// With many handshakes under way a dialer has to prove its address first, and
// an endpoint that has its fill refuses.
func TestCrowded(t *testing.T) {
	t.Parallel()
	a, b := listen(t, "a"), listen(t, "b")
	set := func(n int) {
		b.reg.mu.Lock()
		defer b.reg.mu.Unlock()
		b.reg.handshakes = n
	}
	set(verifyHandshakes)
	ca, cb := connect(t, a, b)
	streamPair(t, ca, cb)
	set(maxHandshakes)
	if _, err := a.Dial(testContext(t), b.Addr().String(), nil); !errors.Is(err, ErrRefused) {
		t.Fatalf("Dial: %v", err)
	}
	set(0)
}

func TestMemory(t *testing.T) {
	t.Parallel()
	o, err := (Options{Key: testKey("a"), Memory: 100}).withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	r := newRegistry(&o)
	one, two := new(quic.Conn), new(quic.Conn)
	if r.grow(one, 1) {
		t.Error("one that was not let in grew")
	}
	for _, qc := range []*quic.Conn{one, two} {
		if _, err := r.admit(&Conn{qc: qc}); err != nil {
			t.Fatal(err)
		}
	}
	if !r.grow(one, 60) || r.grow(two, 41) || !r.grow(two, 40) || r.grow(one, 1) {
		t.Error("the bound is not kept")
	}
	r.leave(one)
	r.leave(one)
	if !r.grow(two, 60) || r.grow(two, 1) {
		t.Error("what a connection had is not given back once")
	}
}

func TestNothingLeaks(t *testing.T) {
	before := peerGoroutines()
	for range 3 {
		var ends []*Endpoint
		for _, name := range []string{"a", "b"} {
			e, err := Listen(Options{Key: testKey(name), Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			ends = append(ends, e)
		}
		ca, cb := connect(t, ends[0], ends[1])
		sa, sb := streamPair(t, ca, cb)
		go io.Copy(io.Discard, sb)
		if _, err := sa.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		wrong := publicKey(testKey("c"))
		if _, err := ends[1].Dial(testContext(t), ends[0].Addr().String(), &wrong); !errors.Is(err, ErrWrongKey) {
			t.Fatal(err)
		}
		for _, e := range ends {
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	deadline := time.Now().Add(patience)
	for peerGoroutines() > before {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("goroutines are left:\n%s", buf[:runtime.Stack(buf, true)])
		}
		runtime.Gosched()
	}
}

// peerGoroutines counts the goroutines of this package and the transport.
func peerGoroutines() int {
	buf := make([]byte, 1<<20)
	n := 0
	for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(g, "quic-go") || strings.Contains(g, "hearth/replicate/peer.(") {
			n++
		}
	}
	return n
}
