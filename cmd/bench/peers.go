//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// loopbackPackage is go-fuse's own example of a file system, at the version
// Hearth uses.
const loopbackPackage = "github.com/hanwen/go-fuse/v2/example/loopback"

// prepare makes what workloads need and is not measured.
func (b *bench) prepare(ctx context.Context) error {
	if len(b.columns()) == 0 {
		return fmt.Errorf("-systems: nothing to measure")
	}
	return os.MkdirAll(filepath.Join(b.base, "prep"), 0o755)
}

// allSystems is the order of the columns; ratios are against the last.
var allSystems = []string{"hearth", "ext4", "loopback", "gocryptfs"}

// columns lists the names of the systems asked for.
func (b *bench) columns() []string {
	var out []string
	for _, name := range allSystems {
		if len(b.among) == 0 || b.among[name] {
			out = append(out, name)
		}
	}
	return out
}

// build makes what was asked for. A peer that cannot be had is left out.
func (b *bench) build(ctx context.Context) []*system {
	var out []*system
	for _, name := range b.columns() {
		var s *system
		var err error
		switch name {
		case "hearth":
			s = b.newHearth("hearth").system
		case "ext4":
			dir := filepath.Join(b.base, "plain")
			s = &system{name: name, dir: dir, home: dir}
		case "loopback":
			s, err = b.loopback(ctx)
		case "gocryptfs":
			s, err = b.gocryptfs(ctx)
		}
		if err != nil {
			b.progress("%s is not measured: %v", name, err)
			continue
		}
		out = append(out, s)
	}
	return out
}

// fuse is a system whose server shows one folder at another.
func (b *bench) fuse(name string, args func(store, mnt string) []string) (*system, *server) {
	home := filepath.Join(b.base, name)
	store, mnt := filepath.Join(home, "store"), filepath.Join(home, "mnt")
	v := &server{mnt: mnt, args: args(store, mnt)}
	s := &system{name: name, dir: mnt, home: home, up: v.up, down: v.down}
	s.first = func(context.Context) error { return os.MkdirAll(store, 0o755) }
	return s, v
}

// loopback passes every request through: the price of FUSE itself.
func (b *bench) loopback(ctx context.Context) (*system, error) {
	exe := filepath.Join(b.base, "prep", "loopback")
	if _, err := os.Stat(exe); err != nil {
		if err := command(ctx, "go", "build", "-o", exe, loopbackPackage); err != nil {
			return nil, err
		}
	}
	s, _ := b.fuse("loopback", func(store, mnt string) []string { return []string{exe, "-q", mnt, store} })
	return s, nil
}

// gocryptfs encrypts files one by one.
func (b *bench) gocryptfs(ctx context.Context) (*system, error) {
	exe, err := install(ctx, b, "gocryptfs")
	if err != nil {
		return nil, err
	}
	pass := filepath.Join(b.base, "prep", "password")
	if err := os.WriteFile(pass, []byte("a password for the benchmark\n"), 0o600); err != nil {
		return nil, err
	}
	s, v := b.fuse("gocryptfs", func(store, mnt string) []string {
		return []string{exe, "-q", "-fg", "-nosyslog", "-passfile", pass, store, mnt}
	})
	mkdir := s.first
	s.first = func(ctx context.Context) error {
		if err := mkdir(ctx); err != nil {
			return err
		}
		return command(ctx, exe, "-init", "-q", "-passfile", pass, filepath.Join(filepath.Dir(v.mnt), "store"))
	}
	return s, nil
}

// install finds a program, or installs the Debian package of its name.
func install(ctx context.Context, b *bench, name string) (string, error) {
	if exe, err := exec.LookPath(name); err == nil {
		return exe, nil
	}
	apt, err := exec.LookPath("apt-get")
	if err != nil || os.Getuid() != 0 {
		return "", fmt.Errorf("install the package %s", name)
	}
	b.progress("installing %s", name)
	for _, args := range [][]string{{"update", "-q"}, {"install", "-qy", "--no-install-recommends", name}} {
		cmd := exec.CommandContext(ctx, apt, args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if _, err := output(cmd); err != nil {
			return "", err
		}
	}
	return exec.LookPath(name)
}

// clean ends what still runs and deletes everything. A folder that is still a
// mount is never entered.
func (b *bench) clean() {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for _, line := range strings.Split(string(mounts), "\n") {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], b.base+"/") {
			b.progress("%s is still mounted: %s is not deleted", f[1], b.base)
			return
		}
	}
	if err := os.RemoveAll(b.base); err != nil {
		b.progress("%v", err)
	}
}
