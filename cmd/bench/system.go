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

	"golang.org/x/sys/unix"
)

// system is a file system under test. Its functions may be nil.
type system struct {
	name string
	dir  string // where the workloads work
	home string // what remove deletes
	// up makes dir usable, down ends that: what up started is gone when down
	// returns. Both are called again and again, on the same store.
	up, down func(ctx context.Context) error
	// first runs once on a new store, before up.
	first func(ctx context.Context) error
	// flush makes everything durable, where sync(2) does not reach.
	flush func(ctx context.Context) error
}

func call(ctx context.Context, fn func(context.Context) error) error {
	if fn == nil {
		return nil
	}
	return fn(ctx)
}

// create makes a new store and shows it.
func (s *system) create(ctx context.Context) error {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	if err := call(ctx, s.first); err != nil {
		return err
	}
	return call(ctx, s.up)
}

// settle waits until everything written is on the disk, so that one workload
// does not pay for the one before.
func (s *system) settle(ctx context.Context) error {
	err := call(ctx, s.flush)
	unix.Sync()
	return err
}

// cold restarts the system with nothing in any cache of this machine.
func (s *system) cold(ctx context.Context) error {
	if err := s.settle(ctx); err != nil {
		return err
	}
	if err := call(ctx, s.down); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0); err != nil && !errors.Is(err, os.ErrPermission) {
		return err
	}
	return call(ctx, s.up)
}

// remove ends the system and deletes its store.
func (s *system) remove(ctx context.Context, b *bench) {
	if err := call(ctx, s.down); err != nil {
		b.progress("%s: %v", s.name, err)
	}
	if err := os.RemoveAll(s.home); err != nil {
		b.progress("%s: %v", s.name, err)
	}
}

// command runs a program to its end; its output is part of the error.
func command(ctx context.Context, name string, args ...string) error {
	_, err := output(exec.CommandContext(ctx, name, args...))
	return err
}

// output runs cmd and returns its standard output.
func output(cmd *exec.Cmd) ([]byte, error) {
	var stderr strings.Builder
	if cmd.Stderr == nil {
		cmd.Stderr = &stderr
	}
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}

// patience is how long a file system may take to appear or to go.
const patience = 30 * time.Second

// server is a FUSE server that runs in the foreground.
type server struct {
	mnt  string
	args []string
	cmd  *exec.Cmd
	done chan error
}

// up starts the server and waits until its mount is there.
func (v *server) up(ctx context.Context) error {
	before, err := device(v.mnt)
	if err != nil {
		return err
	}
	v.cmd = exec.Command(v.args[0], v.args[1:]...)
	var messages strings.Builder
	v.cmd.Stdout, v.cmd.Stderr = &messages, &messages
	if err := v.cmd.Start(); err != nil {
		return err
	}
	v.done = make(chan error, 1)
	go func() { v.done <- v.cmd.Wait() }()
	return poll(ctx, func() (bool, error) {
		select {
		case err := <-v.done:
			return false, fmt.Errorf("%s ended: %v: %s", v.args[0], err, messages.String())
		default:
		}
		now, err := device(v.mnt)
		return err == nil && now != before, nil
	})
}

// down unmounts and waits for the end of the server.
func (v *server) down(ctx context.Context) error {
	err := poll(ctx, func() (bool, error) {
		err := unix.Unmount(v.mnt, 0)
		if errors.Is(err, unix.EPERM) {
			err = command(ctx, "fusermount3", "-u", v.mnt)
		}
		return err == nil, nil // busy: a child of the workload may not be quite gone
	})
	if err != nil {
		_ = unix.Unmount(v.mnt, unix.MNT_DETACH)
		_ = v.cmd.Process.Kill()
	}
	select {
	case <-v.done:
		return err
	case <-time.After(patience):
		_ = v.cmd.Process.Kill()
		<-v.done
		return errors.Join(err, fmt.Errorf("%s did not end by itself", v.args[0]))
	}
}

func device(path string) (uint64, error) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	return uint64(st.Dev), err
}

// poll asks until the answer is yes, ctx ends or patience runs out.
func poll(ctx context.Context, ready func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := ready()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
