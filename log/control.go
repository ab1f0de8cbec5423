package log

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"hearth/log/wire"
)

// FormatVersion is the version of the drive format this package writes, and
// the newest it reads. 1 is the first.
const FormatVersion = 1

// ErrNewer is matched by errors about what a newer version has written.
var ErrNewer = errors.New("written by a newer version")

// ControlType is the second byte of a control entry.
type ControlType uint8

// The types of control entries.
const (
	TypeGenesis       ControlType = 1
	TypeWriterAdded   ControlType = 2
	TypeWriterRemoved ControlType = 3
	TypeKeyBox        ControlType = 4
	TypeEpochBegun    ControlType = 5
	TypeSuccession    ControlType = 6
	TypeDropped       ControlType = 7
	TypeRecipient     ControlType = 8
)

// Control is a control entry: small, in clear, authenticated by the
// checkpoint like all entries, so that whoever only holds a drive can do its
// work. The types are pointers to [Genesis], [WriterAdded], [WriterRemoved],
// [KeyBox], [EpochBegun], [Succession], [Dropped] and [Recipient].
//
// All but Genesis and Dropped are statements of the drive's owner: they are
// signed with [Authorize], and then may stand in any writer's log.
type Control interface {
	Type() ControlType
	appendBody(w *wire.Writer)
}

// statement is a Control that somebody must authorise.
type statement interface {
	Control
	signature() *[ed25519.SignatureSize]byte
}

// DriveID names a drive: the SHA-256 of its genesis entry.
type DriveID [32]byte

// String returns the id in hex.
func (id DriveID) String() string { return hex.EncodeToString(id[:]) }

// Genesis is the first entry of a drive, at index 0 of the log of writer 0.
type Genesis struct {
	Format   uint16   // version of the drive format
	Nonce    [32]byte // makes the drive's id unique
	Owner    [32]byte // Ed25519 key that signs the owner's statements
	Recovery [32]byte // Ed25519 key that signs successions
	Log      [32]byte // Ed25519 key of writer 0's log
	Created  uint64   // seconds since 1970
}

// DriveID returns the id of the drive that g begins.
func (g *Genesis) DriveID() DriveID {
	w := wire.Writer{B: []byte{entryControl, byte(TypeGenesis)}}
	g.appendBody(&w)
	return sha256.Sum256(w.B)
}

// Capability says what a writer may do. Bits not known here grant nothing.
type Capability uint32

// The capabilities of a writer.
const (
	CapWrite Capability = 1 << 0 // its commits are part of the drive
	CapDrop  Capability = 1 << 1 // it may declare blocks of other writers dropped
	CapAll              = CapWrite | CapDrop
)

// WriterAdded makes a log part of the drive, or changes the device and
// capabilities of a writer that is.
type WriterAdded struct {
	Writer       Writer   // its inode numbers have this in their top 16 bits
	Issue        uint32   // from 1; of several for one writer the highest counts
	Log          [32]byte // Ed25519 key of the log; never changes
	Device       [32]byte // Ed25519 key of the device on connections
	Capabilities Capability
	Signature    [ed25519.SignatureSize]byte // the owner's
}

// WriterRemoved ends a writer's membership. Of its log only the first Size
// entries are part of the drive, which have this Root; what comes later waits
// until the owner issues a WriterRemoved that accepts more.
type WriterRemoved struct {
	Writer    Writer
	Issue     uint32 // from 1; of several for one writer the highest counts
	Size      uint64
	Root      [32]byte
	Signature [ed25519.SignatureSize]byte // the owner's
}

// EpochBegun begins a key epoch after epoch 0, which begins with the genesis.
// From now on blocks are sealed under the read key of the newest epoch, and
// peers prove its hold secret. Its boxes stand before it in the log, so that
// whoever knows of the epoch knows who belongs to it.
type EpochBegun struct {
	Epoch     uint32
	Signature [ed25519.SignatureSize]byte // the owner's
}

// Succession puts a new log in the place of one that was lost or rolled back.
// It stands at the beginning of the new log and makes its writer a member,
// with all capabilities. What the old log gained beyond OldSize is a branch
// to merge.
type Succession struct {
	Writer    Writer   // the new writer's number
	Log       [32]byte // Ed25519 key of the new log
	Old       [32]byte // SHA-256 of the old log's key: see OldOrigin
	OldSize   uint64
	OldRoot   [32]byte
	Signature [ed25519.SignatureSize]byte // the recovery key's
}

// OldOrigin returns the origin of the log that is succeeded.
func (s *Succession) OldOrigin() string { return originDomain + hex.EncodeToString(s.Old[:]) }

// RecipientKind says what a key box is for.
type RecipientKind uint8

// The kinds of recipients of key boxes.
const (
	RecipientDevice   RecipientKind = 1 // a member's device
	RecipientLink     RecipientKind = 2 // a share link
	RecipientRecovery RecipientKind = 3 // the owner's recovery kit
	RecipientHolder   RecipientKind = 4 // a share link that lets nobody read
)

func (k RecipientKind) valid() bool { return k >= RecipientDevice && k <= RecipientHolder }

// Recipient makes known a public key that key boxes are sealed to, so that
// the boxes of a later epoch can be made from the log alone. Who belongs to
// an epoch is said by its boxes only.
type Recipient struct {
	Kind      RecipientKind
	Key       [BoxPublicKeySize]byte
	Signature [ed25519.SignatureSize]byte // the owner's
}

// ID returns the name of the recipient in key boxes.
func (c *Recipient) ID() [32]byte { return RecipientID(c.Kind, c.Key[:]) }

// KeyBox is the read key of one epoch, sealed to one recipient; for a
// [RecipientHolder] it is the epoch's hold secret instead. See [SealBox].
type KeyBox struct {
	Epoch     uint32
	Kind      RecipientKind
	Recipient [32]byte // RecipientID of its public key
	// Sealed is the output of HPKE in the suite of this package: the
	// encapsulated key and the ciphertext.
	Sealed    [sealedBoxSize]byte
	Signature [ed25519.SignatureSize]byte // the owner's
}

// Type returns TypeGenesis.
func (*Genesis) Type() ControlType { return TypeGenesis }

// Type returns TypeWriterAdded.
func (*WriterAdded) Type() ControlType { return TypeWriterAdded }

// Type returns TypeWriterRemoved.
func (*WriterRemoved) Type() ControlType { return TypeWriterRemoved }

// Type returns TypeKeyBox.
func (*KeyBox) Type() ControlType { return TypeKeyBox }

// Type returns TypeEpochBegun.
func (*EpochBegun) Type() ControlType { return TypeEpochBegun }

// Type returns TypeSuccession.
func (*Succession) Type() ControlType { return TypeSuccession }

// Type returns TypeDropped.
func (*Dropped) Type() ControlType { return TypeDropped }

// Type returns TypeRecipient.
func (*Recipient) Type() ControlType { return TypeRecipient }

func (c *WriterAdded) signature() *[ed25519.SignatureSize]byte   { return &c.Signature }
func (c *WriterRemoved) signature() *[ed25519.SignatureSize]byte { return &c.Signature }
func (c *KeyBox) signature() *[ed25519.SignatureSize]byte        { return &c.Signature }
func (c *EpochBegun) signature() *[ed25519.SignatureSize]byte    { return &c.Signature }
func (c *Succession) signature() *[ed25519.SignatureSize]byte    { return &c.Signature }
func (c *Recipient) signature() *[ed25519.SignatureSize]byte     { return &c.Signature }

// signedText returns what the signature of a statement is over: a context
// for the key that signs, the drive, and the entry up to the signature.
func signedText(c statement, drive DriveID) []byte {
	context := "hearth owner statement v1\x00"
	if c.Type() == TypeSuccession {
		context = "hearth recovery statement v1\x00"
	}
	w := wire.Writer{B: append([]byte(context), drive[:]...)}
	w.Raw([]byte{entryControl, byte(c.Type())})
	c.appendBody(&w)
	return w.B
}

// Authorize signs a statement for a drive, setting its Signature: with the
// owner's key, or with the recovery key for a [Succession].
func Authorize(c Control, drive DriveID, key ed25519.PrivateKey) error {
	s, ok := c.(statement)
	if !ok {
		return fmt.Errorf("control entries of type %d are not signed", c.Type())
	}
	copy(s.signature()[:], ed25519.Sign(key, signedText(s, drive)))
	return nil
}

// authorized reports whether a statement is signed by the key pub.
func authorized(c statement, drive DriveID, pub [32]byte) bool {
	return ed25519.Verify(pub[:], signedText(c, drive), c.signature()[:])
}
