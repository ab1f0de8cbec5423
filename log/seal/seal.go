package seal

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/zeebo/blake3"
)

// encoderSlack is by how much the compressor may exceed its input.
const encoderSlack = 64

// sealer is the scratch of one call of Seal: what would escape from its stack.
type sealer struct {
	hash *blake3.Hasher
	sum  [32]byte
	kx   [32]byte
	ad   [2]byte
}

// Seal appends to dst the stored block of plain under the newest epoch. plain
// is at most MaxPlain bytes and does not overlap dst's capacity, of which more
// than the result may be overwritten. Equal arguments seal equally.
func (k *Keyring) Seal(dst []byte, kind Kind, plain []byte) ([]byte, error) {
	if err := kind.check(); err != nil {
		return dst, err
	}
	if len(plain) > MaxPlain {
		return dst, fmt.Errorf("seal: a block of %d bytes, at most %d", len(plain), MaxPlain)
	}
	keys := *k.keys.Load()
	if len(keys) == 0 {
		return dst, fmt.Errorf("seal: %w", ErrNoKey)
	}
	key := keys[0]
	s := key.sealers.Get().(*sealer)
	defer key.sealers.Put(s)

	n := max(1, (len(plain)+PieceSize-1)/PieceSize)
	raw := headerSize(n) + len(plain) + n*overhead + trailerSize
	base := len(dst)
	out := slices.Grow(dst, uniformSize(n, raw)+encoderSlack)
	block := out[base:cap(out)]

	block[0] = version
	binary.BigEndian.PutUint32(block[1:], key.epoch)
	block[5] = byte(n)
	pos, uniform := headerSize(n), true
	for i := range n - 1 {
		piece := plain[i*PieceSize:][:PieceSize]
		body := block[pos+nonceSize:]
		if m := deflate(body, piece, kind); m > 0 {
			piece, uniform = body[:m], false
		}
		if err := s.seal(key.aead, block[pos:], piece, kind, byte(i)); err != nil {
			return dst, err
		}
		binary.BigEndian.PutUint16(block[fixedHeader+2*i:], uint16(len(piece)+overhead))
		pos += len(piece) + overhead
	}

	piece := plain[(n-1)*PieceSize:]
	body := block[pos+nonceSize:]
	m, codec := deflate(body, piece, kind), codecZstd
	if m == 0 {
		m, codec = copy(body, piece), 0
	}
	size := pos + m + overhead + trailerSize
	if uniform {
		size = uniformSize(n, size)
	} else {
		size = padme(size)
	}
	body = body[:size-pos-overhead]
	clear(body[m:])
	binary.BigEndian.PutUint16(body[len(body)-trailerSize:], uint16(m|codec))
	if err := s.seal(key.aead, block[pos:], body, kind, byte(n-1)|lastMarker); err != nil {
		return dst, err
	}
	binary.BigEndian.PutUint16(block[headerSize(n-1):], uint16(size-pos))
	return out[:base+size], nil
}

// seal writes nonce, ciphertext and tag of body to out, where body may already
// be at its place.
func (s *sealer) seal(x *xaes, out, body []byte, kind Kind, place byte) error {
	s.ad = [2]byte{byte(kind), place}
	s.hash.Reset()
	_, _ = s.hash.Write(body) // never fails
	_, _ = s.hash.Write(s.ad[:])
	s.hash.Sum(s.sum[:0])
	nonce := s.sum[:nonceSize]
	gcm, err := x.gcm(nonce, &s.kx)
	if err != nil {
		return err
	}
	copy(out, nonce)
	gcm.Seal(out[nonceSize:nonceSize], nonce[12:], body, s.ad[:])
	return nil
}
