package parcel

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// All access to trees is by one component at a time, relative to an open
// folder, and without following symlinks: whatever is swapped in meanwhile,
// no path leads out of the tree. os.Root does not escape either, but it
// follows links within the root, and what they lead to was not offered.

const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// retry repeats a call that a signal interrupted (the runtime's preemption
// signals interrupt slow file systems, see golang.org/issue/40846).
func retry[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if err != unix.EINTR {
			return v, err
		}
	}
}

func openAt(dir int, name string, flags int, mode uint32) (int, error) {
	return retry(func() (int, error) { return unix.Openat(dir, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode) })
}

func openDirAt(dir int, name string) (int, error) { return openAt(dir, name, dirFlags, 0) }

// statAt is the lstat of a name in dir.
func statAt(dir int, name string) (unix.Stat_t, error) {
	return retry(func() (unix.Stat_t, error) {
		var st unix.Stat_t
		err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		return st, err
	})
}

func statFD(fd int) (unix.Stat_t, error) {
	return retry(func() (unix.Stat_t, error) {
		var st unix.Stat_t
		err := unix.Fstat(fd, &st)
		return st, err
	})
}

func metaOf(st *unix.Stat_t) meta {
	return meta{size: st.Size, sec: int64(st.Mtim.Sec), nsec: uint32(st.Mtim.Nsec), mode: uint16(st.Mode & 0o777)}
}

func isKind(st *unix.Stat_t, format uint32) bool { return uint32(st.Mode)&unix.S_IFMT == format }

// setTime sets the mtime of a name, not of what a symlink leads to, and the
// access time to now.
func setTime(dir int, name string, sec int64, nsec uint32) error {
	mtime, err := unix.TimeToTimespec(time.Unix(sec, int64(nsec)))
	if err != nil { // 32-bit systems end in 2038
		return err
	}
	now, err := unix.TimeToTimespec(time.Now())
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{now, mtime}, unix.AT_SYMLINK_NOFOLLOW)
}

// readFull reads len(p) bytes, fewer only at the end of the file.
func readFull(fd int, p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		k, err := retry(func() (int, error) { return unix.Pread(fd, p[n:], off+int64(n)) })
		if err != nil {
			return n, err
		}
		if k == 0 {
			break
		}
		n += k
	}
	return n, nil
}

func writeFull(fd int, p []byte) error {
	for len(p) > 0 {
		k, err := retry(func() (int, error) { return unix.Write(fd, p) })
		if err != nil {
			return err
		}
		p = p[k:]
	}
	return nil
}

func fsync(fd int) error {
	_, err := retry(func() (struct{}, error) { return struct{}{}, unix.Fsync(fd) })
	return err
}

// readNames lists a folder that is open as fd.
func readNames(fd int, name string) ([]string, error) {
	d, err := unix.Dup(fd)
	if err != nil {
		return nil, err
	}
	unix.CloseOnExec(d)
	f := os.NewFile(uintptr(d), name)
	defer f.Close()
	return f.Readdirnames(-1)
}

// dirs opens the folders of a manifest and keeps those on the way to the
// last one open. Entries lie together by folder, so few opens serve many
// files. It is for one goroutine.
type dirs struct {
	m *manifest
	// base says where a top-level entry is.
	base func(i uint32) (dir int, name string)
	// check, if set, is asked about a top-level folder that was opened.
	check func(i uint32, fd int) error
	stack []openDir
}

type openDir struct {
	parent uint32 // index of the entry + 1
	fd     int
}

// in is the folder an entry lies in, open until the next call, and its name there.
func (d *dirs) in(i uint32) (int, string, error) {
	e := &d.m.entries[i]
	if e.parent == 0 {
		fd, name := d.base(i)
		return fd, name, nil
	}
	fd, err := d.open(e.parent)
	return fd, e.name, err
}

// open is the folder of entry parent-1.
func (d *dirs) open(parent uint32) (int, error) {
	if n := len(d.stack); n > 0 && d.stack[n-1].parent == parent {
		return d.stack[n-1].fd, nil
	}
	var way [MaxDepth]uint32
	n := int(d.m.entries[parent-1].depth)
	for p, k := parent, n-1; p > 0; p, k = d.m.entries[p-1].parent, k-1 {
		way[k] = p
	}
	same := 0
	for same < n && same < len(d.stack) && d.stack[same].parent == way[same] {
		same++
	}
	d.cut(same)
	for _, p := range way[same:n] {
		fd, name := 0, d.m.entries[p-1].name
		if k := len(d.stack); k > 0 {
			fd = d.stack[k-1].fd
		} else {
			fd, name = d.base(p - 1)
		}
		child, err := openDirAt(fd, name)
		if err == nil && len(d.stack) == 0 && d.check != nil {
			if err = d.check(p-1, child); err != nil {
				unix.Close(child)
			}
		}
		if err != nil {
			return -1, fmt.Errorf("folder %q: %w", d.m.path(p-1), err)
		}
		d.stack = append(d.stack, openDir{p, child})
	}
	return d.stack[len(d.stack)-1].fd, nil
}

func (d *dirs) cut(n int) {
	for _, o := range d.stack[n:] {
		unix.Close(o.fd)
	}
	d.stack = d.stack[:n]
}

func (d *dirs) close() { d.cut(0) }
