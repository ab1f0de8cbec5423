package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
	"hearth/cmd/daemon"
	"hearth/cmd/home"
)

func (a *app) daemonCommand() *cli.Command {
	return &cli.Command{
		Name: "daemon", Usage: "hold the drives open, in the foreground",
		Description: describe(`Holds the drives, serves the mounts and answers the other commands, which start
it in the background when they need it. In the foreground it suits systemd:
SIGTERM saves everything, unmounts and exits 0. Messages go to stderr.

Settings are in config.json of the state folder; "hearth set" shows and changes
them.`,
			"hearth daemon --print-unit > ~/.config/systemd/user/hearth.service"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "memory", Usage: "use at most `SIZE` of memory", DefaultText: home.DefaultMemory.String()},
			boolFlag("verbose", "say more"),
			boolFlag("print-unit", "print a systemd user unit and exit"),
			&cli.IntFlag{Name: "ready-fd", Hidden: true},
		},
		Action: a.daemon,
	}
}

func (a *app) daemon(c *cli.Context) error {
	if _, err := arguments(c, 0, 0); err != nil {
		return err
	}
	if c.Bool("print-unit") {
		return a.unit()
	}
	var o daemon.Options
	if c.IsSet("memory") {
		m, err := home.ParseSize(c.String("memory"))
		if err == nil {
			err = home.Config{Memory: m}.Check()
		}
		if err != nil {
			return control.Usage(helpHint(c), "--memory: %w", err)
		}
		o.Memory = int64(m)
	}
	o.Verbose = c.Bool("verbose")
	if fd := c.Int("ready-fd"); fd > 0 {
		o.Background = true
		pipe := os.NewFile(uintptr(fd), "ready")
		defer pipe.Close()
		o.Ready = func() {
			fmt.Fprintln(pipe, client.Ready)
			_ = pipe.Close()
		}
		err := a.serve(c.Context, o)
		if err != nil {
			_ = json.NewEncoder(pipe).Encode(control.AsError(err)) // fails if it was ready once: nobody listens
		}
		return err
	}
	return a.serve(c.Context, o)
}

// serve is the daemon, until ctx ends.
func (a *app) serve(ctx context.Context, o daemon.Options) error {
	h, err := a.home(true)
	if err != nil {
		return err
	}
	level := slog.LevelInfo
	if o.Verbose {
		level = slog.LevelDebug
	}
	o.Home = h
	if o.Background {
		messages, err := daemon.OpenMessages(h.LogPath())
		if err != nil {
			return err
		}
		defer messages.Close()
		o.Logger = slog.New(slog.NewTextHandler(messages, &slog.HandlerOptions{Level: level}))
	} else {
		o.Logger = slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level}))
	}
	err = daemon.Run(ctx, o)
	if errors.Is(err, home.ErrLocked) {
		return control.Failed("`hearth status` shows it, `hearth stop` ends it", "%w", err)
	}
	return err
}

// unit prints a systemd user unit for this binary and this home.
func (a *app) unit() error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the hearth binary: %w", err)
	}
	environment := ""
	if dir := a.getenv(home.Variable); dir != "" {
		where, err := home.Locate(a.getenv)
		if err != nil {
			return err
		}
		environment = "Environment=" + systemdQuote(home.Variable+"="+where) + "\n"
	}
	a.printf(unitText, systemdQuote(exe), environment)
	return nil
}

// systemdQuote writes one word for a unit file, where % starts a specifier. A $
// is itself, both in Environment= and in the path of a program.
func systemdQuote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`).Replace(s) + `"`
}

// unitText is the unit. It must not set NoNewPrivileges or a private mount
// namespace: mounting needs the setuid helper fusermount3, and the mounts
// must be seen outside.
const unitText = `# Install: hearth daemon --print-unit > ~/.config/systemd/user/hearth.service
#          systemctl --user daemon-reload && systemctl --user enable --now hearth
[Unit]
Description=Hearth drives
Documentation=man:hearth(1)

[Service]
Type=notify
ExecStart=%s daemon
%sRestart=on-failure
TimeoutStopSec=120

[Install]
WantedBy=default.target
`
