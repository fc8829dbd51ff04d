package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
)

// errNoProot is wrapped where proot cannot be used.
var errNoProot = errors.New("no proot")

// findProot looks for proot, and tries it once in a boot and store.
func findProot(s *cas.Store) (string, error) {
	path, err := exec.LookPath("proot")
	if err != nil {
		return "", fmt.Errorf("%w: it is not installed", errNoProot)
	}
	n := readCopyNotes(s)
	works, known := n.Proot[path]
	if !known {
		if works, err = tryProot(s, path); err != nil {
			return "", err
		}
		n.Proot[path] = works
		n.write(s)
	}
	if !works {
		return "", fmt.Errorf("%w: %s does not work here", errNoProot, path)
	}
	return path, nil
}

// tryProot runs this program in an empty directory.
func tryProot(s *cas.Store, path string) (works bool, err error) {
	exe, err := ownPath()
	if err != nil {
		return false, err
	}
	empty, err := s.Scratch("proot")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, empty.Remove()) }()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return exec.CommandContext(ctx, path, "-r", empty.Path(), "-w", "/", "-b", exe+":"+guestProgram, guestProgram, guestName).Run() == nil, nil
}

// run runs the command of a run, passes signals on, and returns an [EndError] when it has
// ended. What it leaves behind goes on under proot, which keeps the copy.
func (g *guest) run(c inGuest) error {
	signals := make(chan os.Signal, 16)
	for _, sig := range passed {
		if !signal.Ignored(sig) {
			signal.Notify(signals, sig)
		}
	}
	defer signal.Stop(signals)
	if err := g.start(c, os.Stdin, os.Stdout, os.Stderr); err != nil {
		return err
	}
	said := g.listen()
	pid := 0
	var early []syscall.Signal // that came before there was a command
	for {
		select {
		case sig := <-signals:
			n := sig.(syscall.Signal)
			switch {
			case fromTerminal(n):
			case pid == 0:
				early = append(early, n)
			default:
				_ = unix.Kill(pid, n) // if it has ended, so do we
			}
		case s, ok := <-said:
			switch {
			case !ok:
				return g.ended()
			case s.Outcome != nil:
				return endOf(*s.Outcome)
			}
			pid = s.Pid
			for _, n := range early {
				_ = unix.Kill(pid, n)
			}
		}
	}
}

// endOf is the error about a command that has ended, or was not started.
func endOf(o outcome) error {
	if o.Failure != "" {
		return o.err()
	}
	return &EndError{Code: o.Code, Signal: o.Signal}
}

// commandInGuest runs the command of a step under proot, where it seems to be root.
func (c *initConfig) commandInGuest(tracer chan<- int) outcome {
	g := &guest{proot: c.Guest.Proot, dir: c.Guest.Dir, binds: c.Binds, fake: os.Geteuid() != 0}
	err := g.start(inGuest{Argv: c.Argv, Env: c.Env, Also: c.Also, Dir: c.Dir, Umask: c.Umask, Alone: true}, os.Stdin, os.Stdout, os.Stderr)
	if err != nil {
		return outcomeOf(err)
	}
	tracer <- g.cmd.Process.Pid
	for s := range g.listen() {
		if s.Outcome != nil {
			return *s.Outcome
		}
	}
	return outcomeOf(g.ended())
}

// endTracer has proot kill all that it traces: SIGQUIT does, while processes that lose it
// would go on with the host's root.
func endTracer(pid int) {
	_ = unix.Kill(pid, unix.SIGQUIT) // it may have ended
	for range 100 {
		if gone, err := unix.Wait4(pid, nil, unix.WNOHANG, nil); gone != 0 && err == nil || err == unix.ECHILD {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}
