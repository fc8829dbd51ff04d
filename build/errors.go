package build

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/runtime"
)

// A hinted error knows a way out.
type hinted struct {
	msg, hint string
}

func (e *hinted) Error() string { return e.msg }

// Hint says what the user can do about the error, in one line.
func (e *hinted) Hint() string { return e.hint }

// ErrNoImage says that a plan has nothing to build on.
var ErrNoImage error = &hinted{"no image given", "begin with one, as in --image alpine"}

// UsageError says that words are no build actions.
type UsageError struct {
	Msg string
	// Advice is a line that says what to do instead; "" if nobody knows.
	Advice string
}

func (e *UsageError) Error() string { return e.Msg }

// Hint says what to do instead; "" if nobody knows.
func (e *UsageError) Hint() string { return e.Advice }

// StepError says that the script of a layer failed.
type StepError struct {
	Layer, Layers int          // which of how many layers, from 1
	Code          int          // exit code of the script; 128+N where signal N ended it
	Command       string       // the command that failed; "" if the log alone tells
	Parent        container.ID // the container below the layer: the last good one
	Err           error        // what running the script came to
}

func (e *StepError) Error() string {
	text := e.Err.Error()
	if e.Layers > 1 {
		text = fmt.Sprintf("layer %d of %d: %s", e.Layer, e.Layers, text)
	}
	var failed *runtime.CommandError
	switch {
	case e.Command != "":
		text += ": " + shorten(e.Command)
	case errors.As(e.Err, &failed):
		// The shell of the script knows which of its commands it was, and has said so, unless it did not understand it.
		text += ": its last lines are above"
	}
	return text
}

func (e *StepError) Unwrap() error { return e.Err }

// Hint says how to look at the container in which the step failed, or what to do if that is known.
func (e *StepError) Hint() string {
	var hinted interface{ Hint() string }
	if errors.As(e.Err, &hinted) {
		return hinted.Hint()
	}
	return fmt.Sprintf("plash-run %d opens a shell in the container as it was before this layer", e.Parent)
}

// shorten makes a command fit into a line of an error.
func shorten(command string) string {
	const limit = 100
	command, rest, _ := strings.Cut(command, "\n")
	if r := []rune(command); len(r) > limit {
		return string(r[:limit]) + "…"
	}
	if rest != "" {
		return command + " …"
	}
	return command
}
