package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) diffCommand() *cli.Command {
	return &cli.Command{
		Name: "diff", Usage: "list what differs between two times", ArgsUsage: "PATH@WHEN [WHEN]",
		Description: describe("Lists what was added, changed, moved and deleted in a file or folder between\nWHEN and the second WHEN, or now.",
			"hearth diff ~/Hearth/project@yesterday"),
		Flags:  []cli.Flag{jsonFlag()},
		Action: a.diff,
	}
}

func (a *app) diff(c *cli.Context) error {
	args, err := arguments(c, 1, 2)
	if err != nil {
		return err
	}
	d, t, err := a.path(c.Context, args[0], true)
	if err != nil {
		return err
	}
	defer d.Close()
	req := control.DiffRequest{Target: t}
	if len(args) == 2 {
		req.To = args[1]
	}
	if c.Bool("json") {
		return a.jsonList(c.Context, d, control.Diff, req)
	}
	_, err = client.Stream[control.DiffEntry, struct{}](c.Context, d, control.Diff, req, a.diffEntry, a.progress)
	return err
}

// diffEntry prints one difference.
func (a *app) diffEntry(e control.DiffEntry) error {
	path := control.Show(e.Path.Raw())
	if old := e.OldPath.Raw(); old != "" && old != e.Path.Raw() {
		path = control.Show(old) + " -> " + path
	}
	if change := delta(int64(e.SizeAfter) - int64(e.SizeBefore)); change != "" {
		path += "  " + change
	}
	_, err := fmt.Fprintf(a.out, "%-10s %s\n", e.Op, path)
	return err
}
