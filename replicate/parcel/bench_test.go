package parcel

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkLarge is one file of 1 GiB, durable at its end.
func BenchmarkLarge(b *testing.B) {
	src := b.TempDir()
	const size = 1 << 30
	f, err := os.Create(src + "/large")
	if err != nil {
		b.Fatal(err)
	}
	for i := range size >> 24 {
		f.Write(random(uint64(i), 1<<24))
	}
	f.Close()
	unix.Sync()
	b.SetBytes(size)
	benchmark(b, src+"/large")
}

// BenchmarkSmall is a folder of 10,000 files of 4 KiB, durable at its end.
func BenchmarkSmall(b *testing.B) {
	src := b.TempDir()
	for i := range 10_000 {
		write(b, fmt.Sprintf("%s/small/%02d/%d", src, i%100, i), random(uint64(i), 4096))
	}
	unix.Sync()
	b.SetBytes(10_000 * 4096)
	benchmark(b, src+"/small")
}

func benchmark(b *testing.B, path string) {
	for b.Loop() {
		dst, err := os.MkdirTemp(b.TempDir(), "")
		if err != nil {
			b.Fatal(err)
		}
		mustTransfer(b, SendOptions{Paths: []string{path}}, ReceiveOptions{Dir: dst})
		b.StopTimer()
		os.RemoveAll(dst)
		unix.Sync()
		b.StartTimer()
	}
}
