package fs

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// incompressible returns n bytes that zstd cannot shorten.
func incompressible(n int) []byte {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(b)
	return b
}

// BenchmarkAppendSync is a program that saves one record after the other: 4 KiB
// and an fsync.
func BenchmarkAppendSync(b *testing.B) {
	td := newTestDrive(b, Options{})
	f, _, err := td.Create(ctx, me, RootIno, "journal", 0o644)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	rec := incompressible(4 << 10)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Append(ctx, rec); err != nil {
			b.Fatal(err)
		}
		if err := f.Fsync(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCreate makes files of 4 KiB, as an archive is unpacked.
func BenchmarkCreate(b *testing.B) {
	td := newTestDrive(b, Options{})
	dir, err := td.Mkdir(ctx, me, RootIno, "many", 0o755)
	if err != nil {
		b.Fatal(err)
	}
	data := incompressible(4 << 10)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		f, _, err := td.Create(ctx, me, dir.Ino, fmt.Sprintf("file-%07d", i), 0o644)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := f.WriteAt(ctx, data, 0); err != nil {
			b.Fatal(err)
		}
		f.Close()
		i++
	}
}

// BenchmarkReadRandom reads 4 KiB anywhere in 256 MiB.
func BenchmarkReadRandom(b *testing.B) {
	td := newTestDrive(b, Options{})
	const size = 256 << 20
	chunk := incompressible(1 << 20)
	f, a, err := td.Create(ctx, me, RootIno, "big", 0o644)
	if err != nil {
		b.Fatal(err)
	}
	for off := int64(0); off < size; off += int64(len(chunk)) {
		chunk[off>>20&0xfff] ^= 1
		if _, err := f.WriteAt(ctx, chunk, off); err != nil {
			b.Fatal(err)
		}
	}
	f.Close()
	td.reopen()
	if f, err = td.Open(ctx, me, a.Ino, false); err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	rng := rand.New(rand.NewPCG(1, 2))
	p := make([]byte, 4<<10)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.ReadAt(ctx, p, rng.Int64N(size>>12)<<12); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkUndoRemove takes back the removal of a folder of 100,000 files.
func BenchmarkUndoRemove(b *testing.B) {
	td := newTestDrive(b, Options{})
	dir, err := td.Mkdir(ctx, me, RootIno, "many", 0o755)
	if err != nil {
		b.Fatal(err)
	}
	const n = 100_000
	name := func(i int) string { return fmt.Sprintf("file-%07d", i) }
	for i := range n {
		td.put(dir.Ino, name(i), []byte(name(i)))
	}
	if err := td.Sync(ctx); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		if _, err := td.Redo(ctx, UndoOptions{}); err != nil {
			for i := range n {
				if err := td.Unlink(ctx, Caller{Uid: 1000, Pid: 1}, dir.Ino, name(i)); err != nil {
					b.Fatal(err)
				}
			}
			if err := td.Rmdir(ctx, Caller{Uid: 1000, Pid: 1}, RootIno, "many"); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		if _, err := td.Undo(ctx, UndoOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
