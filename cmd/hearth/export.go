package main

import (
	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) exportCommand() *cli.Command {
	return &cli.Command{
		Name: "export", Usage: "write the signed log as static files", ArgsUsage: "NAME DIR",
		Description: describe(`Writes the drive's log into DIR, a new or empty folder, as C2SP tlog-tiles files
(checkpoint, tile/...), which any transparency-log tool can check. It holds no
contents and no keys.`,
			"hearth export home /srv/www/home-log"),
		Action: a.export,
	}
}

func (a *app) export(c *cli.Context) error {
	args, err := arguments(c, 2, 2)
	if err != nil {
		return err
	}
	if err := a.checkDrive(args[0]); err != nil {
		return err
	}
	dir, err := physical(args[1])
	if err != nil {
		return err
	}
	d, err := a.drive(c.Context, args[0])
	if err != nil {
		return err
	}
	defer d.Close()
	_, err = client.Stream[struct{}, struct{}](c.Context, d, control.Export,
		control.ExportRequest{Drive: args[0], Path: control.PathOf(dir)}, nil, a.progress)
	return err
}
