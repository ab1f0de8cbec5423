package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) verifyCommand() *cli.Command {
	return &cli.Command{
		Name: "verify", Usage: "check a whole drive", ArgsUsage: "NAME",
		Description: describe(`Reads a whole drive and checks every hash, signature, page, extent and
reference. Damage is named by path, version and block, and ends with exit code
3. What was dropped on purpose is no damage.`,
			"hearth verify home"),
		Flags:  []cli.Flag{jsonFlag()},
		Action: a.verify,
	}
}

func (a *app) verify(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	d, err := a.drive(c.Context, args[0])
	if err != nil {
		return err
	}
	defer d.Close()
	report := struct {
		control.Verified
		Damage []control.DamageInfo `json:"damage"`
	}{Damage: []control.DamageInfo{}}
	report.Verified, err = client.Stream[control.DamageInfo, control.Verified](c.Context, d, control.Verify,
		control.VerifyRequest{Drive: args[0]}, func(found control.DamageInfo) error {
			a.clear()
			if c.Bool("json") {
				report.Damage = append(report.Damage, found)
				return nil
			}
			_, err := fmt.Fprintln(a.out, damageLine(found))
			return err
		}, a.progress)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		if err := a.json(report); err != nil {
			return err
		}
	} else {
		a.printf("%s in %s, %s checked; %s dropped on purpose\n",
			count(report.Versions, "version"), count(report.Blocks, "block"), size(report.Bytes), count(report.Dropped, "block"))
	}
	if n := report.Damaged; n > 0 {
		_ = a.flush()
		hint := "what is undamaged stays readable; restore the rest from a copy"
		if report.Versions == 0 {
			hint = "it cannot be opened; restore it from a copy"
		}
		return control.Damaged(hint, "%s in drive %s", count(n, "damaged place"), args[0])
	}
	return nil
}

// damageLine says what is damaged and where; what is not known is left out.
func damageLine(d control.DamageInfo) string {
	var where string
	if p := d.Raw(); p != "" {
		where += " " + control.Show(p)
	}
	if d.At != "" {
		where += " " + d.At
	}
	if d.Block != "" {
		where += " block " + d.Block
	}
	if where != "" {
		where += ":"
	}
	return "damaged:" + where + " " + oneLine(d.Problem)
}
