package main

import (
	"runtime"

	"github.com/urfave/cli/v2"

	"hearth/cmd/control"
)

func (a *app) versionCommand() *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "print the version",
		Description: describe("Prints the version of this program, with the commit it was built from.", "hearth version"),
		Flags:       []cli.Flag{jsonFlag()},
		Action:      a.version,
	}
}

func (a *app) version(c *cli.Context) error {
	if _, err := arguments(c, 0, 0); err != nil {
		return err
	}
	if c.Bool("json") {
		return a.json(struct {
			Version string `json:"version"`
			Go      string `json:"go"`
			System  string `json:"system"`
		}{control.BuildVersion(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH})
	}
	a.printf("hearth %s\n", control.BuildVersion())
	return nil
}
