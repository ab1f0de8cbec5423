package log

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

func TestTilePath(t *testing.T) {
	tests := []struct {
		got, want string
	}{
		{TilePath(0, 0, 256), "tile/0/000"},
		{TilePath(0, 0, 1), "tile/0/000.p/1"},
		{TilePath(1, 999, 256), "tile/1/999"},
		{TilePath(0, 1234, 256), "tile/0/x001/234"},
		{TilePath(2, 1234067, 255), "tile/2/x001/x234/067.p/255"},
		{TilePath(0, 1000, 256), "tile/0/x001/000"},
		{TilePath(5, 1000000, 8), "tile/5/x001/x000/000.p/8"},
		{EntriesPath(1234, 7), "tile/entries/x001/234.p/7"},
		{EntriesPath(3, 256), "tile/entries/003"},
	}
	for _, test := range tests {
		if test.got != test.want {
			t.Errorf("%s, want %s", test.got, test.want)
		}
	}
}

func TestBundleRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entries := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 60), 1, 256).Draw(t, "entries")
		var bundle []byte
		for _, e := range entries {
			var err error
			if bundle, err = AppendBundle(bundle, e); err != nil {
				t.Fatal(err)
			}
		}
		got, err := ParseBundle(bundle, len(entries))
		if err != nil {
			t.Fatal(err)
		}
		for i := range entries {
			if !bytes.Equal(got[i], entries[i]) {
				t.Fatalf("entry %d: %x, want %x", i, got[i], entries[i])
			}
		}
		for _, width := range []int{len(entries) - 1, len(entries) + 1} {
			if _, err := ParseBundle(bundle, width); !errors.Is(err, ErrEntry) {
				t.Fatalf("as %d entries: %v", width, err)
			}
		}
	})
	if _, err := AppendBundle(nil, make([]byte, MaxEntry)); err != nil {
		t.Error(err)
	}
	if _, err := AppendBundle(nil, make([]byte, MaxEntry+1)); !errors.Is(err, ErrEntry) {
		t.Errorf("an entry that is too large: %v", err)
	}
}

func FuzzParseBundle(f *testing.F) {
	f.Add([]byte{0, 1, 7, 0, 0}, 2)
	f.Fuzz(func(t *testing.T, bundle []byte, width int) {
		entries, err := ParseBundle(bundle, width)
		if err != nil {
			return
		}
		var again []byte
		for _, e := range entries {
			again, _ = AppendBundle(again, e)
		}
		if len(entries) != width || !bytes.Equal(again, bundle) {
			t.Fatalf("%d entries encode to other bytes", len(entries))
		}
	})
}

func TestTileRefuses(t *testing.T) {
	tree, o := newHashTree(nil, ""), &oracle{}
	grow(tree, o, 300)
	for _, bad := range []struct {
		level int
		n     uint64
		width int
	}{{-1, 0, 1}, {0, 0, 0}, {0, 0, 257}, {0, 1, 45}, {0, 2, 1}, {1, 0, 2}, {2, 0, 1}, {0, 1 << 62, 1}} {
		if _, err := tree.tile(bad.level, bad.n, bad.width); err == nil {
			t.Errorf("there is a tile %+v", bad)
		}
	}
}
