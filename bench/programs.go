package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// buildPrograms builds plash and the empty program that a start is compared with.
func (b *bench) buildPrograms() error {
	b.plash = filepath.Join(b.dir, "plash")
	b.empty = filepath.Join(b.dir, "empty")
	src := filepath.Join(b.dir, "empty.go")
	if err := os.WriteFile(src, []byte("package main\n\nfunc main() {}\n"), 0o644); err != nil {
		return err
	}
	built := filepath.Join(b.dir, "built")
	for out, build := range map[string][]string{
		// The Makefile says how it is linked.
		b.plash: {"make", "-s", "build", "PLASH=" + built},
		b.empty: {"go", "build", "-trimpath", "-ldflags", "-s -w", "-o", built, src},
	} {
		cmd := exec.CommandContext(b.ctx, build[0], build[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", strings.Join(build, " "), err)
		}
		// As it is installed. What the linker has written lies in the page cache in single
		// pages, which costs every start 0.1 ms.
		if err := b.command(nil, "install", built, out); err != nil {
			return err
		}
	}
	return os.Remove(built)
}

// debianImage makes the image that the project's targets were set with, unless it
// is in the cache.
func debianImage(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "plash-bench")
	path := filepath.Join(dir, "bookworm-devel.tar")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	fmt.Fprintln(os.Stderr, "making", path)
	tmp := path + ".new.tar"
	cmd := exec.CommandContext(ctx, "mmdebstrap", "--quiet", "--variant=minbase",
		"--include=build-essential,python3,git,perl,vim,curl", "bookworm", tmp)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("mmdebstrap: %w", err)
	}
	return path, os.Rename(tmp, path)
}
