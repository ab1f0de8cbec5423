package main

import (
	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) retainCommand() *cli.Command {
	return &cli.Command{
		Name: "retain", Usage: "show or set how long versions are kept", ArgsUsage: "PATH [LADDER]",
		Description: describe(`Shows what is kept of a folder, or sets it. A ladder says how close versions
are kept for how long: "all:1d 1h:7d 1d:90d 1w:2y undelete:30d" keeps every
version for a day, one per hour for a week, one per day for 90 days, one per
week for two years, and what was deleted for 30 days. "none" keeps no history.
Folders below inherit it. Tagged versions are kept for ever.`,
			"hearth retain ~/Hearth/scratch 'all:1h undelete:1d'"),
		Flags:  []cli.Flag{jsonFlag()},
		Action: a.retain,
	}
}

func (a *app) retain(c *cli.Context) error {
	args, err := arguments(c, 1, 2)
	if err != nil {
		return err
	}
	d, t, err := a.path(c.Context, args[0], false)
	if err != nil {
		return err
	}
	defer d.Close()
	req := control.RetainRequest{Target: t}
	if len(args) == 2 {
		req.Set, req.Ladder = true, args[1]
	}
	r, err := client.Call[control.Retained](c.Context, d, control.Retain, req)
	if err != nil || req.Set && !c.Bool("json") {
		return err
	}
	if c.Bool("json") {
		return a.json(r)
	}
	a.printf("%s\n", r.Ladder)
	return nil
}
