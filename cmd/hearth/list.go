package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) listCommand() *cli.Command {
	return &cli.Command{
		Name: "list", Aliases: []string{"ls"}, Usage: "list the drives",
		Description: describe("Lists the drives of this device: name, id, newest version, size on disk and\nwhere each is mounted.",
			"hearth list --json | jq -r '.[].name'"),
		Flags:  []cli.Flag{jsonFlag()},
		Action: a.list,
	}
}

func (a *app) list(c *cli.Context) error {
	if _, err := arguments(c, 0, 0); err != nil {
		return err
	}
	var drives []control.DriveStatus
	d, err := a.connect(c.Context)
	switch {
	case isNoDrives(err):
	case err != nil:
		return err
	default:
		defer d.Close()
		status, err := client.Call[control.StatusAnswer](c.Context, d, control.Status, struct{}{})
		if err != nil {
			return err
		}
		drives = status.Drives
	}
	if c.Bool("json") {
		if drives == nil {
			drives = []control.DriveStatus{}
		}
		return a.json(drives)
	}
	if len(drives) == 0 {
		if a.errTerm {
			a.hint("there are no drives yet; `hearth create NAME` makes one")
		}
		return nil
	}
	return a.table(driveRows(drives))
}

// driveRows is the table of drives in list and status.
func driveRows(drives []control.DriveStatus) [][]string {
	rows := [][]string{{"NAME", "ID", "VERSION", "SIZE", "MOUNTED AT"}}
	for _, d := range drives {
		dirs := make([]string, len(d.Mounts))
		for i, m := range d.Mounts {
			dirs[i] = control.Show(m)
		}
		id, version := "-", "-" // it cannot be opened; status says why
		if d.ID != "" {
			id, version = d.ID[:min(12, len(d.ID))], fmt.Sprintf("@%d", d.Version)
		}
		rows = append(rows, []string{d.Name, id, version, size(d.Bytes), strings.Join(dirs, ", ")})
	}
	return rows
}
