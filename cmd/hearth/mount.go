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
		Name: "mount", Usage: "show a drive as a folder", ArgsUsage: "NAME|LINK DIR",
		Description: describe(`Mounts a drive at DIR, an empty folder, and returns when it can be used. The
daemon is started if none runs, and mounts the drive again whenever it starts,
until "hearth unmount".

A share link in place of the NAME joins its drive if it is not here yet. If the
link names a version ("hearth share NAME@WHEN" prints such), exactly that one is
shown, read-only: what differs from it in a single byte is refused, with exit
code 3, and a drive that was joined for it is left. Else the joined drive stays
when it is unmounted: "hearth leave" forgets it.`,
			"mkdir -p ~/Hearth && hearth mount home ~/Hearth\nhearth mount hearth://AQJx...@12.kY4... ~/Release"),
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
	if isLink(args[0]) {
		return a.mountLink(c, args)
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

// isLink reports whether an argument is meant as a share link.
func isLink(arg string) bool { return strings.HasPrefix(arg, "hearth://") }

// mountLink mounts the drive of a share link, or the version it names.
func (a *app) mountLink(c *cli.Context, args []string) error {
	if c.Bool("foreground") {
		return control.Usage("mount it without --foreground, or `hearth join LINK` first", "--foreground needs the name of a drive")
	}
	dir, err := mountPoint(args[1])
	if err != nil {
		return err
	}
	d, err := a.begin(c.Context)
	if err != nil {
		return err
	}
	defer d.Close()
	_, err = client.Call[control.Mounted](c.Context, d, control.Mount, control.MountRequest{Link: args[0], Path: dir,
		Now: time.Now(), AllowOther: c.Bool("allow-other"), ReadOnly: c.Bool("read-only")})
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
