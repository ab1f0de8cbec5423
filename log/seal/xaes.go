package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"fmt"
)

// xaes is XAES-256-GCM, https://c2sp.org/XAES-256-GCM: AES-256-GCM under a key
// derived from the first half of a 192-bit nonce. The names are the spec's.
type xaes struct {
	k  cipher.Block
	k1 [aes.BlockSize]byte
}

func newXAES(key *[32]byte) (*xaes, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	x := &xaes{k: block}
	block.Encrypt(x.k1[:], x.k1[:])
	var msb byte
	for i := len(x.k1) - 1; i >= 0; i-- {
		msb, x.k1[i] = x.k1[i]>>7, x.k1[i]<<1|msb
	}
	x.k1[len(x.k1)-1] ^= msb * 0b10000111
	return x, nil
}

// gcm returns the AES-256-GCM that the nonce selects; its own nonce is
// nonce[12:]. kx is scratch for the derived key: on the stack it would escape.
func (x *xaes) gcm(nonce []byte, kx *[32]byte) (cipher.AEAD, error) {
	for i := range 2 {
		m := kx[i*aes.BlockSize:][:aes.BlockSize]
		copy(m, []byte{0, byte(i + 1), 'X', 0})
		copy(m[4:], nonce[:12])
		subtle.XORBytes(m, m, x.k1[:])
		x.k.Encrypt(m, m)
	}
	block, err := aes.NewCipher(kx[:])
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return cipher.NewGCM(block)
}
