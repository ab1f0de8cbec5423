package log

import (
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"errors"
	"fmt"

	"hearth/log/wire"
)

const (
	// boxSuite is the byte that names the suite of key boxes: HPKE (RFC 9180)
	// in base mode with the hybrid post-quantum KEM MLKEM768-X25519 (X-Wing),
	// HKDF-SHA256 and ChaCha20-Poly1305. A box protects a drive for as long as
	// its blocks lie with others, so it has to withstand what is recorded
	// today and opened in twenty years.
	boxSuite = 1

	// BoxPublicKeySize is the size of a recipient's public key: ML-KEM-768
	// and X25519.
	BoxPublicKeySize = 1184 + 32

	// sealedBoxSize is an encapsulated key (ML-KEM-768, X25519), a read key
	// and a tag.
	sealedBoxSize = 1088 + 32 + 32 + 16
)

// ErrBox is matched by every error about a key box that does not open.
var ErrBox = errors.New("key box does not open")

// BoxKey is the private key of a recipient of key boxes. It is safe for
// concurrent use.
type BoxKey struct {
	kind RecipientKind
	key  hpke.PrivateKey
	pub  [BoxPublicKeySize]byte
}

// NewBoxKey returns the key of a recipient, derived from a secret seed: that
// of a device, of a share link or of a recovery kit. Equal seeds give equal
// keys for one kind and unrelated keys for two.
func NewBoxKey(kind RecipientKind, seed [32]byte) (*BoxKey, error) {
	if !kind.valid() {
		return nil, fmt.Errorf("deriving a box key: recipient kind %d", kind)
	}
	secret, err := hkdf.Key(sha256.New, seed[:], nil, "hearth box key v1\x00"+string([]byte{byte(kind)}), 32)
	if err != nil {
		return nil, fmt.Errorf("deriving a box key: %w", err)
	}
	key, err := hpke.MLKEM768X25519().NewPrivateKey(secret)
	if err != nil {
		return nil, fmt.Errorf("deriving a box key: %w", err)
	}
	k := &BoxKey{kind: kind, key: key}
	if n := copy(k.pub[:], key.PublicKey().Bytes()); n != BoxPublicKeySize {
		return nil, fmt.Errorf("deriving a box key: public key of %d bytes", n)
	}
	return k, nil
}

// ID returns the name of the recipient in key boxes.
func (k *BoxKey) ID() [32]byte { return RecipientID(k.kind, k.pub[:]) }

// Recipient returns the entry that makes the public key known, not yet
// signed.
func (k *BoxKey) Recipient() *Recipient { return &Recipient{Kind: k.kind, Key: k.pub} }

// RecipientID returns the name of a recipient in key boxes: a hash of its
// kind and public key.
func RecipientID(kind RecipientKind, publicKey []byte) [32]byte {
	b := append([]byte("hearth recipient v1\x00"), byte(kind))
	return sha256.Sum256(append(b, publicKey...))
}

// SealBox seals the read key of an epoch of a drive to a recipient. The box
// is still to be signed with [Authorize]. Each call gives another box.
func SealBox(drive DriveID, epoch uint32, to *Recipient, readKey [32]byte) (*KeyBox, error) {
	box := &KeyBox{Epoch: epoch, Kind: to.Kind, Recipient: to.ID()}
	if !to.Kind.valid() {
		return nil, fmt.Errorf("sealing a key box of drive %v: recipient kind %d", drive, to.Kind)
	}
	pub, err := hpke.MLKEM768X25519().NewPublicKey(to.Key[:])
	if err != nil {
		return nil, fmt.Errorf("sealing a key box of drive %v: %w", drive, err)
	}
	sealed, err := hpke.Seal(pub, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), boxInfo(drive, box), readKey[:])
	if err != nil {
		return nil, fmt.Errorf("sealing a key box of drive %v: %w", drive, err)
	}
	if copy(box.Sealed[:], sealed) != len(sealed) || len(sealed) != sealedBoxSize {
		return nil, fmt.Errorf("sealing a key box of drive %v: %d bytes", drive, len(sealed))
	}
	return box, nil
}

// OpenBox opens a key box of a drive. It does not look at the signature: see
// [Membership]. Errors match [ErrBox].
func OpenBox(drive DriveID, box *KeyBox, key *BoxKey) ([32]byte, error) {
	fail := func(why error) ([32]byte, error) {
		return [32]byte{}, fmt.Errorf("%w: drive %v, epoch %d: %w", ErrBox, drive, box.Epoch, why)
	}
	if box.Kind != key.kind || box.Recipient != key.ID() {
		return fail(errors.New("it is for another recipient"))
	}
	plain, err := hpke.Open(key.key, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), boxInfo(drive, box), box.Sealed[:])
	if err != nil {
		return fail(err)
	}
	if len(plain) != 32 {
		return fail(fmt.Errorf("it holds %d bytes", len(plain)))
	}
	return [32]byte(plain), nil
}

// boxInfo binds a box to its drive, epoch and recipient.
func boxInfo(drive DriveID, box *KeyBox) []byte {
	w := wire.Writer{B: []byte("hearth key box v1\x00")}
	w.Raw(drive[:])
	w.U32(box.Epoch)
	w.U8(uint8(box.Kind))
	w.Raw(box.Recipient[:])
	return w.B
}
