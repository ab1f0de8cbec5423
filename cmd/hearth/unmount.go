package main

import (
	"context"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) unmountCommand() *cli.Command {
	return &cli.Command{
		Name: "unmount", Aliases: []string{"umount"}, Usage: "take a mounted folder away", ArgsUsage: "DIR",
		Description: describe("Saves everything and ends the mount at DIR. While programs have files open\nthere, or work in it, it is refused.",
			"hearth unmount ~/Hearth"),
		Flags: []cli.Flag{
			boolFlag("force", "even while programs use it: they will get errors"),
		},
		Action: a.unmount,
	}
}

func (a *app) unmount(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	full, err := physical(args[0])
	if err != nil {
		return err
	}
	d, err := a.keeper(c.Context, full)
	if err != nil {
		return err
	}
	defer d.Close()
	if !mountedAt(d, full) {
		if real, err := filepath.EvalSymlinks(full); err == nil {
			full = real
		}
	}
	_, err = client.Call[struct{}](c.Context, d, control.Unmount, control.UnmountRequest{Path: control.PathOf(full), Force: c.Bool("force")})
	return err
}

// keeper reaches the daemon that is to take dir away. One that was killed or
// stopped has left a record of its mounts, and the next one would bring them
// back: it is started to forget this one, a dead mount too.
func (a *app) keeper(ctx context.Context, dir string) (*client.Client, error) {
	h, err := a.home(false)
	if err != nil {
		return a.running(ctx)
	}
	records, err := h.Mounts()
	if err != nil {
		return a.running(ctx) // the daemon says what is wrong with it
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		real = dir
	}
	for _, m := range records {
		if at := string(m.Dir); at == dir || at == real {
			return a.dial(ctx, h, true)
		}
	}
	return a.running(ctx)
}

func mountedAt(d *client.Client, dir string) bool {
	for _, m := range d.Mounts() {
		if m.Raw() == dir {
			return true
		}
	}
	return false
}
