package main

import (
	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) tagsCommand() *cli.Command {
	return &cli.Command{
		Name: "tags", Usage: "list tags", ArgsUsage: "PATH",
		Description: describe("Lists the tags of a folder or file.", "hearth tags ~/Hearth"),
		Flags:       []cli.Flag{jsonFlag()},
		Action:      a.tags,
	}
}

func (a *app) tags(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	d, t, err := a.path(c.Context, args[0], false)
	if err != nil {
		return err
	}
	defer d.Close()
	tags, err := client.Call[[]control.TagInfo](c.Context, d, control.Tags, t)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.json(tags)
	}
	rows := [][]string{{"TAG", "VERSION", "TIME", "PATH"}}
	for _, tag := range tags {
		rows = append(rows, []string{control.Show(tag.Name), tag.At, a.when(tag.Time), control.Show(tag.Raw())})
	}
	return a.table(rows)
}
