package runtime

import (
	"context"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
)

// interrupts turns the signals that ask the process to end into the end of a
// context.
type interrupts struct {
	incoming chan os.Signal
	cancel   context.CancelCauseFunc
	// yielded says that a command on our terminal runs: SIGINT and SIGQUIT, which
	// the terminal sends to it as well, are its own business.
	yielded atomic.Bool
}

// interruptible makes a context that ends with an [InterruptError] as its cause
// when a signal asks for it. Signals that the process ignores (nohup) stay
// ignored.
func interruptible(ctx context.Context) (context.Context, *interrupts) {
	i := &interrupts{incoming: make(chan os.Signal, 4)}
	ctx, i.cancel = context.WithCancelCause(ctx)
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(sig) {
			signal.Notify(i.incoming, sig)
		}
	}
	go func() {
		for sig := range i.incoming {
			if i.yielded.Load() && (sig == syscall.SIGINT || sig == syscall.SIGQUIT) {
				continue
			}
			i.cancel(&InterruptError{Signal: sig.(syscall.Signal)})
		}
	}()
	return ctx, i
}

func (i *interrupts) stop() {
	signal.Stop(i.incoming)
	close(i.incoming)
	i.cancel(nil)
}
