package main

import (
	"context"
	"errors"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
	"hearth/cmd/daemon"
)

func (a *app) mountCommand() *cli.Command {
	return &cli.Command{
		Name: "mount", Usage: "show a drive as a folder", ArgsUsage: "NAME DIR",
		Description: describe(`Mounts a drive at DIR, an empty folder, and returns when it can be used. The
daemon is started if none runs, and mounts the drive again whenever it starts,
until "hearth unmount".`,
			"mkdir -p ~/Hearth && hearth mount home ~/Hearth"),
		Flags: []cli.Flag{
			boolFlag("allow-other", "let other users in, as far as modes allow"),
			boolFlag("read-only", "refuse changes"),
			boolFlag("foreground", "be the daemon, and stay until interrupted"),
		},
		Action: a.mount,
	}
}

func (a *app) mount(c *cli.Context) error {
	args, err := arguments(c, 2, 2)
	if err != nil {
		return err
	}
	if name, _, ok := strings.Cut(args[0], "@"); ok && a.isDrive(name) {
		return control.Usage("`hearth checkout "+args[0]+" DIR` mounts an old version", "mount shows the present")
	}
	req := control.MountRequest{Drive: args[0], Now: time.Now(),
		AllowOther: c.Bool("allow-other"), ReadOnly: c.Bool("read-only")}
	if err := a.checkDrive(req.Drive); err != nil {
		return err
	}
	if req.Path, err = mountPoint(args[1]); err != nil {
		return err
	}
	if c.Bool("foreground") {
		return a.serve(c.Context, daemon.Options{Mount: &req})
	}
	return a.requestMount(c.Context, req)
}

func (a *app) requestMount(ctx context.Context, req control.MountRequest) error {
	d, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	_, err = client.Call[control.Mounted](ctx, d, control.Mount, req)
	return err
}

// mountPoint resolves the folder of a mount. A folder whose daemon was killed
// answers no question; the daemon will replace what is left there.
func mountPoint(arg string) (control.Path, error) {
	full, err := physical(arg)
	if err != nil {
		return control.Path{}, err
	}
	real, err := filepath.EvalSymlinks(full)
	switch {
	case errors.Is(err, iofs.ErrNotExist):
		return control.Path{}, control.Failed("run `mkdir "+control.Show(arg)+"` first", "the mount point %s does not exist", control.Show(arg))
	case err != nil:
		return control.PathOf(full), nil
	}
	if st, err := os.Stat(real); err == nil && !st.IsDir() {
		return control.Path{}, control.Failed("give an empty folder", "the mount point %s is not a folder", control.Show(arg))
	}
	return control.PathOf(real), nil
}
