package seal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// Limits of the format.
const (
	PieceSize = 16 << 10       // plaintext of every piece but the last
	MaxPieces = 15             // pieces of a block
	MaxPlain  = 15 * PieceSize // plaintext of a block
	MaxStored = 256 << 10      // a stored block, padding included
)

// version is the first byte of a stored block. 1: the first format.
const version = 1

const (
	fixedHeader = 1 + 4 + 1
	nonceSize   = 24
	tagSize     = 16
	overhead    = nonceSize + tagSize
	trailerSize = 2
	stride      = PieceSize + overhead // a raw piece that is not the last
	// maxPad is the coarsest Padmé step below MaxStored, less one.
	maxPad     = 4<<10 - 1
	maxLast    = overhead + PieceSize + maxPad + trailerSize
	codecZstd  = 1 << 15 // in the trailer
	lastMarker = 1 << 7  // in the additional data
)

var (
	// ErrDamaged is matched by every error about stored bytes that are not
	// what was sealed, or were sealed as something else.
	ErrDamaged = errors.New("damaged block")
	// ErrNoKey is matched when the key of a block's epoch is not held.
	ErrNoKey = errors.New("no read key")
)

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

// Kind says what a block holds. It is sealed with the block and not visible
// from outside.
type Kind uint8

// The kinds of blocks.
const (
	Data   Kind = 1 // contents of files
	Page   Kind = 2 // a page of the tree
	Commit Kind = 3 // a commit
)

// String returns the kind as messages name it.
func (k Kind) String() string {
	switch k {
	case Data:
		return "data"
	case Page:
		return "page"
	case Commit:
		return "commit"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

func (k Kind) check() error {
	if k < Data || k > Commit {
		return fmt.Errorf("seal: %v is not a kind of block", k)
	}
	return nil
}

// layout is where the pieces of a block are: piece i is [at[i], at[i+1]).
type layout struct {
	epoch uint32
	n     int
	at    [MaxPieces + 1]int
}

// parse checks everything about a stored block that can be checked without a
// key.
func parse(stored []byte) (layout, error) {
	var l layout
	epoch, err := BlockEpoch(stored)
	if err != nil {
		return l, err
	}
	if len(stored) > MaxStored || padme(len(stored)) != len(stored) {
		return l, damaged("a block cannot be %d bytes long", len(stored))
	}
	n := int(stored[5])
	if n < 1 || n > MaxPieces || len(stored) < headerSize(n) {
		return l, damaged("%d pieces in %d bytes", n, len(stored))
	}
	l.epoch, l.n = epoch, n
	pos := headerSize(n)
	for i := range n {
		l.at[i] = pos
		size := int(binary.BigEndian.Uint16(stored[fixedHeader+2*i:]))
		least, most := overhead+1, stride
		if i == n-1 {
			least, most = overhead+trailerSize, maxLast
		}
		if size < least || size > most {
			return l, damaged("piece %d of %d is %d bytes long", i, n, size)
		}
		pos += size
	}
	l.at[n] = pos
	if pos != len(stored) {
		return l, damaged("pieces end at %d of %d bytes", pos, len(stored))
	}
	return l, nil
}

// uniform reports whether all pieces but the last are raw and the length of
// the block tells their number.
func (l *layout) uniform() bool {
	return l.at[l.n-1] == headerSize(l.n)+(l.n-1)*stride && uniformPieces(l.at[l.n]) == l.n
}

// BlockEpoch returns the key epoch of a stored block, of which the first six
// bytes are enough.
func BlockEpoch(stored []byte) (uint32, error) {
	if len(stored) < fixedHeader {
		return 0, damaged("%d bytes are no block", len(stored))
	}
	if stored[0] != version {
		return 0, damaged("block version %d, want %d", stored[0], version)
	}
	return binary.BigEndian.Uint32(stored[1:]), nil
}

// ValidateHeader checks the structure of a stored block as far as this is
// possible without a key.
func ValidateHeader(stored []byte) error {
	_, err := parse(stored)
	return err
}

// Uniform reports whether every piece but the last is stored raw, so that
// [UniformSpan] can tell where pieces are from the block's length alone. It is
// false for what is not a block.
func Uniform(stored []byte) bool {
	l, err := parse(stored)
	return err == nil && l.uniform()
}

// Span is a range of the bytes of a stored block.
type Span struct{ Off, Len int }

// UniformSpan returns which bytes of a uniform stored block of storedLen bytes
// hold the pieces with the plaintext [off, off+n). It is false if no uniform
// block of that length has such a range; that the plaintext may end earlier
// within its last piece is found by [Keyring.OpenUniform].
func UniformSpan(storedLen, off, n int) (Span, bool) {
	l, ok := uniformLayout(storedLen)
	if !ok || off < 0 || n <= 0 || n > MaxPlain || off > l.n*PieceSize-n {
		return Span{}, false
	}
	from, to := l.at[off/PieceSize], l.at[(off+n-1)/PieceSize+1]
	return Span{Off: from, Len: to - from}, true
}

// uniformLayout is the layout of a uniform block, but for its epoch.
func uniformLayout(storedLen int) (layout, bool) {
	l := layout{n: uniformPieces(storedLen)}
	if l.n == 0 || padme(storedLen) != storedLen {
		return l, false
	}
	for i := range l.n {
		l.at[i] = headerSize(l.n) + i*stride
	}
	l.at[l.n] = storedLen
	return l, storedLen >= l.at[l.n-1]+overhead+trailerSize
}

func headerSize(n int) int { return fixedHeader + 2*n }

// fullSize is the length of a block of n raw, full pieces before padding.
func fullSize(n int) int { return headerSize(n) + n*stride + trailerSize }

// uniformSize is the padded length of a uniform block of n pieces that is
// size bytes long without padding: never so short that it could be a block of
// n-1 pieces.
func uniformSize(n, size int) int {
	if n > 1 {
		size = max(size, padme(fullSize(n-1))+1)
	}
	return padme(size)
}

// uniformPieces is the inverse of uniformSize; 0 if there is none.
func uniformPieces(storedLen int) int {
	for n := 1; n <= MaxPieces; n++ {
		if storedLen <= padme(fullSize(n)) {
			return n
		}
	}
	return 0
}

// padme rounds a length up as PURBs do (algorithm 1 of the paper).
func padme(size int) int {
	if size < 2 {
		return size
	}
	e := bits.Len(uint(size)) - 1
	s := bits.Len(uint(e))
	mask := 1<<(e-s) - 1
	return (size + mask) &^ mask
}
