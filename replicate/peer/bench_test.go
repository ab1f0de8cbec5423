package peer

import (
	"io"
	"runtime"
	"testing"
)

// BenchmarkStream sends one stream over loopback, both ends in this process.
func BenchmarkStream(b *testing.B) {
	ca, cb := connect(b, listen(b, "a"), listen(b, "b"))
	s, r := streamPair(b, ca, cb)
	done := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, make([]byte, 256<<10))
		done <- err
	}()
	chunk := make([]byte, 1<<20)
	b.SetBytes(int64(len(chunk)))
	for b.Loop() {
		if _, err := s.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.CloseWrite(); err != nil {
		b.Fatal(err)
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

// BenchmarkConnect makes a connection, handshake included.
func BenchmarkConnect(b *testing.B) {
	from, to := listen(b, "a"), listen(b, "b")
	for b.Loop() {
		ca, _ := connect(b, from, to)
		ca.Close(CodeDone, "")
		for to.Count() > 0 {
			runtime.Gosched()
		}
	}
}
