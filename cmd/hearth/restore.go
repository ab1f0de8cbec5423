package main

import (
	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) restoreCommand() *cli.Command {
	return &cli.Command{
		Name: "restore", Usage: "bring back a file or folder as it was", ArgsUsage: "PATH@WHEN",
		Description: describe(`Brings back what is missing or changed since WHEN, and keeps what is newer.
With --exact the folder becomes exactly what it was: newer files go. That too
is a version, and "hearth undo" takes it back.`,
			"hearth restore ~/Hearth/project@yesterday --dry-run"),
		Flags: []cli.Flag{
			boolFlag("exact", "remove what was not there at that time"),
			&cli.StringFlag{Name: "to", Usage: "restore to `DEST`, a path in the same drive that does not exist"},
			dryRunFlag(), jsonFlag(),
		},
		Action: a.restore,
	}
}

func (a *app) restore(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	d, t, err := a.path(c.Context, args[0], true)
	if err != nil {
		return err
	}
	defer d.Close()
	req := control.RestoreRequest{Target: t, Exact: c.Bool("exact"), DryRun: c.Bool("dry-run")}
	if c.IsSet("to") {
		if c.String("to") == "" {
			return control.Usage(helpHint(c), "--to names no place")
		}
		dest, err := a.target(c.Context, d, c.String("to"), false)
		if err != nil {
			return err
		}
		if dest.Drive != t.Drive {
			return control.Failed("mount the old version with `hearth checkout` and copy from there",
				"%s is in another drive", control.Show(c.String("to")))
		}
		if dest.When != "" {
			return control.Failed("give a path in the mounted drive, or "+dest.Drive+":"+control.Show(dest.Raw()),
				"%s is in an old version, which nothing can be added to", control.Show(c.String("to")))
		}
		req.To = &dest.Path
	}
	r, err := client.Call[control.Result](c.Context, d, control.Restore, req)
	if err != nil {
		return err
	}
	return a.result(c, r)
}

// result prints what restore, undelete, undo and redo did.
func (a *app) result(c *cli.Context, r control.Result) error {
	if c.Bool("json") {
		return a.json(r)
	}
	for _, e := range r.Entries {
		if err := a.diffEntry(e); err != nil {
			return err
		}
	}
	switch {
	case r.Summary == "":
	case r.DryRun:
		a.printf("%s (nothing was changed)\n", r.Summary)
	default:
		a.printf("%s\n", r.Summary)
	}
	return nil
}
