package main

import (
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) tagCommand() *cli.Command {
	return &cli.Command{
		Name: "tag", Usage: "name a version, and keep it for ever", ArgsUsage: "PATH[@WHEN] TAG",
		Description: describe("Names the present version of a folder or file, or that of WHEN. A tagged version\nis kept for ever, and PATH@TAG shows it.",
			"hearth tag ~/Hearth/thesis submitted"),
		Action: func(c *cli.Context) error { return a.tag(c, control.Tag) },
	}
}

func (a *app) untagCommand() *cli.Command {
	return &cli.Command{
		Name: "untag", Usage: "take a tag away", ArgsUsage: "PATH TAG",
		Description: describe("Takes a tag away. What it kept is kept from then on as long as any other version.",
			"hearth untag ~/Hearth/thesis draft-3"),
		Action: func(c *cli.Context) error { return a.tag(c, control.Untag) },
	}
}

func (a *app) tag(c *cli.Context, route string) error {
	args, err := arguments(c, 2, 2)
	if err != nil {
		return err
	}
	if !utf8.ValidString(args[1]) { // JSON would carry another name
		return control.Usage("", "%s cannot be a tag: it is not UTF-8", control.Show(args[1]))
	}
	d, t, err := a.path(c.Context, args[0], route == control.Tag)
	if err != nil {
		return err
	}
	defer d.Close()
	_, err = client.Call[struct{}](c.Context, d, route, control.TagRequest{Target: t, Name: args[1]})
	return err
}
