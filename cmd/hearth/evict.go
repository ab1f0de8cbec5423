package main

import (
	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) evictCommand() *cli.Command {
	return &cli.Command{
		Name: "evict", Usage: "free the space of a file or folder that others have", ArgsUsage: "PATH",
		Description: describe(`Frees the space that the contents of a file or folder of a drive that was joined
take on this device. They can be read as before: then they come from others
again. Names, times and attributes stay. Each block goes only after a connected
device has proved that it has it; if nobody has proved that for some, these stay
and the exit code is 1. Blocks that other files share go, too.`,
			"hearth evict ~/Films/holiday.mkv"),
		Flags:  []cli.Flag{jsonFlag()},
		Action: a.evict,
	}
}

func (a *app) evict(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	d, t, err := a.path(c.Context, args[0], true)
	if err != nil {
		return err
	}
	defer d.Close()
	e, err := client.Stream[struct{}, control.Evicted](c.Context, d, control.Evict, t, nil, a.progress)
	if err != nil {
		return err
	}
	switch {
	case c.Bool("json"):
		err = a.json(e)
	case e.Evicted == 0 && e.Local == 0:
		a.printf("nothing of it is here\n")
	default:
		a.printf("evicted %s, which freed %s of disk\n", size(int64(e.Evicted)), size(e.Freed))
	}
	if err != nil || e.Reason == "" {
		return err
	}
	return control.Failed("`hearth peers` lists who is connected, `hearth status PATH` what they have",
		"%s of it stay here: %s", size(int64(e.Local)), e.Reason)
}
