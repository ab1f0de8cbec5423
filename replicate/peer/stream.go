package peer

import (
	"net"
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
}

var _ net.Conn = (*Stream)(nil)

// Conn returns the connection of the stream.
func (s *Stream) Conn() *Conn { return s.conn }

// ID returns the number of the stream, the same on both sides.
func (s *Stream) ID() uint64 { return uint64(s.qs.StreamID()) }

// Read reads some bytes; io.EOF comes after the other side's CloseWrite.
func (s *Stream) Read(p []byte) (int, error) {
	n, err := s.qs.Read(p)
	return n, failure(err)
}

// Write writes all of p, waiting while the other side does not read.
func (s *Stream) Write(p []byte) (int, error) {
	n, err := s.qs.Write(p)
	return n, failure(err)
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
	s.qs.CancelRead(quic.StreamErrorCode(code))
	s.qs.CancelWrite(quic.StreamErrorCode(code))
}

// SetDeadline bounds reads and writes, also those that wait now; the zero time
// is no bound.
func (s *Stream) SetDeadline(t time.Time) error { return s.qs.SetDeadline(t) }

// SetReadDeadline bounds reads.
func (s *Stream) SetReadDeadline(t time.Time) error { return s.qs.SetReadDeadline(t) }

// SetWriteDeadline bounds writes.
func (s *Stream) SetWriteDeadline(t time.Time) error { return s.qs.SetWriteDeadline(t) }

// LocalAddr returns the address of the socket.
func (s *Stream) LocalAddr() net.Addr { return s.conn.qc.LocalAddr() }

// RemoteAddr returns the address of the other side.
func (s *Stream) RemoteAddr() net.Addr { return s.conn.qc.RemoteAddr() }
