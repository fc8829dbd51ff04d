// Command bench measures plash beside its peers, in one run on one machine, and
// prints tables of times and of ratios to a baseline of the same run. Only the
// ratios carry over to another machine or hour.
//
//	go run ./bench [-tar IMAGE.tar] [-n ROUNDS] [import|run|build|index|commit]…
//
// Without -tar it makes the image of a Debian with compilers by mmdebstrap,
// once, and keeps it in the user's cache directory. It needs root, and leaves nothing
// else behind. Peers that are not installed are left out.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
)

// suite is a set of measurements that stand in one table.
type suite struct {
	name string
	run  func(b *bench) error
}

var suites = []suite{
	{"import", benchImport},
	{"index", benchIndex},
	{"run", benchRun},
	{"build", benchBuild},
	{"commit", benchCommit},
}

// bench is what the suites share.
type bench struct {
	ctx    context.Context
	tar    string // the image
	dir    string // scratch, on the same file system as the stores
	plash  string // the program
	empty  string // a Go program that does nothing
	rounds int
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	tar := flag.String("tar", "", "the root filesystem to measure with")
	rounds := flag.Int("n", 5, "how often each thing is measured; the fastest counts")
	flag.Parse()
	for _, name := range flag.Args() {
		if !slices.ContainsFunc(suites, func(s suite) bool { return s.name == name }) {
			return fmt.Errorf("unknown suite %q", name)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := &bench{ctx: ctx, tar: *tar, rounds: *rounds}
	if b.tar == "" {
		if b.tar, err = debianImage(ctx); err != nil {
			return err
		}
	}
	if b.tar, err = filepath.Abs(b.tar); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("/var/tmp", "plash-bench-"); err != nil {
		return err
	}
	defer func() {
		if rerr := os.RemoveAll(b.dir); err == nil {
			err = rerr
		}
	}()
	if err := b.buildPrograms(); err != nil {
		return err
	}
	for _, s := range suites {
		if flag.NArg() > 0 && !slices.Contains(flag.Args(), s.name) {
			continue
		}
		if err := s.run(b); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// buildPrograms builds plash and the empty program that a start is compared with.
func (b *bench) buildPrograms() error {
	b.plash = filepath.Join(b.dir, "plash")
	b.empty = filepath.Join(b.dir, "empty")
	src := filepath.Join(b.dir, "empty.go")
	if err := os.WriteFile(src, []byte("package main\n\nfunc main() {}\n"), 0o644); err != nil {
		return err
	}
	for out, in := range map[string]string{b.plash: "github.com/ihucos/plash/cmd/plash", b.empty: src} {
		cmd := exec.CommandContext(b.ctx, "go", "build", "-trimpath", "-o", out, in)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("build %s: %w", in, err)
		}
	}
	return nil
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
