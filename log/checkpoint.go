package log

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/mod/sumdb/note"
)

// originDomain is the first part of every log's origin. The rest is a hash
// of the log's own key, so that an origin certifies itself and says nothing
// about who owns the log.
const originDomain = "hearth.tradle.io/"

// maxTreeSize bounds the number of entries of a log. It keeps what comes from
// outside away from the edge of int64, where the arithmetic of package tlog
// does not end; so many blocks of 64 KiB are 2^64 bytes.
const maxTreeSize = 1 << 48

// noteEd25519 is the algorithm byte of Ed25519 in the signed note format.
const noteEd25519 = 1

// emptyRoot is the root of the tree without leaves (RFC 6962, section 2.1).
var emptyRoot = sha256.Sum256(nil)

// ErrCheckpoint is matched by every error about bytes that are no valid
// checkpoint of the log in question.
var ErrCheckpoint = errors.New("not a valid checkpoint")

// Origin returns the origin of the log that signs with the key pub. It is
// the first line of the log's checkpoints and the name of its key.
func Origin(pub ed25519.PublicKey) string {
	sum := sha256.Sum256(pub)
	return originDomain + hex.EncodeToString(sum[:])
}

// Head is a checkpoint whose signature was verified, or was made here.
type Head struct {
	Origin string
	Size   uint64
	Root   [32]byte
	// Note is the signed note: a C2SP tlog-checkpoint. Cosignature lines it
	// came with are kept.
	Note []byte
}

// Signer signs the checkpoints of one log. It is safe for concurrent use.
type Signer struct {
	key    ed25519.PrivateKey
	origin string
	hash   [4]byte // the note format's key hash
}

// NewSigner returns the Signer of the log whose Ed25519 key has this seed.
func NewSigner(seed [32]byte) *Signer {
	key := ed25519.NewKeyFromSeed(seed[:])
	pub := key.Public().(ed25519.PublicKey)
	s := &Signer{key: key, origin: Origin(pub)}
	s.hash = keyHash(s.origin, pub)
	return s
}

// Origin returns the origin of the log.
func (s *Signer) Origin() string { return s.origin }

// Public returns the public key of the log.
func (s *Signer) Public() ed25519.PublicKey { return s.key.Public().(ed25519.PublicKey) }

// Sign returns the signed checkpoint of the tree of this size and root. The
// same arguments give the same bytes.
func (s *Signer) Sign(size uint64, root [32]byte) (Head, error) {
	if size > maxTreeSize {
		return Head{}, fmt.Errorf("signing a checkpoint of %s: size %d is too large", s.origin, size)
	}
	// The note is put together here rather than with note.Sign, which copies
	// and re-checks it several times; a checkpoint is signed in each commit.
	b := make([]byte, 0, 384)
	b = appendCheckpoint(b, s.origin, size, root)
	var sig [4 + ed25519.SignatureSize]byte
	copy(sig[:], s.hash[:])
	copy(sig[4:], ed25519.Sign(s.key, b))
	b = append(b, "\n— "...)
	b = append(b, s.origin...)
	b = append(b, ' ')
	b = base64.StdEncoding.AppendEncode(b, sig[:])
	b = append(b, '\n')
	return Head{Origin: s.origin, Size: size, Root: root, Note: b}, nil
}

// Verifier verifies the checkpoints of one log. It is safe for concurrent
// use.
type Verifier struct {
	pub    ed25519.PublicKey
	origin string
	known  note.Verifiers
}

// NewVerifier returns the Verifier of the log that signs with the key pub,
// which must have ed25519.PublicKeySize bytes.
func NewVerifier(pub ed25519.PublicKey) *Verifier {
	pub = bytes.Clone(pub)
	v := &Verifier{pub: pub, origin: Origin(pub)}
	hash := keyHash(v.origin, pub)
	v.known = note.VerifierList(&noteVerifier{v: v, hash: binary.BigEndian.Uint32(hash[:])})
	return v
}

// Origin returns the origin of the log.
func (v *Verifier) Origin() string { return v.origin }

// Public returns the public key of the log.
func (v *Verifier) Public() ed25519.PublicKey { return v.pub }

// Verify opens a checkpoint. The note may carry signatures of others
// (cosignatures of witnesses), which are neither needed nor checked, and
// extension lines, which are ignored. Errors match [ErrCheckpoint].
func (v *Verifier) Verify(noteBytes []byte) (Head, error) {
	n, err := note.Open(noteBytes, v.known)
	if err != nil {
		return Head{}, fmt.Errorf("%w of %s: %w", ErrCheckpoint, v.origin, err)
	}
	h, err := parseCheckpoint([]byte(n.Text))
	if err != nil {
		return Head{}, fmt.Errorf("%w of %s: %w", ErrCheckpoint, v.origin, err)
	}
	if h.Origin != v.origin {
		return Head{}, fmt.Errorf("%w of %s: its origin is %q", ErrCheckpoint, v.origin, h.Origin)
	}
	h.Note = bytes.Clone(noteBytes)
	return h, nil
}

// appendCheckpoint appends the text of a checkpoint, the part that is signed.
func appendCheckpoint(b []byte, origin string, size uint64, root [32]byte) []byte {
	b = append(b, origin...)
	b = append(b, '\n')
	b = strconv.AppendUint(b, size, 10)
	b = append(b, '\n')
	b = base64.StdEncoding.AppendEncode(b, root[:])
	return append(b, '\n')
}

// parseCheckpoint parses the text of a checkpoint: origin, size, root, and
// extension lines that are not empty. Size and root must be written in the
// one canonical way.
func parseCheckpoint(text []byte) (Head, error) {
	lines := bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
	if len(lines) < 3 {
		return Head{}, errors.New("fewer than three lines")
	}
	h := Head{Origin: string(lines[0])}
	size, err := strconv.ParseUint(string(lines[1]), 10, 63)
	if err != nil || size > maxTreeSize || strconv.FormatUint(size, 10) != string(lines[1]) {
		return Head{}, fmt.Errorf("bad tree size %q", lines[1])
	}
	h.Size = size
	root, err := base64.StdEncoding.Strict().DecodeString(string(lines[2]))
	if err != nil || len(root) != len(h.Root) {
		return Head{}, fmt.Errorf("bad root hash %q", lines[2])
	}
	h.Root = [32]byte(root)
	if h.Size == 0 && h.Root != emptyRoot {
		return Head{}, errors.New("an empty tree with a root hash that is not the empty one")
	}
	for _, line := range lines[3:] {
		if len(line) == 0 {
			return Head{}, errors.New("empty extension line")
		}
	}
	return h, nil
}

// keyHash returns the note format's hash of an Ed25519 key and its name.
func keyHash(name string, pub ed25519.PublicKey) [4]byte {
	b := append([]byte(name), '\n', noteEd25519)
	sum := sha256.Sum256(append(b, pub...))
	return [4]byte(sum[:4])
}

// noteVerifier makes a Verifier usable with package note.
type noteVerifier struct {
	v    *Verifier
	hash uint32
}

func (n *noteVerifier) Name() string    { return n.v.origin }
func (n *noteVerifier) KeyHash() uint32 { return n.hash }
func (n *noteVerifier) Verify(msg, sig []byte) bool {
	return len(sig) == ed25519.SignatureSize && ed25519.Verify(n.v.pub, msg, sig)
}
