package log

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"sync/atomic"
	"syscall"

	"hearth/log/disk"
)

// isFull reports whether an error says that there is no space.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// reserve is a file that does nothing but take space, so that deleting,
// sweeping and committing work on a full disk. While it is released,
// data is refused and only what frees space, or completes what was accepted,
// is written: see [Log.AppendMeta].
type reserve struct {
	disk     disk.FS
	path     string
	dir      string
	size     int64
	released atomic.Bool
}

// newReserve allocates the reserve file at path, unless it is there. On a disk
// that is full already the reserve starts as released.
func newReserve(d disk.FS, path, dir string, size int64) (*reserve, error) {
	r := &reserve{disk: d, path: path, dir: dir, size: size}
	info, err := d.Stat(path)
	if err == nil && info.Size() >= size {
		return r, nil
	}
	if err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return nil, err
	}
	r.released.Store(true)
	r.tryRestore(0)
	return r, nil
}

// release gives the space back to the disk; false if that was done before.
func (r *reserve) release() bool {
	if r == nil || !r.released.CompareAndSwap(false, true) {
		return false
	}
	f, err := r.disk.Open(r.path)
	if err != nil {
		return false
	}
	err = f.Truncate(0)
	return errors.Join(err, f.Close()) == nil
}

// restore takes the space again if there is as much again beside it, so that
// work does not stop and go. It reports whether the reserve is complete.
func (r *reserve) restore() bool {
	return r == nil || !r.released.Load() || r.tryRestore(r.size)
}

// tryRestore takes the space again if it and slack more is free.
func (r *reserve) tryRestore(slack int64) bool {
	if free, _, err := r.disk.Free(r.dir); err != nil || free < r.size+slack {
		return false
	}
	if err := r.allocate(); err != nil {
		return false
	}
	r.released.Store(false)
	return true
}

func (r *reserve) allocate() error {
	f, err := openOrCreate(r.disk, r.path)
	if err != nil {
		return err
	}
	if err := f.Allocate(0, r.size); err != nil {
		// What was allocated of it must not stay and make the disk fuller.
		return errors.Join(fmt.Errorf("reserving space: %w", err), f.Truncate(0), f.Close())
	}
	return f.Close()
}
