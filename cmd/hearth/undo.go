package main

import (
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) undoCommand() *cli.Command {
	return &cli.Command{
		Name: "undo", Usage: "take the newest change back", ArgsUsage: "[PATH]",
		Description: describe(`Takes back the newest change of a file or folder; without PATH, of the current
folder (or the nearest above it, if that was deleted). Again takes back the one before. Of a change
that was undone in a part of the folder, undo takes back the rest. Nothing newer is lost: where later
edits overlap, undo stops and says so. "hearth redo" does it again.`,
			"rm -r ~/Hearth/project && hearth undo ~/Hearth"),
		Flags: []cli.Flag{
			dryRunFlag(),
			boolFlag("force", "even where later edits overlap: they stay in the history"),
			jsonFlag(),
		},
		Action: func(c *cli.Context) error { return a.undo(c, control.Undo) },
	}
}

func (a *app) redoCommand() *cli.Command {
	return &cli.Command{
		Name: "redo", Usage: "do again what undo took back", ArgsUsage: "[PATH]",
		Description: describe("Does the change again that the last undo of a file or folder took back; without\nPATH, of the current folder. A new edit there ends what can be redone.",
			"hearth redo ~/Hearth"),
		Flags:  []cli.Flag{dryRunFlag(), jsonFlag()},
		Action: func(c *cli.Context) error { return a.undo(c, control.Redo) },
	}
}

// undoListed is of how many files at most a person is told one by one.
const undoListed = 1000

func (a *app) undo(c *cli.Context, route string) error {
	args, err := arguments(c, 0, 1)
	if err != nil {
		return err
	}
	var path string
	if len(args) == 1 {
		path = args[0]
	} else if path, err = here(); err != nil {
		return err
	}
	d, t, err := a.path(c.Context, path, false)
	if err != nil {
		return err
	}
	defer d.Close()
	limit := undoListed
	if c.Bool("json") {
		limit = 0
	}
	r, err := client.Call[control.Result](c.Context, d, route,
		control.UndoRequest{Target: t, DryRun: c.Bool("dry-run"), Force: c.Bool("force"), Limit: limit})
	if err != nil {
		return err
	}
	if err := a.result(c, r); err != nil || r.Omitted == 0 {
		return err
	}
	a.printf("%d files: too many to list, `hearth diff %s@%d` does\n", r.Omitted, path, r.Version.Version-1)
	return nil
}

// here is the current folder, or the nearest above it that is still there:
// what deleted the folder one stands in is a change of that one.
func here() (string, error) {
	dir, err := currentFolder()
	if err != nil {
		return "", err
	}
	for dir != "/" {
		if _, err := os.Lstat(dir); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir, nil
}
