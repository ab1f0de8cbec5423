package home

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Lock is the right to be the daemon of a home. It ends with the process, so
// a killed daemon leaves nothing to clean up.
type Lock struct{ f *os.File }

// Lock takes the daemon's lock, or fails at once with ErrLocked.
func (h *Home) Lock() (*Lock, error) {
	f, err := os.OpenFile(filepath.Join(h.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			if pid := h.LockedBy(); pid > 0 {
				return nil, fmt.Errorf("%w for %s (pid %d)", ErrLocked, h.dir, pid)
			}
			return nil, fmt.Errorf("%w for %s", ErrLocked, h.dir)
		}
		return nil, fmt.Errorf("lock: %w", err)
	}
	// The number is for people; only the flock counts.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return &Lock{f: f}, nil
}

// LockedBy is the process that last took the lock, 0 if unknown.
func (h *Home) LockedBy() int {
	b, err := os.ReadFile(filepath.Join(h.dir, "lock"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return pid
}

// Locked reports whether a daemon holds the lock now.
func (h *Home) Locked() bool {
	f, err := os.OpenFile(filepath.Join(h.dir, "lock"), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// Release gives the lock up.
func (l *Lock) Release() error { return l.f.Close() }
