package log

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/zeebo/blake3"
)

// The first byte of an entry says what it is. An entry is what the Merkle
// tree has as a leaf: either the descriptor of a stored block or a control
// entry in clear.
const (
	entryDescriptor = 1
	entryControl    = 2
)

const (
	// DescriptorSize is the size of the entry of a stored block.
	DescriptorSize = 1 + 4 + 32
	// MaxEntry is the size of the largest entry: C2SP tlog-tiles bundles
	// have a 16-bit length before each.
	MaxEntry = 1<<16 - 1
)

// ErrEntry is matched by every error about bytes that are no valid entry.
var ErrEntry = errors.New("not a valid log entry")

// Descriptor stands for a stored block in the log. The tree is over
// descriptors, not over blocks, so that a drive's log is a C2SP tlog-tiles
// log (a 64 KiB block would be one byte too many for an entry there) and
// stays complete when blocks are dropped. Whoever has a block can make its
// descriptor.
type Descriptor struct {
	Length uint32   // of the stored block, in bytes
	Digest [32]byte // BLAKE3-256 of the stored block
}

// Describe returns the descriptor of a stored block.
func Describe(stored []byte) Descriptor {
	return Descriptor{Length: uint32(len(stored)), Digest: blake3.Sum256(stored)}
}

// Entry returns the log entry of d: the byte 1, the length and the digest.
func (d Descriptor) Entry() []byte {
	b := make([]byte, DescriptorSize)
	b[0] = entryDescriptor
	binary.BigEndian.PutUint32(b[1:], d.Length)
	copy(b[5:], d.Digest[:])
	return b
}

// ParseEntry decodes a log entry. Exactly one of the results is set: the
// descriptor, the control entry or the error, which matches [ErrEntry]. The
// control entry does not alias entry. Its owner's signature is not verified
// here: see [Membership].
func ParseEntry(entry []byte) (Descriptor, Control, error) {
	if len(entry) == 0 {
		return Descriptor{}, nil, fmt.Errorf("%w: empty", ErrEntry)
	}
	switch entry[0] {
	case entryDescriptor:
		if len(entry) != DescriptorSize {
			return Descriptor{}, nil, fmt.Errorf("%w: descriptor of %d bytes", ErrEntry, len(entry))
		}
		d := Descriptor{Length: binary.BigEndian.Uint32(entry[1:])}
		copy(d.Digest[:], entry[5:])
		return d, nil, nil
	case entryControl:
		c, err := decodeControl(entry)
		if err != nil {
			return Descriptor{}, nil, fmt.Errorf("%w: %w", ErrEntry, err)
		}
		return Descriptor{}, c, nil
	default:
		return Descriptor{}, nil, fmt.Errorf("%w: first byte %d", ErrEntry, entry[0])
	}
}

// LeafHash returns the RFC 6962 leaf hash of an entry.
func LeafHash(entry []byte) [32]byte {
	var small [64]byte // descriptors are hashed without an allocation
	return sha256.Sum256(append(append(small[:0], 0), entry...))
}
