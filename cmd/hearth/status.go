package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) statusCommand() *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "show the daemon, drives, mounts and their health, or where a file is", ArgsUsage: "[PATH]",
		Description: describe(`Shows the running daemon: drives with their versions, sizes and what is not yet
saved, mounts, and anything that is not well. Without a daemon the exit code is 4.

With a PATH: how large that file or folder is, how much of it is on this device,
and how much each device that is connected says it has.`,
			"hearth status --json | jq '.drives[] | {name, version, health}'\n  hearth status ~/Films/holiday.mkv"),
		Flags:  []cli.Flag{jsonFlag()},
		Action: a.status,
	}
}

func (a *app) status(c *cli.Context) error {
	args, err := arguments(c, 0, 1)
	if err != nil {
		return err
	}
	if len(args) > 0 {
		return a.where(c, args[0])
	}
	d, err := a.running(c.Context)
	if err != nil {
		return err
	}
	defer d.Close()
	s, err := client.Call[control.StatusAnswer](c.Context, d, control.Status, struct{}{})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.json(s)
	}
	a.printf("daemon   pid %d, version %s, up %v\n", s.PID, s.Version, time.Since(s.Started).Round(time.Second))
	a.printf("device   %s\n", control.Show(s.Device.Name))
	a.printf("home     %s\n", control.Show(s.Home))
	a.printf("memory   %s of %s\n", size(s.Memory.Used), size(s.Memory.Limit))
	if r := s.Receive; r != nil {
		a.printf("receive  what %s sends, into %s\n", senders(r.Yes), control.Show(r.Raw()))
	}
	for _, drive := range s.Drives {
		a.driveStatus(drive)
	}
	for _, m := range s.Mounts {
		a.mountStatus(m)
	}
	return nil
}

// where says what of a path is on which device.
func (a *app) where(c *cli.Context, arg string) error {
	d, t, err := a.path(c.Context, arg, true)
	if err != nil {
		return err
	}
	defer d.Close()
	s, err := client.Call[control.PathStatus](c.Context, d, control.Where, t)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.json(s)
	}
	a.printf("path     %s:%s at %s\n", s.Drive, control.Show(s.Raw()), s.At)
	a.printf("size     %s in %s\n", size(int64(s.Size)), count(s.Files, "file"))
	if s.Bytes < s.Size {
		a.printf("holes    %s\n", size(int64(s.Size-s.Bytes)))
	}
	a.printf("here     %s\n", share(s.Local, s.Bytes))
	for _, p := range s.Peers {
		name := control.Show(p.Name)
		if p.Name == "" {
			name = p.ID[:16]
		}
		a.printf("peer     %s: %s\n", name, share(p.Bytes, s.Bytes))
		if p.Problem != "" {
			a.printf("         %s\n", oneLine(p.Problem))
		}
	}
	if len(s.Peers) == 0 {
		a.printf("peer     none is connected\n")
	}
	return nil
}

// share shows a part of some bytes.
func share(part, all uint64) string {
	return fmt.Sprintf("%s (%s)", size(int64(part)), percent(part, all))
}

// percent shows a part of something. It is 0 % and 100 % only if that is so.
func percent(part, all uint64) string {
	p := 100.0
	if all > 0 {
		p = 100 * float64(part) / float64(all)
	}
	switch {
	case part < all && p > 99.9:
		p = 99.9
	case part > 0 && p < 0.1:
		p = 0.1
	}
	return fmt.Sprintf("%.3g%%", p)
}

func (a *app) driveStatus(d control.DriveStatus) {
	a.printf("\ndrive    %s\n", d.Name)
	if d.ID != "" {
		a.printf("  id       %s\n  version  @%d\n", d.ID, d.Version)
		a.printf("  holds    %s in %s; %s on disk\n", size(d.Logical), count(d.Files, "file"), size(d.Bytes))
	}
	if d.Missing > 0 {
		a.printf("  missing  %d of %s, which other devices have\n", d.Missing, count(d.Blocks, "block"))
	}
	if d.Unsaved > 0 {
		a.printf("  unsaved  %s\n", size(d.Unsaved))
	}
	for i := range d.Holders {
		h := &d.Holders[i]
		a.printf("  holder   %s: %s, %s\n", h.Device(), h.Found(), ago(h.Time))
	}
	if len(d.Health) == 0 {
		a.printf("  health   ok\n")
	}
	for _, problem := range d.Health {
		a.printf("  health   %s\n", oneLine(problem))
	}
}

// ago says how long something is past.
func ago(t time.Time) string {
	return max(0, time.Since(t)).Round(time.Second).String() + " ago"
}

func (a *app) mountStatus(m control.Mounted) {
	a.printf("\nmount    %s: %s", control.Show(m.Raw()), m.Drive)
	if m.At != "" {
		a.printf(" as it was at %s", m.At)
	}
	if m.ReadOnly {
		a.printf(", read-only")
	}
	if m.AllowOther {
		a.printf(", open to other users")
	}
	a.printf("\n")
	if m.Problem != "" {
		a.printf("  problem  %s\n", oneLine(m.Problem))
	}
}
