package main

import (
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"hearth/cmd/control"
)

func (a *app) checkoutCommand() *cli.Command {
	return &cli.Command{
		Name: "checkout", Usage: "mount an old version, read-only", ArgsUsage: "NAME@WHEN DIR",
		Description: describe("Mounts a drive as it was at a time at DIR, an empty folder. It stays until\n\"hearth unmount\".",
			"hearth checkout home@yesterday /mnt/yesterday"),
		Flags: []cli.Flag{
			boolFlag("allow-other", "let other users in, as far as modes allow"),
		},
		Action: a.checkout,
	}
}

func (a *app) checkout(c *cli.Context) error {
	args, err := arguments(c, 2, 2)
	if err != nil {
		return err
	}
	name, when, ok := strings.Cut(args[0], "@")
	if !ok || when == "" {
		return control.Usage("usage: hearth checkout NAME@WHEN DIR, for example "+name+"@yesterday", "%s names no time", control.Show(args[0]))
	}
	name = strings.TrimSuffix(name, ":")
	if err := a.checkDrive(name); err != nil {
		return err
	}
	dir, err := mountPoint(args[1])
	if err != nil {
		return err
	}
	return a.requestMount(c.Context, control.MountRequest{Drive: name, Path: dir, When: when, Now: time.Now(),
		AllowOther: c.Bool("allow-other"), ReadOnly: true})
}
