package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// command runs a program with its output thrown away, unless it fails.
func (b *bench) command(env []string, name string, args ...string) error {
	cmd := exec.CommandContext(b.ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	return runQuietly(cmd)
}

// runQuietly runs a command; what it said on stderr is part of the error.
func runQuietly(cmd *exec.Cmd) error {
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Args[0]), err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// output runs a program and returns what it printed.
func (b *bench) output(env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(b.ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	var stdout strings.Builder
	cmd.Stdout = &stdout
	err := runQuietly(cmd)
	return strings.TrimSpace(stdout.String()), err
}

// have reports whether a program is installed.
func have(name string) bool {
	_, err := exec.LookPath(name)
	return err == nil
}
