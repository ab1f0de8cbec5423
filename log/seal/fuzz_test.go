package seal

import (
	"bytes"
	"errors"
	"testing"
)

func addSamples(f *testing.F, k *Keyring) {
	for _, plain := range samples() {
		f.Add(must(k.Seal(nil, Data, plain)), 0, 10)
	}
	f.Add([]byte{}, -1, 5)
	f.Add([]byte{1, 0, 0, 0, 0, 15}, 1<<62, 1<<20)
}

// FuzzOpen feeds stored bytes: nothing panics, and ranges agree with the whole.
func FuzzOpen(f *testing.F) {
	k := testKeyring()
	addSamples(f, k)
	f.Fuzz(func(t *testing.T, stored []byte, off, n int) {
		checkLayout(t, stored)
		dst := make([]byte, max(0, min(n, MaxPlain+1)))
		plain, err := k.Open(nil, Data, stored)
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNoKey) {
			t.Fatalf("error of no kind: %v", err)
		}
		if len(plain) > MaxPlain {
			t.Fatalf("%d bytes of plaintext", len(plain))
		}
		if k.OpenRange(dst, Data, stored, off) == nil && len(dst) > 0 && err == nil && !bytes.Equal(dst, plain[off:off+len(dst)]) {
			t.Fatal("a range differs from the whole")
		}
		span, ok := UniformSpan(len(stored), off, len(dst))
		if !ok || !Uniform(stored) {
			return
		}
		if k.OpenUniform(dst, Data, len(stored), off, stored[span.Off:][:span.Len]) == nil && len(dst) > 0 && err == nil && !bytes.Equal(dst, plain[off:off+len(dst)]) {
			t.Fatal("a span differs from the whole")
		}
	})
}

// FuzzOpenUniform feeds spans and lengths that come from nowhere.
func FuzzOpenUniform(f *testing.F) {
	k := testKeyring()
	f.Add([]byte("span"), 67584, 0, 16384)
	f.Add(make([]byte, stride), 67584, 16384, 10)
	f.Fuzz(func(t *testing.T, span []byte, storedLen, off, n int) {
		dst := make([]byte, max(0, min(n, MaxPlain+1)))
		if err := k.OpenUniform(dst, Data, storedLen, off, span); !errors.Is(err, ErrDamaged) {
			t.Fatalf("opened, or an error of no kind: %v", err)
		}
	})
}

// FuzzBodies feeds bodies that authenticate: what a hostile holder of the key
// can have sealed.
func FuzzBodies(f *testing.F) {
	k := testKeyring()
	for _, p := range samples() {
		f.Add(encoder().EncodeAll(p[:min(len(p), PieceSize)], nil), []byte("last"))
	}
	f.Fuzz(func(t *testing.T, middle, last []byte) {
		if len(middle) == 0 || len(middle) > PieceSize || len(last) > PieceSize {
			return
		}
		o, key := new(opener), (*k.keys.Load())[0]
		stored := sealBodies(k, middle, append(last, 0, 0))
		at := headerSize(2)
		size := len(middle) + overhead
		if err := o.middle(make([]byte, PieceSize), key.aead, stored[at:at+size], Data, 0); err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
		if plain, err := o.last(key.aead, stored[at+size:], Data, 2); err == nil || !errors.Is(err, ErrDamaged) {
			t.Fatalf("an empty last piece of %d: %v", len(plain), err)
		}
		one := sealBodies(k, append(bytes.Clone(middle), byte(0x80|len(middle)>>8), byte(len(middle))))
		if plain, err := o.last(key.aead, one[headerSize(1):], Data, 1); err == nil && len(plain) > PieceSize {
			t.Fatalf("%d bytes from a last piece", len(plain))
		}
	})
}
