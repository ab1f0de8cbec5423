package log

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"hearth/log/disk"
)

func randomBlock(n int) []byte {
	b := make([]byte, n)
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// BenchmarkCommit is a small edit with fsync: a block and a commit.
func BenchmarkCommit(b *testing.B) {
	l := mustCreate(b, testOptions(disk.OS{}, filepath.Join(b.TempDir(), "log")))
	data, commit := randomBlock(4352), randomBlock(600)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Append(data); err != nil {
			b.Fatal(err)
		}
		if _, _, err := l.Commit(commit, true); err != nil {
			b.Fatal(err)
		}
	}
	mustClose(b, l)
}

// BenchmarkAppend is bulk data.
func BenchmarkAppend(b *testing.B) {
	l := mustCreate(b, testOptions(disk.OS{}, filepath.Join(b.TempDir(), "log")))
	data := randomBlock(67584)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Append(data); err != nil {
			b.Fatal(err)
		}
	}
	if _, _, err := l.Commit(data, true); err != nil {
		b.Fatal(err)
	}
	mustClose(b, l)
}

// BenchmarkOpen opens a log of many entries.
func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{10_000, 2_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			o := testOptions(disk.OS{}, filepath.Join(b.TempDir(), "log"))
			l := mustCreate(b, o)
			data := randomBlock(40)
			for range n {
				if _, err := l.Append(data); err != nil {
					b.Fatal(err)
				}
			}
			if _, _, err := l.Commit(data, true); err != nil {
				b.Fatal(err)
			}
			mustClose(b, l)
			b.ReportAllocs()
			for b.Loop() {
				mustClose(b, mustOpen(b, o))
			}
		})
	}
}
