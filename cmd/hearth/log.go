package main

import (
	"context"
	"encoding/json"

	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) logCommand() *cli.Command {
	return &cli.Command{
		Name: "log", Usage: "list what was changed, newest first", ArgsUsage: "PATH",
		Description: describe(`Lists the changes of a file or folder as people think of them: one untar, one
save, one "rm -r" is one line, with its version, time, what it did, the change
of size and the program. A change is marked when all of it there was undone.

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
	route, sizes := control.Log, delta
	if c.Bool("versions") {
		route, sizes = control.Versions, size
	}
	req := control.LogRequest{Target: t, Limit: limit}
	if c.Bool("json") {
		return a.jsonList(c.Context, d, route, req)
	}
	n := 0
	err = d.Rows(c.Context, route, req, func(r control.Row) error {
		n++
		return a.row(r, sizes)
	})
	if err == nil && n == limit && !c.IsSet("n") && limit > 0 {
		_ = a.flush()
		a.hint("these are the newest %d; -n 0 lists all", limit)
	}
	return err
}

// jsonList prints the items of a stream as a JSON array.
func (a *app) jsonList(ctx context.Context, d *client.Client, route string, req any) error {
	items := &array{v: &a.voice}
	if _, err := client.Stream[json.RawMessage, struct{}](ctx, d, route, req, items.add, a.progress); err != nil {
		return err
	}
	items.close()
	return nil
}

// row prints one line of the log: the version, the time, a size and what it is
// about.
func (a *app) row(r control.Row, sizes func(int64) string) error {
	line := append(a.out.AvailableBuffer(), r.At...)
	line = pad(line, 9-len(r.At))
	line = r.Time.In(a.location).AppendFormat(line, timeLayout)
	s := sizes(r.Size)
	line = pad(line, 12-len(s))
	line = append(append(append(line, s...), "  "...), r.What...)
	_, err := a.out.Write(append(line, '\n'))
	return err
}

// pad appends n spaces, one at least.
func pad(line []byte, n int) []byte {
	for range max(1, n) {
		line = append(line, ' ')
	}
	return line
}
