// The cgroup's limit of CPU time is not looked up: that takes 3 % of a run.
//
//go:debug containermaxprocs=0

// Plash builds and runs containers that are just processes.
//
// This package is the command line: a file for each command or small group of
// commands, holding an options struct, its flags, and a function that does the
// work by calling the library packages. What a library caller could want is not
// here. The rules for what is printed where stand in streams.go, the exit codes
// in errors.go, the way arguments are read in args.go.
//
// Invariants: only this file ends the process or touches the process' standard
// streams; starting costs as little as can be, as a run is a matter of
// milliseconds: nothing is set up at package level, and of the commands only the
// one that was called is constructed.
package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/ihucos/plash/replay" // begins before main, and may not come back
	"github.com/ihucos/plash/runtime"
)

// binary is the name of the program, and of its links before the dash.
const binary = "plash"

func main() {
	runtime.MaybeInit() // does not return in the init process of a build step
	os.Exit(plash(os.Args, streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}))
}

// plash runs the command that argv names and returns its exit code.
func plash(argv []string, s streams) int {
	name, words := commandName(argv)
	switch {
	case len(argv) > 0 && argv[0] == replay.Inside:
		keepQuitIgnored()
		return s.report("run", &notStarted{runtime.Inside(words)})
	case name == "" && len(words) == 0:
		return s.report(binary, &usageError{what: "no command given", line: topUsage})
	case name == "":
		name, words = words[0], words[1:]
	}
	switch name {
	case "-h", "--help":
		name = "help"
	case "--version":
		name = "version"
	case completeCommand, completeCommandPlain:
		return s.report(binary, answerCompletion(s, words))
	}
	if len(words) > 0 && (words[0] == completeCommand || words[0] == completeCommandPlain) {
		// plash-NAME asked by a completion script, which calls the first word
		// of the line it completes.
		return s.report(binary, answerCompletion(s, append([]string{name}, words[1:]...)))
	}
	c := newCommand(name)
	if c == nil {
		return s.report(binary, unknownCommand(name))
	}
	keepQuitIgnored()
	a, err := c.parse(words)
	switch {
	case errors.Is(err, errHelp):
		err = s.print(c.help())
	case err == nil && c.execs && !c.builds && a.actions == nil:
		// What it mounts is private and what it writes is scratch: a signal
		// may end it at once, and catching them has its price.
		err = c.start(context.Background(), a, s)
	case err == nil:
		ctx, caught := catchSignals(func(sig syscall.Signal) {
			os.Exit(s.report(c.name, &signalError{sig: sig}))
		})
		err = c.start(ctx, a, s)
		if sig := caught.stop(); sig != 0 && err != nil {
			err = &signalError{sig: sig, err: err}
		}
	}
	var end *runtime.EndError
	if errors.As(err, &end) {
		end.Raise()
	}
	return s.report(c.name, err)
}

// commandName splits argv into the command that the program's own name stands
// for, as in plash-run, and the words that follow. The command is empty where
// the program was called by its plain name.
func commandName(argv []string) (string, []string) {
	if len(argv) == 0 { // execve(2) with an empty argv
		return "", nil
	}
	name, linked := strings.CutPrefix(filepath.Base(argv[0]), binary+"-")
	if !linked {
		return "", argv[1:]
	}
	return name, argv[1:]
}
