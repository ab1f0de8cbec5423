package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"syscall"

	"hearth/cmd/control"
	"hearth/fs"
	"hearth/log"
)

// explain turns an error into what a person is told. Refusals made in this
// package are passed on; errors of the drive get the hint that fits their
// kind. What nobody expected is also a message of the daemon.
func (d *Daemon) explain(r *http.Request, err error) *control.Error {
	var refusal *control.Error
	if errors.As(err, &refusal) {
		return refusal
	}
	if r.Context().Err() != nil {
		select {
		case <-d.stopping:
			return control.NoDaemon("the next command starts it again", "the daemon ended")
		default:
			return control.Failed("", "interrupted")
		}
	}
	var hinting interface{ Hint() string }
	if errors.As(err, &hinting) {
		return &control.Error{Message: err.Error(), Hint: hinting.Hint(), Exit: control.ExitFailed}
	}
	for _, known := range explanations {
		if errors.Is(err, known.kind) {
			return &control.Error{Message: err.Error(), Hint: known.hint, Exit: known.exit}
		}
	}
	d.logger.Error("a request failed", "route", r.URL.Path, "err", err)
	return control.AsError(err)
}

// explanations are looked through in order: special kinds before general ones.
var explanations = []struct {
	kind error
	exit int
	hint string
}{
	{log.ErrNewer, control.ExitFailed, "this drive was written by a newer Hearth; install that"},
	{log.ErrForeign, control.ExitFailed, "what is in the drive's folder is not a whole drive; restore it from a copy"},
	{log.ErrRolledBack, control.ExitFailed, "this drive is older than what this device has seen of it; bring back the newer copy"},
	{log.ErrFork, control.ExitFailed, "this drive was written in two places from one state; `hearth status` says more"},
	{log.ErrPoisoned, control.ExitFailed, "the disk refused a write; see the kernel's messages, then `hearth stop` and try again"},
	{fs.ErrNewer, control.ExitFailed, "this drive was written by a newer Hearth; install that"},
	{fs.ErrNotKept, control.ExitFailed, "`hearth retain PATH` shows what is kept"},
	{log.ErrDropped, control.ExitFailed, "that version is not kept any more; `hearth retain PATH` shows what is kept"},
	{log.ErrDamaged, control.ExitFailed, "`hearth verify NAME` names everything that is damaged"},
	{fs.ErrDamaged, control.ExitFailed, "`hearth verify NAME` names everything that is damaged"},
	{fs.ErrNoVersion, control.ExitFailed, "`hearth log PATH` lists the versions, `hearth tags PATH` the tags; " + whenRule},
	{fs.ErrConflict, control.ExitFailed, "undo the later change first, or use --force: what it replaces stays in the history"},
	{fs.ErrNothing, control.ExitFailed, "`hearth log PATH` lists what was changed there"},
	{fs.ErrNoSpace, control.ExitFailed, "free some space: `hearth sweep NAME` drops old versions, `hearth purge PATH` a file for good"},
	{syscall.ENOSPC, control.ExitFailed, "free some space: `hearth sweep NAME` drops old versions, `hearth purge PATH` a file for good"},
	{fs.ErrNotExist, control.ExitFailed, "`hearth log` of the folder above lists what was there; `hearth undelete PATH` brings back what was deleted"},
	{fs.ErrIsDir, control.ExitFailed, "`hearth diff` and `hearth restore` work on folders"},
	{fs.ErrNotDir, control.ExitFailed, ""},
	{fs.ErrExist, control.ExitFailed, "choose another name"},
	{fs.ErrInvalid, control.ExitFailed, ""},
	{fs.ErrNameTooLong, control.ExitFailed, ""},
	{fs.ErrBusy, control.ExitFailed, "try again when less is going on"},
	{fs.ErrReadOnly, control.ExitFailed, "a drive that was joined is changed on the device that made it"},
	{log.ErrMissing, control.ExitFailed, "it is on no device that is connected; `hearth peers` lists them"},
	{context.Canceled, control.ExitFailed, ""},
}

// health is what is not well with an open drive, one line each.
func (h *held) health() []string {
	state := h.store.Health()
	lines := []string{}
	if state.Own.Poisoned != nil {
		lines = append(lines, fmt.Sprintf("a write failed, and nothing more is saved until `hearth stop`: %v", state.Own.Poisoned))
	}
	if state.Own.Low {
		lines = append(lines, "the disk is full: only the reserve for deleting is left")
	}
	if state.Copied {
		lines = append(lines, "this store was copied or moved from another machine: use one copy only, and if the other is still in use stop using this one")
	}
	if state.Overtaken > 0 {
		lines = append(lines, "other devices have more of this drive than this one, which writes it: it was brought back from a backup, or is a copy; what is written here now makes two drives of it")
	}
	if h.store.Ended() {
		what := "what is kept here is not brought up to date any more"
		if h.drive != nil {
			what = fmt.Sprintf("versions up to %v can be read, as far as they are here", h.drive.Newest())
		}
		lines = append(lines, "your access to this drive was ended by its owner; "+what)
	}
	for _, fork := range state.Forks {
		lines = append(lines, "the log "+control.Show(fork.Origin)+" has forked: it was written in two places from one state, and both signed heads are kept as evidence; `hearth verify --json` shows them")
	}
	for _, damage := range state.Damage {
		lines = append(lines, damage.String())
	}
	return lines
}
