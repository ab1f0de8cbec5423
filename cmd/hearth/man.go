package main

import (
	"strings"

	"github.com/urfave/cli/v2"
)

func (a *app) manCommand() *cli.Command {
	return &cli.Command{
		Name: "man", Usage: "print the manual page",
		Description: describe("Prints the manual page, for man(1).", "hearth man | man -l -"),
		Action:      a.man,
	}
}

func (a *app) man(c *cli.Context) error {
	if _, err := arguments(c, 0, 0); err != nil {
		return err
	}
	a.printf(".TH HEARTH 1 \"\" \"Hearth\" \"User Commands\"\n")
	a.printf(".SH NAME\nhearth \\- %s\n", roff(c.App.Usage))
	a.printf(".SH SYNOPSIS\n.B hearth\nCOMMAND [flags] [arguments]\n")
	a.printf(".SH DESCRIPTION\n%s", roffText(overview))
	a.printf(".SH COMMANDS\n")
	for _, verb := range a.commands() {
		if verb.Hidden {
			continue
		}
		a.printf(".SS hearth %s\n%s", roff(strings.TrimSpace(verb.Name+" "+verb.ArgsUsage)), roffText(verb.Description))
		for _, f := range verb.VisibleFlags() {
			names := make([]string, 0, 2)
			for _, n := range f.Names() {
				names = append(names, dashed(n))
			}
			a.printf(".TP\n.B %s\n%s\n", roff(strings.Join(names, ", ")), roff(flagUsage(f)))
		}
	}
	a.printf(".SH FILES\n.TP\n.I ~/.local/share/hearth\nThe state folder: drives, keys, settings (config.json), messages of the daemon (daemon.log).\n")
	return nil
}

// roffText formats help text: paragraphs as they are, indented lines as
// examples.
func roffText(s string) string {
	var b strings.Builder
	verbatim := false
	for _, line := range strings.Split(s, "\n") {
		switch indented := strings.HasPrefix(line, "  "); {
		case line == "" && !verbatim:
			b.WriteString(".PP\n")
			continue
		case indented && !verbatim:
			b.WriteString(".RS\n.nf\n")
			verbatim = true
		case !indented && verbatim:
			b.WriteString(".fi\n.RE\n")
			verbatim = false
			if line == "" {
				b.WriteString(".PP\n")
			}
		}
		if line != "" {
			b.WriteString(roff(strings.TrimPrefix(line, "  ")) + "\n")
		}
	}
	if verbatim {
		b.WriteString(".fi\n.RE\n")
	}
	return b.String()
}

// roff escapes a line: a backslash, a dash that is meant as one, and a dot or
// quote at the start, which would be a request.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
