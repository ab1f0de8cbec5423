package main

import (
	"time"

	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) statusCommand() *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "show the daemon, drives, mounts and their health",
		Description: describe("Shows the running daemon: drives with their versions, sizes and what is not yet\nsaved, mounts, and anything that is not well. Without a daemon the exit code is 4.",
			"hearth status --json | jq '.drives[] | {name, version, health}'"),
		Flags:  []cli.Flag{jsonFlag()},
		Action: a.status,
	}
}

func (a *app) status(c *cli.Context) error {
	if _, err := arguments(c, 0, 0); err != nil {
		return err
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

func (a *app) driveStatus(d control.DriveStatus) {
	a.printf("\ndrive    %s\n", d.Name)
	if d.ID != "" {
		a.printf("  id       %s\n  version  @%d\n", d.ID, d.Version)
		a.printf("  holds    %s in %s; %s on disk\n", size(d.Logical), count(d.Files, "file"), size(d.Bytes))
	}
	if d.Unsaved > 0 {
		a.printf("  unsaved  %s\n", size(d.Unsaved))
	}
	if len(d.Health) == 0 {
		a.printf("  health   ok\n")
	}
	for _, problem := range d.Health {
		a.printf("  health   %s\n", oneLine(problem))
	}
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
