//go:build !linux

package parcel

import "golang.org/x/sys/unix"

func renameFree(from int, name string, to int, free string, dir bool) error {
	return renameOver(from, name, to, free, dir)
}

// There is no syncfs here: the caller syncs file by file.
const canSyncAll = false

func syncAll(int) error { return unix.ENOSYS }

func writeBack(int, int64, int64) {}

func willRead(int) {}

func statSpace(fd int) (space, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return space{}, err
	}
	return space{free: clampMul(uint64(st.Bavail), uint64(st.Bsize)), block: int64(st.Bsize)}, nil
}
