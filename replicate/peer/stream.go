package peer

import (
	"net"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// Stream is a flow of bytes each way; it is a net.Conn. One goroutine may read
// while another writes; Cancel and deadlines may be called at any time, Close
// and CloseWrite not while a Write runs.
//
// Read and Write fail with *CancelError if the stream was cancelled, with what
// Conn.Err says if the connection ended, and with os.ErrDeadlineExceeded.
type Stream struct {
	qs   *quic.Stream
	conn *Conn

	urgent           atomic.Bool
	reading, writing gate
	held             atomic.Int64 // how long reads waited for the limit, in ns
	heldSince        atomic.Int64 // the one that waits now, in ns since 1970; 0: none
}

var _ net.Conn = (*Stream)(nil)

// Conn returns the connection of the stream.
func (s *Stream) Conn() *Conn { return s.conn }

// ID returns the number of the stream, the same on both sides.
func (s *Stream) ID() uint64 { return uint64(s.qs.StreamID()) }

// SetUrgent says that somebody waits for what the stream carries: where rates
// are limited it goes before the streams of which that was not said.
func (s *Stream) SetUrgent(yes bool) { s.urgent.Store(yes) }

// Held returns how long reads have waited for this device's own limit, the one
// under way included: so long, silence was not the other side's.
func (s *Stream) Held() time.Duration {
	t := s.held.Load()
	if since := s.heldSince.Load(); since != 0 {
		t += time.Now().UnixNano() - since
	}
	return time.Duration(t)
}

// Read reads some bytes; io.EOF comes after the other side's CloseWrite.
func (s *Stream) Read(p []byte) (int, error) {
	down, urgent := s.conn.down, s.urgent.Load()
	if down.on() {
		p = p[:min(len(p), down.piece())]
		begun := time.Now()
		s.heldSince.Store(begun.UnixNano())
		err := down.admit(s.conn.qc.Context(), &s.reading, urgent, 0)
		s.heldSince.Store(0)
		s.held.Add(int64(time.Since(begun)))
		if err != nil {
			return 0, err
		}
	}
	n, err := s.qs.Read(p)
	s.conn.meter.read.Add(uint64(n))
	s.conn.ep.carry(n)
	if down.on() {
		down.pay(urgent, n)
	}
	return n, failure(err)
}

// Write writes all of p, waiting while the other side does not read.
func (s *Stream) Write(p []byte) (int, error) {
	up, urgent := s.conn.up, s.urgent.Load()
	done := 0
	for {
		piece := p[done:]
		if up.on() {
			piece = piece[:min(len(piece), up.piece())]
			if err := up.admit(s.conn.qc.Context(), &s.writing, urgent, len(piece)); err != nil {
				return done, err
			}
		}
		n, err := s.qs.Write(piece)
		done += n
		s.conn.meter.wrote.Add(uint64(n))
		s.conn.ep.carry(n)
		if err != nil || done == len(p) {
			return done, failure(err)
		}
	}
}

// CloseWrite ends this side's flow; what was written still arrives.
func (s *Stream) CloseWrite() error { return failure(s.qs.Close()) }

// Close ends this side's flow like CloseWrite, and tells the other side to
// send no more. A stream that is neither closed nor cancelled counts against
// the limit for ever.
func (s *Stream) Close() error {
	s.qs.CancelRead(quic.StreamErrorCode(CodeDone))
	return s.CloseWrite()
}

// Cancel ends both flows at once. What was written may not arrive; the other
// side sees code in a *CancelError. After the end it does nothing.
func (s *Stream) Cancel(code Code) {
	s.reading.close()
	s.writing.close()
	s.qs.CancelRead(quic.StreamErrorCode(code))
	s.qs.CancelWrite(quic.StreamErrorCode(code))
}

// SetDeadline bounds reads and writes, also those that wait now; the zero time
// is no bound.
func (s *Stream) SetDeadline(t time.Time) error {
	s.reading.setDeadline(t)
	s.writing.setDeadline(t)
	return s.qs.SetDeadline(t)
}

// SetReadDeadline bounds reads.
func (s *Stream) SetReadDeadline(t time.Time) error {
	s.reading.setDeadline(t)
	return s.qs.SetReadDeadline(t)
}

// SetWriteDeadline bounds writes.
func (s *Stream) SetWriteDeadline(t time.Time) error {
	s.writing.setDeadline(t)
	return s.qs.SetWriteDeadline(t)
}

// LocalAddr returns the address of the socket.
func (s *Stream) LocalAddr() net.Addr { return s.conn.qc.LocalAddr() }

// RemoteAddr returns the address of the other side.
func (s *Stream) RemoteAddr() net.Addr { return s.conn.qc.RemoteAddr() }
