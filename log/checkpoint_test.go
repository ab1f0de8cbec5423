package log

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"pgregory.net/rapid"
)

func TestCheckpointRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := NewSigner(seed32(rapid.Byte().Draw(t, "seed")))
		size := rapid.Uint64Range(1, maxTreeSize).Draw(t, "size")
		root := seed32(rapid.Byte().Draw(t, "root"))
		made, err := s.Sign(size, root)
		if err != nil {
			t.Fatal(err)
		}
		got, err := NewVerifier(s.Public()).Verify(made.Note)
		if err != nil {
			t.Fatal(err)
		}
		if got.Origin != s.Origin() || got.Size != size || got.Root != root || !bytes.Equal(got.Note, made.Note) {
			t.Fatalf("got %+v", got)
		}
	})
}

// The note package of the Go project must accept what Sign makes, and make
// the same bytes.
func TestCheckpointIsASignedNote(t *testing.T) {
	s := NewSigner(seed32(1))
	h, err := s.Sign(1234, seed32(9))
	if err != nil {
		t.Fatal(err)
	}
	vkey, err := note.NewEd25519VerifierKey(s.Origin(), s.Public())
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open(h.Note, note.VerifierList(v))
	if err != nil {
		t.Fatal(err)
	}
	again, err := note.Sign(&note.Note{Text: n.Text}, oracleSigner(t, 1))
	if err != nil || !bytes.Equal(again, h.Note) {
		t.Errorf("note.Sign gives\n%s%v\nwant\n%s", again, err, h.Note)
	}
	golden(t, "checkpoint", h.Note)
}

// oracleSigner returns the Go project's signer for the key of NewSigner of
// the same seed.
func oracleSigner(t testing.TB, seed byte) note.Signer {
	t.Helper()
	s := NewSigner(seed32(seed))
	key := seed32(seed)
	raw := append([]byte{noteEd25519}, key[:]...)
	signer, err := note.NewSigner(fmt.Sprintf("PRIVATE+KEY+%s+%x+%s", s.Origin(), s.hash, base64.StdEncoding.EncodeToString(raw)))
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func TestVerifyToleratesCosignatures(t *testing.T) {
	s := NewSigner(seed32(1))
	h, err := s.Sign(5, seed32(2))
	if err != nil {
		t.Fatal(err)
	}
	skey, _, err := note.GenerateKey(rand.Reader, "witness.example/w1")
	if err != nil {
		t.Fatal(err)
	}
	witness, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	text, sigs, _ := strings.Cut(string(h.Note), "\n\n")
	cosigned, err := note.Sign(&note.Note{Text: text + "\n"}, witness)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]string{
		"after":  string(cosigned) + sigs,
		"before": string(h.Note) + strings.SplitN(string(cosigned), "\n\n", 2)[1],
	} {
		got, err := NewVerifier(s.Public()).Verify([]byte(b))
		if err != nil || got.Size != 5 || string(got.Note) != b {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := NewVerifier(s.Public()).Verify(cosigned); !errors.Is(err, ErrCheckpoint) {
		t.Errorf("a note of the witness alone: %v", err)
	}
}

// Whatever byte of a checkpoint is changed, it is refused. (The last digit of
// the base64 of a signature has two bits that mean nothing.)
func TestVerifyTampered(t *testing.T) {
	s := NewSigner(seed32(1))
	v := NewVerifier(s.Public())
	h, err := s.Sign(77, seed32(3))
	if err != nil {
		t.Fatal(err)
	}
	for i := range h.Note {
		for _, flip := range []byte{1, 2, 0x10, 0x80} {
			b := bytes.Clone(h.Note)
			b[i] ^= flip
			got, err := v.Verify(b)
			if err == nil && (i != len(b)-3 || got.Size != h.Size || got.Root != h.Root) {
				t.Errorf("byte %d changed by %#x: accepted as %+v", i, flip, got)
			}
			if err != nil && !errors.Is(err, ErrCheckpoint) {
				t.Errorf("byte %d: %v", i, err)
			}
		}
	}
	for n := range h.Note {
		if _, err := v.Verify(h.Note[:n]); err == nil {
			t.Errorf("accepted when cut to %d bytes", n)
		}
	}
	if _, err := NewVerifier(NewSigner(seed32(2)).Public()).Verify(h.Note); !errors.Is(err, ErrCheckpoint) {
		t.Errorf("another log's verifier: %v", err)
	}
}

// A log's key may have signed nonsense: a signature alone makes no checkpoint.
func TestVerifyRefusesSignedNonsense(t *testing.T) {
	s := NewSigner(seed32(1))
	v := NewVerifier(s.Public())
	root := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, 32))
	empty := base64.StdEncoding.EncodeToString(emptyRoot[:])
	tests := []struct {
		name, text string
		ok         bool
	}{
		{"plain", s.Origin() + "\n5\n" + root + "\n", true},
		{"empty tree", s.Origin() + "\n0\n" + empty + "\n", true},
		{"extension", s.Origin() + "\n5\n" + root + "\nsomething else\n", true},
		{"largest", fmt.Sprintf("%s\n%d\n%s\n", s.Origin(), uint64(maxTreeSize), root), true},
		{"too large", fmt.Sprintf("%s\n%d\n%s\n", s.Origin(), uint64(maxTreeSize)+1, root), false},
		{"overflow", s.Origin() + "\n18446744073709551617\n" + root + "\n", false},
		{"other origin", "hearth.tradle.io/00\n5\n" + root + "\n", false},
		{"two lines", s.Origin() + "\n5\n", false},
		{"one line", s.Origin() + "\n", false},
		{"leading zero", s.Origin() + "\n05\n" + root + "\n", false},
		{"sign", s.Origin() + "\n+5\n" + root + "\n", false},
		{"negative", s.Origin() + "\n-5\n" + root + "\n", false},
		{"no size", s.Origin() + "\n\n" + root + "\n", false},
		{"short root", s.Origin() + "\n5\n" + root[:40] + "\n", false},
		{"loose root", s.Origin() + "\n5\n" + root[:42] + "9=\n", false},
		{"empty tree, other root", s.Origin() + "\n0\n" + root + "\n", false},
		{"empty extension", s.Origin() + "\n5\n" + root + "\n\nx\n", false},
	}
	for _, test := range tests {
		b, err := note.Sign(&note.Note{Text: test.text}, oracleSigner(t, 1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Verify(b); (err == nil) != test.ok || err != nil && !errors.Is(err, ErrCheckpoint) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if _, err := s.Sign(maxTreeSize+1, seed32(0)); err == nil {
		t.Error("signed a checkpoint that is too large")
	}
}

func FuzzVerify(f *testing.F) {
	s := NewSigner(seed32(1))
	v := NewVerifier(s.Public())
	for size := range uint64(3) {
		h, err := s.Sign(size, emptyRoot)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(h.Note)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := v.Verify(b)
		if err != nil {
			if !errors.Is(err, ErrCheckpoint) {
				t.Fatal(err)
			}
			return
		}
		text := appendCheckpoint(nil, h.Origin, h.Size, h.Root)
		if !bytes.HasPrefix(b, text) {
			t.Fatalf("%+v is not what %q says", h, b)
		}
	})
}

// What a key has signed is parsed after its signature was verified, so the
// parser is fuzzed without one.
func FuzzParseCheckpoint(f *testing.F) {
	f.Add(appendCheckpoint(nil, "a", 1, seed32(1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := parseCheckpoint(b); err == nil && !bytes.HasPrefix(append(b, '\n'), appendCheckpoint(nil, h.Origin, h.Size, h.Root)) {
			t.Fatalf("%+v is not what %q says", h, b)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	s := NewSigner(seed32(1))
	for b.Loop() {
		if _, err := s.Sign(1<<20, seed32(2)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	s := NewSigner(seed32(1))
	v := NewVerifier(ed25519.PublicKey(s.Public()))
	h, err := s.Sign(1<<20, seed32(2))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := v.Verify(h.Note); err != nil {
			b.Fatal(err)
		}
	}
}
