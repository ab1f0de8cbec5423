package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) fetchCommand() *cli.Command {
	return &cli.Command{
		Name: "fetch", Usage: "bring a file or folder to this device", ArgsUsage: "PATH",
		Description: describe(`Brings all of a file or folder of a drive that was joined to this device, from
every connected device that has some of it, so that it can be read when nobody
is connected. What was fetched stays when the command is interrupted. PATH@WHEN
fetches an old version.`,
			"hearth fetch ~/Films/holiday.mkv"),
		Flags:  []cli.Flag{jsonFlag()},
		Action: a.fetch,
	}
}

func (a *app) fetch(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	d, t, err := a.path(c.Context, args[0], true)
	if err != nil {
		return err
	}
	defer d.Close()
	f, err := client.Stream[struct{}, control.Fetched](c.Context, d, control.Fetch, t, nil, a.transferring())
	if err != nil {
		return err
	}
	switch {
	case c.Bool("json"):
		return a.json(f)
	case f.Fetched == 0:
		a.printf("everything is here already: %s\n", size(int64(f.Local)))
	default:
		a.printf("fetched %s; %s of %s are here\n", size(int64(f.Fetched)), size(int64(f.Local)), size(int64(f.Bytes)))
	}
	return nil
}

// transferring shows how far a transfer of bytes is, how fast it is and how long
// it may take: on a terminal, and only there.
func (a *app) transferring() func(control.Progress) {
	var begun time.Time
	var first int64
	return func(p control.Progress) {
		if begun.IsZero() {
			begun, first = time.Now(), p.Done
		}
		if !a.errTerm || time.Since(a.repaint) < 100*time.Millisecond {
			return
		}
		a.repaint, a.painted = time.Now(), true
		fmt.Fprintf(a.err, "\r\x1b[K%s", transferLine(p, p.Done-first, time.Since(begun)))
	}
}

// transferLine is what is shown after some bytes of a transfer have come in a
// time.
func transferLine(p control.Progress, came int64, in time.Duration) string {
	line := fmt.Sprintf("%s %s of %s", oneLine(p.What), size(p.Done), size(p.Total))
	if came <= 0 || in < time.Second/2 {
		return line
	}
	rate := float64(came) / in.Seconds()
	line += fmt.Sprintf(", %s/s", size(int64(rate)))
	if left := float64(p.Total-p.Done) / rate; left > 0 && left < 1e6 {
		line += fmt.Sprintf(", %v left", (time.Duration(left+1) * time.Second).Round(time.Second))
	}
	return line
}
