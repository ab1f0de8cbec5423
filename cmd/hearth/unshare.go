package main

import (
	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) unshareCommand() *cli.Command {
	return &cli.Command{
		Name: "unshare", Usage: "revoke one share link", ArgsUsage: "NAME LINK",
		Description: describe(`Revokes one link to a drive, and no other. LINK is its text, or its id as
"hearth share NAME --list" shows it, or the beginning of that.

A new key is made, and given to all other links: devices that joined by them go
on by themselves, and join by them as before. Whoever joined by the revoked link
gets nothing that is written from now on, and devices that know of it send it
nothing more. What was written before stays readable to who has the keys: the
key cannot be called back, nor what was copied. A device that has not heard of it
yet may still pass on what is older.`,
			"hearth share photos --list\nhearth unshare photos 3f9ac2d1"),
		Flags:  []cli.Flag{jsonFlag()},
		Action: a.unshare,
	}
}

func (a *app) unshare(c *cli.Context) error {
	args, err := arguments(c, 2, 2)
	if err != nil {
		return err
	}
	d, err := a.drive(c.Context, args[0])
	if err != nil {
		return err
	}
	defer d.Close()
	done, err := client.Call[control.Unshared](c.Context, d, control.Unshare, control.UnshareRequest{Drive: args[0], Link: args[1]})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.json(done)
	}
	a.printf("link %s is revoked; %s left\n", shortLink(done.ID), count(done.Left, "link"))
	if done.Level == "read" {
		a.printf("whoever has it can still read what was written until now, and nothing newer\n")
	} else {
		a.printf("whoever has it keeps what is there, and gets nothing newer\n")
	}
	return nil
}

// shortLink is as much of a link's id as people need.
func shortLink(id string) string { return id[:min(8, len(id))] }

// shareList prints the links of a drive.
func (a *app) shareList(c *cli.Context, d *client.Client, name string) error {
	links, err := client.Call[[]control.LinkInfo](c.Context, d, control.Links, control.LinksRequest{Drive: name})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.json(links)
	}
	rows := [][]string{{"LINK", "LETS", "MADE", "STATE"}}
	for _, l := range links {
		made, state := "-", "valid"
		if !l.Made.IsZero() {
			made = a.when(l.Made)
		}
		if l.Revoked {
			state = "revoked"
		}
		rows = append(rows, []string{shortLink(l.ID), l.Level, made, state})
	}
	return a.table(rows)
}
