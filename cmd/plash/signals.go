package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ihucos/plash/runtime"
)

// signals turns what tells the process to end into the end of a context, so that
// the command can clean up.
type signals struct {
	incoming chan os.Signal
	cancel   context.CancelFunc
	done     chan struct{} // closed when nobody listens any more
	got      os.Signal     // the first one; to be read when done is closed
	yielded  atomic.Bool
	ignored  atomic.Int32 // the last signal that came while yielded
	expire   func(syscall.Signal)
}

type signalsKey struct{}

// keepQuitIgnored ignores SIGQUIT where that was so when the process began, as
// far as can be told, and for the command that it becomes as well. Go does not
// know: its runtime, which prints all stacks at this signal, leaves only an ignored
// SIGINT or SIGHUP as it was (runtime, sigInstallGoHandler). But a shell ignores
// SIGINT and SIGQUIT together, for the background jobs of a script (POSIX, XCU 2.11).
func keepQuitIgnored() {
	if signal.Ignored(syscall.SIGINT) {
		signal.Ignore(syscall.SIGQUIT)
	}
}

// grace is how long a command may take to clean up after a signal. What it leaves
// then is as after a kill: the next command reclaims it.
const grace = 5 * time.Second

// catchSignals begins to catch them. After the first one the default action is
// back: a second Ctrl-C ends a cleaning up that hangs. If none comes, expire is
// called after a while.
func catchSignals(expire func(syscall.Signal)) (context.Context, *signals) {
	c := &signals{incoming: make(chan os.Signal, 1), done: make(chan struct{}), expire: expire}
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), signalsKey{}, c))
	c.cancel = cancel
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP} {
		// An ignored signal stays ignored (nohup, jobs of a script), also in
		// the command that this process becomes.
		if !signal.Ignored(sig) {
			signal.Notify(c.incoming, sig)
		}
	}
	go c.listen(ctx)
	return ctx, c
}

func (c *signals) listen(ctx context.Context) {
	defer close(c.done)
	for {
		select {
		case sig := <-c.incoming:
			if c.yielded.Load() {
				c.ignored.Store(int32(sig.(syscall.Signal)))
				continue
			}
			c.got = sig
			c.restoreDefault()
			c.cancel()
			return
		case <-ctx.Done():
			return
		}
	}
}

// restoreDefault lets the next signal end the process, and the time too. The
// default action that Go has for SIGQUIT is no use to anyone.
func (c *signals) restoreDefault() {
	signal.Stop(c.incoming)
	quit := make(chan os.Signal, 1)
	if !signal.Ignored(syscall.SIGQUIT) {
		signal.Notify(quit, syscall.SIGQUIT)
	}
	first := c.got.(syscall.Signal)
	go func() {
		select {
		case <-quit:
			c.expire(syscall.SIGQUIT)
		case <-time.After(grace):
			c.expire(first)
		}
	}()
}

// stop ends the catching and returns the signal that has come, 0 for none.
func (c *signals) stop() syscall.Signal {
	signal.Stop(c.incoming)
	c.cancel()
	<-c.done
	if c.got == nil && !c.yielded.Load() {
		// A child that was killed by the same Ctrl-C may end the command
		// before the signal was looked at.
		select {
		case c.got = <-c.incoming:
		default:
		}
	}
	sig, _ := c.got.(syscall.Signal)
	return sig
}

// yieldSignals leaves the signals to what is called next, which runs a command on
// our terminal and knows which of them are the command's, until the function it
// returns is called with the error that came of it.
func yieldSignals(ctx context.Context) (resume func(error) error) {
	c, ok := ctx.Value(signalsKey{}).(*signals)
	if !ok {
		return func(err error) error { return err }
	}
	c.yielded.Store(true)
	return func(err error) error {
		c.yielded.Store(false)
		var (
			interrupt *runtime.InterruptError
			command   *runtime.CommandError
		)
		switch {
		case errors.As(err, &interrupt):
			return &signalError{sig: interrupt.Signal, err: err}
		case errors.As(err, &command) && command.Signal != 0 && c.ignored.Load() == int32(command.Signal):
			// A Ctrl-C that was the command's, and that it died of.
			return &signalError{sig: command.Signal, err: err}
		}
		return err
	}
}
