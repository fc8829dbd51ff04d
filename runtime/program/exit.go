package program

import "errors"

// Exit codes of a command that did not come to run, by the convention of env(1)
// and chroot(1).
const (
	CodeNotStarted    = 125 // plash failed before
	CodeCannotExecute = 126 // found, but cannot be executed
	CodeNotFound      = 127
)

// An ExitError says why a command was not started, with the exit code for it.
type ExitError struct {
	Code int // 125, 126 or 127
	Err  error
}

func (e *ExitError) Error() string { return e.Err.Error() }
func (e *ExitError) Unwrap() error { return e.Err }

// ExitCode is the code that a program reporting the error ends with.
func (e *ExitError) ExitCode() int { return e.Code }

// NotStarted makes an [ExitError] of an error that is none yet.
func NotStarted(err error) error {
	var exit *ExitError
	if errors.As(err, &exit) {
		return err
	}
	return &ExitError{Code: CodeNotStarted, Err: err}
}
