package runtime

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/runtime/proot"
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

// tryProot tries proot with a directory of the store.
func tryProot(s *cas.Store, path string) (works bool, err error) {
	empty, err := s.Scratch("proot")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, empty.Remove()) }()
	return proot.Try(path, empty.Path())
}

// runGuest runs the command of a run, passes signals on, and returns an [EndError] when it has
// ended. What it leaves behind goes on under proot, which keeps the copy.
func runGuest(g *proot.Guest, c proot.Command) error {
	signals := make(chan os.Signal, 16)
	for _, sig := range passed {
		if !signal.Ignored(sig) {
			signal.Notify(signals, sig)
		}
	}
	defer signal.Stop(signals)
	if err := g.Start(c, os.Stdin, os.Stdout, os.Stderr); err != nil {
		return err
	}
	said := g.Listen()
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
				return g.Ended()
			case s.End != nil && s.End.Failure != "":
				return guestOutcome(s.End).err()
			case s.End != nil:
				return &EndError{Code: s.End.Code, Signal: s.End.Signal}
			}
			pid = s.Pid
			for _, n := range early {
				_ = unix.Kill(pid, n)
			}
		}
	}
}

// guestOutcome is what a guest tells, as an outcome.
func guestOutcome(e *proot.End) outcome {
	return outcome{Failure: e.Failure, Code: e.Code, Signal: e.Signal}
}

// commandInGuest runs the command of a step under proot, where it seems to be root.
func (c *initConfig) commandInGuest(started chan<- int) outcome {
	g := &proot.Guest{Proot: c.Guest.Proot, Dir: c.Guest.Dir, Binds: c.Binds, Fake: os.Geteuid() != 0}
	err := g.Start(proot.Command{Argv: c.Argv, Env: c.Env, Also: c.Also, Dir: c.Dir, Umask: c.Umask, Alone: true}, os.Stdin, os.Stdout, os.Stderr)
	if err != nil {
		started <- 0
		return outcomeOf(err)
	}
	started <- g.Pid()
	for s := range g.Listen() {
		if s.End != nil {
			return guestOutcome(s.End)
		}
	}
	return outcomeOf(g.Ended())
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
