package log

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"
)

func TestDescriptorRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := Describe(rapid.SliceOfN(rapid.Byte(), 0, 2000).Draw(t, "stored"))
		entry := d.Entry()
		if len(entry) != DescriptorSize {
			t.Fatalf("entry of %d bytes", len(entry))
		}
		got, c, err := ParseEntry(entry)
		if err != nil || c != nil || got != d {
			t.Fatalf("got %v, %v, %v", got, c, err)
		}
		if LeafHash(entry) != [32]byte(tlog.RecordHash(entry)) {
			t.Fatal("leaf hash differs from tlog's")
		}
	})
}

func TestLeafHashOfLongEntries(t *testing.T) {
	for _, n := range []int{0, 1, 62, 63, 64, 65, MaxEntry} {
		entry := bytes.Repeat([]byte{7}, n)
		if got, want := LeafHash(entry), sha256.Sum256(append([]byte{0}, entry...)); got != want {
			t.Errorf("%d bytes: %x, want %x", n, got, want)
		}
	}
}

func TestLeafHashAllocatesNothing(t *testing.T) {
	d := Describe([]byte("block"))
	if n := testing.AllocsPerRun(100, func() { LeafHash(d.Entry()) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestParseEntryRefuses(t *testing.T) {
	for name, entry := range map[string][]byte{
		"empty":            {},
		"unknown kind":     {3, 1, 2},
		"zero":             make([]byte, DescriptorSize),
		"short descriptor": Descriptor{}.Entry()[:36],
		"long descriptor":  append(Descriptor{}.Entry(), 0),
		"bare control":     {2},
		"unknown control":  {2, 99},
		"huge control":     append([]byte{2, 7}, make([]byte, MaxEntry)...),
	} {
		if d, c, err := ParseEntry(entry); !errors.Is(err, ErrEntry) || c != nil || d != (Descriptor{}) {
			t.Errorf("%s: %v, %v, %v", name, d, c, err)
		}
	}
}

func FuzzParseEntry(f *testing.F) {
	f.Add(Describe([]byte("block")).Entry())
	for _, s := range sampleControls(f) {
		f.Add(s.entry)
	}
	f.Fuzz(func(t *testing.T, entry []byte) {
		d, c, err := ParseEntry(entry)
		switch {
		case err != nil:
			if !errors.Is(err, ErrEntry) || c != nil || d != (Descriptor{}) {
				t.Fatalf("%v, %v beside %v", d, c, err)
			}
		case c == nil:
			if !bytes.Equal(d.Entry(), entry) {
				t.Fatal("the descriptor encodes to other bytes")
			}
		default:
			again, err := EncodeControl(c)
			if err != nil || !bytes.Equal(again, entry) {
				t.Fatalf("the control entry encodes to other bytes: %x, %v", again, err)
			}
		}
	})
}
