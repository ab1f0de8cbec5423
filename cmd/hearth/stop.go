package main

import (
	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) stopCommand() *cli.Command {
	return &cli.Command{
		Name: "stop", Usage: "save everything, unmount and end the daemon",
		Description: describe(`Saves everything, unmounts and ends the daemon, and returns when that is done.
While programs use a mount it is refused. The next start mounts the same drives
again. Without a daemon the exit code is 4.`,
			"hearth stop"),
		Flags: []cli.Flag{
			boolFlag("force", "even while programs use a mount: they will get errors"),
		},
		Action: a.stop,
	}
}

// stop works on a daemon of any version: it is the way out of a mixture.
func (a *app) stop(c *cli.Context) error {
	if _, err := arguments(c, 0, 0); err != nil {
		return err
	}
	h, err := a.home(false)
	if err != nil {
		_, err = a.running(c.Context)
		return err
	}
	d, err := client.Connect(c.Context, h, false)
	if err != nil {
		return err
	}
	defer d.Close()
	if _, err := client.Call[struct{}](c.Context, d, control.Stop, control.StopRequest{Force: c.Bool("force")}); err != nil {
		return err
	}
	return d.Ended(c.Context)
}
