package main

import (
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"hearth/cmd/control"
)

func (a *app) checkoutCommand() *cli.Command {
	return &cli.Command{
		Name: "checkout", Usage: "mount an old version, read-only", ArgsUsage: "NAME@WHEN|LINK DIR",
		Description: describe("Mounts a drive as it was at a time at DIR, an empty folder. It stays until\n\"hearth unmount\". A LINK that names a version works as with \"hearth mount\".",
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
	if isLink(args[0]) {
		if !strings.Contains(args[0], "@") {
			return control.Usage("`hearth mount LINK DIR` shows the newest version", "that link names no version")
		}
		return a.mountLink(c, args)
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
