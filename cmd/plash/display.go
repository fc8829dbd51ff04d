package main

import (
	"os"

	"github.com/ihucos/plash/importexport/progress"
)

// display is how the work that takes long is shown on standard error.
type display string

const (
	displayPlain display = "plain" // text that only grows, for files and pipes
	displayTTY   display = "tty"   // bars and colors
	displayNone  display = "none"  // no progress, and no times
)

// displayVar is the variable that names one.
const displayVar = "PLASH_PROGRESS"

// displayFor is what the user wants, or else what fits standard error.
func displayFor(s streams) (display, error) {
	switch d := display(os.Getenv(displayVar)); d {
	case displayPlain, displayTTY, displayNone:
		return d, nil
	case "":
	default:
		return "", &usageError{what: displayVar + "=" + string(d) + ": no way to show progress", hint: "it is plain, tty or none"}
	}
	if isTerminal(s.err) && os.Getenv("TERM") != "dumb" {
		return displayTTY, nil
	}
	return displayPlain, nil
}

// progress shows downloads.
func (d display) progress(s streams) progress.Display {
	switch d {
	case displayTTY:
		return progress.NewBar(s.err)
	case displayPlain:
		return progress.NewPlain(s.err)
	}
	return nil
}
