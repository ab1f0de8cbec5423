package mount

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hearth/fs"
)

func TestParseMount(t *testing.T) {
	for _, tt := range []struct {
		line, at, device, fsType string
		ok                       bool
	}{
		{`36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`, "/mnt2", "98:0", "ext3", true},
		{`36 35 0:45 / /a\040b\134c rw - fuse.hearth home rw`, `/a b\c`, "0:45", "fuse.hearth", true},
		{`36 35 0:45 / /x\0 rw - fuse.hearth home rw`, `/x\0`, "0:45", "fuse.hearth", true},
		{`nonsense`, "", "", "", false},
		{`1 2 3 - x`, "", "", "", false},
	} {
		at, m, ok := parseMount(tt.line)
		if at != tt.at || m.device != tt.device || m.fsType != tt.fsType || ok != tt.ok {
			t.Errorf("%s: %q %+v %v", tt.line, at, m, ok)
		}
	}
}

func TestBadMountPoints(t *testing.T) {
	d := newTestDrive(t)
	dir := t.TempDir()
	full := filepath.Join(dir, "full")
	must(t, os.MkdirAll(filepath.Join(full, "x"), 0o755))
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o644))
	mounted := mountDrive(t, d, Options{})
	link := filepath.Join(dir, "link")
	must(t, os.Symlink(mounted.Dir(), link))
	for _, tt := range []struct {
		dir  string
		want error
	}{
		{full, ErrNotEmpty},
		{file, ErrNotDir},
		{filepath.Join(dir, "absent"), os.ErrNotExist},
		{mounted.Dir(), ErrMounted},
		{link, ErrMounted},
	} {
		m, err := New(context.Background(), d, tt.dir, Options{})
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.dir, err, tt.want)
		}
		if m != nil {
			must(t, m.Unmount(Force))
		}
	}
}

func TestUnmountBusy(t *testing.T) {
	m := mountTest(t, Options{})
	f, err := os.Create(filepath.Join(m.Dir(), "f"))
	must(t, err)
	if err := m.Unmount(Clean); !errors.Is(err, ErrBusy) {
		t.Errorf("with an open file: %v", err)
	}
	_, err = f.WriteString("still served")
	must(t, err)
	must(t, f.Close())
	must(t, m.Unmount(Clean))
	must(t, m.Unmount(Clean))
	if len(readNames(t, m.Dir())) != 0 {
		t.Error("still mounted")
	}
}

func TestUnmountLazy(t *testing.T) {
	m := mountTest(t, Options{})
	f, err := os.Create(filepath.Join(m.Dir(), "f"))
	must(t, err)
	must(t, m.Unmount(Lazy))
	if len(readNames(t, m.Dir())) != 0 {
		t.Error("still there")
	}
	_, err = f.WriteString("still served")
	must(t, err)
	select {
	case <-m.Wait():
		t.Error("ended with a file open")
	default:
	}
	must(t, f.Close())
	select {
	case <-m.Wait():
	case <-time.After(10 * time.Second):
		t.Error("never ended")
	}
}

func TestUnmountForce(t *testing.T) {
	if control, _ := filepath.Glob("/sys/fs/fuse/connections/*/abort"); os.Geteuid() != 0 && len(control) == 0 {
		t.Skip("needs root, or the fusectl file system")
	}
	m := mountTest(t, Options{})
	f, err := os.Create(filepath.Join(m.Dir(), "f"))
	must(t, err)
	defer f.Close()
	must(t, m.Unmount(Force))
	if _, err := f.WriteString("x"); err == nil {
		t.Error("served after the connection was cut")
	}
	must(t, mountTest(t, Options{}).Unmount(Force)) // with nothing open
}

func TestUnmountByOthers(t *testing.T) {
	m := mountTest(t, Options{})
	run(t, "umount", m.Dir())
	select {
	case <-m.Wait():
	case <-time.After(10 * time.Second):
		t.Fatal("not noticed")
	}
	must(t, m.Unmount(Clean))
}

// TestStaleMount mounts in another process, kills it, and mounts again.
func TestStaleMount(t *testing.T) {
	if dir := os.Getenv("HEARTH_TEST_STALE"); dir != "" {
		if _, err := New(context.Background(), newTestDrive(t), dir, Options{}); err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("mounted\n")
		select {} // until killed
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("no FUSE here")
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestStaleMount$", "-test.v")
	cmd.Env = append(os.Environ(), "HEARTH_TEST_STALE="+dir, "TMPDIR="+t.TempDir())
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer cmd.Wait()
	said := make([]byte, 0, 4096)
	for !strings.Contains(string(said), "mounted\n") {
		b := make([]byte, 1024)
		n, err := out.Read(b)
		said = append(said, b[:n]...)
		if err != nil {
			t.Fatalf("the other process said %q", said)
		}
	}
	if _, err := New(context.Background(), newTestDrive(t), dir, Options{}); !errors.Is(err, ErrMounted) {
		t.Errorf("while it lives: %v", err)
	}
	must(t, cmd.Process.Kill())
	waitFor(t, "death", func() bool { return dead(dir) })
	m, err := New(context.Background(), newTestDrive(t), dir, Options{})
	must(t, err)
	noPolling(dir)
	must(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o644))
	must(t, m.Unmount(Clean))
	if _, ok, err := mountedAt(dir); ok || err != nil {
		t.Error("the dead mount is still below", err)
	}
}

func TestReadOnly(t *testing.T) {
	m := mountTest(t, Options{ReadOnly: true})
	if err := os.WriteFile(filepath.Join(m.Dir(), "f"), nil, 0o644); !errorIs(err, unix.EROFS) {
		t.Errorf("write: %v", err)
	}
}

func TestSnapshotMount(t *testing.T) {
	ctx := context.Background()
	d := newTestDrive(t)
	live := mountDrive(t, d, Options{})
	must(t, os.MkdirAll(filepath.Join(live.Dir(), "d"), 0o755))
	must(t, os.WriteFile(filepath.Join(live.Dir(), "d/f"), []byte("then"), 0o644))
	must(t, os.Symlink("f", filepath.Join(live.Dir(), "d/l")))
	must(t, unix.Setxattr(filepath.Join(live.Dir(), "d/f"), "user.x", []byte("y"), 0))
	must(t, d.Sync(ctx))
	snap, err := d.At(ctx, d.Newest())
	must(t, err)
	must(t, os.WriteFile(filepath.Join(live.Dir(), "d/f"), []byte("now"), 0o644))

	old := mountDrive(t, d, Options{Snapshot: snap})
	if b, err := os.ReadFile(filepath.Join(old.Dir(), "d/l")); err != nil || string(b) != "then" {
		t.Errorf("%q, %v", b, err)
	}
	if got := readNames(t, filepath.Join(old.Dir(), "d")); len(got) != 2 {
		t.Errorf("names %q", got)
	}
	b := make([]byte, 4)
	if n, err := unix.Getxattr(filepath.Join(old.Dir(), "d/f"), "user.x", b); err != nil || string(b[:n]) != "y" {
		t.Errorf("xattr %q, %v", b, err)
	}
	if err := os.WriteFile(filepath.Join(old.Dir(), "d/f"), nil, 0o644); !errorIs(err, unix.EROFS) {
		t.Errorf("write: %v", err)
	}
	if _, err := os.Stat(filepath.Join(old.Dir(), ".history")); !os.IsNotExist(err) {
		t.Errorf(".history of an old version: %v", err)
	}
}

// TestInvalidation changes the drive behind the kernel's back, as undo does.
func TestInvalidation(t *testing.T) {
	ctx := context.Background()
	d := newTestDrive(t)
	m := mountDrive(t, d, Options{})
	c := fs.Caller{Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid())}
	p := filepath.Join(m.Dir(), "f")

	// The kernel knows that there is no such file.
	if _, err := os.Stat(p); !os.IsNotExist(err) {
		t.Fatal(err)
	}
	f, a, err := d.Create(ctx, c, fs.RootIno, "f", 0o644)
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt(ctx, []byte("first"), 0)
	must(t, err)
	if _, err := os.Stat(p); !os.IsNotExist(err) {
		t.Error("absence was not cached")
	}
	m.Notifier().InvalEntry(fs.RootIno, "f")
	waitFor(t, "the new name", func() bool { _, err := os.Stat(p); return err == nil })

	// The kernel has its contents and attributes, and a program has it open.
	open, err := os.Open(p)
	must(t, err)
	defer open.Close()
	read := func() string {
		b := make([]byte, 100)
		n, err := open.ReadAt(b, 0)
		if err != nil && n == 0 {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	if got := read(); got != "first" {
		t.Fatalf("read %q", got)
	}
	_, err = f.WriteAt(ctx, []byte("FIRST and more"), 0)
	must(t, err)
	m.Notifier().InvalInode(a.Ino)
	waitFor(t, "the new contents", func() bool { return read() == "FIRST and more" })

	// A directory that is listed anew shows what changed.
	must(t, d.Unlink(ctx, c, fs.RootIno, "f"))
	m.Notifier().InvalEntry(fs.RootIno, "f")
	m.Notifier().InvalInode(fs.RootIno)
	waitFor(t, "the name to go", func() bool { _, err := os.Stat(p); return os.IsNotExist(err) })
	if got := readNames(t, m.Dir()); len(got) != 0 {
		t.Errorf("names %q", got)
	}
	if got := read(); got != "FIRST and more" {
		t.Errorf("the open file reads %q", got)
	}
}
