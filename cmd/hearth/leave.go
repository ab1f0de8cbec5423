package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) leaveCommand() *cli.Command {
	return &cli.Command{
		Name: "leave", Usage: "forget a drive that was joined", ArgsUsage: "NAME",
		Description: describe(`Forgets a drive that this device joined: it is not kept up to date any more, and
what is here of it is removed. It has to be unmounted. "hearth join" with the same
link brings it back. A drive that was made on this device is refused.

Connected devices are asked to prove that they have what goes. If some of it is
proved by nobody, this asks first, as it may be the only copy; --yes answers, and
nobody has to prove anything. Without a terminal to ask on the drive stays, and
the exit code is 1.`,
			"hearth unmount ~/Films && hearth leave films"),
		Flags: []cli.Flag{
			boolFlag("yes", "do not ask", "y"),
			jsonFlag(),
		},
		Action: a.leave,
	}
}

func (a *app) leave(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	d, err := a.drive(c.Context, args[0])
	if err != nil {
		return err
	}
	defer d.Close()
	leave := func(yes bool) (control.Left, error) {
		return client.Stream[struct{}, control.Left](c.Context, d, control.Leave, control.LeaveRequest{Drive: args[0], Yes: yes}, nil, a.progress)
	}
	done, err := leave(c.Bool("yes"))
	if err != nil {
		return err
	}
	var stays error
	if !done.Left {
		a.clear()
		why := fmt.Sprintf("%d of the %s that are here were proved by no device", done.Unproved, count(done.Blocks, "block"))
		if done.Asked == 0 {
			why = fmt.Sprintf("no device is connected that could have the %s that are here", count(done.Blocks, "block"))
		}
		if !isTerminal(a.in) {
			stays = control.Failed("`hearth peers` lists who is connected; --yes leaves it all the same", "drive %s stays: %s", args[0], why)
		} else if ok, err := a.confirm(c, fmt.Sprintf("Leave drive %s? %s.", args[0], capital(why))); err != nil {
			return err
		} else if !ok {
			return control.Failed("", "drive %s stays", args[0])
		} else if done, err = leave(true); err != nil {
			return err
		}
	}
	switch {
	case c.Bool("json"):
		err = a.json(done)
	case done.Left:
		a.printf("left drive %s, which freed %s of disk\n", args[0], size(done.Freed))
	}
	if err != nil {
		return err
	}
	return stays
}

// capital makes the first letter, which is one of ASCII, a capital.
func capital(s string) string { return string(s[0]&^0x20) + s[1:] }
