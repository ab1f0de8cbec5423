package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) verifyCommand() *cli.Command {
	return &cli.Command{
		Name: "verify", Usage: "check a whole drive, or those who hold it", ArgsUsage: "NAME",
		Description: describe(`Reads a whole drive and checks every hash, signature, page, extent and
reference. Damage is named by path, version and block, and ends with exit code
3. What was dropped on purpose is no damage. Of a drive that this device only
holds for others, or has joined, what is damaged is got again from the others.

With --holders it asks the connected devices that hold the drive to prove that
they have it: 512 random blocks each. The daemon does so by itself every hour;
`+"`hearth peers`"+` and `+"`hearth status`"+` show what was found last. A device that has
lost blocks ends it with exit code 3.`,
			"hearth verify home"),
		Flags:  []cli.Flag{boolFlag("holders", "audit the connected devices that hold the drive"), jsonFlag()},
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
	if c.Bool("holders") {
		return a.audit(c, d, args[0])
	}
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
	} else if report.Held {
		a.printf("%s, %s checked, whose contents this device cannot read; %s dropped on purpose\n",
			count(report.Blocks, "block"), size(report.Bytes), count(report.Dropped, "block"))
	} else {
		a.printf("%s in %s, %s checked; %s dropped on purpose\n",
			count(report.Versions, "version"), count(report.Blocks, "block"), size(report.Bytes), count(report.Dropped, "block"))
	}
	for _, f := range report.Forks {
		if !c.Bool("json") {
			a.printf("forked: the log %s was written in two places from one state; --json shows the evidence\n", control.Show(f.Log))
		}
	}
	if n := report.Damaged; n > 0 {
		_ = a.flush()
		hint := "what is undamaged stays readable; restore the rest from a copy"
		if report.Held {
			hint = "it is got again from the other devices that have it"
		} else if report.Versions == 0 {
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

// audit prints what the devices prove to hold of a drive.
func (a *app) audit(c *cli.Context, d *client.Client, drive string) error {
	list, err := client.Call[[]control.HolderInfo](c.Context, d, control.Audit, control.AuditRequest{Drive: drive})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		err = a.json(list)
	} else {
		for i := range list {
			a.printf("%s: %s\n", list[i].Device(), list[i].Found())
		}
	}
	if err != nil {
		return err
	}
	if len(list) == 0 && a.errTerm {
		a.hint("nobody who shares it is connected; `hearth peers` lists the devices")
	}
	failed := 0
	for i := range list {
		if list[i].Lost > 0 {
			failed++
		}
	}
	if failed > 0 {
		_ = a.flush()
		return control.Damaged("`hearth verify` on that device finds what else is lost, and gets it again", "%s lost blocks of drive %s", count(failed, "holder"), drive)
	}
	return nil
}
