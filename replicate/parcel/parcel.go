package parcel

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"
)

// Limits of one transfer. Both sides hold to them: a sender skips or refuses
// what is beyond them, a receiver ends a transfer that breaks them.
const (
	// MaxEntries is the most files, folders and symlinks together.
	MaxEntries = 4 << 20
	// MaxManifest is the most bytes of encoded manifest.
	MaxManifest = 256 << 20
	// MaxDepth is the most components of a path; a top-level name has one.
	MaxDepth = 128
	// MaxName is the most bytes of one name, and of a sender's display name.
	MaxName = 255
	// MaxTarget is the most bytes of a symlink's target.
	MaxTarget = 4095
	// MaxTops is how many top-level names an [Offer] lists; it counts them all.
	MaxTops = 1000
)

// Errors of a transfer, matched with errors.Is.
var (
	// ErrDeclined: the receiver said no.
	ErrDeclined = errors.New("declined")
	// ErrBusy: the receiver has no time for it now, or still holds the broken
	// stream of an earlier attempt. Trying again later makes sense.
	ErrBusy = errors.New("the receiver is busy")
	// ErrStranger: the receiver takes nothing from a sender that it does not know.
	ErrStranger = errors.New("the receiver takes only from devices it knows")
	// ErrNoSpace: the receiver's file system has too little room.
	ErrNoSpace = errors.New("not enough free space")
	// ErrCanceled: the other side stopped the transfer.
	ErrCanceled = errors.New("canceled by the other side")
	// ErrFailed: the other side ended the transfer because something failed there.
	ErrFailed = errors.New("the other side failed")
	// ErrBroken: the stream ended early, or nothing came for too long. The same
	// ID sent again continues where it broke.
	ErrBroken = errors.New("the stream broke")
	// ErrProtocol: the other side broke the rules of the protocol.
	ErrProtocol = errors.New("protocol violation")
	// ErrChanged: files changed again and again while they were sent, or
	// vanished, and are missing at the receiver. All else is there, and the
	// Report that comes with this error is complete and names them.
	ErrChanged = errors.New("files changed while they were sent")
	// ErrTooLarge: more entries than MaxEntries or MaxManifest allow.
	ErrTooLarge = errors.New("too many files for one transfer")

	// ErrDiscard is a cause for ending the context of Receive: with it (see
	// context.WithCancelCause) the partial folder is removed, where any other
	// end of the context keeps it for a later attempt.
	ErrDiscard = errors.New("transfer discarded")
)

// ID names one transfer over all of its attempts. It is no secret, but must
// not be guessable by other senders to the same folder.
type ID [16]byte

// NewID returns a random ID.
func NewID() ID {
	var id ID
	rand.Read(id[:]) // never fails, see crypto/rand
	return id
}

// String is the ID in 32 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ParseID reads what String wrote.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return id, fmt.Errorf("transfer id %q: %d digits, not %d", s, len(s), 2*len(id))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return ID{}, fmt.Errorf("transfer id %q: %w", s, err)
	}
	return id, nil
}

// Stream is what a transfer runs over: reliable, ordered, authenticated and
// encrypted by whoever made it. A past deadline must end a call that is
// blocked, as in net.Conn. A TCP connection, a net.Pipe and a QUIC stream are
// Streams.
type Stream interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// SendOptions says what to send.
type SendOptions struct {
	// Paths are files and folders; each becomes one top-level name. Two of
	// the same name become "name" and "name (2)".
	Paths []string
	// Name is who sends, for the receiver's user, at most MaxName bytes.
	Name string
	// ID continues an earlier attempt if the caller kept it; the zero ID
	// stands for a new one.
	ID ID
	// Progress, if set, is called at most ten times a second and once at the
	// end, by one goroutine at a time; it must not block.
	Progress func(Progress)

	idle time.Duration // how long silence is borne, 0: idleTimeout
}

// ReceiveOptions says where to and whether.
type ReceiveOptions struct {
	// Dir is the folder the top-level names are placed in. It must exist.
	Dir string
	// Decide is asked once, before anything is written. Its context ends when
	// the sender gives up or the stream breaks, so that a question on a screen
	// can be taken back. An error counts as Decline and is returned. Required.
	Decide func(context.Context, Offer) (Decision, error)
	// Progress is as in SendOptions.
	Progress func(Progress)

	idle  time.Duration
	space func(fd int) (space, error) // statfs, replaced in tests
}

// Decision is the receiver's answer to an offer.
type Decision uint8

// The answers. The zero Decision is no.
const (
	Decline Decision = iota
	Accept
	Busy
	Stranger // no, to this sender
)

// Offer is what a sender says about a transfer before it. All of it is the
// sender's word: names are any bytes and must be made safe before they are
// shown. Numbers that turn out wrong end the transfer.
type Offer struct {
	ID   ID
	Name string // who sends

	Files, Dirs, Links int
	Bytes              int64 // sum of the files' sizes
	Skipped            int   // what the sender found but does not send

	Tops     []Top // in byte order, at most MaxTops
	TopCount int

	// Resume is set by the receiver: it has a part of this transfer, so its
	// user said yes to it before.
	Resume bool
}

// Top is one top-level name of an offer, with all that is below it.
type Top struct {
	Name  string
	Dir   bool
	Files int
	Bytes int64
}

// Progress is how far a transfer is.
type Progress struct {
	Done, Total       int64 // bytes of file contents, an earlier attempt's included
	Files, FilesTotal int
	Rate              float64       // bytes a second, smoothed over some seconds
	Left              time.Duration // estimated; negative while unknown
	Current           string        // path of a file on its way, any bytes
}

// Report is what came of a transfer.
type Report struct {
	ID    ID
	Names []string // top-level names as they were placed, in the order of the manifest
	// What is at the receiver now.
	Files, Dirs, Links int
	Bytes              int64
	Moved              int64 // bytes of file contents that crossed the stream in this attempt
	Skipped            []Skipped
}

// Skipped is something that was found but not transferred.
type Skipped struct {
	Path   string // the sender's path, or at the receiver the path in the transfer
	Reason Reason
}

// Reason says why something was skipped.
type Reason uint8

// The reasons. Their numbers are part of the wire format.
const (
	_                 Reason = iota
	SkippedSpecial           // a device, socket or fifo
	SkippedLink              // a symlink that leads, or may lead, out of its top-level folder
	SkippedUnreadable        // it could not be opened or read
	SkippedChanged           // it changed each time it was sent, or vanished
	SkippedName              // a name that cannot be placed: reserved, or too long
	SkippedDepth             // deeper than MaxDepth
)

func (r Reason) String() string {
	switch r {
	case SkippedSpecial:
		return "not a file, folder or symlink"
	case SkippedLink:
		return "symlink out of the folder that is sent"
	case SkippedUnreadable:
		return "not readable"
	case SkippedChanged:
		return "changed while it was sent"
	case SkippedName:
		return "name cannot be sent"
	case SkippedDepth:
		return "too deep"
	}
	return fmt.Sprintf("reason %d", uint8(r))
}
