package mount

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	seekData = unix.SEEK_DATA
	seekHole = unix.SEEK_HOLE

	// foreignXattrs: names outside Linux's namespaces are refused.
	foreignXattrs = false
)

// renameFlags translates the kernel's flags to those of fs, which are Linux's.
func renameFlags(flags uint32) uint32 { return flags }

// killsSetgid reports whether storing an ACL must clear setgid: the caller is
// not of the file's group (FUSE_SETXATTR_ACL_KILL_SGID).
func killsSetgid(in *fuse.SetXAttrIn) bool {
	return in.SetXAttrFlags&fuse.SETXATTR_ACL_KILL_SGID != 0
}

// platformOptions asks for what this kernel can do.
func platformOptions(f *fuse.MountOptions, readOnly bool) {
	f.EnableAcl = true
	f.ExtraCapabilities = fuse.CAP_DONT_MASK | // umask is ours: a default ACL takes its place
		fuse.CAP_SETXATTR_EXT |
		// Without it the kernel asks for security.capability before each write.
		fuse.CAP_HANDLE_KILLPRIV_V2 |
		fuse.CAP_ATOMIC_O_TRUNC |
		fuse.CAP_ASYNC_DIO
	if os.Geteuid() == 0 {
		// Root may use device nodes and setuid programs on its own drives.
		// Zero would mean go-fuse's nosuid,nodev.
		f.DirectMount = true
		f.DirectMountFlags = syscall.MS_MGC_VAL
		if readOnly {
			f.DirectMountFlags |= syscall.MS_RDONLY
		}
	} else if readOnly {
		f.Options = append(f.Options, "ro")
	}
}

// awaitMount returns when a mount is usable: as soon as there is one. What
// go-fuse's WaitMount does beside is for programs that use the mount they
// serve: it opens a file in it. A process that is killed in that moment waits
// for its own answer for ever, in the kernel, and is never quite gone: it keeps
// the lock of its home, and no other daemon can start.
func awaitMount(*fuse.Server) error { return nil }

// mountError says more clearly why a mount failed.
func mountError(err error) error {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrNoFuse, err)
	}
	return err
}

// prepare checks a mount point and clears away a dead mount of ours on it. It
// returns the path as the mount table has it.
func prepare(dir string) (string, error) {
	path, err := resolve(dir)
	if err != nil {
		return "", err
	}
	// Daemons may have died on top of each other.
	for range 16 {
		m, ok, err := mountedAt(path)
		if err != nil {
			return "", err
		}
		if !ok {
			return path, checkEmpty(path)
		}
		if m.fsType != "fuse."+fsType || !dead(path) {
			return "", ErrMounted
		}
		if err := unmount(path, Lazy); err != nil {
			return "", fmt.Errorf("dead mount: %w", err)
		}
	}
	return "", ErrMounted
}

// withdraw clears away a mount whose first words with the kernel failed.
func withdraw(path string) {
	if m, ok, err := mountedAt(path); err == nil && ok && m.fsType == "fuse."+fsType && dead(path) {
		_ = unmount(path, Lazy)
	}
}

// resolve returns an absolute path without symbolic links. The last element
// may be a dead mount, which answers nothing.
func resolve(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	path, err := filepath.EvalSymlinks(abs)
	if errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED) {
		parent, err := filepath.EvalSymlinks(filepath.Dir(abs))
		if err != nil {
			return "", err
		}
		return filepath.Join(parent, filepath.Base(abs)), nil
	}
	return path, err
}

// dead reports whether nobody serves a mount any more. stat may be answered
// from the kernel's cache for an hour; statfs is always asked.
func dead(path string) bool {
	var st unix.Statfs_t
	err := unix.Statfs(path, &st)
	return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED)
}

// mountEntry is a line of /proc/self/mountinfo.
type mountEntry struct {
	device string // major:minor
	fsType string
}

// mountedAt finds the topmost mount at a path.
func mountedAt(path string) (m mountEntry, ok bool, err error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return m, false, err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		if at, e, valid := parseMount(sc.Text()); valid && at == path {
			m, ok = e, true // later lines lie on top
		}
	}
	return m, ok, sc.Err()
}

// parseMount parses a line of mountinfo (proc(5)):
//
//	36 35 98:0 /root /mount/point rw,noatime optional:1 - type source options
func parseMount(line string) (at string, m mountEntry, ok bool) {
	left, right, ok := strings.Cut(line, " - ")
	if !ok {
		return "", m, false
	}
	fields, types := strings.Fields(left), strings.Fields(right)
	if len(fields) < 6 || len(types) < 1 {
		return "", m, false
	}
	return unescape(fields[4]), mountEntry{device: fields[2], fsType: types[0]}, true
}

// unescape undoes the octal escapes of mountinfo: \040 is a space.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// tune raises the readahead of a mount to one request of full size: the kernel
// offers 128 KiB and a server can only ask for less. It takes root; without,
// reading is merely slower. The mount itself is not touched.
func tune(path string) {
	m, ok, err := mountedAt(path)
	if err != nil || !ok {
		return
	}
	_ = os.WriteFile("/sys/class/bdi/"+m.device+"/read_ahead_kb", []byte(strconv.Itoa(maxWrite>>10)), 0)
}

// The kernel may hold a mount for a moment after its last file was closed.
const (
	unmountTries = 5
	unmountPause = 20 * time.Millisecond
)

// unmount takes a mount away.
func unmount(path string, how How) error {
	flags := unix.UMOUNT_NOFOLLOW
	switch how {
	case Lazy:
		flags |= unix.MNT_DETACH
	case Force:
		if err := abort(path); err != nil {
			return err
		}
		flags |= unix.MNT_DETACH
	}
	var err error
	for try := range unmountTries {
		if try > 0 {
			time.Sleep(unmountPause)
		}
		err = unix.Unmount(path, flags)
		if errors.Is(err, unix.EPERM) {
			err = fusermount(path, how)
		}
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, ErrBusy) {
			break
		}
	}
	switch {
	case errors.Is(err, unix.EBUSY):
		return ErrBusy
	case errors.Is(err, unix.EINVAL): // not a mount point any more
		return nil
	}
	return err
}

// abort cuts the connection of a mount: requests in flight and all later ones
// fail. The control file belongs to the user who mounted.
func abort(path string) error {
	m, ok, err := mountedAt(path)
	if err != nil || !ok {
		return err
	}
	_, minor, _ := strings.Cut(m.device, ":")
	control := "/sys/fs/fuse/connections/" + minor + "/abort"
	failed := os.WriteFile(control, []byte("1"), 0)
	if failed == nil {
		return nil
	}
	// The control file system may not be mounted; root has another way, and
	// it says EBUSY though it did what it should.
	switch err := unix.Unmount(path, unix.MNT_FORCE|unix.UMOUNT_NOFOLLOW); {
	case err == nil, errors.Is(err, unix.EBUSY):
		return nil
	case errors.Is(err, unix.EPERM):
		return failed
	default:
		return err
	}
}

// fusermount unmounts without root, with the help of fuse3's program. It exits
// with 1 whatever went wrong: a mount that is still there was busy.
func fusermount(path string, how How) error {
	args := []string{"-u", path}
	if how != Clean {
		args = []string{"-u", "-z", path}
	}
	out, err := exec.Command("fusermount3", args...).CombinedOutput()
	if err == nil {
		return nil
	}
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: %w", ErrNoFuse, err)
	}
	if _, ok, merr := mountedAt(path); merr == nil && ok && how == Clean {
		return fmt.Errorf("%w: %s", ErrBusy, trimmed(out))
	}
	return fmt.Errorf("fusermount3: %w: %s", err, trimmed(out))
}
