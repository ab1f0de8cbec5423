package main

import (
	"encoding/json"
	"fmt"

	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) logCommand() *cli.Command {
	return &cli.Command{
		Name: "log", Usage: "list what was changed, newest first", ArgsUsage: "PATH",
		Description: describe(`Lists the changes of a file or folder as people think of them: one untar, one
save, one "rm -r" is one line, with its version, time, what it did, the change
of size and the program. A change that was undone is marked.

With --versions, the versions of one file: each time that it was saved, with
its size and name then.`,
			"hearth log -n 20 ~/Hearth/letters"),
		Flags: []cli.Flag{
			boolFlag("versions", "list the versions of a file instead"),
			&cli.IntFlag{Name: "n", Usage: "at most `N` changes; 0 means all", DefaultText: "40 on a terminal, else all"},
			jsonFlag(),
		},
		Action: a.log,
	}
}

// screenful is how many changes a terminal gets unless asked for more.
const screenful = 40

func (a *app) log(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	limit := c.Int("n")
	if limit < 0 {
		return control.Usage(helpHint(c), "-n %d: there is no negative number of changes", limit)
	}
	if !c.IsSet("n") && a.outTerm && !c.Bool("json") {
		limit = screenful
	}
	d, t, err := a.path(c.Context, args[0], false)
	if err != nil {
		return err
	}
	defer d.Close()
	req := control.LogRequest{Target: t, Limit: limit}
	var n int
	switch {
	case c.Bool("versions"):
		n, err = listed(c, a, d, control.Versions, req, a.fileVersion)
	default:
		n, err = listed(c, a, d, control.Log, req, a.change)
	}
	if err == nil && n == limit && !c.IsSet("n") && limit > 0 {
		_ = a.flush()
		a.hint("these are the newest %d; -n 0 lists all", limit)
	}
	return err
}

// listed prints the items of a stream, as text or as JSON, and counts them.
func listed[Item any](c *cli.Context, a *app, d *client.Client, route string, req any, text func(Item) error) (n int, err error) {
	if c.Bool("json") {
		list := &array{v: &a.voice}
		if _, err := client.Stream[json.RawMessage, struct{}](c.Context, d, route, req, list.add, a.progress); err != nil {
			return list.n, err
		}
		list.close()
		return list.n, nil
	}
	_, err = client.Stream[Item, struct{}](c.Context, d, route, req, func(it Item) error {
		n++
		return text(it)
	}, a.progress)
	return n, err
}

// fileVersion prints one line of the versions of a file.
func (a *app) fileVersion(v control.FileVersion) error {
	what := control.Show(v.Raw())
	if v.Program != "" {
		what += "  (" + control.Show(v.Program) + ")"
	}
	if v.Reason != "work" {
		what += "  [" + v.Reason + "]"
	}
	_, err := fmt.Fprintf(a.out, "%-8s %s  %10s  %s\n", v.At, a.when(v.Time), size(int64(v.Size)), what)
	return err
}

// change prints one line of the log.
func (a *app) change(ch control.Change) error {
	what := ch.What()
	if what == "" {
		what = "nothing that lasted"
	}
	if ch.Program != "" {
		what += "  (" + control.Show(ch.Program) + ")"
	}
	if ch.Undone {
		what += "  [undone]"
	}
	_, err := fmt.Fprintf(a.out, "%-8s %s  %10s  %s\n", ch.At, a.when(ch.Time), delta(ch.SizeDelta), what)
	return err
}
