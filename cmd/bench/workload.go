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
	"unsafe"

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

// raw makes a system call as a C program does, and repeats it when a signal
// interrupted it. Go tells its scheduler of a call, which takes the processor
// away after 20 microseconds; having to wait for one afterwards, on a machine
// with few of them, would be most of what is measured.
//
//go:uintptrescapes
func raw(trap uintptr, args ...uintptr) (int, error) {
	var a [5]uintptr
	copy(a[:], args)
	for {
		n, _, errno := unix.RawSyscall6(trap, a[0], a[1], a[2], a[3], a[4], 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// here is AT_FDCWD as an argument of raw.
const here = ^uintptr(-unix.AT_FDCWD - 1)

func lstat(path string, st *unix.Statx_t) error {
	p, err := unix.BytePtrFromString(path)
	if err == nil {
		_, err = raw(unix.SYS_STATX, here, uintptr(unsafe.Pointer(p)), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, uintptr(unsafe.Pointer(st)))
	}
	if err != nil {
		return fmt.Errorf("lstat %s: %w", path, err)
	}
	return nil
}

// file is a file descriptor for raw system calls.
type file int

func open(path string, flags int) (file, error) {
	p, err := unix.BytePtrFromString(path)
	fd := -1
	if err == nil {
		fd, err = raw(unix.SYS_OPENAT, here, uintptr(unsafe.Pointer(p)), uintptr(flags|unix.O_CLOEXEC), 0o644)
	}
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	return file(fd), nil
}

func (f file) writeAt(p []byte, off int) error {
	for len(p) > 0 {
		n, err := raw(unix.SYS_PWRITE64, uintptr(f), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), uintptr(off))
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		p, off = p[n:], off+n
	}
	return nil
}

func (f file) write(p []byte) error {
	for len(p) > 0 {
		n, err := raw(unix.SYS_WRITE, uintptr(f), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		p = p[n:]
	}
	return nil
}

func (f file) readAt(p []byte, off int) (n int, err error) {
	return raw(unix.SYS_PREAD64, uintptr(f), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), uintptr(off))
}

func (f file) sync() error {
	if _, err := raw(unix.SYS_FSYNC, uintptr(f)); err != nil {
		return fmt.Errorf("fsync: %w", err)
	}
	return nil
}

func (f file) close() error {
	if _, err := raw(unix.SYS_CLOSE, uintptr(f)); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

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
		var st unix.Statx_t
		if err := lstat(p, &st); err != nil {
			return err
		}
		sum += int64(st.Blocks) * 512
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
