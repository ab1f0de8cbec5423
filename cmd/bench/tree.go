//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// many is the folder of small files.
const many = "many"

func small(dir string, i int) string { return fmt.Sprintf("%s/f%06d", dir, i) }

// makeMany fills a new folder with n files of one page.
func makeMany(dir string, n int) (time.Duration, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return 0, err
	}
	data := fresh(n * page)
	start := time.Now()
	for i := range n {
		f, err := open(small(dir, i), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY)
		if err != nil {
			return 0, err
		}
		if err := f.write(data[i*page : (i+1)*page]); err != nil {
			return 0, err
		}
		if err := f.close(); err != nil {
			return 0, err
		}
	}
	return time.Since(start), nil
}

func createMany(_ context.Context, e *env) error {
	n := e.count(10_000, 200)
	took, err := makeMany(e.path(many), n)
	if err != nil {
		return err
	}
	e.record("create", perSecond(n, took))
	return nil
}

func statMany(ctx context.Context, e *env) error {
	n := e.count(10_000, 200)
	if _, err := os.Stat(e.path(many)); err != nil {
		if _, err := makeMany(e.path(many), n); err != nil {
			return err
		}
	}
	if err := e.system.cold(ctx); err != nil {
		return err
	}
	for _, row := range []string{"stat-cold", "stat-warm"} {
		start := time.Now()
		names, err := list(e.path(many))
		if err != nil {
			return err
		}
		var st unix.Statx_t
		for _, name := range names {
			p := e.path(many) + "/" + name
			if err := lstat(p, &st); err != nil {
				return err
			}
		}
		if len(names) != n {
			return fmt.Errorf("%d of %d files are listed", len(names), n)
		}
		e.record(row, perSecond(n, time.Since(start)))
	}
	return removeAll(e.path(many))
}

// list reads the names in a folder, unsorted, as many at a time as the C
// library does; package os asks for a quarter of that.
func list(dir string) ([]string, error) {
	f, err := open(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, 32*kib)
	var names []string
	for {
		n, err := raw(unix.SYS_GETDENTS64, uintptr(f), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("list %s: %w", dir, err), f.close())
		}
		if n == 0 {
			return names, f.close()
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// tarball is the source of Go's standard library and tools, as a tar file
// that is in the page cache.
func (b *bench) tarball(ctx context.Context) (string, error) {
	file := filepath.Join(b.base, "prep", "src.tar")
	if _, err := os.Stat(file); err != nil {
		root, err := output(exec.CommandContext(ctx, "go", "env", "GOROOT"))
		if err != nil {
			return "", err
		}
		what := "src"
		if b.scale < 1 {
			what = "src/net" // 500 files
		}
		if err := command(ctx, "tar", "cf", file, "-C", strings.TrimSpace(string(root)), what); err != nil {
			return "", err
		}
	}
	_, err := os.ReadFile(file)
	return file, err
}

func untar(ctx context.Context, e *env) error {
	tarball, err := e.tarball(ctx)
	if err != nil {
		return err
	}
	dir := e.path("tree")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	start := time.Now()
	if err := command(ctx, "tar", "xf", tarball, "-C", dir); err != nil {
		return err
	}
	e.record("untar", time.Since(start).Seconds())
	if err := e.system.settle(ctx); err != nil {
		return err
	}
	start = time.Now()
	if err := command(ctx, "rm", "-rf", dir); err != nil {
		return err
	}
	e.record("rm", time.Since(start).Seconds())
	return nil
}

// git runs git without anybody's settings.
func git(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
	return output(cmd)
}

// repository is the same source as one packed commit, to clone from.
func (b *bench) repository(ctx context.Context) (string, error) {
	dir := filepath.Join(b.base, "prep", "repository")
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	tarball, err := b.tarball(ctx)
	if err != nil {
		return "", err
	}
	making := dir + ".new"
	if err := os.Mkdir(making, 0o755); err != nil {
		return "", err
	}
	if err := command(ctx, "tar", "xf", tarball, "-C", making); err != nil {
		return "", err
	}
	for _, args := range [][]string{
		{"init", "-q"}, {"add", "-A", "-f"},
		{"-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "-q", "-m", "src"},
		{"repack", "-q", "-a", "-d"},
	} {
		if _, err := git(ctx, append([]string{"-C", making}, args...)...); err != nil {
			return "", err
		}
	}
	return dir, os.Rename(making, dir)
}

func gitClone(ctx context.Context, e *env) error {
	origin, err := e.repository(ctx)
	if err != nil {
		return err
	}
	dir := e.path("clone")
	start := time.Now()
	// A file URL makes git copy through its protocol, as from a server.
	if _, err := git(ctx, "clone", "-q", "file://"+origin, dir); err != nil {
		return err
	}
	e.record("git-clone", time.Since(start).Seconds())
	// The first status refreshes the index: files as new as it are read again.
	for range 2 {
		start = time.Now()
		out, err := git(ctx, "-C", dir, "status", "-s")
		if err != nil {
			return err
		}
		if len(out) > 0 {
			return fmt.Errorf("a new clone has changes: %.100s", out)
		}
	}
	e.record("git-status", time.Since(start).Seconds())
	return removeAll(dir)
}
