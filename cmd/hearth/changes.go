package main

import (
	"encoding/json"
	"time"

	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) changesCommand() *cli.Command {
	return &cli.Command{
		Name: "changes", Usage: "a feed of all changes, for programs", ArgsUsage: "NAME",
		Description: describe(`Prints one JSON object per change since WHEN, oldest first, and with --follow
goes on with those to come. A program remembers the last "at" it has handled
and starts again from there. Names that are not UTF-8 come in "path_bytes" too,
in base64.`,
			"hearth changes home --since @0 --follow"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "since", Usage: "begin after `WHEN`; @0 is the beginning"},
			boolFlag("follow", "wait for more", "f"),
			boolFlag("json", "print JSON, which it does anyway"),
		},
		Action: a.changes,
	}
}

func (a *app) changes(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	if c.String("since") == "" {
		return control.Usage("--since @0 begins at the beginning", "changes needs --since WHEN")
	}
	d, err := a.drive(c.Context, args[0])
	if err != nil {
		return err
	}
	defer d.Close()
	req := control.FeedRequest{Drive: args[0], Since: c.String("since"), Now: time.Now(), Follow: c.Bool("follow")}
	// The daemon's lines are handed on as they are.
	_, err = client.Stream[json.RawMessage, struct{}](c.Context, d, control.Changes, req, func(line json.RawMessage) error {
		if _, err := a.out.Write(append(line, '\n')); err != nil {
			return err
		}
		if req.Follow {
			return a.out.Flush()
		}
		return nil
	}, nil)
	return err
}
