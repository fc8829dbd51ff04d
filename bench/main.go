// Command bench measures plash beside its peers, in one run on one machine, and
// prints tables of times and of ratios to a baseline of the same run. Only the
// ratios carry over to another machine or hour.
//
//	go run ./bench [-tar IMAGE.tar] [-n ROUNDS] [-json FILE] [import|images|run|build|watch|index|commit|access|union]…
//
// Without -tar it makes the image of a Debian with compilers by mmdebstrap,
// once, and keeps it in the user's cache directory. The tables are also written as JSON,
// from which bench/plot draws them. It needs root, and leaves nothing else behind,
// however it ends: see sandbox. Peers that are not installed are left out.
package main

import (
	"context"
	"errors"
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
	{"images", benchImages},
	{"index", benchIndex},
	{"run", benchRun},
	{"build", benchBuild},
	{"watch", benchWatch},
	{"commit", benchCommit},
	{"access", benchAccess},
	{"union", benchUnion},
}

// bench is what the suites share.
type bench struct {
	ctx     context.Context
	tar     string // the image
	dir     string // scratch, on the same file system as the stores
	plash   string // the program
	empty   string // a Go program that does nothing
	json    string // the file of results
	rounds  int
	results results
}

func main() {
	err := run()
	if _, ok := err.(*exec.ExitError); ok {
		os.Exit(1) // the process in the sandbox has said why
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	b := &bench{}
	flag.StringVar(&b.tar, "tar", "", "the root filesystem to measure with")
	flag.IntVar(&b.rounds, "n", 5, "how often each thing is measured; the fastest counts")
	flag.StringVar(&b.json, "json", "bench/out/results.json", "the file that the results are written to")
	flag.Parse()
	for _, name := range flag.Args() {
		if !slices.ContainsFunc(suites, func(s suite) bool { return s.name == name }) {
			return fmt.Errorf("unknown suite %q", name)
		}
	}
	if os.Geteuid() != 0 {
		return errors.New("mounts are measured, which needs root")
	}
	if b.dir = os.Getenv(scratchVar); b.dir == "" {
		return sandbox()
	}
	if err := enterSandbox(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	b.ctx = ctx
	return b.runSuites(flag.Args())
}

// runSuites runs those that are named, or all.
func (b *bench) runSuites(names []string) (err error) {
	if b.tar == "" {
		if b.tar, err = debianImage(b.ctx); err != nil {
			return err
		}
	}
	if b.tar, err = filepath.Abs(b.tar); err != nil {
		return err
	}
	if err := b.begin(); err != nil {
		return err
	}
	if err := b.buildPrograms(); err != nil {
		return err
	}
	for _, s := range suites {
		if len(names) > 0 && !slices.Contains(names, s.name) {
			continue
		}
		err := s.run(b)
		if b.ctx.Err() != nil {
			return fmt.Errorf("%s: interrupted", s.name)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}
