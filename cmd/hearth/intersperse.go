package main

import (
	"strings"

	"github.com/urfave/cli/v2"
)

// intersperse moves the flags of a verb before its arguments, so that
// `hearth restore PATH@5m --dry-run` means what it says: the flag package
// below urfave/cli stops at the first argument. What follows "--" stays as it
// is.
func intersperse(commands []*cli.Command, args []string) []string {
	if len(args) < 3 {
		return args
	}
	var verb *cli.Command
	for _, c := range commands {
		if c.HasName(args[1]) {
			verb = c
		}
	}
	if verb == nil || verb.SkipFlagParsing {
		return args
	}
	flags := args[:2:2]
	var plain []string
	for i := 2; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			plain = append(plain, args[i+1:]...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			plain = append(plain, arg)
			continue
		}
		flags = append(flags, arg)
		if !strings.Contains(arg, "=") && takesValue(verb, strings.TrimLeft(arg, "-")) && i+1 < len(args) {
			i++
			flags = append(flags, args[i])
		}
	}
	return append(append(flags, "--"), plain...)
}

// takesValue reports whether a flag is followed by its value.
func takesValue(verb *cli.Command, name string) bool {
	for _, f := range verb.Flags {
		for _, n := range f.Names() {
			if n == name {
				d, ok := f.(cli.DocGenerationFlag)
				return ok && d.TakesValue()
			}
		}
	}
	return false
}
