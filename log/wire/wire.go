// Package wire is the one binary codec of Hearth's formats.
//
// All fixed-width integers are big-endian; variable-width ones are unsigned
// LEB128 as in encoding/binary. Byte strings are a uvarint length and the
// bytes. A [Reader] never panics and never allocates more than its input
// holds, whatever the input: it keeps the first error, after which every
// method returns a zero value, so a decoder reads a whole structure and
// checks [Reader.Err] (or [Reader.Done]) once.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrMalformed is matched by every decoding error of this package.
var ErrMalformed = errors.New("malformed encoding")

// Writer appends encoded values to B. The zero value is ready to use.
type Writer struct{ B []byte }

// U8 appends one byte.
func (w *Writer) U8(v uint8) { w.B = append(w.B, v) }

// U16 appends v big-endian.
func (w *Writer) U16(v uint16) { w.B = binary.BigEndian.AppendUint16(w.B, v) }

// U32 appends v big-endian.
func (w *Writer) U32(v uint32) { w.B = binary.BigEndian.AppendUint32(w.B, v) }

// U64 appends v big-endian.
func (w *Writer) U64(v uint64) { w.B = binary.BigEndian.AppendUint64(w.B, v) }

// Uvarint appends v in LEB128.
func (w *Writer) Uvarint(v uint64) { w.B = binary.AppendUvarint(w.B, v) }

// Varint appends v zig-zagged, in LEB128.
func (w *Writer) Varint(v int64) { w.B = binary.AppendVarint(w.B, v) }

// Bytes appends the length of p and p.
func (w *Writer) Bytes(p []byte) {
	w.Uvarint(uint64(len(p)))
	w.B = append(w.B, p...)
}

// String appends the length of s and s.
func (w *Writer) String(s string) {
	w.Uvarint(uint64(len(s)))
	w.B = append(w.B, s...)
}

// Raw appends p as it stands.
func (w *Writer) Raw(p []byte) { w.B = append(w.B, p...) }

// Reader consumes encoded values from a byte slice. It does not copy: slices
// it returns alias its input.
type Reader struct {
	b   []byte
	err error
}

// NewReader returns a Reader over b.
func NewReader(b []byte) *Reader { return &Reader{b: b} }

// Fail records an error found by the caller, such as a value out of range.
func (r *Reader) Fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
	}
	r.b = nil
}

// Err returns the first error met.
func (r *Reader) Err() error { return r.err }

// Done returns the first error met, or an error if input is left over.
func (r *Reader) Done() error {
	if r.err == nil && len(r.b) != 0 {
		r.Fail("%d bytes left over", len(r.b))
	}
	return r.err
}

// Len returns how many bytes are left.
func (r *Reader) Len() int { return len(r.b) }

// Raw consumes n bytes.
func (r *Reader) Raw(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.Fail("%d bytes wanted, %d left", n, len(r.b))
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

// Rest consumes all that is left.
func (r *Reader) Rest() []byte { return r.Raw(len(r.b)) }

// U8 consumes one byte.
func (r *Reader) U8() uint8 {
	if p := r.Raw(1); p != nil {
		return p[0]
	}
	return 0
}

// U16 consumes a big-endian 16-bit integer.
func (r *Reader) U16() uint16 {
	if p := r.Raw(2); p != nil {
		return binary.BigEndian.Uint16(p)
	}
	return 0
}

// U32 consumes a big-endian 32-bit integer.
func (r *Reader) U32() uint32 {
	if p := r.Raw(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

// U64 consumes a big-endian 64-bit integer.
func (r *Reader) U64() uint64 {
	if p := r.Raw(8); p != nil {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}

// Uvarint consumes an unsigned LEB128 integer.
func (r *Reader) Uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.Fail("bad uvarint")
		return 0
	}
	r.b = r.b[n:]
	return v
}

// Varint consumes a zig-zagged LEB128 integer.
func (r *Reader) Varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.Fail("bad varint")
		return 0
	}
	r.b = r.b[n:]
	return v
}

// Bytes consumes a byte string of at most limit bytes.
func (r *Reader) Bytes(limit int) []byte {
	n := r.Uvarint()
	if n > uint64(limit) {
		r.Fail("string of %d bytes, limit %d", n, limit)
		return nil
	}
	return r.Raw(int(n))
}

// String consumes a byte string of at most limit bytes, copied.
func (r *Reader) String(limit int) string { return string(r.Bytes(limit)) }

// Count consumes a number of elements of which each takes at least size
// bytes (size > 0), so that a caller may allocate that many safely.
func (r *Reader) Count(size int) int {
	n := r.Uvarint()
	if n > uint64(len(r.b)/size) {
		r.Fail("%d elements of %d bytes or more in %d bytes", n, size, len(r.b))
		return 0
	}
	return int(n)
}
