package main

import (
	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) undeleteCommand() *cli.Command {
	return &cli.Command{
		Name: "undelete", Usage: "bring back what was deleted", ArgsUsage: "PATH|GLOB",
		Description: describe(`Brings back the newest deleted file or folder of that path, or everything that
matches a pattern (quote it, so that the shell does not expand it). What was
deleted can come back for 30 days, unless "hearth retain" says otherwise.`,
			"hearth undelete '~/Hearth/photos/*.jpg'"),
		Flags:  []cli.Flag{dryRunFlag(), jsonFlag()},
		Action: a.undelete,
	}
}

func (a *app) undelete(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	d, t, err := a.path(c.Context, a.tilde(args[0]), false)
	if err != nil {
		return err
	}
	defer d.Close()
	r, err := client.Call[control.Result](c.Context, d, control.Undelete,
		control.UndeleteRequest{Target: t, DryRun: c.Bool("dry-run")})
	if err != nil {
		return err
	}
	return a.result(c, r)
}

// tilde expands ~/ in a pattern, which had to be quoted and so reaches us as
// it was typed.
func (a *app) tilde(arg string) string {
	if user := a.getenv("HOME"); user != "" && len(arg) > 1 && arg[:2] == "~/" {
		return user + arg[1:]
	}
	return arg
}
