//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// exchange is a group of measurements between devices: daemons on loopback,
// each with a home of its own.
type exchange struct {
	name string
	long bool // only when asked for
	run  func(ctx context.Context, n *network) error
}

var exchanges = []exchange{
	{"replicate", false, replicateBig},
	{"replicate-many", false, replicateMany},
	{"send", false, sendBig},
	{"send-many", false, sendMany},
	{"remote", false, remote},
	{"far", false, far},
	{"live", false, live},
	{"idle", false, idle},
	{"memory10", true, replicateHuge},
}

// network measures the exchanges, once each repetition.
func (b *bench) network(ctx context.Context) error {
	var failed error
	for _, x := range exchanges {
		if !b.wanted(x.name) || x.long && !b.long && !b.only[x.name] || len(b.among) > 0 && !b.among["hearth"] {
			continue
		}
		reps := b.reps
		if x.long {
			reps = 1
		}
		for range reps {
			if err := b.exchange(ctx, x); err != nil {
				err = fmt.Errorf("%s: %w", x.name, err)
				b.progress("%v", err)
				failed = errors.Join(failed, err)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	return failed
}

func (b *bench) exchange(ctx context.Context, x exchange) error {
	n := &network{bench: b, dir: filepath.Join(b.base, "net-"+x.name)}
	if err := os.Mkdir(n.dir, 0o755); err != nil {
		return err
	}
	defer n.remove(context.WithoutCancel(ctx))
	return x.run(ctx, n)
}

// network is what one run of an exchange works in.
type network struct {
	*bench
	dir     string
	devices []*member
}

func (n *network) path(name string) string { return filepath.Join(n.dir, name) }

func (n *network) record(row string, value float64) { n.recordAs("hearth", row, value) }

func (n *network) recordAs(system, row string, value float64) {
	n.progress("%-12s %-20s %s", system, row, number(value))
	n.report.add(row, system, value)
}

// remove ends all daemons and deletes their homes.
func (n *network) remove(ctx context.Context) {
	for _, d := range n.devices {
		if err := d.end(ctx); err != nil {
			n.progress("%s: %v", d.name, err)
			return // never deletes what may still be mounted
		}
	}
	if err := os.RemoveAll(n.dir); err != nil {
		n.progress("%v", err)
	}
}

// member is a daemon that listens on loopback only. One that is not to be found
// has nowhere to look for others, either.
type member struct {
	*daemon
	name    string
	mounted bool
}

// device makes one; its daemon starts with the first command.
func (n *network) device(name string, found bool) (*member, error) {
	d := &member{name: name, daemon: &daemon{
		exe: n.hearth, state: n.path(name + ".state"), mnt: n.path(name),
	}}
	lan := "lo"
	if !found {
		lan = "none"
	}
	if err := errors.Join(os.Mkdir(d.mnt, 0o755), os.Mkdir(d.state, 0o700)); err != nil {
		return nil, err
	}
	for file, text := range map[string]string{
		"config.json": fmt.Sprintf(`{"listen": "127.0.0.1:0", "interfaces": [%q]}`, lan),
		"device.json": fmt.Sprintf(`{"name": %q}`, name),
	} {
		if err := os.WriteFile(filepath.Join(d.state, file), []byte(text+"\n"), 0o600); err != nil {
			return nil, err
		}
	}
	n.devices = append(n.devices, d)
	return d, nil
}

// author makes a device with a new drive that is mounted.
func (n *network) author(ctx context.Context) (*member, error) {
	d, err := n.device("author", true)
	if err != nil {
		return nil, err
	}
	if err := d.run(ctx, "create", driveName); err != nil {
		return nil, err
	}
	return d, d.show(ctx)
}

// show mounts its drive.
func (d *member) show(ctx context.Context) error {
	if err := d.mount(ctx); err != nil {
		return err
	}
	d.mounted = true
	return nil
}

// halt ends the daemon cleanly. It starts again with the next command.
func (d *member) halt(ctx context.Context) error {
	if !d.mounted {
		return d.run(ctx, "stop")
	}
	err := d.stop(ctx)
	d.mounted = err != nil
	return err
}

// end ends the daemon whatever it does.
func (d *member) end(ctx context.Context) error {
	if _, err := os.Lstat(filepath.Join(d.state, "socket")); err != nil {
		return nil // none was started
	}
	return d.run(ctx, "stop", "--force")
}

// begin starts the daemon, and its network.
func (d *member) begin(ctx context.Context) error { return d.run(ctx, "peers") }

// ask runs a command and decodes what it says as JSON.
func (d *member) ask(ctx context.Context, into any, args ...string) error {
	out, err := output(d.command(ctx, append(args, "--json")...))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("hearth %s: %w", args[0], err)
	}
	return nil
}

// share makes a link to its drive: with hold one that does not let read.
func (d *member) share(ctx context.Context, hold bool) (string, error) {
	args := []string{"share", driveName}
	if hold {
		args = append(args, "--hold")
	}
	out, err := output(d.command(ctx, args...))
	return strings.TrimSpace(string(out)), err
}

func (d *member) join(ctx context.Context, link string) error {
	return d.run(ctx, "join", "--as", driveName, link)
}

// port is where it listens.
func (d *member) port(ctx context.Context) (int, error) {
	var answer struct{ Port int }
	err := d.ask(ctx, &answer, "nearby")
	return answer.Port, err
}

// pid is the process of the daemon.
func (d *member) pid(ctx context.Context) (int, error) {
	var status struct{ PID int }
	err := d.ask(ctx, &status, "status")
	return status.PID, err
}

// stalled is how long nothing may arrive before that is an error.
const stalled = time.Minute

// whole waits until nothing of its drive is missing. Asking costs time that is
// not there to replicate, so it is done seldom: after a quarter of the time
// that the rest will take.
func (d *member) whole(ctx context.Context) error {
	begun := time.Now()
	var last uint64
	moved := begun
	for {
		var status struct {
			Drives []struct {
				Blocks  uint64
				Missing uint64 `json:"missing_blocks"`
			}
		}
		if err := d.ask(ctx, &status, "status"); err != nil {
			return err
		}
		if len(status.Drives) != 1 {
			return fmt.Errorf("%s has %d drives, not one", d.name, len(status.Drives))
		}
		drive := status.Drives[0]
		here := drive.Blocks - drive.Missing
		if here != last {
			last, moved = here, time.Now()
		}
		switch {
		case drive.Blocks > 0 && drive.Missing == 0:
			return nil
		case time.Since(moved) > stalled:
			return fmt.Errorf("%d of %d blocks are missing, and nothing arrives", drive.Missing, drive.Blocks)
		}
		rest := float64(time.Since(begun)) * float64(drive.Missing) / float64(max(here, 1))
		select {
		case <-time.After(min(max(time.Duration(rest/4), time.Millisecond), 250*time.Millisecond)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
