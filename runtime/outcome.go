package runtime

import (
	"errors"
	"syscall"

	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/runtime/program"
)

// An outcome is what a process of ours tells the one that started it: how a command
// ended, or why none did. The zero value says that all is well.
type outcome struct {
	Failure  string         `json:",omitempty"`
	Hint     string         `json:",omitempty"`
	NotFound bool           `json:",omitempty"` // Failure is about a container that is not there
	NoMounts bool           `json:",omitempty"` // Failure is about a host that allows no mounts
	Code     int            // the exit code of the command, or for Failure if it is not 0
	Signal   syscall.Signal // that killed the command
	Again    bool           `json:",omitempty"` // something in a plan did not work, and nothing was run
}

// outcomeOf puts an error into an outcome, from which err gives one like it.
func outcomeOf(err error) outcome {
	if err == nil {
		return outcome{}
	}
	var command *CommandError
	if errors.As(err, &command) {
		return outcome{Code: command.Code, Signal: command.Signal}
	}
	o := outcome{Failure: err.Error(), NotFound: errors.Is(err, container.ErrNotFound), NoMounts: noMounts(err)}
	var exit *program.ExitError
	if errors.As(err, &exit) {
		o.Code = exit.Code
	}
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		o.Hint = hinted.Hint()
	}
	return o
}

func (o outcome) failed() bool { return o != outcome{} }

func (o outcome) err() error {
	if o.Failure == "" {
		switch {
		case o.Signal != 0:
			return &CommandError{Code: 128 + int(o.Signal), Signal: o.Signal}
		case o.Code != 0:
			return &CommandError{Code: o.Code}
		}
		return nil
	}
	err := errors.New(o.Failure)
	if o.NotFound {
		err = &toldError{o.Failure, container.ErrNotFound}
	}
	if o.NoMounts {
		err = &toldError{o.Failure, errNoMounts}
	}
	if o.Hint != "" {
		err = &hintedError{err, o.Hint}
	}
	if o.Code != 0 {
		err = &program.ExitError{Code: o.Code, Err: err}
	}
	return err
}

// A toldError has the text of an error of another process, and is what that was.
type toldError struct {
	text string
	is   error
}

func (e *toldError) Error() string { return e.text }
func (e *toldError) Unwrap() error { return e.is }
