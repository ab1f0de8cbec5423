package main

import (
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"rsc.io/qr"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) shareCommand() *cli.Command {
	return &cli.Command{
		Name: "share", Usage: "print a link by which another device can join a drive", ArgsUsage: "NAME",
		Description: describe(`Prints a link, and on a terminal its QR code. Whoever has the link can read the
whole drive and its history, now and later: send it as you would send a key.
With --hold the link lets a device keep the drive and serve it to others without
being able to read a name or a byte in it.

Each link is one of its own: "hearth unshare" revokes it and no other. NAME@WHEN
makes a strong link: it names a version and the checkpoint that ends with it, so
that "hearth mount" of it shows exactly that version, or refuses. Tag the version
if it is to be kept. Such a link, too, lets its holder read the whole drive.`,
			"hearth share home\nhearth share home --list\nhearth share home@yesterday"),
		Flags: []cli.Flag{
			boolFlag("hold", "a link with which the drive can be kept, and not read"),
			boolFlag("list", "list the links that were made"),
			jsonFlag(),
		},
		Action: a.share,
	}
}

func (a *app) share(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	name, when, timed := strings.Cut(args[0], "@")
	name = strings.TrimSuffix(name, ":")
	switch {
	case timed && when == "":
		return control.Usage("usage: hearth share NAME@WHEN, for example "+name+"@yesterday", "%s names no time", control.Show(args[0]))
	case timed && (c.Bool("hold") || c.Bool("list")):
		return control.Usage("leave out the @ and what follows", "--hold and --list are about the whole drive")
	case c.Bool("list") && c.Bool("hold"):
		return control.Usage("--list lists all links", "--list and --hold exclude each other")
	}
	d, err := a.drive(c.Context, name)
	if err != nil {
		return err
	}
	defer d.Close()
	if c.Bool("list") {
		return a.shareList(c, d, name)
	}
	made, err := client.Call[control.ShareAnswer](c.Context, d, control.Share,
		control.ShareRequest{Drive: name, Hold: c.Bool("hold"), When: when, Now: time.Now()})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.json(made)
	}
	if a.outTerm {
		code, err := qr.Encode(made.Link, qr.L)
		if err == nil {
			a.printf("%s\n", qrText(code))
		}
	}
	a.printf("%s\n", made.Link)
	if a.errTerm {
		if timed {
			a.hint("on the other device: `hearth mount LINK DIR` shows version %s", made.Version)
		} else {
			a.hint("on the other device: `hearth join LINK`, then `hearth mount %s DIR`", name)
		}
	}
	return nil
}

// qrText draws a code with half blocks, two modules to a letter, light on dark
// as terminals are: the quiet zone and the light modules are drawn.
func qrText(code *qr.Code) string {
	const quiet = 2
	light := func(x, y int) bool {
		return x < 0 || y < 0 || x >= code.Size || y >= code.Size || !code.Black(x, y)
	}
	var b strings.Builder
	for y := -quiet; y < code.Size+quiet; y += 2 {
		for x := -quiet; x < code.Size+quiet; x++ {
			upper, lower := light(x, y), light(x, y+1) && y+1 < code.Size+quiet
			switch {
			case upper && lower:
				b.WriteRune('█')
			case upper:
				b.WriteRune('▀')
			case lower:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
