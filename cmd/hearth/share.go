package main

import (
	"strings"

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
being able to read a name or a byte in it.`,
			"hearth share home"),
		Flags:  []cli.Flag{boolFlag("hold", "a link with which the drive can be kept, and not read"), jsonFlag()},
		Action: a.share,
	}
}

func (a *app) share(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	d, err := a.connect(c.Context)
	if err != nil {
		return err
	}
	defer d.Close()
	made, err := client.Call[control.ShareAnswer](c.Context, d, control.Share, control.ShareRequest{Drive: args[0], Hold: c.Bool("hold")})
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
		a.hint("on the other device: `hearth join LINK`, then `hearth mount %s DIR`", args[0])
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
