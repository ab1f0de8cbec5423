package peer

import (
	"container/list"
	"context"
	"sync"

	"github.com/quic-go/quic-go"
)

// registry counts the connections of an endpoint and what they may hold. All
// methods may be called concurrently.
type registry struct {
	maxConns, maxPerPeer int
	memory               int64

	mu         sync.Mutex
	closed     bool
	handshakes int
	conns      map[*quic.Conn]*member
	perPeer    map[Key]int
	strangers  *list.List // of *member, oldest first: accepted and not yet known
	grown      int64      // of memory
}

// member is what the registry knows of one connection.
type member struct {
	conn     *Conn
	grown    int64
	stranger *list.Element // nil once it is known
}

func newRegistry(o *Options) *registry {
	return &registry{
		maxConns: o.MaxConns, maxPerPeer: o.MaxPerPeer, memory: o.Memory,
		conns: map[*quic.Conn]*member{}, perPeer: map[Key]int{}, strangers: list.New(),
	}
}

// attempt is one handshake of somebody who dials us.
type attempt struct {
	reg  *registry
	once sync.Once
}

type attemptKey struct{}

// begin counts a handshake in; it ends when the connection does, or when it is
// accepted, whichever is first. Too many are ErrTooMany, which the transport
// turns into a refusal that costs us one packet.
func (r *registry) begin(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.handshakes >= maxHandshakes {
		return nil, ErrTooMany
	}
	r.handshakes++
	a := &attempt{reg: r}
	context.AfterFunc(ctx, a.end)
	return context.WithValue(ctx, attemptKey{}, a), nil
}

func (a *attempt) end() {
	a.once.Do(func() {
		a.reg.mu.Lock()
		a.reg.handshakes--
		a.reg.mu.Unlock()
	})
}

// crowded says whether dialers must prove their addresses first.
func (r *registry) crowded() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.handshakes >= verifyHandshakes
}

// admit enters a connection whose handshake is complete. If all places are
// taken, the oldest stranger loses its own, and the caller closes it: keys cost
// nothing, so strangers must not be able to keep friends out.
func (r *registry) admit(c *Conn) (evicted *Conn, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, ErrClosed
	}
	if r.perPeer[c.peer] >= r.maxPerPeer {
		return nil, ErrTooMany
	}
	if len(r.conns) >= r.maxConns {
		oldest := r.strangers.Front()
		if oldest == nil {
			return nil, ErrTooMany
		}
		evicted = oldest.Value.(*member).conn
		r.remove(evicted.qc)
	}
	m := &member{conn: c}
	if !c.dialed {
		m.stranger = r.strangers.PushBack(m)
	}
	r.conns[c.qc] = m
	r.perPeer[c.peer]++
	return evicted, nil
}

// know takes a connection out of the strangers.
func (r *registry) know(qc *quic.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := r.conns[qc]; m != nil && m.stranger != nil {
		r.strangers.Remove(m.stranger)
		m.stranger = nil
	}
}

// leave forgets a connection; one that is not there is no error.
func (r *registry) leave(qc *quic.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remove(qc)
}

func (r *registry) remove(qc *quic.Conn) {
	m := r.conns[qc]
	if m == nil {
		return
	}
	delete(r.conns, qc)
	if m.stranger != nil {
		r.strangers.Remove(m.stranger)
	}
	if r.perPeer[m.conn.peer]--; r.perPeer[m.conn.peer] == 0 {
		delete(r.perPeer, m.conn.peer)
	}
	r.grown -= m.grown
}

// grow says whether the receive window of a connection may grow by delta. The
// transport calls it with locks held: it calls nothing of the connection.
func (r *registry) grow(qc *quic.Conn, delta uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.conns[qc]
	if m == nil || delta > uint64(r.memory-r.grown) {
		return false
	}
	m.grown += int64(delta)
	r.grown += int64(delta)
	return true
}

// shut admits nobody any more and returns who is there.
func (r *registry) shut() []*Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return r.list()
}

// all returns who is there.
func (r *registry) all() []*Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.list()
}

// list is all; the caller holds mu.
func (r *registry) list() []*Conn {
	all := make([]*Conn, 0, len(r.conns))
	for _, m := range r.conns {
		all = append(all, m.conn)
	}
	return all
}

// count returns how many connections there are.
func (r *registry) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.conns)
}
