package main

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hearth/cmd/client"
	"hearth/cmd/control"
	"hearth/cmd/home"
)

// maxLinks is how many symlinks a path may lead through, as in the kernel.
const maxLinks = 40

// target finds the drive that an argument speaks of. The argument is
// NAME:/path, or a path under a mount; it need not exist any more. Where
// timed is set it may end in @WHEN, which stays part of the path: the daemon
// knows whether there is a file of that very name.
func (a *app) target(ctx context.Context, c *client.Client, arg string, timed bool) (control.Target, error) {
	if name, path, ok := splitDrive(arg); ok {
		if _, err := os.Lstat(arg); err != nil || strings.HasPrefix(path, "/") && a.isDrive(name) {
			if err := a.checkDrive(name); err != nil {
				return control.Target{}, err
			}
			return control.Target{Drive: name, Path: control.PathOf(path), Timed: timed, Now: time.Now()}, nil
		}
	}
	full, err := physical(arg)
	if err != nil {
		return control.Target{}, err
	}
	t, ok := under(c.Mounts(), full, timed)
	if !ok {
		// The last part is not followed, so that a symlink in a drive can be
		// named; one outside that leads into a drive can only mean the drive.
		if real, err := filepath.EvalSymlinks(full); err == nil {
			t, ok = under(c.Mounts(), real, timed)
		}
	}
	if !ok {
		return control.Target{}, a.notInDrive(c, arg)
	}
	return t, nil
}

// under finds the mount that holds an absolute path: the innermost one.
func under(mounts []control.Mounted, full string, timed bool) (control.Target, bool) {
	var best *control.Mounted
	var rest string
	for i := range mounts {
		m := &mounts[i]
		inside, ok := within(m.Raw(), full, timed)
		if ok && (best == nil || len(m.Raw()) > len(best.Raw())) {
			best, rest = m, inside
		}
	}
	if best == nil {
		return control.Target{}, false
	}
	return control.Target{Drive: best.Drive, Path: control.PathOf(rest), When: best.At, Timed: timed, Now: time.Now()}, true
}

// within returns the path below dir, "/" for dir itself. Where timed is set,
// dir@WHEN is dir itself at a time: "/@WHEN".
func within(dir, full string, timed bool) (string, bool) {
	rest, ok := strings.CutPrefix(full, dir)
	switch {
	case !ok:
		return "", false
	case rest == "":
		return "/", true
	case rest[0] == '/':
		return rest, true
	case timed && rest[0] == '@' && !strings.Contains(rest, "/"):
		return "/" + rest, true
	}
	return "", false
}

// splitDrive takes NAME:/path apart; "NAME:" is the drive's top.
func splitDrive(arg string) (name, path string, ok bool) {
	name, path, ok = strings.Cut(arg, ":")
	if !ok || home.CheckName(name) != nil {
		return "", "", false
	}
	switch {
	case path == "":
		return name, "/", true
	case path[0] == '/':
		return name, path, true
	case path[0] == '@':
		return name, "/" + path, true
	}
	return "", "", false
}

// physical is the absolute path of arg with every symlink followed but one in
// the last place. What does not exist any more is kept as it is written: the
// history of a drive knows it.
func physical(arg string) (string, error) {
	done := "/"
	if !filepath.IsAbs(arg) {
		cwd, err := currentFolder()
		if err != nil {
			return "", err
		}
		done = cwd
	}
	parts := strings.Split(arg, "/")
	for links := 0; len(parts) > 0; {
		part := parts[0]
		parts = parts[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = filepath.Dir(done)
			continue
		}
		next := filepath.Join(done, part)
		if lastPart(parts) {
			return next, nil
		}
		st, err := os.Lstat(next)
		if err != nil || st.Mode()&iofs.ModeSymlink == 0 {
			done = next
			continue
		}
		if links++; links > maxLinks {
			return "", control.Failed("", "%s leads through too many symlinks", control.Show(arg))
		}
		to, err := os.Readlink(next)
		if err != nil {
			return "", fmt.Errorf("%s: %w", control.Show(arg), err)
		}
		if filepath.IsAbs(to) {
			done = "/"
		}
		parts = append(strings.Split(to, "/"), parts...)
	}
	return done, nil
}

// currentFolder is the physical path of the working directory. When that was
// deleted, as by the change that is about to be undone, the shell still knows
// its name.
func currentFolder() (string, error) {
	cwd, err := os.Getwd()
	if err != nil {
		if cwd = os.Getenv("PWD"); !filepath.IsAbs(cwd) {
			return "", control.Failed("give an absolute path, or cd to a folder that exists", "the current folder is gone: %w", err)
		}
	}
	if real, err := filepath.EvalSymlinks(cwd); err == nil {
		return real, nil
	}
	return physical(cwd)
}

// lastPart reports whether nothing that names anything follows.
func lastPart(rest []string) bool {
	for _, p := range rest {
		if p != "" && p != "." {
			return false
		}
	}
	return true
}

func (a *app) notInDrive(c *client.Client, arg string) error {
	if a.isDrive(arg) {
		return control.Failed("write "+arg+":/ for the top of the drive "+arg, "%s is a drive, and no path under a mount", arg)
	}
	var dirs []string
	for _, m := range c.Mounts() {
		dirs = append(dirs, control.Show(m.Raw()))
	}
	hint := "nothing is mounted; `hearth mount NAME DIR` mounts a drive, and NAME:/path works without"
	if len(dirs) > 0 {
		hint = "mounted: " + strings.Join(dirs, ", ") + "; without a mount write NAME:/path"
	}
	return control.Failed(hint, "%s is not in a mounted drive", control.Show(arg))
}

func (a *app) isDrive(name string) bool {
	h, err := a.home(false)
	if err != nil || home.CheckName(name) != nil {
		return false
	}
	_, err = os.Stat(h.DriveDir(name))
	return err == nil
}

// checkDrive refuses a drive that is not there, before any daemon is asked.
func (a *app) checkDrive(name string) error {
	h, err := a.home(false)
	if errors.Is(err, os.ErrNotExist) {
		return home.ErrNoDrives
	}
	if err != nil {
		return err
	}
	names, err := h.Drives()
	if err != nil {
		return err
	}
	return home.Known(name, names)
}

// drive connects to the daemon for a verb whose argument is a drive's name.
func (a *app) drive(ctx context.Context, name string) (*client.Client, error) {
	if err := a.checkDrive(name); err != nil {
		return nil, err
	}
	return a.connect(ctx)
}

// path connects to the daemon for a verb whose argument is a path.
func (a *app) path(ctx context.Context, arg string, timed bool) (*client.Client, control.Target, error) {
	if name, _, ok := splitDrive(arg); ok {
		if _, err := os.Lstat(arg); err != nil {
			if err := a.checkDrive(name); err != nil {
				return nil, control.Target{}, err
			}
		}
	}
	c, err := a.connect(ctx)
	if err != nil {
		return nil, control.Target{}, err
	}
	t, err := a.target(ctx, c, arg, timed)
	if err != nil {
		c.Close()
		return nil, control.Target{}, err
	}
	return c, t, nil
}
