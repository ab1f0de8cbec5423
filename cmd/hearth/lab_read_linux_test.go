package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"hearth/log"
)

// noise is data that nothing compresses, the same for the same seed.
func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

// outcome is what came of a read.
type outcome struct {
	b    []byte
	err  error
	took time.Duration
}

// hang is when an operation that does not end is called one that hangs.
const hang = 75 * time.Second

// readAt opens a file and reads a part of it. One that hangs is reported, and
// ends when its daemon does.
func readAt(path string, off, n int) outcome {
	start := time.Now()
	done := make(chan outcome, 1)
	go func() { // ends with the system call
		o := outcome{b: make([]byte, n)}
		var f *os.File
		if f, o.err = os.Open(path); o.err == nil {
			var got int
			got, o.err = f.ReadAt(o.b, int64(off))
			o.b = o.b[:got]
			_ = f.Close()
		}
		o.took = time.Since(start)
		done <- o
	}()
	select {
	case o := <-done:
		return o
	case <-time.After(hang):
		return outcome{err: fmt.Errorf("reading %s hangs", path), took: hang}
	}
}

// same compares what was read with what it has to be.
func (l *lab) same(got any, want []byte) {
	l.Helper()
	b, _ := got.([]byte)
	if o, ok := got.(outcome); ok {
		l.must(o.err)
		b = o.b
	}
	if bytes.Equal(b, want) {
		return
	}
	at := 0
	for at < min(len(b), len(want)) && b[at] == want[at] {
		at++
	}
	l.Fatalf("%d bytes were read in place of %d; they differ from byte %d on", len(b), len(want), at)
}

func percentile(times []time.Duration, p int) time.Duration {
	times = slices.Sorted(slices.Values(times))
	return times[min(len(times)-1, len(times)*p/100)]
}

// store opens the store of a device that is stopped.
func (d *device) store(fn func(l *log.Log)) {
	d.Helper()
	store, err := log.OpenStore(log.StoreOptions{Dir: d.home.DriveDir(labDrive), Logger: slog.New(slog.DiscardHandler)})
	d.must(err)
	defer func() { d.must(store.Close()) }()
	for _, l := range store.Logs() {
		fn(l)
	}
}

// holding tells which entries a device that is stopped has.
func (d *device) holding() map[uint64]bool {
	d.Helper()
	have := map[uint64]bool{}
	d.store(func(l *log.Log) {
		for i := range l.Head().Size {
			if l.Holds(i) {
				have[i] = true
			}
		}
	})
	return have
}

// missing counts what a device that is stopped lacks of the drive.
func (d *device) missing() (entries, of uint64) {
	d.Helper()
	d.store(func(l *log.Log) { of += l.Head().Size })
	return of - uint64(len(d.holding())), of
}

// bytesOf counts the stored bytes of a device that is stopped: all, and those
// that it did not have before.
func (d *device) bytesOf(before map[uint64]bool) (fresh, all int64, lacks int) {
	d.Helper()
	d.store(func(l *log.Log) {
		for i := range l.Head().Size {
			b, err := l.ReadStored(nil, i)
			if err != nil {
				lacks++
				continue
			}
			all += int64(len(b))
			if !before[i] {
				fresh += int64(len(b))
			}
		}
	})
	return fresh, all, lacks
}
