package main

import (
	"context"
	"strings"

	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
	"hearth/cmd/home"
)

func (a *app) setCommand() *cli.Command {
	return &cli.Command{
		Name: "set", Usage: "show or change the settings of this device", ArgsUsage: "[KEY=VALUE...]",
		Description: describe(`Alone it lists the settings. Rates are bytes a second, over all other devices
together; what somebody waits for goes before the rest. An empty value is the
default. Where one value is refused, nothing is changed.`,
			`hearth set name="Eva's laptop" up=2MB/s down=none`),
		Flags:  []cli.Flag{jsonFlag()},
		Action: a.set,
	}
}

func (a *app) set(c *cli.Context) error {
	args := c.Args().Slice()
	h, err := a.home(true)
	if err != nil {
		return err
	}
	list, err := a.settings(c.Context, h, args)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.json(list)
	}
	if len(args) == 0 {
		rows := [][]string{{"KEY", "VALUE", "MEANING"}}
		for _, s := range list {
			meaning := s.Meaning
			if s.Pending {
				meaning += " (takes effect when the daemon starts again)"
			}
			rows = append(rows, []string{s.Key, control.Show(s.Value), meaning})
		}
		return a.table(rows)
	}
	var pending []string
	for _, s := range list {
		if s.Pending && isSet(args, s.Key) {
			pending = append(pending, s.Key)
		}
	}
	if len(pending) > 0 {
		a.note("%s takes effect when the daemon starts again: `hearth stop`", strings.Join(pending, ", "))
	}
	return nil
}

func isSet(pairs []string, key string) bool {
	for _, p := range pairs {
		if k, _, _ := strings.Cut(p, "="); k == key {
			return true
		}
	}
	return false
}

// settings changes settings, and lists them. A running daemon does it and heeds
// them; for a home without one only the files are written.
func (a *app) settings(ctx context.Context, h *home.Home, pairs []string) ([]control.Setting, error) {
	if !h.Locked() {
		if err := h.Set(pairs); err != nil {
			return nil, err
		}
		if !h.Locked() { // a daemon that began meanwhile may have read them before
			return h.Settings()
		}
	}
	d, err := a.dial(ctx, h, false)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return client.Call[[]control.Setting](ctx, d, control.Set, control.SetRequest{Set: pairs})
}
