package seal

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// chunks cuts data shown in portions of the given sizes, over and over.
func chunks(c *Chunker, data []byte, portions ...int) []int {
	var out []int
	shown := 0
	for i := 0; len(data) > 0; i++ {
		shown = min(len(data), shown+portions[i%len(portions)])
		for final := shown == len(data); shown > 0; {
			n := c.Next(data[:shown], final)
			if n == 0 {
				break
			}
			out = append(out, n)
			data, shown = data[n:], shown-n
		}
	}
	return out
}

// reference is the definition in the package's documentation, byte by byte.
func reference(gear *gearTable, data []byte) int {
	h := uint64(0)
	for i := MinChunk - 64; i < min(len(data), MaxChunk); i++ {
		h = 2*h + gear[data[i]]
		if i >= MinChunk && (i < 53248 && h < 1<<46 || i >= 53248 && h < 1<<50) {
			return i + 1
		}
	}
	return min(len(data), MaxChunk)
}

func TestChunksDoNotDependOnFeeding(t *testing.T) {
	k := testKeyring()
	rapid.Check(t, func(t *rapid.T) {
		var data []byte
		for range rapid.IntRange(1, 4).Draw(t, "blocks") {
			data = append(data, plaintexts(t)...)
		}
		portions := rapid.SliceOfN(rapid.IntRange(1, 100<<10), 1, 5).Draw(t, "portions")
		if len(data)/slices.Min(portions) > 2000 {
			portions = append(portions, 50<<10)
		}
		got := chunks(k.Chunker(), data, portions...)
		var want []int
		gear := k.Chunker().gear
		for rest := data; len(rest) > 0; rest = rest[want[len(want)-1]:] {
			want = append(want, reference(gear, rest))
		}
		if !slices.Equal(got, want) {
			t.Fatalf("chunks %v, want %v", got, want)
		}
		for i, n := range got {
			if n > MaxChunk || n < MinChunk && i < len(got)-1 {
				t.Fatalf("chunk %d of %d is %d bytes", i, len(got), n)
			}
		}
	})
}

func TestChunkerMeanAndResync(t *testing.T) {
	k := testKeyring()
	const size = 16 << 20
	data := random("chunks", size)
	before := chunks(k.Chunker(), data, 1<<20)
	if mean := size / len(before); mean < 56<<10 || mean > 72<<10 {
		t.Errorf("mean chunk of %d bytes, want about 64 KiB", mean)
	}

	edited := slices.Concat(data[:size/2], random("insertion", 1000), data[size/2:])
	known := map[string]bool{}
	for _, n := range before {
		known[string(data[:n])] = true
		data = data[n:]
	}
	var fresh int
	for _, n := range chunks(k.Chunker(), edited, 1<<20) {
		if !known[string(edited[:n])] {
			fresh += n
		}
		edited = edited[n:]
	}
	if fresh == 0 || fresh > 512<<10 {
		t.Errorf("1,000 bytes inserted make %d bytes new", fresh)
	}
}

func TestChunkerSecret(t *testing.T) {
	data := random("secret", 1<<20)
	a := chunks(testKeyring(0).Chunker(), data, 1<<20)
	if b := chunks(testKeyring(0, 1).Chunker(), data, 1<<20); !slices.Equal(a, b) {
		t.Error("a new epoch moves boundaries")
	}
	if b := chunks(testKeyring(1).Chunker(), data, 1<<20); slices.Equal(a, b) {
		t.Error("boundaries do not depend on the key")
	}
}

func TestChunkerStreamsFollowEachOther(t *testing.T) {
	c := testKeyring().Chunker()
	data := random("streams", 300<<10)
	want := chunks(testKeyring().Chunker(), data, len(data))
	if n := c.Next(data[:40<<10], false); n != 0 {
		t.Fatalf("a chunk of %d", n)
	}
	c.Reset()
	if got := chunks(c, data, len(data)); !slices.Equal(got, want) {
		t.Errorf("after Reset %v, want %v", got, want)
	}
	if n := c.Next(nil, true); n != 0 {
		t.Errorf("a chunk of %d from nothing", n)
	}
	if n := c.Next([]byte("end"), true); n != 3 {
		t.Errorf("the end of a stream is a chunk of %d", n)
	}
}
