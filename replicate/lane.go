package replicate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"hearth/replicate/peer"
)

// lane is a stream for requests of one urgency. Requests are sent without
// waiting for answers, which come in their order. It is opened when it is first
// used, and ends with the connection.
type lane struct {
	s    *session
	kind byte // of its streams; see gatherer

	queued  atomic.Int64 // parts of answers that have not come
	mu      sync.Mutex
	st      *peer.Stream
	waiting []*call // sent, in order
	room    chan struct{}
	last    atomic.Int64 // when something was sent or arrived, by clock
	current atomic.Pointer[peer.Stream]
}

// call is a request that was sent.
type call struct {
	each func(part) error // called in the lane's goroutine; an error ends the connection
	left int              // how many parts the answer may still have
	done chan error
}

// errCannot is matched by the error of an answer that says no.
var errCannot = errors.New("the peer cannot answer")

// errTooMuch is matched by the error of an answer that says that it would be, or
// was, too much.
var errTooMuch = errors.New("it is too much")

func newLane(s *session, kind byte) *lane {
	return &lane{s: s, kind: kind, room: make(chan struct{}, maxPending)}
}

// urgentLanes is how many streams there are for what somebody waits for: a
// program that reads much leaves the others free for one that reads little.
const urgentLanes = 4

// urgent returns the lane for a request that somebody waits for.
func (s *session) urgent() *lane {
	least := s.urgents[0]
	for _, l := range s.urgents[1:] {
		if l.queued.Load() < least.queued.Load() {
			least = l
		}
	}
	return least
}

// gatherTime is how long packets gather that nobody waits for.
const gatherTime = 300 * time.Microsecond

// gatherer reads a stream that has nothing urgent, when some of it has come: to be
// woken for every packet costs a fifth of all the work of a fast transfer.
type gatherer struct{ st *peer.Stream }

func (g gatherer) Read(b []byte) (int, error) {
	n, err := g.st.Read(b)
	if n < len(b) && err == nil {
		time.Sleep(gatherTime) // all that had arrived was read
	}
	return n, err
}

// livelyBytes have to come in answerTime: a peer may be slow, and no drip.
const livelyBytes = 16 << 10

// lively notes that a peer goes on sending, also within a message.
type lively struct {
	r     io.Reader
	n     int
	alive func()
}

func (v *lively) Read(b []byte) (int, error) {
	n, err := v.r.Read(b)
	if v.n += n; v.n >= livelyBytes {
		v.n = 0
		v.alive()
	}
	return n, err
}

// do sends a request and returns when it was answered. each gets the parts of
// the answer, also after ctx has ended: what was asked for comes.
func (l *lane) do(ctx context.Context, q *request, each func(part) error) error {
	select {
	case l.room <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.s.ctx.Done():
		return peer.ErrLost
	}
	parts := int64(min(q.parts(), maxEntries))
	l.queued.Add(parts)
	defer l.queued.Add(-parts)
	c := &call{each: each, left: q.parts(), done: make(chan error, 1)}
	if err := l.send(ctx, q, c); err != nil {
		<-l.room
		return err
	}
	silent := time.NewTimer(answerTime)
	defer silent.Stop()
	for {
		select {
		case err := <-c.done:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-l.s.ctx.Done():
			return peer.ErrLost
		case <-silent.C:
			quiet := l.clock() - time.Duration(l.last.Load())
			if quiet >= answerTime {
				// Whoever waits behind this request would wait for ever.
				l.s.node.logger.Warn("a peer does not answer", "peer", l.s.conn.Peer(), "addr", l.s.conn.Remote())
				l.s.silent.Store(true)
				l.s.end(codeSilent, "no answer")
				return fmt.Errorf("a peer does not answer: %w", context.DeadlineExceeded)
			}
			silent.Reset(answerTime - quiet)
		}
	}
}

func (l *lane) alive() { l.last.Store(int64(l.clock())) }

// clock is the time since the session began in which the peer may have been
// silent: without that in which this device's own limit kept it from reading.
func (l *lane) clock() time.Duration {
	t := time.Since(l.s.since)
	if st := l.current.Load(); st != nil {
		t -= st.Held()
	}
	return t
}

func (l *lane) send(ctx context.Context, q *request, c *call) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := q.encode()
	if l.st == nil {
		st, err := l.s.conn.OpenStream(ctx)
		if err != nil {
			return err
		}
		st.SetUrgent(l.kind == streamRequest)
		l.st = st
		l.current.Store(st)
		b = append([]byte{l.kind}, b...)
		l.s.wg.Go(func() { l.fail(l.read(st)) })
	}
	if len(l.waiting) == 0 {
		l.alive()
	}
	l.waiting = append(l.waiting, c)
	if _, err := l.st.Write(b); err != nil {
		l.waiting = l.waiting[:len(l.waiting)-1]
		l.st.Cancel(codeSilent) // its reader ends, and what waits with it
		return err
	}
	return nil
}

// readAhead is how many messages may have arrived that were not taken in yet:
// the stream is read while they are verified and stored.
const readAhead = 16

// arrived is a message in a buffer of its own.
type arrived struct {
	message
	buf *[]byte
}

// read gives the answers to those who wait for them.
func (l *lane) read(st *peer.Stream) error {
	ctx, cancel := context.WithCancelCause(l.s.ctx)
	defer cancel(nil)
	messages := make(chan arrived, readAhead)
	var from io.Reader = st
	if l.kind == streamBulk {
		from = gatherer{st}
	}
	r := &lively{r: from, alive: l.alive}
	spare := make(chan *[]byte, readAhead+2)
	l.s.wg.Go(func() {
		defer close(messages)
		for {
			var buf *[]byte
			select {
			case buf = <-spare:
			default:
				buf = new([]byte)
			}
			m, err := readMessage(r, buf)
			if err != nil {
				cancel(err)
				return
			}
			l.alive()
			select {
			case messages <- arrived{m, buf}:
			case <-ctx.Done():
				return
			}
		}
	})
	for m := range messages {
		if err := l.takeIn(m.message); err != nil {
			st.Cancel(codeBroken) // which ends the reader
			return err
		}
		select {
		case spare <- m.buf:
		default:
		}
	}
	return context.Cause(ctx)
}

// takeIn gives a message to the one who waits for it.
func (l *lane) takeIn(m message) error {
	p, err := decodePart(m)
	if err != nil {
		return err
	}
	l.mu.Lock()
	if len(l.waiting) == 0 {
		l.mu.Unlock()
		return fmt.Errorf("%w: an answer to nothing", ErrProtocol)
	}
	c := l.waiting[0]
	if p.typ == msgEnd {
		l.waiting = l.waiting[1:]
	}
	l.mu.Unlock()
	if p.typ != msgEnd {
		if c.left--; c.left < 0 {
			return fmt.Errorf("%w: an answer without end", ErrProtocol)
		}
		return c.each(p)
	}
	<-l.room
	if p.code == endTooMuch {
		c.done <- fmt.Errorf("%w: %w", errCannot, errTooMuch)
	} else if p.code != endOK {
		c.done <- fmt.Errorf("%w: code %d", errCannot, p.code)
	} else {
		c.done <- nil
	}
	return nil
}

// fail ends what waits. The next request opens another stream.
func (l *lane) fail(err error) {
	l.mu.Lock()
	l.st = nil
	waiting := l.waiting
	l.waiting = nil
	l.mu.Unlock()
	for _, c := range waiting {
		<-l.room
		c.done <- err
	}
	if errors.Is(err, ErrProtocol) {
		l.s.end(codeBroken, "protocol")
	}
}
