package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
	"hearth/cmd/home"
)

// app is one run of the command line.
type app struct {
	voice
	in     io.Reader
	getenv func(string) string
}

// run is the whole program but for the process around it.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{voice: newVoice(stdout, stderr), in: stdin, getenv: os.Getenv}
	err := a.cli().RunContext(ctx, intersperse(a.commands(), args))
	if flushErr := a.flush(); err == nil {
		err = flushErr
	}
	switch {
	case err == nil:
		return control.ExitOK
	case errors.Is(err, syscall.EPIPE): // the reader (head, less) has seen enough
		return control.ExitOK
	case ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))):
		a.clear()
		return control.ExitInterrupted
	}
	return a.fail(err)
}

// cli builds the command tree.
func (a *app) cli() *cli.App {
	return &cli.App{
		Name:                  "hearth",
		Usage:                 "drives that remember everything: encrypted, signed, versioned folders",
		UsageText:             "hearth COMMAND [flags] [arguments]",
		Description:           overview,
		CustomAppHelpTemplate: appHelp,
		Writer:                a.out,
		ErrWriter:             a.err,
		Reader:                a.in,
		HideVersion:           true,
		HideHelpCommand:       true,
		Flags:                 []cli.Flag{boolFlag("version", "print the version")},
		Commands:              a.commands(),
		OnUsageError:          usageError,
		ExitErrHandler:        func(*cli.Context, error) {}, // run decides
		Action: func(c *cli.Context) error {
			if c.Bool("version") {
				return a.version(c)
			}
			if word := c.Args().First(); word != "" {
				return a.unknownCommand(word)
			}
			return cli.ShowAppHelp(c)
		},
	}
}

// commands lists the verbs in the order that help shows them.
func (a *app) commands() []*cli.Command {
	all := []*cli.Command{
		a.createCommand(), a.listCommand(), a.mountCommand(), a.unmountCommand(), a.checkoutCommand(), a.syncCommand(),
		a.logCommand(), a.diffCommand(), a.catCommand(), a.restoreCommand(), a.undeleteCommand(), a.undoCommand(), a.redoCommand(),
		a.tagCommand(), a.tagsCommand(), a.untagCommand(), a.changesCommand(),
		a.retainCommand(), a.sweepCommand(), a.purgeCommand(),
		a.verifyCommand(), a.exportCommand(),
		a.shareCommand(), a.unshareCommand(), a.joinCommand(), a.leaveCommand(), a.peersCommand(), a.connectCommand(), a.nearbyCommand(),
		a.fetchCommand(), a.evictCommand(),
		a.sendCommand(), a.receiveCommand(), a.setCommand(),
		a.statusCommand(), a.daemonCommand(), a.stopCommand(), a.versionCommand(),
		a.helpCommand(), a.completionCommand(), a.manCommand(), a.completeCommand(),
	}
	for _, c := range all {
		c.OnUsageError = usageError
		c.CustomHelpTemplate = commandHelp
		c.HideHelpCommand = true
	}
	return all
}

func (a *app) unknownCommand(word string) error {
	var names []string
	for _, c := range a.commands() {
		names = append(names, c.Name)
	}
	hint := "`hearth help` lists the commands"
	if near := home.Similar(word, names); len(near) > 0 {
		hint = "did you mean `hearth " + near[0] + "`?"
	}
	return control.Usage(hint, "there is no command %s", control.Show(word))
}

// usageError turns what the flag parser dislikes into our voice.
func usageError(c *cli.Context, err error, _ bool) error {
	return control.Usage(helpHint(c), "%s", strings.TrimSuffix(err.Error(), "."))
}

func helpHint(c *cli.Context) string {
	if c.Command == nil || c.Command.Name == "" || c.Command.Name == "hearth" {
		return "`hearth help` lists the commands"
	}
	return "see `hearth " + c.Command.Name + " --help`"
}

// arguments checks how many there are and returns them. The names in
// ArgsUsage are what an error calls them.
func arguments(c *cli.Context, least, most int) ([]string, error) {
	got := c.Args().Slice()
	usage := fmt.Sprintf("usage: hearth %s %s", c.Command.Name, c.Command.ArgsUsage)
	switch {
	case len(got) < least:
		return nil, control.Usage(usage, "%s needs %s", c.Command.Name, count(least, "argument"))
	case len(got) > most && most == 0:
		return nil, control.Usage(usage, "%s takes no arguments", c.Command.Name)
	case len(got) > most:
		return nil, control.Usage(usage, "%s takes at most %s: %s is too many", c.Command.Name, count(most, "argument"), control.Show(got[most]))
	}
	for _, arg := range got {
		if arg == "" {
			return nil, control.Usage(usage, "an argument of %s is empty", c.Command.Name)
		}
	}
	return got, nil
}

// home locates and checks the state folder, and makes it if create is set.
func (a *app) home(create bool) (*home.Home, error) {
	dir, err := home.Locate(a.getenv)
	if err != nil {
		return nil, control.Failed("set "+home.Variable+" to a folder for Hearth's state", "%w", err)
	}
	open := home.Open
	if create {
		open = home.Ensure
	}
	h, err := open(dir)
	var perm *home.PermissionError
	if errors.As(err, &perm) {
		hint := "set " + home.Variable + " to a folder of your own"
		if perm.Mend != "" {
			hint = "run `" + perm.Mend + "`"
		}
		return nil, control.Failed(hint, "state folder %w", perm)
	}
	if err != nil && (create || !errors.Is(err, os.ErrNotExist)) { // a missing one is where nothing was made yet
		return nil, control.Failed("set "+home.Variable+" to another folder", "%w", err)
	}
	return h, err
}

// connect reaches the daemon, starting it if needed. A home without drives
// gets none: whatever the verb wants is not there.
func (a *app) connect(ctx context.Context) (*client.Client, error) {
	h, err := a.home(false)
	if errors.Is(err, os.ErrNotExist) {
		return nil, home.ErrNoDrives
	}
	if err != nil {
		return nil, err
	}
	names, err := h.Drives()
	if err != nil {
		return nil, err
	}
	if len(names) == 0 && !h.Locked() {
		return nil, home.ErrNoDrives
	}
	return a.dial(ctx, h, true)
}

// begin reaches the daemon for a verb that needs no drive yet, and makes the
// state folder if there is none.
func (a *app) begin(ctx context.Context) (*client.Client, error) {
	h, err := a.home(true)
	if err != nil {
		return nil, err
	}
	return a.dial(ctx, h, true)
}

// running reaches a daemon that runs; none is an error with exit code 4.
func (a *app) running(ctx context.Context) (*client.Client, error) {
	h, err := a.home(false)
	if errors.Is(err, os.ErrNotExist) {
		dir, _ := home.Locate(a.getenv)
		return nil, control.NoDaemon("`hearth create NAME` makes a drive and starts it", "no daemon runs for %s", dir)
	}
	if err != nil {
		return nil, err
	}
	return a.dial(ctx, h, false)
}

func (a *app) dial(ctx context.Context, h *home.Home, spawn bool) (*client.Client, error) {
	c, err := client.Connect(ctx, h, spawn)
	if err != nil {
		return nil, err
	}
	if err := c.CheckVersion(); err != nil {
		c.Close()
		return nil, err
	}
	c.Hint = func(text string) { a.hint("%s", text) }
	return c, nil
}
