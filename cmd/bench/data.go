//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// block is the size of sequential requests, page the one of random requests.
const (
	block = mib
	page  = 4 * kib
)

// big is the file that the workloads on one large file share.
const big = "big"

// writeBig writes it anew and returns the time to the end of the fsync.
func (e *env) writeBig(name string) (time.Duration, error) {
	data := fresh(e.size(gib))
	start := time.Now()
	f, err := open(e.path(name), unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY)
	if err != nil {
		return 0, err
	}
	defer f.close()
	for off := 0; off < len(data); off += block {
		if err := f.writeAt(data[off:off+block], off); err != nil {
			return 0, err
		}
	}
	if err := f.sync(); err != nil {
		return 0, err
	}
	return time.Since(start), nil
}

// needBig makes sure that it is there.
func (e *env) needBig() error {
	var st unix.Stat_t
	if err := unix.Stat(e.path(big), &st); err == nil && int(st.Size) == e.size(gib) {
		return nil
	}
	_, err := e.writeBig(big)
	return err
}

func seqWrite(_ context.Context, e *env) error {
	took, err := e.writeBig(big)
	if err != nil {
		return err
	}
	e.record("seqwrite", perSecond(e.size(gib)/mib, took))
	return nil
}

func seqRead(ctx context.Context, e *env) error {
	if err := e.needBig(); err != nil {
		return err
	}
	if err := e.system.cold(ctx); err != nil {
		return err
	}
	for _, row := range []string{"seqread-cold", "seqread-warm"} {
		took, err := e.readBig()
		if err != nil {
			return err
		}
		e.record(row, perSecond(e.size(gib)/mib, took))
	}
	return nil
}

func (e *env) readBig() (time.Duration, error) {
	buf := make([]byte, block)
	start := time.Now()
	f, err := open(e.path(big), unix.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer f.close()
	off := 0
	for {
		n, err := f.readAt(buf, off)
		if err != nil {
			return 0, fmt.Errorf("read: %w", err)
		}
		if n == 0 {
			break
		}
		off += n
	}
	if off != e.size(gib) {
		return 0, fmt.Errorf("read %d of %d bytes", off, e.size(gib))
	}
	return time.Since(start), nil
}

func randRead(ctx context.Context, e *env) error {
	if err := e.needBig(); err != nil {
		return err
	}
	if err := e.system.cold(ctx); err != nil {
		return err
	}
	f, err := open(e.path(big), unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.close()
	// Read-ahead would turn random reads into sequential ones.
	if err := unix.Fadvise(int(f), 0, 0, unix.FADV_RANDOM); err != nil {
		return fmt.Errorf("fadvise: %w", err)
	}
	length := 3 * time.Second
	if e.scale < 1 {
		length = time.Second
	}
	// No page twice: the second time it would come from the page cache.
	order, buf, n := rand.Perm(e.size(gib)/page), make([]byte, page), 0
	start := time.Now()
	for ; n < len(order) && time.Since(start) < length; n++ {
		got, err := f.readAt(buf, order[n]*page)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if got != page {
			return fmt.Errorf("read %d of %d bytes", got, page)
		}
	}
	e.record("randread-cold", perSecond(n, time.Since(start)))
	return nil
}

func randWrite(_ context.Context, e *env) error {
	if err := e.needBig(); err != nil {
		return err
	}
	const every = 32
	n := e.count(4096, 256)
	data, pages := fresh(n*page), e.size(gib)/page
	f, err := open(e.path(big), unix.O_RDWR)
	if err != nil {
		return err
	}
	defer f.close()
	start := time.Now()
	for i := range n {
		if err := f.writeAt(data[i*page:(i+1)*page], rand.IntN(pages)*page); err != nil {
			return err
		}
		if i%every == every-1 {
			if err := f.sync(); err != nil {
				return err
			}
		}
	}
	e.record("randwrite", perSecond(n, time.Since(start)))
	return nil
}

// appends writes pages to the end of a file, each with fsync, until n are
// written and more says no, and returns how long each took.
func appends(path string, n int, more func() bool) ([]time.Duration, error) {
	f, err := open(path, unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY|unix.O_APPEND)
	if err != nil {
		return nil, err
	}
	defer f.close()
	const supply = 1024
	var data []byte
	var took []time.Duration
	for i := 0; i < n || more(); i++ {
		if i%supply == 0 {
			data = fresh(supply * page)
		}
		p := data[i%supply*page:][:page]
		start := time.Now()
		if err := f.write(p); err != nil {
			return nil, err
		}
		if err := f.sync(); err != nil {
			return nil, err
		}
		took = append(took, time.Since(start))
	}
	return took, nil
}

func appendSync(_ context.Context, e *env) error {
	took, err := appends(e.path("append"), e.count(1000, 100), func() bool { return false })
	if err != nil {
		return err
	}
	e.record("append-p50", ms(quantile(took, 0.5)))
	e.record("append-p99", ms(quantile(took, 0.99)))
	return os.Remove(e.path("append"))
}

// streamVerb makes this program the one that streams beside the appends.
const streamVerb = "-stream"

// stream writes a file of random bytes, in 1 MiB requests, and syncs it.
func stream(path, size string) error {
	n, err := strconv.Atoi(size)
	if err != nil {
		return err
	}
	f, err := open(path, unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.close()
	for off := 0; off < n; off += block {
		if err := f.writeAt(fresh(block), off); err != nil {
			return err
		}
	}
	return f.sync()
}

// appendBeside appends and syncs for as long as another program streams a big
// file to the same file system.
func appendBeside(ctx context.Context, e *env) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, exe, streamVerb, e.path("stream"), strconv.Itoa(e.size(gib)))
	done := make(chan error, 1)
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { done <- cmd.Wait() }()
	var streamed error
	over := false
	took, err := appends(e.path("append"), 1, func() bool {
		select {
		case streamed = <-done:
			over = true
			return false
		default:
			return true
		}
	})
	if !over {
		if err != nil {
			_ = cmd.Process.Kill()
		}
		streamed = <-done
	}
	if err := errors.Join(err, streamed); err != nil {
		return err
	}
	e.record("beside-p50", ms(quantile(took, 0.5)))
	e.record("beside-p99", ms(quantile(took, 0.99)))
	return errors.Join(os.Remove(e.path("append")), os.Remove(e.path("stream")))
}
