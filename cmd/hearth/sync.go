package main

import (
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) syncCommand() *cli.Command {
	return &cli.Command{
		Name: "sync", Usage: "make everything written so far durable", ArgsUsage: "NAME|PATH",
		Description: describe("Returns when everything that was written to a drive survives a power cut.\nPrograms that call fsync need it not.",
			"cp -a photos ~/Hearth && hearth sync ~/Hearth"),
		Flags:  []cli.Flag{jsonFlag()},
		Action: a.sync,
	}
}

func (a *app) sync(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	d, t, err := a.driveOrPath(c, args[0])
	if err != nil {
		return err
	}
	defer d.Close()
	v, err := client.Call[control.Version](c.Context, d, control.Sync, t)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.json(v)
	}
	return nil
}

// driveOrPath takes a word that may be a drive's name or a path: a word
// without a slash is a drive, if there is one of that name.
func (a *app) driveOrPath(c *cli.Context, arg string) (*client.Client, control.Target, error) {
	if !strings.ContainsAny(arg, "/:") && arg != "." && arg != ".." {
		_, err := os.Lstat(arg)
		if a.isDrive(arg) || err != nil {
			d, err := a.drive(c.Context, arg)
			return d, control.Target{Drive: arg, Path: control.PathOf("/")}, err
		}
	}
	return a.path(c.Context, arg, false)
}
