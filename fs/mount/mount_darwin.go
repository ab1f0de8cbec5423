package mount

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// macOS mounts through macFUSE, if it is installed. This is not tested.

const (
	seekHole = 3
	seekData = 4

	// foreignXattrs: macOS has no namespaces.
	foreignXattrs = true
)

// renameFlags translates renamex_np's RENAME_SWAP and RENAME_EXCL to those of
// fs, which are Linux's.
func renameFlags(flags uint32) uint32 {
	var out uint32
	if flags&0x2 != 0 {
		out |= 2
	}
	if flags&0x4 != 0 {
		out |= 1
	}
	return out
}

// killsSetgid: macOS has other ACLs.
func killsSetgid(*fuse.SetXAttrIn) bool { return false }

// awaitMount returns when a mount is usable; macFUSE makes it in the background.
// A root directory that one may not enter is.
func awaitMount(kernel *fuse.Server) error {
	if err := kernel.WaitMount(); err != nil && !errors.Is(err, syscall.EACCES) {
		return err
	}
	return nil
}

func platformOptions(f *fuse.MountOptions, readOnly bool) {
	if readOnly {
		f.Options = append(f.Options, "ro")
	}
}

func mountError(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return errors.Join(ErrNoFuse, err)
	}
	return err
}

func prepare(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	path, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return "", err
	}
	var st, up syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return "", err
	}
	if err := syscall.Stat(filepath.Dir(path), &up); err != nil {
		return "", err
	}
	if st.Dev != up.Dev {
		return "", ErrMounted
	}
	return path, checkEmpty(path)
}

func tune(string) {}

func withdraw(string) {}

func unmount(path string, how How) error {
	flags := 0
	if how != Clean {
		flags = unix.MNT_FORCE
	}
	err := syscall.Unmount(path, flags)
	if errors.Is(err, syscall.EBUSY) {
		return ErrBusy
	}
	return err
}
