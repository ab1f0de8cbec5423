package seal

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
)

// opener is the scratch of one opening.
type opener struct {
	kx    [32]byte
	ad    [2]byte
	body  [maxLast - overhead]byte
	plain [PieceSize]byte
}

var openers = sync.Pool{New: func() any { return new(opener) }}

// Open opens a whole stored block and appends its plaintext to dst, which
// does not overlap it. An error matches [ErrNoKey] or [ErrDamaged]; a block of
// another kind is damaged.
func (k *Keyring) Open(dst []byte, kind Kind, stored []byte) ([]byte, error) {
	l, key, err := k.begin(kind, stored)
	if err != nil {
		return dst, err
	}
	o := openers.Get().(*opener)
	defer openers.Put(o)
	// The last piece first: it says how long the plaintext is.
	last, err := o.last(key.aead, stored[l.at[l.n-1]:], kind, l.n)
	if err != nil {
		return dst, err
	}
	base, whole := len(dst), (l.n-1)*PieceSize
	out := slices.Grow(dst, whole+len(last))[:base+whole+len(last)]
	copy(out[base+whole:], last)
	if err := o.fill(out[base:base+whole], key.aead, &l, stored, kind, 0); err != nil {
		return dst, err
	}
	return out, nil
}

// OpenRange fills dst with the plaintext of a stored block from off on. It
// opens only the pieces it needs, whole raw ones straight into dst, and finds
// no damage in others. A range beyond the plaintext is damage too. After an
// error the contents of dst are undefined.
func (k *Keyring) OpenRange(dst []byte, kind Kind, stored []byte, off int) error {
	l, key, err := k.begin(kind, stored)
	if err != nil {
		return err
	}
	o := openers.Get().(*opener)
	defer openers.Put(o)
	return o.fill(dst, key.aead, &l, stored, kind, off)
}

// OpenUniform fills dst with the plaintext of a uniform stored block of
// storedLen bytes from off on, given only the bytes of its [UniformSpan] for
// off and len(dst).
//
// A span does not name its epoch, so all keys are tried, newest first; an
// error of OpenUniform may therefore stand for a missing key, which [Keyring.Open]
// of the whole block tells apart. A span carries no digest either: what opens
// was sealed for this drive at that place of a block, but only a source that
// keeps blocks apart, such as a local store, may be read this way. After an
// error the contents of dst are undefined.
func (k *Keyring) OpenUniform(dst []byte, kind Kind, storedLen, off int, span []byte) error {
	if err := kind.check(); err != nil {
		return err
	}
	want, ok := UniformSpan(storedLen, off, len(dst))
	if !ok || want.Len != len(span) {
		return damaged("%d bytes at %d do not fit a uniform block of %d bytes", len(dst), off, storedLen)
	}
	l, _ := uniformLayout(storedLen)
	for i := range l.at {
		l.at[i] -= want.Off
	}
	o := openers.Get().(*opener)
	defer openers.Put(o)
	var err error
	keys := *k.keys.Load()
	for _, key := range keys {
		if err = o.fill(dst, key.aead, &l, span, kind, off); err == nil {
			return nil
		}
	}
	if len(keys) == 0 {
		err = fmt.Errorf("seal: %w", ErrNoKey)
	}
	return err
}

func (k *Keyring) begin(kind Kind, stored []byte) (layout, *epochKey, error) {
	if err := kind.check(); err != nil {
		return layout{}, nil, err
	}
	l, err := parse(stored)
	if err != nil {
		return l, nil, err
	}
	key, err := k.find(l.epoch)
	return l, key, err
}

// fill fills dst with plaintext from off on; l says where in stored the pieces
// for it are.
func (o *opener) fill(dst []byte, x *xaes, l *layout, stored []byte, kind Kind, off int) error {
	if off < 0 || off > MaxPlain-len(dst) {
		return damaged("%d bytes at %d of the plaintext", len(dst), off)
	}
	for len(dst) > 0 {
		i, skip := off/PieceSize, off%PieceSize
		if i >= l.n {
			return damaged("plaintext ends before %d", off)
		}
		sealed := stored[l.at[i]:l.at[i+1]]
		var n int
		switch {
		case i == l.n-1:
			plain, err := o.last(x, sealed, kind, l.n)
			if err != nil {
				return err
			}
			if skip+len(dst) > len(plain) {
				return damaged("plaintext ends at %d, before %d", i*PieceSize+len(plain), off+len(dst))
			}
			n = copy(dst, plain[skip:])
		case skip == 0 && len(dst) >= PieceSize:
			n = PieceSize
			if err := o.middle(dst[:n], x, sealed, kind, i); err != nil {
				return err
			}
		default:
			if err := o.middle(o.plain[:], x, sealed, kind, i); err != nil {
				return err
			}
			n = copy(dst, o.plain[skip:])
		}
		dst, off = dst[n:], off+n
	}
	return nil
}

// middle opens a piece that is not the last into dst, of PieceSize bytes.
func (o *opener) middle(dst []byte, x *xaes, sealed []byte, kind Kind, i int) error {
	if len(sealed) == stride {
		_, err := o.open(dst, x, sealed, kind, byte(i))
		return err
	}
	z, err := o.open(o.body[:], x, sealed, kind, byte(i))
	if err != nil {
		return err
	}
	n, err := inflate(dst, z)
	if err == nil && n != PieceSize {
		err = damaged("piece %d holds %d bytes", i, n)
	}
	return err
}

// last opens the last of n pieces and returns its plaintext, which lives until
// the next use of o.
func (o *opener) last(x *xaes, sealed []byte, kind Kind, n int) ([]byte, error) {
	body, err := o.open(o.body[:], x, sealed, kind, byte(n-1)|lastMarker)
	if err != nil {
		return nil, err
	}
	body, trailer := body[:len(body)-trailerSize], binary.BigEndian.Uint16(body[len(body)-trailerSize:])
	size := int(trailer &^ codecZstd)
	if size > len(body) || size > PieceSize {
		return nil, damaged("payload of %d bytes in a last piece of %d", size, len(body))
	}
	for _, b := range body[size:] {
		if b != 0 {
			return nil, damaged("padding is not zero")
		}
	}
	plain := body[:size]
	if trailer&codecZstd != 0 {
		m, err := inflate(o.plain[:], plain)
		if err != nil {
			return nil, err
		}
		plain = o.plain[:m]
	}
	if len(plain) == 0 && n > 1 {
		return nil, damaged("last piece of %d is empty", n)
	}
	return plain, nil
}

// open decrypts one stored piece to the start of dst, which is long enough.
func (o *opener) open(dst []byte, x *xaes, sealed []byte, kind Kind, place byte) ([]byte, error) {
	nonce := sealed[:nonceSize]
	gcm, err := x.gcm(nonce, &o.kx)
	if err != nil {
		return nil, err
	}
	o.ad = [2]byte{byte(kind), place}
	body, err := gcm.Open(dst[:0:len(dst)], nonce[12:], sealed[nonceSize:], o.ad[:])
	if err != nil {
		return nil, damaged("piece %d does not open as %v", place&^lastMarker, kind)
	}
	return body, nil
}
