package log

import (
	"errors"
	"testing"

	"hearth/log/wire"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"pgregory.net/rapid"
)

// union decodes entries and joins what they drop.
func union(t rapid.TB, writer Writer, all []*Dropped) *roaring64.Bitmap {
	t.Helper()
	sum := roaring64.New()
	for _, d := range all {
		entry, err := EncodeControl(d)
		if err != nil {
			t.Fatal(err)
		}
		_, c, err := ParseEntry(entry)
		if err != nil {
			t.Fatal(err)
		}
		got := c.(*Dropped)
		if got.Writer != writer || !got.Set.Equals(d.Set) {
			t.Fatalf("an entry of %d bytes decodes to something else", len(entry))
		}
		if sum.Intersects(got.Set) {
			t.Fatal("a block is dropped twice")
		}
		sum.Or(got.Set)
	}
	return sum
}

func TestSplitDropped(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		writer := Writer(rapid.Uint16().Draw(t, "writer"))
		set := roaring64.New()
		for range rapid.IntRange(0, 30).Draw(t, "ranges") {
			start := rapid.Uint64Range(0, 1<<40).Draw(t, "start")
			set.AddRange(start, start+rapid.Uint64Range(1, 3000).Draw(t, "length"))
		}
		if all := SplitDropped(writer, set); !union(t, writer, all).Equals(set) {
			t.Fatal("the entries name other blocks")
		}
	})
}

func TestSplitDroppedLarge(t *testing.T) {
	scattered := roaring64.New()
	for i := range uint64(100_000) {
		scattered.Add(i * 3)
	}
	wide := roaring64.New()
	wide.AddRange(5, 5+2*maxDroppedBlocks+9)
	for name, test := range map[string]struct {
		set  *roaring64.Bitmap
		want int
	}{
		"none":      {roaring64.New(), 0},
		"scattered": {scattered, 4},
		"wide":      {wide, 3},
	} {
		all := SplitDropped(7, test.set)
		if len(all) != test.want {
			t.Errorf("%s: %d entries, want %d", name, len(all), test.want)
		}
		if name != "wide" && !union(t, 7, all).Equals(test.set) {
			t.Errorf("%s: the entries name other blocks", name)
		}
	}
	if _, err := EncodeControl(&Dropped{Set: scattered}); !errors.Is(err, ErrEntry) {
		t.Errorf("an entry that is too large: %v", err)
	}
}

func TestDecodeDroppedRefuses(t *testing.T) {
	for name, ranges := range map[string][]uint64{
		"adjacent":       {0, 4, 0, 3},
		"half a range":   {1},
		"beyond any log": {maxTreeSize, 0},
		"overflow":       {5, 1<<64 - 1},
		"gap overflow":   {5, 1, 1<<64 - 1, 0},
		"a bomb":         {0, 1 << 40},
		"two bombs":      {0, maxDroppedBlocks - 1, 1, 0},
	} {
		w := wire.Writer{B: []byte{entryControl, byte(TypeDropped), 0, 0}}
		for _, v := range ranges {
			w.Uvarint(v)
		}
		if _, _, err := ParseEntry(w.B); !errors.Is(err, ErrEntry) {
			t.Errorf("%s: %v", name, err)
		}
	}
	long := []byte{entryControl, byte(TypeDropped), 0, 0, 0x80, 0x00, 1}
	if _, _, err := ParseEntry(long); !errors.Is(err, ErrEntry) {
		t.Errorf("a uvarint in two forms: %v", err)
	}
}
