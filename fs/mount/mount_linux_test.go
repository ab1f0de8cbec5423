package mount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/posixtest"
	"golang.org/x/sys/unix"

	"hearth/fs"
	"hearth/log"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// waitFor waits for something the kernel does in its own time.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func newTestDrive(t testing.TB) *fs.Drive {
	t.Helper()
	logger := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	store, err := log.CreateStore(log.StoreOptions{Dir: filepath.Join(t.TempDir(), "store"), Logger: logger}, "test")
	must(t, err)
	d, err := fs.Create(context.Background(), fs.Options{Store: store, Logger: logger},
		fs.Caller{Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid())})
	must(t, err)
	t.Cleanup(func() {
		if err := d.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}

// mountTest mounts a new drive in a new folder.
func mountTest(t testing.TB, o Options) *Mount {
	t.Helper()
	return mountDrive(t, newTestDrive(t), o)
}

func mountDrive(t testing.TB, d *fs.Drive, o Options) *Mount {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("no FUSE here")
	}
	unix.Umask(0) // as the daemon does; processes of a test share it
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	m, err := New(context.Background(), d, t.TempDir(), o)
	must(t, err)
	noPolling(m.Dir())
	t.Cleanup(func() {
		err := m.Unmount(Clean)
		if errors.Is(err, ErrBusy) {
			t.Error(err)
			err = m.Unmount(Force)
		}
		must(t, err)
		if n := m.server.files.len() + m.server.dirs.len() + m.server.refs.len() + m.server.virtual.len(); n != 0 {
			t.Errorf("%d handles and nodes leaked", n)
		}
	})
	return m
}

// noPolling lets the kernel learn that there is no polling, before it is the
// runtime that asks: that would keep this process, which has to answer, from
// running. It fails where nobody may open a file, and there nobody asks.
func noPolling(dir string) {
	// A name that go-fuse answers by itself, made up for this.
	if fd, err := unix.Open(filepath.Join(dir, ".go-fuse-epoll-hack"), unix.O_RDONLY, 0); err == nil {
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		_ = unix.Close(fd)
	}
}

func readNames(t testing.TB, dir string) []string {
	t.Helper()
	es, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, e := range es {
		names = append(names, e.Name())
	}
	return names
}

func run(t testing.TB, name string, arg ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	out, err := exec.Command(name, arg...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(arg, " "), err, out)
	}
	return string(out)
}

func TestPosix(t *testing.T) {
	names := make([]string, 0, len(posixtest.All))
	for name := range posixtest.All {
		// It wants one process's own locks to conflict, which POSIX rules out;
		// its authors leave it out too.
		if name != "FcntlFlockLocksFile" {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	dir := mountTest(t, Options{}).Dir()
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			sub := filepath.Join(dir, name)
			must(t, os.Mkdir(sub, 0o755))
			posixtest.All[name](t, sub)
		})
	}
}

func TestReaddirWhileChanging(t *testing.T) {
	dir := mountTest(t, Options{}).Dir()
	const n = 2000
	name := func(i int) string { return fmt.Sprintf("file-%06d", i) }
	for i := range n {
		must(t, os.WriteFile(filepath.Join(dir, name(2*i)), nil, 0o644))
	}
	d, err := os.Open(dir)
	must(t, err)
	defer d.Close()
	seen := map[string]int{}
	for round := 0; ; round++ {
		names, err := d.Readdirnames(50)
		if err == io.EOF {
			break
		}
		must(t, err)
		for _, x := range names {
			seen[x]++
		}
		// What was delivered goes, and others come, before and after.
		for _, x := range names[:10] {
			must(t, os.Remove(filepath.Join(dir, x)))
		}
		must(t, os.WriteFile(filepath.Join(dir, name(4*round+1)), nil, 0o644))
		must(t, os.WriteFile(filepath.Join(dir, name(2*n-4*round-1)), nil, 0o644))
	}
	for i := range n {
		if seen[name(2*i)] != 1 {
			t.Errorf("%s was listed %d times", name(2*i), seen[name(2*i)])
		}
	}
	for x, times := range seen {
		if times > 1 {
			t.Errorf("%s was listed %d times", x, times)
		}
	}
}

// dirents reads a directory from where the descriptor stands, in small pieces.
func dirents(t testing.TB, fd int) (names []string, offs []int64) {
	t.Helper()
	buf := make([]byte, 1024)
	for {
		n, err := unix.Getdents(fd, buf)
		must(t, err)
		if n == 0 {
			return names, offs
		}
		for b := buf[:n]; len(b) > 0; {
			off := int64(uint64(b[8]) | uint64(b[9])<<8 | uint64(b[10])<<16 | uint64(b[11])<<24 |
				uint64(b[12])<<32 | uint64(b[13])<<40 | uint64(b[14])<<48 | uint64(b[15])<<56)
			size := int(b[16]) | int(b[17])<<8
			name, _, _ := strings.Cut(string(b[19:size]), "\x00")
			names, offs = append(names, name), append(offs, off)
			b = b[size:]
		}
	}
}

func TestSeekdir(t *testing.T) {
	dir := mountTest(t, Options{}).Dir()
	for i := range 300 {
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("n%03d", i)), nil, 0o644))
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	defer unix.Close(fd)
	names, offs := dirents(t, fd)
	if len(names) != 302 {
		t.Fatalf("%d names", len(names))
	}
	for _, i := range []int{300, 0, 150, 1, 17, 16, 15, 299} {
		if _, err := unix.Seek(fd, offs[i], io.SeekStart); err != nil {
			t.Fatal(err)
		}
		again, offsAgain := dirents(t, fd)
		if !slices.Equal(again, names[i+1:]) || !slices.Equal(offsAgain, offs[i+1:]) {
			t.Errorf("after %s: %d names, want %d", names[i], len(again), len(names)-i-1)
		}
	}
	// A place stays where it was when names around it come and go.
	must(t, os.Remove(filepath.Join(dir, "n100")))
	must(t, os.Remove(filepath.Join(dir, "n101")))
	must(t, os.WriteFile(filepath.Join(dir, "n099x"), nil, 0o644))
	i := slices.Index(names, "n100")
	_, err = unix.Seek(fd, offs[i], io.SeekStart)
	must(t, err)
	if again, _ := dirents(t, fd); len(again) == 0 || again[0] != "n102" {
		t.Errorf("after the removed n100 comes %q", again)
	}
	_, err = unix.Seek(fd, offs[i-1], io.SeekStart)
	must(t, err)
	if again, _ := dirents(t, fd); !slices.Equal(again[:2], []string{"n099x", "n102"}) {
		t.Errorf("after n099 comes %q", again[:2])
	}
	// Rewinding begins anew.
	_, err = unix.Seek(fd, 0, io.SeekStart)
	must(t, err)
	if again, _ := dirents(t, fd); len(again) != 301 {
		t.Errorf("%d names after rewinding, want 301", len(again))
	}
}

func TestUnlinkedOpenFile(t *testing.T) {
	dir := mountTest(t, Options{}).Dir()
	p := filepath.Join(dir, "f")
	f, err := os.Create(p)
	must(t, err)
	defer f.Close()
	_, err = f.WriteString("before")
	must(t, err)
	must(t, os.Remove(p))
	_, err = f.WriteString(" and after")
	must(t, err)
	must(t, f.Chmod(0o600))
	must(t, f.Sync())
	b := make([]byte, 100)
	n, err := f.ReadAt(b, 0)
	if err != io.EOF || string(b[:n]) != "before and after" {
		t.Errorf("%q, %v", b[:n], err)
	}
	st, err := f.Stat()
	must(t, err)
	if st.Size() != 16 || st.Mode().Perm() != 0o600 {
		t.Errorf("size %d, mode %v", st.Size(), st.Mode())
	}
	must(t, f.Truncate(3))
	if len(readNames(t, dir)) != 0 {
		t.Error("still listed")
	}
}

func TestTmpfileGetsAName(t *testing.T) {
	dir := mountTest(t, Options{}).Dir()
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR, 0o640)
	must(t, err)
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte("now you see me"))
	must(t, err)
	must(t, unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, filepath.Join(dir, "f"), unix.AT_SYMLINK_FOLLOW))
	b, err := os.ReadFile(filepath.Join(dir, "f"))
	if err != nil || string(b) != "now you see me" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestRenameFlags(t *testing.T) {
	dir := mountTest(t, Options{}).Dir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	must(t, os.WriteFile(a, []byte("a"), 0o644))
	must(t, os.WriteFile(b, []byte("b"), 0o644))
	rename := func(flags uint) error { return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, flags) }
	is := func(p, want string) {
		t.Helper()
		if got, err := os.ReadFile(p); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", p, got, err)
		}
	}
	if err := rename(unix.RENAME_NOREPLACE); err != unix.EEXIST {
		t.Errorf("NOREPLACE: %v", err)
	}
	must(t, rename(unix.RENAME_EXCHANGE))
	is(a, "b")
	is(b, "a")
	if err := rename(unix.RENAME_EXCHANGE | unix.RENAME_NOREPLACE); err != unix.EINVAL {
		t.Errorf("both: %v", err)
	}
	must(t, rename(0))
	is(b, "b")
	if os.Geteuid() != 0 {
		return
	}
	must(t, os.WriteFile(a, []byte("c"), 0o644))
	must(t, rename(unix.RENAME_WHITEOUT))
	is(b, "c")
	var st unix.Stat_t
	must(t, unix.Stat(a, &st))
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		t.Errorf("whiteout: mode %o, device %d", st.Mode, st.Rdev)
	}
}

func TestSeekDataHole(t *testing.T) {
	f, err := os.Create(filepath.Join(mountTest(t, Options{}).Dir(), "f"))
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt(make([]byte, 8192), 1<<20)
	must(t, err)
	must(t, f.Truncate(2<<20))
	for _, tt := range []struct {
		off    int64
		whence int
		want   int64
		err    error
	}{
		{0, unix.SEEK_DATA, 1 << 20, nil},
		{0, unix.SEEK_HOLE, 0, nil},
		{1 << 20, unix.SEEK_HOLE, 1<<20 + 8192, nil},
		{1<<20 + 100, unix.SEEK_DATA, 1<<20 + 100, nil},
		{1<<20 + 8192, unix.SEEK_DATA, 0, unix.ENXIO},
		{2 << 20, unix.SEEK_HOLE, 0, unix.ENXIO},
		{3 << 20, unix.SEEK_DATA, 0, unix.ENXIO},
	} {
		got, err := unix.Seek(int(f.Fd()), tt.off, tt.whence)
		if err != tt.err || err == nil && got != tt.want {
			t.Errorf("seek %d from %d: %d, %v; want %d, %v", tt.whence, tt.off, got, err, tt.want, tt.err)
		}
	}
}

func TestXattrSizes(t *testing.T) {
	p := filepath.Join(mountTest(t, Options{}).Dir(), "f")
	must(t, os.WriteFile(p, nil, 0o644))
	for _, size := range []int{0, 1, 2048, 2049, 4096, 60000, 65536} {
		value := []byte(strings.Repeat("v", size))
		must(t, unix.Setxattr(p, "user.x", value, 0))
		if n, err := unix.Getxattr(p, "user.x", nil); err != nil || n != size {
			t.Errorf("size of %d: %d, %v", size, n, err)
		}
		b := make([]byte, size)
		if n, err := unix.Getxattr(p, "user.x", b); err != nil || n != size || string(b) != string(value) {
			t.Errorf("%d bytes: %d, %v", size, n, err)
		}
		if size > 1 {
			if _, err := unix.Getxattr(p, "user.x", b[:size-1]); err != unix.ERANGE {
				t.Errorf("%d bytes into %d: %v", size, size-1, err)
			}
		}
	}
	for _, tt := range []struct {
		err  error
		want error
	}{
		{unix.Setxattr(p, "user.x", make([]byte, 65537), 0), unix.E2BIG},
		{unix.Setxattr(p, "user.x", nil, unix.XATTR_CREATE), unix.EEXIST},
		{unix.Setxattr(p, "user.y", nil, unix.XATTR_REPLACE), unix.ENODATA},
		{unix.Setxattr(p, "other.x", nil, 0), unix.EOPNOTSUPP},
		{unix.Removexattr(p, "user.y"), unix.ENODATA},
	} {
		if tt.err != tt.want {
			t.Errorf("%v, want %v", tt.err, tt.want)
		}
	}
	for i := range 100 {
		must(t, unix.Setxattr(p, fmt.Sprintf("user.%03d", i), nil, 0))
	}
	n, err := unix.Listxattr(p, nil)
	must(t, err)
	if want := len("user.x\x00") + 100*len("user.000\x00"); n != want {
		t.Errorf("list of %d bytes, want %d", n, want)
	}
	b := make([]byte, n)
	if n, err := unix.Listxattr(p, b); err != nil || strings.Count(string(b[:n]), "\x00") != 101 {
		t.Errorf("list %q, %v", b, err)
	}
	if _, err := unix.Listxattr(p, b[:n-1]); err != unix.ERANGE {
		t.Errorf("list into too little: %v", err)
	}
}

func TestLongNames(t *testing.T) {
	dir := mountTest(t, Options{}).Dir()
	long := strings.Repeat("n", 255)
	must(t, os.WriteFile(filepath.Join(dir, long), nil, 0o644))
	if got := readNames(t, dir); !slices.Equal(got, []string{long}) {
		t.Errorf("names %q", got)
	}
	for what, err := range map[string]error{
		"stat":   unix.Access(filepath.Join(dir, long+"n"), unix.F_OK),
		"create": os.WriteFile(filepath.Join(dir, long+"n"), nil, 0o644),
		"rename": os.Rename(filepath.Join(dir, long), filepath.Join(dir, long+"n")),
	} {
		if !errors.Is(err, unix.ENAMETOOLONG) {
			t.Errorf("%s: %v", what, err)
		}
	}
	odd := filepath.Join(dir, "\xff\xfe not UTF-8\n")
	must(t, os.WriteFile(odd, []byte("x"), 0o644))
	if b, err := os.ReadFile(odd); err != nil || string(b) != "x" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestUmask(t *testing.T) {
	dir := mountTest(t, Options{}).Dir()
	defer unix.Umask(unix.Umask(0o027))
	must(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o666))
	must(t, os.Mkdir(filepath.Join(dir, "d"), 0o777))
	must(t, unix.Mkfifo(filepath.Join(dir, "p"), 0o666))
	must(t, os.Symlink("f", filepath.Join(dir, "l")))
	for name, want := range map[string]uint32{
		"f": unix.S_IFREG | 0o640, "d": unix.S_IFDIR | 0o750, "p": unix.S_IFIFO | 0o640, "l": unix.S_IFLNK | 0o777,
	} {
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(dir, name), &st))
		if st.Mode != want {
			t.Errorf("%s: mode %o, want %o", name, st.Mode, want)
		}
	}
}

func TestACLInheritance(t *testing.T) {
	dir := mountTest(t, Options{}).Dir()
	defer unix.Umask(unix.Umask(0o077)) // a default ACL takes its place
	d := filepath.Join(dir, "d")
	must(t, os.Mkdir(d, 0o700))
	run(t, "setfacl", "-d", "-m", "u:1234:rwx,g::rx,o::-", d)
	must(t, os.WriteFile(filepath.Join(d, "f"), nil, 0o666))
	must(t, os.Mkdir(filepath.Join(d, "sub"), 0o777))
	fd, err := unix.Open(d, unix.O_TMPFILE|unix.O_RDWR, 0o666)
	must(t, err)
	must(t, unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, filepath.Join(d, "t"), unix.AT_SYMLINK_FOLLOW))
	must(t, unix.Close(fd))

	get := func(name string) string {
		t.Helper()
		out := run(t, "getfacl", "--omit-header", "--numeric", "--no-effective", "--absolute-names", filepath.Join(d, name))
		return strings.Join(strings.Fields(out), " ")
	}
	is := func(name, want string, mode os.FileMode) {
		t.Helper()
		if got := get(name); got != want {
			t.Errorf("%s: %s\nwant %s", name, got, want)
		}
		st, err := os.Stat(filepath.Join(d, name))
		must(t, err)
		if st.Mode().Perm() != mode {
			t.Errorf("%s: mode %v, want %v", name, st.Mode().Perm(), mode)
		}
	}
	is("f", "user::rw- user:1234:rwx group::r-x mask::rw- other::---", 0o660)
	is("t", "user::rw- user:1234:rwx group::r-x mask::rw- other::---", 0o660)
	is("sub", "user::rwx user:1234:rwx group::r-x mask::rwx other::--- "+
		"default:user::rwx default:user:1234:rwx default:group::r-x default:mask::rwx default:other::---", 0o770)

	must(t, os.Chmod(filepath.Join(d, "f"), 0o640))
	is("f", "user::rw- user:1234:rwx group::r-x mask::r-- other::---", 0o640)
	run(t, "setfacl", "-m", "u:77:r,m::rwx", filepath.Join(d, "f"))
	is("f", "user::rw- user:77:r-- user:1234:rwx group::r-x mask::rwx other::---", 0o670)
	run(t, "setfacl", "-b", filepath.Join(d, "f"))
	is("f", "user::rw- group::r-x other::---", 0o650)
	if n, err := unix.Listxattr(filepath.Join(d, "f"), nil); err != nil || n != 0 {
		t.Errorf("an ACL that says no more than the mode is stored: %d, %v", n, err)
	}
	if err := unix.Setxattr(filepath.Join(d, "f"), xattrAccess, []byte{2, 0, 0, 0, 9}, 0); err != unix.EINVAL {
		t.Errorf("nonsense ACL: %v", err)
	}
}

func TestSetuidIsCleared(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := mountTest(t, Options{AllowOther: true}).Dir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	mode := func(p string) uint32 {
		var st unix.Stat_t
		must(t, unix.Stat(p, &st))
		return st.Mode & 0o7777
	}
	for _, tt := range []struct {
		name string
		do   string // by an ordinary user
	}{
		{"write", `printf x >> "$0"`},
		{"truncate", `truncate -s 1 "$0"`},
		{"open", `: > "$0"`},
	} {
		p := filepath.Join(dir, tt.name)
		must(t, os.WriteFile(p, []byte("abc"), 0o666))
		must(t, os.Chmod(p, 0o6777))
		cmd := exec.Command("setpriv", "--reuid=4242", "--regid=4242", "--clear-groups", "sh", "-c", tt.do, p)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v %s", tt.name, err, out)
		}
		if got := mode(p); got != 0o777 {
			t.Errorf("%s by another user leaves mode %o", tt.name, got)
		}
	}
	p := filepath.Join(dir, "chown")
	must(t, os.WriteFile(p, nil, 0o777))
	must(t, unix.Chmod(p, 0o6777))
	must(t, os.Chown(p, 1, 1))
	if got := mode(p); got != 0o777 {
		t.Errorf("chown leaves mode %o", got)
	}
	d := filepath.Join(dir, "dir")
	must(t, os.Mkdir(d, 0o777))
	must(t, unix.Chmod(d, 0o2777))
	must(t, os.Chown(d, 1, 1))
	if got := mode(d); got != 0o2777 {
		t.Errorf("chown of a directory leaves mode %o", got)
	}
}
