package main

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"hearth/cmd/client"
	"hearth/cmd/control"
)

func (a *app) purgeCommand() *cli.Command {
	return &cli.Command{
		Name: "purge", Usage: "remove a file or folder from every version, for good", ArgsUsage: "PATH",
		Description: describe(`Removes a file or folder now and from all history. Nothing brings it back. It
asks first; --yes answers.`,
			"hearth purge ~/Hearth/secrets.txt"),
		Flags: []cli.Flag{
			boolFlag("yes", "do not ask", "y"),
			jsonFlag(),
		},
		Action: a.purge,
	}
}

func (a *app) purge(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	if !c.Bool("yes") && !isTerminal(a.in) {
		return control.Usage("--yes purges without asking", "purge asks first, and there is no terminal to ask on")
	}
	d, t, err := a.path(c.Context, args[0], false)
	if err != nil {
		return err
	}
	defer d.Close()
	if !c.Bool("yes") {
		ok, err := a.confirm(c, fmt.Sprintf("Remove %s of drive %s from every version, for good?", control.Show(t.Raw()), t.Drive))
		if err != nil {
			return err
		}
		if !ok {
			return control.Failed("", "nothing was purged")
		}
	}
	s, err := client.Stream[struct{}, control.Swept](c.Context, d, control.Purge, t, nil, a.progress)
	if err != nil {
		if c.Context.Err() != nil {
			a.hint("the purge was begun and goes on; `hearth purge` again waits for it")
		}
		return err
	}
	return a.swept(c, s)
}

// confirm asks on the terminal; anything but yes is no.
func (a *app) confirm(c *cli.Context, question string) (bool, error) {
	fmt.Fprintf(a.err, "%s [y/N] ", question)
	answer := make(chan string, 1) // read beside us: Ctrl-C must end the waiting
	go func() {
		line, _ := bufio.NewReader(a.in).ReadString('\n')
		answer <- line
	}()
	select {
	case <-c.Context.Done():
		fmt.Fprintln(a.err)
		return false, c.Context.Err()
	case line := <-answer:
		line = strings.ToLower(strings.TrimSpace(line))
		return line == "y" || line == "yes", nil
	}
}
