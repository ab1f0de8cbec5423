package mount

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"hearth/fs"
)

// fakeHistory is a .history made of maps.
type fakeHistory struct {
	mu     sync.Mutex
	mode   uint32
	data   string
	target string
	fixed  bool
	tags   bool // directories may be made in it
	child  map[string]*fakeHistory
}

var (
	_ HistoryNode = (*fakeHistory)(nil)
	_ Fixed       = (*fakeHistory)(nil)
)

func oldDir(child map[string]*fakeHistory) *fakeHistory {
	return &fakeHistory{mode: fs.ModeDir | 0o755, child: child}
}

func oldFile(data string) *fakeHistory {
	return &fakeHistory{mode: fs.ModeRegular | 0o644, data: data}
}

func oldLink(target string) *fakeHistory {
	return &fakeHistory{mode: fs.ModeSymlink | 0o777, target: target}
}

// freeze makes a tree part of an old version.
func freeze(n *fakeHistory) *fakeHistory {
	n.fixed = true
	for _, c := range n.child {
		freeze(c)
	}
	return n
}

func (n *fakeHistory) Fixed() bool { return n.fixed }

func (n *fakeHistory) Attr(context.Context) (fs.Attr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return fs.Attr{Ino: 99, Mode: n.mode, Nlink: 7, Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid()), Size: uint64(len(n.data) + len(n.target))}, nil
}

func (n *fakeHistory) Lookup(_ context.Context, name string) (HistoryNode, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.child[name]; c != nil {
		return c, nil
	}
	return nil, fs.ErrNotExist
}

func (n *fakeHistory) ReadDir(_ context.Context, after string, fn func(fs.DirEntry) bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var names []string
	for name := range n.child {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		if name > after && !fn(fs.DirEntry{Name: name, Ino: 5, Type: n.child[name].mode & fs.ModeType}) {
			break
		}
	}
	return nil
}

func (n *fakeHistory) Readlink(context.Context) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.target, nil
}

func (n *fakeHistory) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if off >= int64(len(n.data)) {
		return 0, io.EOF
	}
	return copy(p, n.data[off:]), nil
}

func (n *fakeHistory) Getxattr(_ context.Context, name string) ([]byte, error) {
	if name == "user.old" {
		return []byte("yes"), nil
	}
	return nil, fs.ErrNoAttr
}

func (n *fakeHistory) Listxattr(context.Context) ([]string, error) { return []string{"user.old"}, nil }

func (n *fakeHistory) Mkdir(_ context.Context, _ fs.Caller, name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.tags {
		return fs.ErrReadOnly
	}
	n.child[name] = freeze(oldDir(nil))
	return nil
}

func (n *fakeHistory) Rmdir(_ context.Context, _ fs.Caller, name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.tags {
		return fs.ErrReadOnly
	}
	delete(n.child, name)
	return nil
}

func TestVirtualNodes(t *testing.T) {
	var v virtualNodes
	a, b := oldFile("a"), oldFile("b")
	id := v.add(virtualPath{parent: 1, name: ".history"}, a)
	if !isVirtual(id) || v.add(virtualPath{parent: 1, name: ".history"}, b) != id {
		t.Fatal("one path, two nodes")
	}
	if v.get(id) != b {
		t.Fatal("the newest lookup does not count")
	}
	link := v.add(virtualPath{parent: id, name: "latest", target: "@1"}, a)
	if v.add(virtualPath{parent: id, name: "latest", target: "@2"}, a) == link {
		t.Fatal("a link that moved is the same node")
	}
	v.forget(id, 1)
	if v.get(id) == nil {
		t.Fatal("forgotten too early")
	}
	v.forget(id, 1)
	if v.get(id) != nil || v.len() != 2 {
		t.Fatal("not forgotten")
	}
	if v.add(virtualPath{parent: 1, name: ".history"}, a) == id {
		t.Fatal("an id was used again")
	}
	v.forget(1<<63|12345, 1) // unknown: ignored
}

// deepHistory is DIR/.history with the versions @1 and @2 of a small tree, a
// tags folder and a link to the newest.
func deepHistory() (root, latest *fakeHistory) {
	tree := func(text string) *fakeHistory {
		return freeze(oldDir(map[string]*fakeHistory{
			"sub": oldDir(map[string]*fakeHistory{
				"sub":  oldDir(map[string]*fakeHistory{"deep": oldFile(text)}),
				"file": oldFile(text),
				"link": oldLink("file"),
			}),
		}))
	}
	latest = oldLink("@2")
	tags := oldDir(map[string]*fakeHistory{})
	tags.tags = true
	return oldDir(map[string]*fakeHistory{
		"@1": tree("one"), "@2": tree("two and more"), "latest": latest, "log": oldFile("lines\n"), "tags": tags,
	}), latest
}

func TestHistory(t *testing.T) {
	root, latest := deepHistory()
	var opened atomic.Int64
	m := mountTest(t, Options{History: func(context.Context, fs.Ino) (HistoryNode, error) {
		opened.Add(1)
		return root, nil
	}})
	must(t, os.MkdirAll(filepath.Join(m.Dir(), "d/e"), 0o755))
	must(t, os.WriteFile(filepath.Join(m.Dir(), "d/live"), []byte("live"), 0o644))
	hist := filepath.Join(m.Dir(), "d", ".history")

	t.Run("hidden", func(t *testing.T) {
		for _, e := range readNames(t, filepath.Join(m.Dir(), "d")) {
			if e == ".history" {
				t.Error("listed")
			}
		}
		for _, dir := range []string{m.Dir(), filepath.Join(m.Dir(), "d/e")} {
			if _, err := os.Stat(filepath.Join(dir, ".history")); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("no history of history", func(t *testing.T) {
		for _, in := range []string{hist, hist + "/@1", hist + "/@1/sub"} {
			if _, err := os.Stat(in + "/.history"); !os.IsNotExist(err) {
				t.Errorf("%s: %v", in, err)
			}
		}
	})
	t.Run("walk", func(t *testing.T) {
		var got []string
		must(t, filepath.WalkDir(hist, func(p string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, _ := filepath.Rel(hist, p)
			got = append(got, rel)
			var st unix.Stat_t
			must(t, unix.Lstat(p, &st))
			if !isVirtual(st.Ino) || st.Nlink != 1 && st.Mode&unix.S_IFMT == unix.S_IFDIR {
				t.Errorf("%s: ino %x, nlink %d", rel, st.Ino, st.Nlink)
			}
			return nil
		}))
		want := []string{
			".", "@1", "@1/sub", "@1/sub/file", "@1/sub/link", "@1/sub/sub", "@1/sub/sub/deep",
			"@2", "@2/sub", "@2/sub/file", "@2/sub/link", "@2/sub/sub", "@2/sub/sub/deep", "latest", "log", "tags",
		}
		if !slices.Equal(got, want) {
			t.Errorf("walked %q", got)
		}
	})
	t.Run("contents", func(t *testing.T) {
		for name, want := range map[string]string{
			"@1/sub/file": "one", "@2/sub/sub/deep": "two and more", "latest/sub/link": "two and more", "log": "lines\n",
		} {
			if got, err := os.ReadFile(filepath.Join(hist, name)); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
		b := make([]byte, 10)
		if n, err := unix.Getxattr(hist+"/@1/sub/file", "user.old", b); err != nil || string(b[:n]) != "yes" {
			t.Errorf("xattr %q, %v", b[:max(n, 0)], err)
		}
	})
	t.Run("moving link", func(t *testing.T) {
		latest.mu.Lock()
		latest.target = "@1"
		latest.mu.Unlock()
		if got, err := os.ReadFile(hist + "/latest/sub/file"); err != nil || string(got) != "one" {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("permissions at once", func(t *testing.T) {
		f := root.child["@1"].child["sub"].child["file"]
		var st unix.Stat_t
		must(t, unix.Stat(hist+"/@1/sub/file", &st))
		f.mu.Lock()
		f.mode = fs.ModeRegular | 0o600
		f.mu.Unlock()
		must(t, unix.Stat(hist+"/@1/sub/file", &st))
		if st.Mode&0o777 != 0o600 {
			t.Errorf("mode %o", st.Mode)
		}
	})
	t.Run("read-only", func(t *testing.T) {
		for what, err := range map[string]error{
			"write":    os.WriteFile(hist+"/@1/sub/file", nil, 0o644),
			"create":   os.WriteFile(hist+"/@1/new", nil, 0o644),
			"mkdir":    os.Mkdir(hist+"/new", 0o755),
			"unlink":   os.Remove(hist + "/log"),
			"chmod":    os.Chmod(hist+"/log", 0o600),
			"symlink":  os.Symlink("x", hist+"/new"),
			"mknod":    unix.Mknod(hist+"/new", unix.S_IFIFO|0o600, 0),
			"move in":  os.Rename(filepath.Join(m.Dir(), "d/live"), hist+"/@1/new"),
			"move out": os.Rename(hist+"/@1/sub/file", filepath.Join(m.Dir(), "d/new")),
			"xattr":    unix.Setxattr(hist+"/log", "user.x", nil, 0),
			"rmdir":    unix.Rmdir(hist),
			"move":     os.Rename(hist, filepath.Join(m.Dir(), "d/new")),
			"truncate": os.Truncate(hist+"/log", 0),
			"tmpfile":  tmpfile(hist),
		} {
			if !errorIs(err, unix.EROFS) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := os.Link(hist+"/log", filepath.Join(m.Dir(), "d/new")); !errorIs(err, unix.EXDEV) {
			t.Errorf("link out: %v", err)
		}
	})
	t.Run("reserved name", func(t *testing.T) {
		live := filepath.Join(m.Dir(), "d/live")
		for what, err := range map[string]error{
			"mkdir":    os.Mkdir(hist, 0o755),
			"symlink":  os.Symlink("x", hist),
			"mknod":    unix.Mknod(hist, unix.S_IFREG|0o600, 0),
			"link":     os.Link(live, hist),
			"exclude":  unix.Renameat2(unix.AT_FDCWD, live, unix.AT_FDCWD, hist, unix.RENAME_NOREPLACE),
			"exchange": unix.Renameat2(unix.AT_FDCWD, live, unix.AT_FDCWD, hist, unix.RENAME_EXCHANGE),
		} {
			if !errorIs(err, unix.EEXIST) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := os.Rename(live, hist); err == nil {
			t.Error("rename onto .history")
		}
		if err := os.WriteFile(hist, nil, 0o644); err == nil {
			t.Error("create .history")
		}
	})
	t.Run("tags", func(t *testing.T) {
		must(t, os.Mkdir(hist+"/tags/v1", 0o755))
		if got := readNames(t, hist+"/tags"); !slices.Equal(got, []string{"v1"}) {
			t.Errorf("tags %q", got)
		}
		must(t, os.Remove(hist+"/tags/v1"))
		if _, err := os.Stat(hist + "/tags/v1"); !os.IsNotExist(err) {
			t.Errorf("still there: %v", err)
		}
	})
	t.Run("copy out", func(t *testing.T) {
		b, err := os.ReadFile(hist + "/@2/sub/file")
		must(t, err)
		must(t, os.WriteFile(filepath.Join(m.Dir(), "copy"), b, 0o644))
		src, err := os.Open(hist + "/@2/sub/sub/deep")
		must(t, err)
		defer src.Close()
		dst, err := os.Create(filepath.Join(m.Dir(), "copy2"))
		must(t, err)
		defer dst.Close()
		n, err := io.Copy(dst, src) // copy_file_range
		if err != nil || n != int64(len("two and more")) {
			t.Errorf("copied %d: %v", n, err)
		}
	})
	t.Run("nodes are freed", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("needs root, to drop the kernel's caches")
		}
		must(t, os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0))
		waitFor(t, "virtual nodes freed", func() bool { return m.server.virtual.len() == 0 })
	})
	if opened.Load() == 0 {
		t.Error("never asked")
	}
}

func errorIs(err error, want syscall.Errno) bool {
	var e syscall.Errno
	switch x := err.(type) {
	case *os.PathError:
		err = x.Err
	case *os.LinkError:
		err = x.Err
	case *os.SyscallError:
		err = x.Err
	}
	e, ok := err.(syscall.Errno)
	return ok && e == want
}

func tmpfile(dir string) error {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR, 0o600)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// TestHistoryOfADrive looks into the real one.
func TestHistoryOfADrive(t *testing.T) {
	d := newTestDrive(t)
	dir := mountDrive(t, d, Options{}).Dir()
	doc := filepath.Join(dir, "sub/doc.txt")
	must(t, os.Mkdir(filepath.Dir(doc), 0o755))
	save := func(text string) string {
		f, err := os.Create(doc)
		must(t, err)
		_, err = f.WriteString(text)
		must(t, err)
		must(t, f.Sync())
		must(t, f.Close())
		return d.Newest().String()
	}
	first := save("first")
	save("second")
	for name, want := range map[string]string{
		".history/" + first + "/sub/doc.txt": "first", "sub/.history/" + first + "/doc.txt": "first",
		"sub/.history/latest/doc.txt": "second",
	} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	versions := readNames(t, filepath.Join(dir, "sub/.history/by-file/doc.txt"))
	var texts []string
	for _, v := range versions {
		b, err := os.ReadFile(filepath.Join(dir, "sub/.history/by-file/doc.txt", v))
		must(t, err)
		texts = append(texts, string(b))
	}
	if !slices.Contains(texts, "first") || !slices.Contains(texts, "second") {
		t.Errorf("versions %q read %q", versions, texts)
	}
	seen := 0
	must(t, filepath.WalkDir(filepath.Join(dir, ".history"), func(p string, e os.DirEntry, err error) error {
		seen++
		if err == nil && e.Type().IsRegular() {
			_, err = os.ReadFile(p)
		}
		return err
	}))
	if seen < 10 {
		t.Errorf("%d entries in .history", seen)
	}

	must(t, os.Mkdir(filepath.Join(dir, ".history/tags/good"), 0o755))
	must(t, os.Remove(doc))
	if b, err := os.ReadFile(filepath.Join(dir, ".history/tags/good/sub/doc.txt")); err != nil || string(b) != "second" {
		t.Errorf("tagged: %q, %v", b, err)
	}
	must(t, os.Remove(filepath.Join(dir, ".history/tags/good")))
	if _, err := os.Stat(filepath.Join(dir, ".history/tags/good")); !os.IsNotExist(err) {
		t.Errorf("a dropped tag: %v", err)
	}
}
