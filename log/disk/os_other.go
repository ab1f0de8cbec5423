//go:build unix && !linux

package disk

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// datasync uses Sync, which on Darwin is F_FULLFSYNC: fsync(2) there leaves
// the data in the drive's cache.
func datasync(f *os.File) error { return f.Sync() }

func writeBack(*os.File) {} // there is no such call

func allocate(*os.File, int64, int64) error { return errors.ErrUnsupported }

func punch(*os.File, int64, int64) error { return errors.ErrUnsupported }

func statfs(dir string) (free, total int64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), int64(s.Blocks) * int64(s.Bsize), nil
}
