package log

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"

	"hearth/log/seal"

	"github.com/zeebo/blake3"
)

// Frame layout. Integers are big-endian. Frames start at multiples of 8; the
// bytes up to the next one are zero.
//
//	0   magic "HF"
//	2   type
//	3   frame version, 1
//	4   length of the body u32
//	8   index u64
//	16  behind u32
//	20  CRC-32C of the 20 bytes before and of the digest
//	24  digest: BLAKE3-256 of the body
//	56  body
//
// Index is the entry's for a block or control entry, the size of the tree for
// a checkpoint, and the first entry's for descriptors. Index less behind is
// the size of the newest checkpoint that was known to be durable when the
// frame was written; recovery uses it to tell rot from torn writes. The CRC
// covers the digest, so that headers can be believed without reading bodies.
const (
	frameHeader   = 56 // header and digest
	frameAlign    = 8
	frameVersion  = 1
	unknownBehind = 1<<32 - 1 // the newest durable checkpoint is that far behind, or farther
)

// frameType is the type byte of a frame.
type frameType uint8

const (
	frameBlock      frameType = 1 // a sealed block
	frameControl    frameType = 2 // a control entry
	frameCheckpoint frameType = 3 // recaps, then a signed note: see checkpointBody
	frameRecap      frameType = 4 // recaps of entries that have frames of their own
	frameDropped    frameType = 5 // recaps of entries that were dropped: all that is left
)

// A recap is a second copy of what the tree needs to know of an entry, so
// that a damaged header loses no more than its block. It is 36 bytes: the
// stored length u32 and the digest; or, for a control entry, recapControl and
// the leaf hash.
const (
	recapSize    = 36
	recapControl = 1 << 31 // in the place of the length
	// maxRecaps is how many recaps are in one frame.
	maxRecaps = 1024
	// maxNote bounds the signed note in a checkpoint frame.
	maxNote = 16 << 10
)

// castagnoli is the polynomial of CRC-32C.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frame is a decoded frame header.
type frame struct {
	typ    frameType
	length uint32
	index  uint64
	behind uint32
	digest [32]byte
}

// bodySize returns how many bytes of body follow the header.
func (f *frame) bodySize() int64 { return int64(f.length) }

// size returns the bytes the frame takes in its segment.
func (f *frame) size() int64 { return frameSize(int(f.length)) }

// frameSize returns the bytes taken by a frame with a body of n bytes.
func frameSize(n int) int64 {
	return (frameHeader + int64(n) + frameAlign - 1) &^ (frameAlign - 1)
}

// durable returns a tree size that was known to be durable when the frame was
// written, 0 if it tells nothing.
func (f *frame) durable() uint64 {
	if f.behind == unknownBehind || uint64(f.behind) > f.index {
		return 0
	}
	return f.index - uint64(f.behind)
}

// setDurable sets behind.
func (f *frame) setDurable(size uint64) {
	f.behind = unknownBehind
	if size <= f.index && f.index-size < unknownBehind {
		f.behind = uint32(f.index - size)
	}
}

// maxBody returns the longest body of a type; 0 for an unknown type.
func (t frameType) maxBody() uint32 {
	switch t {
	case frameBlock:
		return seal.MaxStored
	case frameControl:
		return MaxEntry
	case frameCheckpoint:
		return 2 + maxRecaps*recapSize + maxNote
	case frameRecap, frameDropped:
		return maxRecaps * recapSize
	}
	return 0
}

// putHeader encodes the header into b, which has at least frameHeader bytes.
func (f *frame) putHeader(b []byte) {
	b[0], b[1], b[2], b[3] = 'H', 'F', byte(f.typ), frameVersion
	binary.BigEndian.PutUint32(b[4:], f.length)
	binary.BigEndian.PutUint64(b[8:], f.index)
	binary.BigEndian.PutUint32(b[16:], f.behind)
	copy(b[24:frameHeader], f.digest[:])
	binary.BigEndian.PutUint32(b[20:], headerSum(b))
}

func headerSum(b []byte) uint32 {
	sum := crc32.Update(0, castagnoli, b[:20])
	return crc32.Update(sum, castagnoli, b[24:frameHeader])
}

// appendTo appends the whole frame with its padding.
func (f *frame) appendTo(b, body []byte) []byte {
	start := len(b)
	b = append(b, make([]byte, frameHeader)...)
	f.putHeader(b[start:])
	b = append(b, body...)
	var zeros [frameAlign]byte
	return append(b, zeros[:f.size()-frameHeader-int64(len(body))]...)
}

// parseFrame decodes a header of which b has at least the frameHeader bytes.
// It is false for anything that putHeader does not write.
func parseFrame(b []byte) (f frame, ok bool) {
	if len(b) < frameHeader || b[0] != 'H' || b[1] != 'F' || b[3] != frameVersion {
		return f, false
	}
	if binary.BigEndian.Uint32(b[20:]) != headerSum(b) {
		return f, false
	}
	f = frame{
		typ:    frameType(b[2]),
		length: binary.BigEndian.Uint32(b[4:]),
		index:  binary.BigEndian.Uint64(b[8:]),
		behind: binary.BigEndian.Uint32(b[16:]),
		digest: [32]byte(b[24:frameHeader]),
	}
	most := f.typ.maxBody()
	if most == 0 || f.length == 0 || f.length > most || f.index > maxTreeSize {
		return f, false
	}
	if (f.typ == frameRecap || f.typ == frameDropped) && f.length%recapSize != 0 {
		return f, false
	}
	return f, true
}

// intact reports whether body is what the header says.
func (f *frame) intact(body []byte) bool {
	return len(body) == int(f.length) && blake3.Sum256(body) == f.digest
}

// recap is what the tree needs to know of an entry.
type recap struct {
	length  uint32
	digest  [32]byte // of a block
	control bool
	leaf    [32]byte // always set
}

// recapBlock returns the recap of a block.
func recapBlock(d Descriptor) recap {
	var entry [DescriptorSize]byte
	entry[0] = entryDescriptor
	binary.BigEndian.PutUint32(entry[1:], d.Length)
	copy(entry[5:], d.Digest[:])
	return recap{length: d.Length, digest: d.Digest, leaf: LeafHash(entry[:])}
}

func (r *recap) appendTo(b []byte) []byte {
	if r.control {
		b = binary.BigEndian.AppendUint32(b, recapControl)
		return append(b, r.leaf[:]...)
	}
	b = binary.BigEndian.AppendUint32(b, r.length)
	return append(b, r.digest[:]...)
}

// parseRecap decodes one recap; b has recapSize bytes.
func parseRecap(b []byte) recap {
	length, sum := binary.BigEndian.Uint32(b), [32]byte(b[4:recapSize])
	if length == recapControl {
		return recap{control: true, leaf: sum}
	}
	return recapBlock(Descriptor{Length: length, Digest: sum})
}

// checkpointBody encodes the body of a checkpoint frame: the number of
// recaps u16, the recaps of the entries before the checkpoint, and the note.
func checkpointBody(b, recaps, note []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(recaps)/recapSize))
	b = append(b, recaps...)
	return append(b, note...)
}

// parseCheckpointBody splits the body of a checkpoint frame.
func parseCheckpointBody(body []byte) (recaps, note []byte, err error) {
	if len(body) < 2 {
		return nil, nil, fmt.Errorf("%w: checkpoint frame of %d bytes", ErrDamaged, len(body))
	}
	n := int(binary.BigEndian.Uint16(body)) * recapSize
	if n > maxRecaps*recapSize || n > len(body)-2 {
		return nil, nil, fmt.Errorf("%w: %d bytes of recaps in a checkpoint frame of %d", ErrDamaged, n, len(body))
	}
	return body[2 : 2+n], body[2+n:], nil
}

// allZero reports whether b has no byte but zero.
func allZero(b []byte) bool {
	for len(b) >= len(zeroPage) {
		if string(b[:len(zeroPage)]) != zeroPage {
			return false
		}
		b = b[len(zeroPage):]
	}
	return string(b) == zeroPage[:len(b)]
}

var zeroPage = strings.Repeat("\x00", 4096)
