package seal

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// The table in the package's documentation.
func TestWorkedSizes(t *testing.T) {
	k := testKeyring()
	for _, tc := range []struct{ plain, unpadded, stored int }{
		{0, 50, 52}, {100, 150, 160}, {4096, 4146, 4352},
		{65536, 65712, 67584}, {65537, 65755, 69632}, {245760, 246398, 249856},
	} {
		n := max(1, (tc.plain+PieceSize-1)/PieceSize)
		if got := headerSize(n) + tc.plain + n*overhead + trailerSize; got != tc.unpadded {
			t.Errorf("%d bytes: L is %d, documented %d", tc.plain, got, tc.unpadded)
		}
		if got := len(must(k.Seal(nil, Data, random("sizes", tc.plain)))); got != tc.stored {
			t.Errorf("%d bytes: stored as %d, documented %d", tc.plain, got, tc.stored)
		}
	}
}

func TestPadme(t *testing.T) {
	// The paper's example: lengths with at most log log many free bits.
	for in, want := range map[int]int{0: 0, 1: 1, 7: 7, 8: 8, 9: 10, 50: 52, 100: 104, 1000: 1024, 1025: 1088} {
		if got := padme(in); got != want {
			t.Errorf("padme(%d) = %d, want %d", in, got, want)
		}
	}
	for size := 2; size <= MaxStored; size++ {
		p := padme(size)
		if p < size || padme(p) != p || p < padme(size-1) || (p-size)*100 > 12*size {
			t.Fatalf("padme(%d) = %d", size, p)
		}
		if p-size > maxPad {
			t.Fatalf("padding of %d bytes, limit %d", p-size, maxPad)
		}
	}
}

// Every uniform block of every length has a length that tells its layout and a
// last piece within the limit.
func TestUniformLengths(t *testing.T) {
	for n := 1; n <= MaxPieces; n++ {
		for last := 0; last <= PieceSize; last++ {
			at := headerSize(n) + (n-1)*stride
			size := uniformSize(n, at+overhead+last+trailerSize)
			l, ok := uniformLayout(size)
			if !ok || l.n != n || l.at[n-1] != at || size > MaxStored || size-at > maxLast {
				t.Fatalf("%d pieces, last of %d: %d bytes look like %d pieces", n, last, size, l.n)
			}
		}
	}
}

func TestUniform(t *testing.T) {
	k := testKeyring()
	for name, want := range map[string]bool{
		"empty": true, "tiny": true, "small": true, "text": true, "uniform": true, "exact": true,
		"zeros": false, "mixed": false, "tail zeros": true,
	} {
		if got := Uniform(must(k.Seal(nil, Data, samples()[name]))); got != want {
			t.Errorf("%s: uniform is %v", name, got)
		}
	}
	for _, bad := range [][]byte{nil, {1}, make([]byte, 100)} {
		if Uniform(bad) {
			t.Errorf("%d bytes that are no block are uniform", len(bad))
		}
	}
}

func TestUniformSpan(t *testing.T) {
	k := testKeyring()
	stored := must(k.Seal(nil, Data, random("span", 64<<10)))
	span, ok := UniformSpan(len(stored), 20<<10, 4<<10)
	if want := (Span{Off: headerSize(4) + stride, Len: stride}); !ok || span != want {
		t.Errorf("4 KiB at 20 KiB: %+v, want %+v", span, want)
	}
	for _, r := range [][2]int{{-1, 1}, {0, 0}, {0, -1}, {64 << 10, 1}, {0, 64<<10 + 1}, {1 << 62, 1 << 62}, {0, 1<<63 - 1}, {1<<63 - 1, 1}} {
		if span, ok := UniformSpan(len(stored), r[0], r[1]); ok {
			t.Errorf("%d bytes at %d: %+v", r[1], r[0], span)
		}
	}
	for _, size := range []int{-1, 0, 1, 49, 51, len(stored) + 1, MaxStored, 1 << 40} {
		if _, ok := UniformSpan(size, 0, 1); ok {
			t.Errorf("a uniform block of %d bytes", size)
		}
	}
}

// parse accepts nothing whose pieces are not inside the block and in order.
func checkLayout(t interface{ Fatalf(string, ...any) }, stored []byte) {
	l, err := parse(stored)
	if err != nil {
		return
	}
	if l.n < 1 || l.n > MaxPieces || l.at[0] != headerSize(l.n) || l.at[l.n] != len(stored) || len(stored) > MaxStored {
		t.Fatalf("accepted %+v", l)
	}
	for i := range l.n {
		if l.at[i+1]-l.at[i] <= overhead {
			t.Fatalf("accepted %+v", l)
		}
	}
}

func TestParse(t *testing.T) {
	stored := must(testKeyring().Seal(nil, Data, random("parse", 3*PieceSize)))
	rapid.Check(t, func(t *rapid.T) {
		bad := bytes.Clone(stored[:rapid.IntRange(0, len(stored)).Draw(t, "length")])
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			if len(bad) > 0 {
				bad[rapid.IntRange(0, min(len(bad)-1, 15)).Draw(t, "at")] = rapid.Byte().Draw(t, "byte")
			}
		}
		checkLayout(t, bad)
	})
}
