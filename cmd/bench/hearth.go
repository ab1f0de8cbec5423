//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// driveName is the drive that is measured.
const driveName = "bench"

// daemon is Hearth under test: a home of its own, one drive, one mount.
type daemon struct {
	*system
	exe   string
	state string // HEARTH_HOME
	mnt   string
}

// newHearth describes a Hearth whose folders are below base/name.
func (b *bench) newHearth(name string) *daemon {
	home := filepath.Join(b.base, name)
	d := &daemon{exe: b.hearth, state: filepath.Join(home, "state"), mnt: filepath.Join(home, "mnt")}
	d.system = &system{name: name, dir: d.mnt, home: home,
		first: func(ctx context.Context) error { return d.run(ctx, "create", driveName) },
		up:    d.mount, down: d.stop,
		flush: func(ctx context.Context) error { return d.run(ctx, "sync", driveName) },
	}
	return d
}

func (d *daemon) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, d.exe, args...)
	cmd.Env = append(os.Environ(), "HEARTH_HOME="+d.state, "GODEBUG=")
	return cmd
}

func (d *daemon) run(ctx context.Context, args ...string) error {
	_, err := output(d.command(ctx, args...))
	return err
}

func (d *daemon) mount(ctx context.Context) error { return d.run(ctx, "mount", driveName, d.mnt) }

// stop ends the daemon cleanly. The mount is ended first, so that the next
// start begins without one, as a first mount does.
func (d *daemon) stop(ctx context.Context) error {
	err := poll(ctx, func() (bool, error) { // busy: a child of the workload may not be quite gone
		return d.run(ctx, "unmount", d.mnt) == nil, nil
	})
	if err != nil {
		return fmt.Errorf("unmount %s: %w", d.mnt, err)
	}
	return d.run(ctx, "stop")
}

// memory is the resident memory of the daemon, now and at most, in MiB.
func (d *daemon) memory(ctx context.Context) (now, most float64, err error) {
	out, err := output(d.command(ctx, "status", "--json"))
	if err != nil {
		return 0, 0, err
	}
	var status struct{ PID int }
	if err := json.Unmarshal(out, &status); err != nil {
		return 0, 0, fmt.Errorf("hearth status: %w", err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", status.PID))
	if err != nil {
		return 0, 0, err
	}
	for _, line := range strings.Split(string(text), "\n") {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kib, _ := strconv.ParseFloat(f[1], 64)
		switch f[0] {
		case "VmRSS:":
			now = kib / 1024
		case "VmHWM:":
			most = kib / 1024
		}
	}
	return now, most, nil
}

// usage is what the home occupies on the disk, in bytes, after a clean stop:
// a running daemon holds preallocated space.
func (d *daemon) usage(ctx context.Context) (int64, error) {
	if err := d.stop(ctx); err != nil {
		return 0, err
	}
	n, err := occupied(d.state)
	if err != nil {
		return 0, err
	}
	return n, d.mount(ctx)
}
