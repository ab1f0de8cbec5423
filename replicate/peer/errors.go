package peer

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/quic-go/quic-go"
)

// Errors of endpoints, connections and streams. All of them but ErrOptions and
// ErrStranger may come wrapped in what happened underneath.
var (
	ErrOptions    = errors.New("invalid options")
	ErrClosed     = errors.New("the endpoint is closed")
	ErrWrongKey   = errors.New("another device answers")           // *WrongKeyError has both keys
	ErrSelf       = errors.New("the other side is this device")    // it has the same key
	ErrIdentity   = errors.New("the other side has no device key") // certificates break the rules
	ErrTooMany    = errors.New("too many connections")             // here or, as a CloseError, there
	ErrRefused    = errors.New("the connection was refused")       // before the other side was known
	ErrNoAnswer   = errors.New("no answer")                        // nothing of Hearth speaks there
	ErrLost       = errors.New("the connection was lost")          // silence, or the peer restarted
	ErrCommitment = errors.New("the other side broke its commitment")
)

// WrongKeyError says that another device than the expected one answered.
// It matches ErrWrongKey.
type WrongKeyError struct{ Want, Got Key }

func (e *WrongKeyError) Error() string {
	return fmt.Sprintf("%v: want %s, got %s", ErrWrongKey, e.Want, e.Got)
}

// Unwrap makes errors.Is(err, ErrWrongKey) true.
func (e *WrongKeyError) Unwrap() error { return ErrWrongKey }

// Code says why a connection was closed or a stream was cancelled. Codes below
// CodeUser belong to this package; the others mean what the caller says.
type Code uint64

// The codes of this package.
const (
	CodeDone     Code = 0 // nothing more to say
	CodeShutdown Code = 1 // the endpoint closes
	CodeTooMany  Code = 2 // a limit on connections; try again later
	CodeUser     Code = 16
)

// maxCloseText bounds the reason of a close, in bytes, so that it fits into
// one packet whatever else is in it.
const maxCloseText = 256

// CloseError is how a connection ended that one side closed on purpose. With
// CodeTooMany it matches ErrTooMany; it always matches net.ErrClosed.
type CloseError struct {
	Code   Code
	Text   string // from the other side if Remote: untrusted, but printable and short
	Remote bool
}

func (e *CloseError) Error() string {
	who := "closed here"
	if e.Remote {
		who = "closed by the peer"
	}
	if e.Text == "" {
		return fmt.Sprintf("%s (code %d)", who, e.Code)
	}
	return fmt.Sprintf("%s (code %d): %s", who, e.Code, e.Text)
}

// Is makes errors.Is(err, ErrTooMany) true for CodeTooMany.
func (e *CloseError) Is(target error) bool { return target == ErrTooMany && e.Code == CodeTooMany }

// Unwrap makes errors.Is(err, net.ErrClosed) true.
func (e *CloseError) Unwrap() error { return net.ErrClosed }

// CancelError is what reading or writing a cancelled stream gives.
type CancelError struct {
	Code   Code
	Remote bool // the other side cancelled it
}

func (e *CancelError) Error() string {
	who := "here"
	if e.Remote {
		who = "by the peer"
	}
	return fmt.Sprintf("stream cancelled %s (code %d)", who, e.Code)
}

// failure puts an error of the transport into the terms of this package. What
// has no such terms passes unchanged, as do io.EOF and errors of deadlines.
func failure(err error) error {
	if err == nil || err == io.EOF { // io.Reader promises io.EOF itself, not a wrapping of it
		return err
	}
	var (
		closed    *quic.ApplicationError
		cancelled *quic.StreamError
		broken    *quic.TransportError
		idle      *quic.IdleTimeoutError
		reset     *quic.StatelessResetError
		slow      *quic.HandshakeTimeoutError
		version   *quic.VersionNegotiationError
	)
	switch {
	case errors.As(err, &closed):
		return &CloseError{Code: Code(closed.ErrorCode), Text: printable(closed.ErrorMessage), Remote: closed.Remote}
	case errors.As(err, &cancelled):
		return &CancelError{Code: Code(cancelled.ErrorCode), Remote: cancelled.Remote}
	case errors.As(err, &idle), errors.As(err, &reset):
		return fmt.Errorf("%w: %w", ErrLost, err)
	case errors.As(err, &slow), errors.As(err, &version):
		return fmt.Errorf("%w: %w", ErrNoAnswer, err)
	case errors.As(err, &broken):
		// 0x100 to 0x1ff are alerts of TLS, RFC 9001 section 4.8.
		alert := broken.ErrorCode >= 0x100 && broken.ErrorCode < 0x200
		if broken.Remote && (broken.ErrorCode == quic.ConnectionRefused || alert) {
			return fmt.Errorf("%w: %w", ErrRefused, err)
		}
		return err
	}
	return err
}

// printable makes a text of a stranger fit for a message.
func printable(s string) string {
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return '?'
		}
		return r
	}, s)
	return cut(s, maxCloseText)
}

// cut shortens s to at most n bytes, at the border of a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}
