package parcel

import (
	"errors"

	"golang.org/x/sys/unix"
)

// renameFree renames without replacing anything: EEXIST if the name is taken.
// Some file systems do not know RENAME_NOREPLACE; they get the other way.
func renameFree(from int, name string, to int, free string, dir bool) error {
	err := unix.Renameat2(from, name, to, free, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return renameOver(from, name, to, free, dir)
	}
	return err
}

// syncAll makes all that was written to the file system of fd durable.
func syncAll(fd int) error { return unix.Syncfs(fd) }

const canSyncAll = true

// writeBack starts to write n bytes at off to disk and does not wait, so that
// the sync at the end finds little left to do.
func writeBack(fd int, off, n int64) {
	unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE)
}

// willRead asks for reading ahead of a whole file.
func willRead(fd int) { unix.Fadvise(fd, 0, 0, unix.FADV_SEQUENTIAL) }

func statSpace(fd int) (space, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return space{}, err
	}
	block := int64(st.Frsize)
	if block <= 0 {
		block = int64(st.Bsize)
	}
	return space{free: clampMul(st.Bavail, uint64(block)), block: block}, nil
}
