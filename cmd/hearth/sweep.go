package main

import (
	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) sweepCommand() *cli.Command {
	return &cli.Command{
		Name: "sweep", Usage: "free the space of versions that are not kept", ArgsUsage: "NAME",
		Description: describe("Drops what no kept version needs (see \"hearth retain\"). The daemon does it by\nitself when it is idle.",
			"hearth sweep home --dry-run"),
		Flags:  []cli.Flag{dryRunFlag(), jsonFlag()},
		Action: a.sweep,
	}
}

func (a *app) sweep(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	d, err := a.drive(c.Context, args[0])
	if err != nil {
		return err
	}
	defer d.Close()
	s, err := client.Stream[struct{}, control.Swept](c.Context, d, control.Sweep,
		control.SweepRequest{Drive: args[0], DryRun: c.Bool("dry-run")}, nil, a.progress)
	if err != nil {
		return err
	}
	return a.swept(c, s)
}

// swept prints what a sweep or a purge freed.
func (a *app) swept(c *cli.Context, s control.Swept) error {
	if c.Bool("json") {
		return a.json(s)
	}
	verb := "freed"
	if s.DryRun {
		verb = "would free"
	}
	a.printf("%s %s: %s of %s\n", verb, size(s.Bytes), count(s.Blocks, "block"), count(s.Versions, "version"))
	for _, note := range s.Notes {
		a.printf("%s\n", control.Show(note))
	}
	return nil
}
