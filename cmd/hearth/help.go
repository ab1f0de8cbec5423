package main

import "github.com/urfave/cli/v2"

// The texts of help. Every verb's own text is in its file.

const overview = `A drive is a folder that remembers everything. Make one, mount it, and work in
it with any program:

  hearth create home
  mkdir ~/Hearth && hearth mount home ~/Hearth

Every save is a version; nothing needs to be asked for. Get anything back:

  hearth log ~/Hearth
  hearth undo ~/Hearth
  hearth cat ~/Hearth/letter.txt@2h

PATH is a path under a mount, or NAME:/path for a drive that is not mounted.
It may be one that does not exist any more.

WHEN is a version (@1234), a time (2026-11-22T10:04:05Z, or a shorter prefix),
how long ago (5m, 2h, 3d), yesterday, or a tag. PATH@WHEN is a path at a time:
letter.txt@5m, letter.txt@@1234. A file that has that very name wins.

Every folder also has a hidden .history to browse: cd ~/Hearth/.history.

--json prints what a program can rely on. Names are bytes: one that is not
UTF-8 comes twice, as "path" with the odd bytes replaced and as "path_bytes" in
base64.

Exit codes: 0 ok, 1 failed, 2 usage, 3 verification failed, 4 no daemon where
one is needed. HEARTH_HOME names the folder that holds the drives; without it,
$XDG_DATA_HOME/hearth or ~/.local/share/hearth.`

// appHelp is the template of `hearth help`.
const appHelp = `{{.Name}} - {{.Usage}}

Usage: {{.UsageText}}

{{.Description}}

Commands:
{{range .VisibleCommands}}  {{printf "%-11s" .Name}} {{.Usage}}
{{end}}
See ` + "`hearth COMMAND --help`" + ` for flags and an example of each.
`

// commandHelp is the template of `hearth VERB --help`.
const commandHelp = `{{.HelpName}} - {{.Usage}}

Usage: {{.HelpName}}{{if .VisibleFlags}} [flags]{{end}}{{if .ArgsUsage}} {{.ArgsUsage}}{{end}}

{{.Description}}
{{if .VisibleFlags}}
Flags:
{{range .VisibleFlags}}  {{.}}
{{end}}{{end}}`

// describe joins what a verb does and an example of it.
func describe(text, example string) string {
	return text + "\n\nExample:\n\n  " + example
}

func (a *app) helpCommand() *cli.Command {
	return &cli.Command{
		Name: "help", Usage: "show help for a command", ArgsUsage: "[COMMAND]",
		Description: describe("Shows what a command does, its flags and an example.", "hearth help restore"),
		Action:      a.help,
	}
}

func (a *app) help(c *cli.Context) error {
	args, err := arguments(c, 0, 1)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return cli.ShowAppHelp(c)
	}
	if c.App.Command(args[0]) == nil {
		return a.unknownCommand(args[0])
	}
	return a.cli().RunContext(c.Context, []string{"hearth", args[0], "--help"})
}
