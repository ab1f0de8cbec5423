package main

import (
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
	d, err := a.running(c.Context)
	if err != nil {
		return err
	}
	defer d.Close()
	full, err := physical(args[0])
	if err != nil {
		return err
	}
	if !mountedAt(d, full) {
		if real, err := filepath.EvalSymlinks(full); err == nil {
			full = real
		}
	}
	_, err = client.Call[struct{}](c.Context, d, control.Unmount, control.UnmountRequest{Path: control.PathOf(full), Force: c.Bool("force")})
	return err
}

func mountedAt(d *client.Client, dir string) bool {
	for _, m := range d.Mounts() {
		if m.Raw() == dir {
			return true
		}
	}
	return false
}
