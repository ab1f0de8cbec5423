package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha3"
	"encoding/binary"
	"encoding/hex"
	"testing"

	"pgregory.net/rapid"
)

func xaesSeal(t interface{ Fatal(...any) }, key *[32]byte, nonce, plain, ad []byte) []byte {
	x, err := newXAES(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := x.gcm(nonce, new([32]byte))
	if err != nil {
		t.Fatal(err)
	}
	return gcm.Seal(nil, nonce[12:], plain, ad)
}

// The vectors of https://c2sp.org/XAES-256-GCM.
func TestXAESVectors(t *testing.T) {
	for _, tc := range []struct {
		key            byte
		ad, kx, sealed string
	}{
		{0x01, "", "c8612c9ed53fe43e8e005b828a1631a0bbcb6ab2f46514ec4f439fcfd0fa969b",
			"ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"},
		{0x03, "c2sp.org/XAES-256-GCM", "e9c621d4cdd9b11b00a6427ad7e559aeedd66b3857646677748f8ca796cb3fd8",
			"986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"},
	} {
		key := [32]byte(bytes.Repeat([]byte{tc.key}, 32))
		nonce := []byte("ABCDEFGHIJKLMNOPQRSTUVWX")
		if got := hex.EncodeToString(xaesSeal(t, &key, nonce, []byte("XAES-256-GCM"), []byte(tc.ad))); got != tc.sealed {
			t.Errorf("key %#x: sealed %s, want %s", tc.key, got, tc.sealed)
		}
		x, kx := must(newXAES(&key)), new([32]byte)
		must(x.gcm(nonce, kx))
		if got := hex.EncodeToString(kx[:]); got != tc.kx {
			t.Errorf("key %#x: derived %s, want %s", tc.key, got, tc.kx)
		}
	}
}

func TestXAESAccumulated(t *testing.T) {
	const (
		rounds = 10_000
		want   = "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"
	)
	rng, sum := sha3.NewSHAKE128(), sha3.NewSHAKE128()
	read := func(n int) []byte {
		b := make([]byte, n)
		_, _ = rng.Read(b)
		return b
	}
	for range rounds {
		key, nonce := [32]byte(read(32)), read(24)
		plain := read(int(read(1)[0]))
		ad := read(int(read(1)[0]))
		_, _ = sum.Write(xaesSeal(t, &key, nonce, plain, ad))
	}
	got := make([]byte, 32)
	_, _ = sum.Read(got)
	if hex.EncodeToString(got) != want {
		t.Errorf("accumulated %x, want %s", got, want)
	}
}

// cmac is AES-CMAC as RFC 4493 writes it, over AES-256 and any message.
func cmac(block cipher.Block, msg []byte) []byte {
	double := func(b []byte) []byte {
		hi, lo := binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
		out := binary.BigEndian.AppendUint64(nil, hi<<1|lo>>63)
		return binary.BigEndian.AppendUint64(out, lo<<1^(hi>>63)*0x87)
	}
	mask := make([]byte, 16)
	block.Encrypt(mask, mask)
	mask = double(mask)
	if len(msg) == 0 || len(msg)%16 != 0 {
		mask = double(mask)
		msg = append(append(bytes.Clone(msg), 0x80), make([]byte, 15-len(msg)%16)...)
	}
	tag := make([]byte, 16)
	for i, b := range msg {
		if tag[i%16] ^= b; i >= len(msg)-16 {
			tag[i%16] ^= mask[i%16]
		}
		if i%16 == 15 {
			block.Encrypt(tag, tag)
		}
	}
	return tag
}

// The key derivation is the counter mode of NIST SP 800-108 over AES-CMAC with
// label "X"; this computes it that way.
func TestXAESIsCounterKDF(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bytesOf := func(n int, name string) []byte {
			return rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, name)
		}
		key, nonce := bytesOf(32, "key"), bytesOf(24, "nonce")
		plain := rapid.SliceOf(rapid.Byte()).Draw(t, "plain")
		block := must(aes.NewCipher(key))
		var derived []byte
		for i := range 2 {
			derived = append(derived, cmac(block, append([]byte{0, byte(i + 1), 'X', 0}, nonce[:12]...))...)
		}
		want := must(cipher.NewGCM(must(aes.NewCipher(derived)))).Seal(nil, nonce[12:], plain, nil)
		if got := xaesSeal(t, (*[32]byte)(key), nonce, plain, nil); !bytes.Equal(got, want) {
			t.Fatal("differs from the KDF of SP 800-108")
		}
	})
}
