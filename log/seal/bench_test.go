package seal

import (
	"fmt"
	"strings"
	"testing"
)

func BenchmarkSeal(b *testing.B) {
	text := []byte(strings.Repeat("the quick brown fox jumps over the lazy dog 0123456789\n", 1200))[:64<<10]
	for _, bm := range []struct {
		name  string
		plain []byte
	}{
		{"random 64K", random("bench", 64<<10)},
		{"random 4K", random("bench", 4<<10)},
		{"text 64K", text},
	} {
		k := testKeyring()
		stored := must(k.Seal(nil, Data, bm.plain))
		b.Run("seal/"+bm.name, func(b *testing.B) {
			b.SetBytes(int64(len(bm.plain)))
			b.ReportAllocs()
			dst := make([]byte, 0, MaxStored)
			for b.Loop() {
				dst = must(k.Seal(dst[:0], Data, bm.plain))
			}
		})
		b.Run("open/"+bm.name, func(b *testing.B) {
			b.SetBytes(int64(len(bm.plain)))
			b.ReportAllocs()
			dst := make([]byte, 0, MaxPlain)
			for b.Loop() {
				dst = must(k.Open(dst[:0], Data, stored))
			}
		})
	}
}

func BenchmarkOpenUniform(b *testing.B) {
	k := testKeyring()
	stored := must(k.Seal(nil, Data, random("bench", 64<<10)))
	for _, n := range []int{4 << 10, 16 << 10} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			span, _ := UniformSpan(len(stored), 32<<10, n)
			dst := make([]byte, n)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				if err := k.OpenUniform(dst, Data, len(stored), 32<<10, stored[span.Off:][:span.Len]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkChunker(b *testing.B) {
	data := random("bench", 16<<20)
	c := testKeyring().Chunker()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		for rest := data; len(rest) > 0; {
			rest = rest[c.Next(rest, true):]
		}
	}
}
