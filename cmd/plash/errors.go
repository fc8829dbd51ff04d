package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/ihucos/plash/build"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/output"
	"github.com/ihucos/plash/overlay"
	"github.com/ihucos/plash/runtime"
	"github.com/ihucos/plash/runtime/program"
)

// Exit codes that every command shares.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitNoContainer = 3
	exitStep        = 4   // the command of a build step failed
	exitNotStarted  = 125 // of run and with-mount: plash itself failed
)

// A usageError is a command line that makes no sense.
type usageError struct {
	what string // "missing CONTAINER"
	line string // the usage line of the command
	hint string
}

func (e *usageError) Error() string { return e.what }
func (e *usageError) Hint() string  { return e.hint }

// A hintedError is an error with a way out.
type hintedError struct {
	err  error
	hint string
}

func (e *hintedError) Error() string { return e.err.Error() }
func (e *hintedError) Unwrap() error { return e.err }
func (e *hintedError) Hint() string  { return e.hint }

// withHint adds a hint to err, if there is one and err has none yet.
func withHint(err error, hint string) error {
	if err == nil || hint == "" || carriedHint(err) != "" {
		return err
	}
	return &hintedError{err: err, hint: hint}
}

// hintOf finds the hint that err carries: any error in its chain may have one,
// whatever package it is from.
func hintOf(err error) string {
	if hint := carriedHint(err); hint != "" {
		return hint
	}
	var place *output.WriteError
	switch {
	case errors.As(err, &place):
		return "" // the rest is about the store
	case errors.Is(err, container.ErrNotFound):
		return "`plash-list` shows the containers there are"
	case os.Geteuid() != 0 && errors.Is(err, runtime.ErrNoNamespaces):
		hint := "`plash-doctor` says what would help; root needs none"
		if dir, err := storeDir(); err == nil {
			// Root has another store, and sudo(8) drops PLASH_DATA.
			hint += ": sudo env PLASH_DATA=" + build.Quote(dir) + " plash …"
		}
		return hint
	case errors.Is(err, runtime.ErrNoNamespaces):
		return "`plash-doctor` says what would help"
	case storeUnwritable(err):
		return ownStoreHint
	case errors.Is(err, syscall.ENOSPC): // after that: a user has as many namespaces as he may have
		return "`plash-clean` frees what is not needed; PLASH_DATA names a store on another disk"
	}
	return ""
}

// storeUnwritable reports whether a file of the store could not be made, as the store is
// another user's or on a filesystem that is read-only.
func storeUnwritable(err error) bool {
	var at *fs.PathError
	if !errors.As(err, &at) || !unwritable(at) {
		return false
	}
	dir, err := storeDir()
	return err == nil && strings.HasPrefix(at.Path, dir+"/")
}

func unwritable(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS)
}

// message is the text of err.
func message(err error) string {
	text := err.Error()
	several := strings.Contains(text, "\n")
	if several && errors.Is(err, overlay.ErrUnsupported) && errors.Is(err, syscall.EPERM) {
		// Each backend was tried, and tells at length the same thing.
		return "mounting is not permitted here, whatever the backend: " + syscall.EPERM.Error()
	}
	return text
}

// carriedHint looks for a hint through the tree of errors that err wraps.
func carriedHint(err error) string {
	if h, ok := err.(interface{ Hint() string }); ok && h.Hint() != "" {
		return h.Hint()
	}
	switch wrapped := err.(type) {
	case interface{ Unwrap() error }:
		if inner := wrapped.Unwrap(); inner != nil {
			return carriedHint(inner)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range wrapped.Unwrap() {
			if hint := carriedHint(inner); hint != "" {
				return hint
			}
		}
	}
	return ""
}

var errInterrupted = errors.New("interrupted")

// A signalError says that the command ended because the process was told to.
type signalError struct {
	sig syscall.Signal
	err error
}

func (e *signalError) Error() string { return errInterrupted.Error() }
func (e *signalError) Unwrap() error { return e.err }

// notStarted wraps the error of a command that was to become another program
// and did not: its exit codes are those of env(1) and chroot(1).
type notStarted struct{ err error }

func (e *notStarted) Error() string { return e.err.Error() }
func (e *notStarted) Unwrap() error { return e.err }

// exitCode is the exit code that err stands for.
func exitCode(err error) int {
	var (
		usage   *usageError
		stopped *signalError
		exec    *notStarted
		code    *program.ExitError
		command *runtime.CommandError
		step    *build.StepError
	)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &stopped):
		return 128 + int(stopped.sig)
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &exec):
		if errors.As(err, &code) {
			return code.Code
		}
		return exitNotStarted
	case errors.As(err, &step), errors.As(err, &command):
		return exitStep
	case errors.Is(err, container.ErrNotFound):
		return exitNoContainer
	}
	return exitFailed
}

// report prints err as the rules of this program want it, and returns the exit
// code. The name is that of the command, or of the program for errors before
// there is one.
func (s streams) report(name string, err error) int {
	if err == nil {
		return 0
	}
	var end *runtime.EndError
	if errors.As(err, &end) {
		return end.ExitCode() // of the command, which has said what it had to
	}
	prefix := binary
	if name != binary {
		prefix += " " + name
	}
	fmt.Fprintf(s.err, "%s: %s\n", prefix, oneLine(message(err)))
	var usage *usageError
	if errors.As(err, &usage) && usage.line != "" {
		fmt.Fprintln(s.err, usage.line)
	}
	if hint := hintOf(err); hint != "" {
		fmt.Fprintf(s.err, "hint: %s\n", oneLine(hint))
	}
	return exitCode(err)
}
