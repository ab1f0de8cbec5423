package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

// standing makes the daemon receive by itself, or ends that.
func (a *app) standing(c *cli.Context) error {
	on := c.Bool("on")
	switch {
	case on && c.Bool("off"):
		return control.Usage(helpHint(c), "--on and --off exclude each other")
	case c.Bool("once"):
		return control.Usage(helpHint(c), "--once is for waiting in the foreground")
	case !on && (c.Bool("yes") || c.IsSet("dir")):
		return control.Usage(helpHint(c), "--off takes no other flags")
	}
	if !on {
		h, err := a.home(false)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if !h.Locked() {
			if err := h.SaveReceiving(nil); err != nil || !h.Locked() {
				return err
			}
		}
	}
	req := control.StandingRequest{On: on, Yes: c.Bool("yes")}
	if on {
		dir := c.String("dir")
		if !c.IsSet("dir") {
			dir = a.downloads()
		}
		dir, err := filepath.Abs(dir)
		if err != nil {
			return err
		}
		req.Path = control.PathOf(dir)
	}
	d, err := a.begin(c.Context)
	if err != nil {
		return err
	}
	defer d.Close()
	if _, err := client.Call[struct{}](c.Context, d, control.Standing, req); err != nil {
		return err
	}
	if on {
		a.note("what %s sends goes into %s; `hearth receive --off` ends it", senders(req.Yes), control.Show(req.Raw()))
	}
	return nil
}

// senders are those from whom something is taken.
func senders(anybody bool) string {
	if anybody {
		return "anybody"
	}
	return "a device that is known"
}

// downloads is where people look for what they got: ~/Downloads, or, where
// there is none, their home.
func (a *app) downloads() string {
	user := a.getenv("HOME")
	dir := filepath.Join(user, "Downloads")
	if st, err := os.Stat(dir); err == nil && st.IsDir() {
		return dir
	}
	return user
}
