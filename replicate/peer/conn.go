package peer

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"
)

// The labels of what is exported from TLS, RFC 8446 section 7.5. Each use has
// its own, with an empty context and 32 bytes.
const (
	labelCapability = "EXPORTER-hearth-capability"
	labelWords      = "EXPORTER-hearth-words"
)

// Conn is a connection to another device. All methods may be called
// concurrently.
type Conn struct {
	qc     *quic.Conn
	reg    *registry
	ep     *Endpoint
	up     *limit
	down   *limit
	peer   Key
	dialed bool
	parts  parties
	meter  meter

	capability [32]byte // exported for tokens
	words      [32]byte // exported for words
	pad        [32]byte // makes the tokens that stand for nothing
}

// parties are the two ends of a connection in their fixed order.
type parties struct{ dialer, listener Key }

func newConn(e *Endpoint, qc *quic.Conn, dialed bool) (*Conn, error) {
	state := qc.ConnectionState().TLS
	peer, err := identify(&state)
	if err != nil {
		return nil, err
	}
	c := &Conn{qc: qc, reg: e.reg, ep: e, up: e.up, down: e.down, peer: peer, dialed: dialed, parts: parties{dialer: peer, listener: e.self}, pad: random()}
	c.meter.begin(time.Now())
	if dialed {
		c.parts = parties{dialer: e.self, listener: peer}
	}
	for label, into := range map[string]*[32]byte{labelCapability: &c.capability, labelWords: &c.words} {
		b, err := c.Exporter(label, nil, len(into))
		if err != nil {
			return nil, err
		}
		copy(into[:], b)
	}
	return c, nil
}

// Peer returns the device key of the other side, which it proved to have.
func (c *Conn) Peer() Key { return c.peer }

// Dialed says whether this side dialed. The roles last as long as the
// connection, whoever opens streams.
func (c *Conn) Dialed() bool { return c.dialed }

// Remote returns the address of the other side, which may change as it moves.
func (c *Conn) Remote() netip.AddrPort { return addrPort(c.qc.RemoteAddr()) }

// Known says that the other side has proved to be more than a stranger, with a
// token or because a person vouched for it. Only then is an accepted
// connection safe from making room for others when there are too many.
func (c *Conn) Known() { c.reg.know(c.qc) }

// Exporter returns n bytes that only the two ends of this connection know, RFC
// 8446 section 7.5, under a label that begins with "EXPORTER-".
func (c *Conn) Exporter(label string, context []byte, n int) ([]byte, error) {
	state := c.qc.ConnectionState().TLS
	b, err := state.ExportKeyingMaterial(label, context, n)
	if err != nil {
		return nil, fmt.Errorf("export %s: %w", label, err)
	}
	return b, nil
}

// Stats is what a connection has carried so far, as UDP payload: with what
// QUIC adds and what was sent again.
type Stats struct {
	Sent, Received uint64        // bytes
	Lost           uint64        // bytes sent and believed lost; a belief that may be taken back
	RTT            time.Duration // smoothed; 0 before the first sample
	MinRTT         time.Duration
	Window         uint64 // bytes that congestion control allows in flight
	// Bytes a second over the last seconds; after the end of a connection they
	// sink to nothing.
	SentRate, ReceivedRate float64
}

// Stats returns the counters, which go on after the connection ended.
func (c *Conn) Stats() Stats {
	s := c.qc.ConnectionStats()
	up, down := c.meter.rates(time.Now(), s.BytesSent, s.BytesReceived)
	return Stats{Sent: s.BytesSent, Received: s.BytesReceived, Lost: s.BytesLost,
		RTT: s.SmoothedRTT, MinRTT: s.MinRTT, Window: s.CongestionWindow, SentRate: up, ReceivedRate: down}
}

// RTT returns the smoothed round-trip time.
func (c *Conn) RTT() time.Duration { return c.qc.ConnectionStats().SmoothedRTT }

// Context ends when the connection does.
func (c *Conn) Context() context.Context { return c.qc.Context() }

// Err says why the connection ended: *CloseError, ErrLost, or an error of the
// transport. It is nil while the connection lives.
func (c *Conn) Err() error {
	if c.qc.Context().Err() == nil {
		return nil
	}
	return failure(context.Cause(c.qc.Context()))
}

// Close ends the connection and all its streams. The other side sees code and
// text (cut to 256 bytes) as a *CloseError. Data not yet acknowledged may not
// arrive: whoever cares waits for an answer first. Once the connection has
// ended Close does nothing.
func (c *Conn) Close(code Code, text string) {
	_ = c.qc.CloseWithError(quic.ApplicationErrorCode(code), cut(text, maxCloseText)) // always nil
}

// OpenStream opens a stream, waiting while the other side has its fill of
// them. The other side learns of it with the first write. Errors are those of
// ctx and of Err.
func (c *Conn) OpenStream(ctx context.Context) (*Stream, error) {
	s, err := c.qc.OpenStreamSync(ctx)
	if err != nil {
		return nil, c.streamError("open stream", ctx, err)
	}
	return &Stream{qs: s, conn: c}, nil
}

// AcceptStream returns the next stream that the other side opened. Errors are
// those of ctx and of Err.
func (c *Conn) AcceptStream(ctx context.Context) (*Stream, error) {
	s, err := c.qc.AcceptStream(ctx)
	if err != nil {
		return nil, c.streamError("accept stream", ctx, err)
	}
	return &Stream{qs: s, conn: c}, nil
}

func (c *Conn) streamError(what string, ctx context.Context, err error) error {
	if ctx.Err() != nil && c.qc.Context().Err() == nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("%s: %w", what, failure(err))
}
