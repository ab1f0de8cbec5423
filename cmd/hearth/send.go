package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) sendCommand() *cli.Command {
	return &cli.Command{
		Name: "send", Usage: "send files and folders to a device nearby", ArgsUsage: "PATH...",
		Description: describe(`Sends files and folders to a device on which "hearth receive" waits; nothing is
written there before somebody says yes. Without --to it goes to the one device on
this network that waits. A transfer that breaks off goes on when the same command
is given again. When two devices meet for the first time both show four words:
if they differ, somebody is in between.`,
			"hearth send letter.pdf photos/ --to laptop"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "to", Usage: "the `DEVICE`: its name, its id, or HOST:PORT"},
			jsonFlag(),
		},
		Action: a.send,
	}
}

func (a *app) send(c *cli.Context) error {
	args, err := arguments(c, 1, 1<<20)
	if err != nil {
		return err
	}
	req := control.SendRequest{To: c.String("to")}
	for _, arg := range args {
		abs, err := filepath.Abs(arg)
		if err != nil {
			return err
		}
		if _, err := os.Lstat(abs); err != nil {
			return control.Failed("", "%w", err)
		}
		req.Paths = append(req.Paths, control.PathOf(abs))
	}
	d, err := a.begin(c.Context)
	if err != nil {
		return err
	}
	defer d.Close()
	done, err := client.Stream[control.SendEvent, control.Transfer](c.Context, d, control.Send, req, func(e control.SendEvent) error {
		if !e.Known {
			a.note("first contact with %s; both sides must show: %s", control.Show(e.Device), strings.Join(e.Words, " "))
		}
		a.note("waiting for %s to say yes", control.Show(e.Device))
		return nil
	}, a.progress)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.json(done)
	}
	a.transferred("sent", "to", done)
	return nil
}

// transferred says what came of a transfer.
func (a *app) transferred(did, where string, t control.Transfer) {
	names := t.Names.Raw()
	shown := make([]string, 0, len(names))
	for _, name := range names[:min(len(names), 8)] {
		shown = append(shown, control.Show(name))
	}
	if more := len(names) - len(shown); more > 0 {
		shown = append(shown, fmt.Sprintf("%d more", more))
	}
	a.printf("%s %s (%s, %s) %s %s\n", did, strings.Join(shown, ", "), count(int64(t.Files), "file"), size(t.Bytes), where, control.Show(t.Device))
	for _, s := range t.Skipped {
		a.note("left out: %s (%s)", control.Show(s.Raw()), s.Reason)
	}
}

func (a *app) receiveCommand() *cli.Command {
	return &cli.Command{
		Name: "receive", Usage: "wait for files from a device nearby",
		Description: describe(`Waits for what others send with "hearth send", and asks before anything is
written. While it waits, this device shows its name to everybody on the network.
Nothing is ever overwritten: a file whose name is taken gets another one.

With --on the daemon does it, also after a restart, into ~/Downloads if nothing
else is said: it takes what devices send that are known, since they share a drive
or exchanged something before, and refuses strangers. With --yes it takes from
anybody. "hearth status" shows it, --off ends it.`,
			"hearth receive --dir ~/Downloads"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Usage: "put what is received into `DIR`", Value: "."},
			boolFlag("yes", "take everything without asking"),
			boolFlag("once", "end after one transfer"),
			boolFlag("on", "let the daemon take what known devices send"),
			boolFlag("off", "end that"),
			jsonFlag(),
		},
		Action: a.receive,
	}
}

func (a *app) receive(c *cli.Context) error {
	if _, err := arguments(c, 0, 0); err != nil {
		return err
	}
	if c.Bool("on") || c.Bool("off") {
		return a.standing(c)
	}
	dir, err := filepath.Abs(c.String("dir"))
	if err != nil {
		return err
	}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return control.Failed("give an existing folder with --dir", "%s is no folder", control.Show(dir))
	}
	d, err := a.begin(c.Context)
	if err != nil {
		return err
	}
	defer d.Close()
	req := control.ReceiveRequest{Path: control.PathOf(dir), Yes: c.Bool("yes"), Once: c.Bool("once")}
	var failed error
	_, err = client.Stream[control.ReceiveEvent, struct{}](c.Context, d, control.Receive, req, func(e control.ReceiveEvent) error {
		switch {
		case e.Offer != nil:
			ok, err := a.confirm(c, offerText(e.Offer))
			if err != nil {
				return err
			}
			_, err = client.Call[struct{}](c.Context, d, control.Answer, control.AnswerRequest{ID: e.Offer.ID, Accept: ok})
			if err != nil {
				a.note("%v", err)
			}
			return nil
		case e.Refused != nil:
			a.note("%s", e.Refused.Message)
			a.hint("%s", e.Refused.Hint)
			return nil
		case e.Done != nil:
			if c.Bool("json") {
				if err := a.json(e.Done); err != nil {
					return err
				}
			} else {
				a.transferred("received", "from", *e.Done)
			}
			return a.flush()
		case e.Error != nil:
			failed = e.Error
			if !c.Bool("once") {
				a.note("%s", e.Error.Message)
			}
			return nil
		default:
			a.note("waiting for something to be sent; Ctrl-C ends it")
			return nil
		}
	}, a.progress)
	if err == nil && c.Bool("once") {
		err = failed
	}
	return err
}

// offerText asks about an offer. All names in it are the sender's word.
func offerText(o *control.OfferInfo) string {
	var names []string
	for _, name := range o.Names.Raw() {
		names = append(names, control.Show(name))
	}
	if o.More > 0 {
		names = append(names, fmt.Sprintf("%d more", o.More))
	}
	text := fmt.Sprintf("%s sends %s (%s, %s).", control.Show(o.Device), strings.Join(names, ", "), count(int64(o.Files), "file"), size(o.Bytes))
	if !o.Known {
		text += fmt.Sprintf(" First contact; both sides must show: %s.", strings.Join(o.Words, " "))
	}
	if o.Other != "" {
		text += fmt.Sprintf(" CAREFUL: another device is known by the name %s, whose key begins with %s.", control.Show(o.Device), o.Other[:min(12, len(o.Other))])
	}
	return text + " Take it?"
}
