package peer

import (
	"context"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxPiece = 16 << 10 // bytes that pass a limit at once
	minPiece = 1200     // a packet

	// The most that saves up while nothing passes, what urgent streams may
	// borrow, and what other streams get whatever is urgent, as parts of a
	// limit's bytes a second.
	savedPart    = 0.1
	borrowedPart = 0.25
	bulkPart     = 0.25

	// overheadPart is the most of a limit that what was not foreseen may take:
	// headers, acknowledgements, what is sent again.
	overheadPart = 0.5
)

// limit is a token bucket for one direction of an endpoint. A byte that passes
// takes a token; tokens come at the rate of the limit. Streams take them in
// small pieces, so that one of many does not wait for another's megabyte.
//
// A stream that is not urgent passes while there are tokens, an urgent one also
// when there are none, up to a quarter of a second's worth: so it passes first,
// and the others make up for it. They keep a quarter of the rate, lest whoever
// waits at the other end takes them for dead.
type limit struct {
	turns [2]chan struct{} // one of each urgency waits for tokens, the others in line for that
	rate  atomic.Int64     // bytes a second; 0: no limit

	mu      sync.Mutex
	tokens  float64 // negative: borrowed
	share   float64 // what streams that are not urgent may take although there are no tokens
	at      time.Time
	changed chan struct{} // closed and replaced with another rate
}

func newLimit() *limit {
	l := &limit{at: time.Now(), changed: make(chan struct{})}
	for i := range l.turns {
		l.turns[i] = make(chan struct{}, 1)
	}
	return l
}

// set changes the rate, for those who wait, too.
func (l *limit) set(rate int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rate.Swap(rate) == rate {
		return
	}
	l.tokens, l.share, l.at = 0, 0, time.Now()
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *limit) on() bool { return l.rate.Load() > 0 }

// piece is how much may pass at once: little, where the limit is low.
func (l *limit) piece() int { return int(min(max(l.rate.Load()/50, minPiece), maxPiece)) }

// refill adds the tokens that came since it was called last. The caller holds mu.
func (l *limit) refill() (rate float64) {
	rate = float64(l.rate.Load())
	now := time.Now()
	t := now.Sub(l.at).Seconds()
	l.at = now
	l.tokens = min(l.tokens+rate*t, rate*savedPart)
	l.share = min(l.share+rate*bulkPart*t, maxPiece)
	return rate
}

// try takes n tokens if that may be now, and else says how long it takes until
// it may be, if nobody is faster.
func (l *limit) try(urgent bool, n int) (wait time.Duration, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rate := l.refill()
	if rate == 0 {
		return 0, nil
	}
	var seconds float64
	if urgent {
		seconds = (-rate*borrowedPart - l.tokens) / rate
	} else {
		seconds = min(-l.tokens/rate, -l.share/(rate*bulkPart))
	}
	if seconds < 0 {
		l.take(urgent, n)
		return 0, nil
	}
	return time.Duration(seconds*float64(time.Second)) + time.Millisecond, l.changed
}

func (l *limit) take(urgent bool, n int) {
	l.tokens -= float64(n)
	if !urgent {
		l.share = max(l.share-float64(n), -maxPiece)
	}
}

// pay takes tokens for what has passed.
func (l *limit) pay(urgent bool, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refill() > 0 {
		l.take(urgent, n)
	}
}

// admit waits until n bytes may pass, and takes tokens for them. It ends with
// os.ErrDeadlineExceeded, or without an error and without tokens if the gate was
// shut or ctx has ended: the transport says why.
func (l *limit) admit(ctx context.Context, g *gate, urgent bool, n int) error {
	turn := l.turns[0]
	if urgent {
		turn = l.turns[1]
	}
	first := false
	defer func() {
		if first {
			<-turn
		}
	}()
	for {
		deadline, shut, woken := g.state()
		if shut {
			return nil
		}
		if !deadline.IsZero() && !time.Now().Before(deadline) {
			return os.ErrDeadlineExceeded
		}
		line, wait, changed := turn, time.Hour, (<-chan struct{})(nil)
		if first {
			line = nil
			if wait, changed = l.try(urgent, n); wait == 0 {
				return nil
			}
		}
		if !deadline.IsZero() {
			wait = min(wait, time.Until(deadline))
		}
		timer := time.NewTimer(wait)
		select {
		case line <- struct{}{}:
			first = true
		case <-timer.C:
		case <-changed:
		case <-woken:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		timer.Stop()
	}
}

// gate is what may end the wait of one direction of a stream.
type gate struct {
	mu       sync.Mutex
	deadline time.Time
	shut     bool
	woken    chan struct{} // closed when the others change; nil while nobody waits
}

func (g *gate) state() (deadline time.Time, shut bool, woken <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.woken == nil {
		g.woken = make(chan struct{})
	}
	return g.deadline, g.shut, g.woken
}

func (g *gate) change(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
	if g.woken != nil {
		close(g.woken)
		g.woken = nil
	}
}

func (g *gate) setDeadline(t time.Time) { g.change(func() { g.deadline = t }) }

func (g *gate) close() { g.change(func() { g.shut = true }) }

// SetRates limits what all connections together carry, in bytes a second of UDP
// payload; 0 is no limit. A limit is kept on the average of some seconds, with
// what QUIC adds and sends again. What a peer may already send because it was
// told so, before there was a limit, still arrives.
func (e *Endpoint) SetRates(up, down int64) {
	e.up.set(max(up, 0))
	e.down.set(max(down, 0))
}

// windows are the receive windows that connections begin with: small under a
// limit, since what the other side may send comes, whether it is read or not.
// One stream must not take all of the connection's, so that another one which
// is urgent gets through. They grow where the way is long.
func (e *Endpoint) windows() (stream, conn int64) {
	stream, conn = min(initialStreamWindow, e.options.StreamWindow), min(initialConnWindow, e.options.ConnWindow)
	if rate := e.down.rate.Load(); rate > 0 {
		stream, conn = min(stream, max(rate/8, 64<<10)), min(conn, max(rate/2, 256<<10))
	}
	return stream, conn
}
