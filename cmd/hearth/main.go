// Command hearth creates, mounts and looks after drives: folders that are
// encrypted, signed and remember everything.
//
// This package is the command line alone: one file per verb, each a thin
// translation of arguments into requests to the daemon (package
// hearth/cmd/client) and of answers into text or JSON. The voice all verbs
// share is in voice.go, the notation PATH@WHEN in target.go. It decides
// nothing about drives.
//
// stdout is data. Problems go to stderr as "hearth: error: ..." and, where
// there is something to do about it, "hearth: hint: ...". Exit codes: 0 ok, 1
// failed, 2 usage, 3 verification failed, 4 no daemon where one is needed,
// 130 interrupted.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ends := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	context.AfterFunc(ctx, stop) // who asks twice does not want to wait: a second signal kills
	code := run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
