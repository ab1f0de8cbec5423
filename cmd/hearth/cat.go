package main

import (
	"github.com/urfave/cli/v2"

	"hearth/cmd/control"
)

func (a *app) catCommand() *cli.Command {
	return &cli.Command{
		Name: "cat", Usage: "print a file as it was", ArgsUsage: "PATH@WHEN",
		Description: describe("Writes the contents of a file at a time to stdout.",
			"hearth cat ~/Hearth/letter.txt@2h > letter-before.txt"),
		Action: a.cat,
	}
}

func (a *app) cat(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	d, t, err := a.path(c.Context, args[0], true)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Copy(c.Context, control.Cat, t, a.out)
}
