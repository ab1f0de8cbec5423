package control

import (
	"errors"
	"fmt"
)

// Exit codes of the command line.
const (
	ExitOK          = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitVerify      = 3 // verification found damage
	ExitNoDaemon    = 4 // no daemon runs where one is needed
	ExitInterrupted = 130
)

// StatusEnding is the HTTP status of a refusal by a daemon that is about to
// end and did nothing about the request; every other refusal is 400.
const StatusEnding = 503

// Error is a refusal as a person reads it: one line that says what is wrong,
// lower case and without a full stop, one that says what to do next, and the
// exit code the command ends with.
type Error struct {
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	Exit    int    `json:"exit"`
	cause   error
}

func (e *Error) Error() string { return e.Message }

// Unwrap returns what led to the refusal; it does not cross the socket.
func (e *Error) Unwrap() error { return e.cause }

// Failed is an error with exit code 1.
func Failed(hint, format string, args ...any) *Error { return build(ExitFailed, hint, format, args) }

// Usage is an error with exit code 2: the command was not understood, and
// nothing was tried.
func Usage(hint, format string, args ...any) *Error { return build(ExitUsage, hint, format, args) }

// NoDaemon is an error with exit code 4.
func NoDaemon(hint, format string, args ...any) *Error {
	return build(ExitNoDaemon, hint, format, args)
}

// Damaged is an error with exit code 3.
func Damaged(hint, format string, args ...any) *Error { return build(ExitVerify, hint, format, args) }

func build(exit int, hint, format string, args []any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Message: err.Error(), Hint: hint, Exit: exit, cause: errors.Unwrap(err)}
}

// AsError finds the refusal in err, or makes one with exit code 1.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Message: err.Error(), Exit: ExitFailed, cause: err}
}
