package main

import (
	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) joinCommand() *cli.Command {
	return &cli.Command{
		Name: "join", Usage: "join a drive of another device by a link", ArgsUsage: "LINK",
		Description: describe(`Makes a drive of another device one of this device, by the link that
"hearth share" printed there. It can be mounted at once: what is read comes from
the devices that have it, and is kept here. The drive is read-only here. A link
made with --hold keeps all of the drive here for others. "hearth leave" ends it.`,
			"hearth join hearth://AQJx... --as photos\nhearth mount photos ~/Photos"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "as", Usage: "call the drive `NAME` here"},
			jsonFlag(),
		},
		Action: a.join,
	}
}

func (a *app) join(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	d, err := a.begin(c.Context)
	if err != nil {
		return err
	}
	defer d.Close()
	done, err := client.Call[control.Joined](c.Context, d, control.Join, control.JoinRequest{Link: args[0], As: c.String("as")})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.json(done)
	}
	a.printf("%s\n", done.Name)
	switch {
	case !a.errTerm:
	case done.Hold:
		a.hint("`hearth status` shows how much of it is here")
	default:
		a.hint("`hearth mount %s DIR` shows it as a folder", done.Name)
	}
	return nil
}
