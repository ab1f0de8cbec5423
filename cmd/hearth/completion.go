package main

import (
	"strings"

	"github.com/urfave/cli/v2"

	"hearth/cmd/control"
)

func (a *app) completionCommand() *cli.Command {
	return &cli.Command{
		Name: "completion", Usage: "print shell completion", ArgsUsage: "bash|zsh|fish",
		Description: describe("Prints a script that teaches a shell to complete commands, flags and the names\nof drives.",
			`echo 'eval "$(hearth completion bash)"' >> ~/.bashrc`),
		Action: a.completion,
	}
}

func (a *app) completion(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	script, ok := map[string]string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}[args[0]]
	if !ok {
		return control.Usage("bash, zsh or fish", "there is no completion for %s", control.Show(args[0]))
	}
	a.printf("%s", script)
	return nil
}

// completeCommand is what the scripts run: its arguments are the words after
// "hearth" up to the cursor, its output candidates for the last one, each
// with a description after a tab. No output means: a file.
func (a *app) completeCommand() *cli.Command {
	return &cli.Command{
		Name: "complete", Hidden: true, Usage: "print completions", SkipFlagParsing: true,
		Action: func(c *cli.Context) error { return a.complete(c.Args().Slice()) },
	}
}

func (a *app) complete(words []string) error {
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	if len(words) == 0 {
		return nil
	}
	last := words[len(words)-1]
	offer := func(word, what string) {
		if strings.HasPrefix(word, last) {
			a.printf("%s\t%s\n", word, what)
		}
	}
	if len(words) == 1 {
		for _, c := range a.commands() {
			if !c.Hidden {
				offer(c.Name, c.Usage)
			}
		}
		return nil
	}
	for _, c := range a.commands() {
		if !c.HasName(words[0]) {
			continue
		}
		if strings.HasPrefix(last, "-") {
			for _, f := range c.VisibleFlags() {
				offer(dashed(f.Names()[0]), flagUsage(f))
			}
			return nil
		}
		place := 0
		for _, w := range words[1 : len(words)-1] {
			if !strings.HasPrefix(w, "-") {
				place++
			}
		}
		a.completeArgument(c, place, offer)
	}
	return nil
}

// completeArgument offers what may stand at a place, by the name that the
// usage line gives it.
func (a *app) completeArgument(c *cli.Command, place int, offer func(word, what string)) {
	kinds := strings.Fields(strings.NewReplacer("[", "", "]", "").Replace(c.ArgsUsage))
	if place >= len(kinds) {
		return
	}
	for _, kind := range strings.Split(kinds[place], "|") {
		switch kind {
		case "NAME":
			if c.Name == "create" {
				continue
			}
			if h, err := a.home(false); err == nil {
				names, _ := h.Drives()
				for _, n := range names {
					offer(n, "drive")
				}
			}
		case "bash", "zsh", "fish":
			offer(kind, "shell")
		}
	}
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

func flagUsage(f cli.Flag) string {
	if d, ok := f.(cli.DocGenerationFlag); ok {
		return strings.ReplaceAll(d.GetUsage(), "`", "")
	}
	return ""
}

const bashCompletion = `# bash completion for hearth
_hearth() {
  local IFS=$'\n'
  COMPREPLY=( $(hearth complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null | cut -f1) )
}
complete -o default -F _hearth hearth
`

const zshCompletion = `#compdef hearth
# zsh completion for hearth
_hearth() {
  local -a found
  found=( ${(f)"$(hearth complete -- "${(@)words[2,CURRENT]}" 2>/dev/null | sed -e 's/:/\\:/g' -e 's/\t/:/')"} )
  if (( ${#found} )); then
    _describe hearth found
  else
    _files
  fi
}
compdef _hearth hearth
`

const fishCompletion = `# fish completion for hearth
complete -c hearth -f -n 'test -n "$(hearth complete -- (commandline -opc)[2..] (commandline -ct) 2>/dev/null)"' \
  -a '(hearth complete -- (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'
`
