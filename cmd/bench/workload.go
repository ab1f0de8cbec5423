//go:build linux

package main

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	iofs "io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

// workload is one group of measurements that share their preparation.
type workload struct {
	name string
	run  func(ctx context.Context, e *env) error
}

// workloads is the order of measuring.
var workloads = []workload{
	{"seqwrite", seqWrite},
	{"seqread", seqRead},
	{"randread", randRead},
	{"randwrite", randWrite},
	{"append", appendSync},
	{"beside", appendBeside},
	{"create", createMany},
	{"stat", statMany},
	{"untar", untar},
	{"git", gitClone},
	{"sqlite", sqlite},
}

// env is what one run of a workload works in.
type env struct {
	*bench
	system *system
	dir    string
	record func(row string, value float64)
}

func (e *env) path(name string) string { return filepath.Join(e.dir, name) }

// size scales a number of bytes, to whole MiB.
func (b *bench) size(n int) int { return max(8*mib, int(float64(n)*b.scale)) / mib * mib }

// count scales a number of things.
func (b *bench) count(n, least int) int { return max(least, int(float64(n)*b.scale)) }

// fresh returns n bytes that were never seen before and cannot be compressed:
// nothing may win by having seen them.
func fresh(n int) []byte {
	var seed [32]byte
	_, _ = crand.Read(seed[:])
	buf := make([]byte, n)
	_, _ = rand.NewChaCha8(seed).Read(buf)
	return buf
}

// retry repeats a system call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// file is a file descriptor without Go's poller and its extra system calls.
type file int

func open(path string, flags int) (file, error) {
	fd := -1
	err := retry(func() (err error) {
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC, 0o644)
		return err
	})
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	return file(fd), nil
}

func (f file) writeAt(p []byte, off int) error {
	for len(p) > 0 {
		var n int
		err := retry(func() (err error) {
			n, err = unix.Pwrite(int(f), p, int64(off))
			return err
		})
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		p, off = p[n:], off+n
	}
	return nil
}

func (f file) write(p []byte) error {
	for len(p) > 0 {
		var n int
		err := retry(func() (err error) {
			n, err = unix.Write(int(f), p)
			return err
		})
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		p = p[n:]
	}
	return nil
}

func (f file) readAt(p []byte, off int) (n int, err error) {
	err = retry(func() (err error) {
		n, err = unix.Pread(int(f), p, int64(off))
		return err
	})
	return n, err
}

func (f file) sync() error {
	if err := retry(func() error { return unix.Fsync(int(f)) }); err != nil {
		return fmt.Errorf("fsync: %w", err)
	}
	return nil
}

func (f file) close() error { return unix.Close(int(f)) }

// quantile sorts and picks.
func quantile(d []time.Duration, q float64) time.Duration {
	slices.Sort(d)
	return d[min(len(d)-1, int(float64(len(d))*q))]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// perSecond is a rate.
func perSecond(n int, d time.Duration) float64 { return float64(n) / d.Seconds() }

// occupied is what a folder takes on the disk.
func occupied(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(p string, _ iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		sum += st.Blocks * 512
		return nil
	})
	return sum, err
}

// removeAll is os.RemoveAll with the path in mind: it must not hide errors of
// the file system under test.
func removeAll(path string) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	if _, err := os.Lstat(path); !errors.Is(err, iofs.ErrNotExist) {
		return fmt.Errorf("%s is still there: %v", path, err)
	}
	return nil
}
