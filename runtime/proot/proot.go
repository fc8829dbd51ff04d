// Package proot runs a command under proot(1), which runs a program as if another directory were
// the root, by looking at all its system calls: a [Guest] is such a command, seen from outside.
//
// proot ignores signals, tells of a command's end by a signal only in words, and waits for all processes
// that the command has left. So the command is started by this program once more, inside ([MaybeInside]),
// which tells outside how it ended ([Status]).
//
// Invariants:
//   - The command ends when the outside does, whoever is killed. What it has left ends with it if that
//     is wanted ([Command]), and else goes on under proot.
//   - The command has the standard streams, and proot has none of them: who reads them waits for the
//     command alone.
//
// It chooses no directory and no moment to use proot, and passes no signals on: that is for the caller.
package proot

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// Self is where this program lies in a guest: the root needs a file there.
const Self = "/.plash"

// Try tells whether the proot at a path can run this program, in an empty directory.
func Try(path, empty string) (works bool, err error) {
	exe, err := ownPath()
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return exec.CommandContext(ctx, path, "-r", empty, "-w", "/", "-b", exe+":"+Self, Self, insideName).Run() == nil, nil
}

// ownPath is where this program lies, which proot wants to know.
func ownPath() (string, error) {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return "", fmt.Errorf("find the own program: %w", err)
	}
	return exe, nil
}
