package build

import (
	"fmt"
	"strings"
	"time"
)

// A build's log is what the scripts print: their commands, each after PS4, and the
// commands' output. Then follow, for each layer, the time it took if that is worth
// telling, and LayerDone.

// longTime is from when on the time of a layer is told.
const longTime = time.Second

// Escape sequences of terminals (ECMA-48, SGR).
const (
	colorMark  = "\x1b[1;34m"
	colorFaint = "\x1b[2m"
	colorOff   = "\x1b[m"
)

// coloredPrologue is Prologue with PS4 in color. It is for running a script alone: keys are
// made of the script without.
var coloredPrologue = strings.Replace(Prologue, "--> ", colorMark+"-->"+colorOff+" ", 1)

// colored is the script as it is run.
func (s *step) colored(script string) string {
	if !s.Color {
		return script
	}
	return coloredPrologue + strings.TrimPrefix(script, Prologue)
}

// done ends the log of a layer.
func (s *step) done(took time.Duration) error {
	text := LayerDone + "\n"
	if s.Color {
		text = colorMark + LayerDone + colorOff + "\n"
	}
	if s.Times && took >= longTime {
		line := "took " + took.Round(longTime/10).String()
		if s.Color {
			line = colorFaint + line + colorOff
		}
		text = line + "\n" + text
	}
	_, err := fmt.Fprint(s.Stderr, text)
	return err
}
