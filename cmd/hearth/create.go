package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
	"hearth/cmd/home"
)

func (a *app) createCommand() *cli.Command {
	return &cli.Command{
		Name: "create", Usage: "make a new drive", ArgsUsage: "NAME",
		Description: describe(`Makes a new, empty drive and prints its id. Its keys are in the state folder and
nowhere else. The recovery key, with which a drive can go on after this device
was lost or stolen, exists at this moment only: --recovery-key writes it to a
file, which belongs somewhere else.`,
			"hearth create home --recovery-key /media/usb/home.key"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "recovery-key", Usage: "write the recovery key to the new file `FILE`"},
			jsonFlag(),
		},
		Action: a.create,
	}
}

func (a *app) create(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	if err := home.CheckName(args[0]); err != nil {
		return control.Usage(home.NameRule, "%w", err)
	}
	d, err := a.begin(c.Context)
	if err != nil {
		return err
	}
	defer d.Close()
	var key *os.File
	if file := c.String("recovery-key"); file != "" {
		// Opened first: a drive whose recovery key could not be kept would be
		// one without.
		if key, err = os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return control.Failed("give a file that does not exist yet", "recovery key: %w", err)
		}
		defer key.Close()
	}
	made, err := client.Call[control.Created](c.Context, d, control.Create, control.CreateRequest{Name: args[0], Recovery: key != nil})
	if err != nil {
		if key != nil {
			err = errors.Join(err, os.Remove(key.Name()))
		}
		return err
	}
	if key != nil {
		if err := keep(key, made.RecoveryKey); err != nil {
			return control.Failed("the drive was made without; see what is wrong there, and make another one", "recovery key: %w", err)
		}
		made.RecoveryKey = nil
	}
	if c.Bool("json") {
		return a.json(made)
	}
	a.printf("%s\n", made.ID)
	if a.errTerm {
		a.hint("`hearth mount %s DIR` shows it as a folder", made.Name)
	}
	return nil
}

// keep writes a recovery key, durably.
func keep(f *os.File, key []byte) error {
	if _, err := fmt.Fprintf(f, "%x\n", key); err != nil {
		return err
	}
	return f.Sync()
}

// boolFlag is a flag without a value; help need not say that it is not set.
func boolFlag(name, usage string, aliases ...string) cli.Flag {
	return &cli.BoolFlag{Name: name, Aliases: aliases, Usage: usage, DisableDefaultText: true}
}

// jsonFlag is the flag of every verb that lists something.
func jsonFlag() cli.Flag {
	return boolFlag("json", "print JSON")
}

func dryRunFlag() cli.Flag {
	return boolFlag("dry-run", "only say what would be done")
}

// isNoDrives reports the error of an empty home, which is no error where
// drives are merely listed.
func isNoDrives(err error) bool { return errors.Is(err, home.ErrNoDrives) }
