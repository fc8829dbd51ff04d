package runtime

import (
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

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
func (c *initConfig) commandInGuest(started chan<- int) outcome {
	g := &guest{proot: c.Guest.Proot, dir: c.Guest.Dir, binds: c.Binds, fake: os.Geteuid() != 0}
	err := g.start(inGuest{Argv: c.Argv, Env: c.Env, Also: c.Also, Dir: c.Dir, Umask: c.Umask, Alone: true}, os.Stdin, os.Stdout, os.Stderr)
	if err != nil {
		started <- 0
		return outcomeOf(err)
	}
	started <- g.cmd.Process.Pid
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
