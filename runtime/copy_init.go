package runtime

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/ihucos/plash/runtime/reaper"
)

// A guestConfig tells an init that there are no namespaces, and how to get into the copy
// that rootFD is.
type guestConfig struct {
	Chroot bool
	Proot  string `json:",omitempty"` // the program
	Dir    string `json:",omitempty"` // of the copy, for proot
}

// runInCopy runs the command of a step. Without a pid namespace, the init gets all
// processes that lose their parent (PR_SET_CHILD_SUBREAPER), and kills them at the end;
// it is told by SIGTERM when that is, also by the kernel when its own parent is gone.
func (c *initConfig) runInCopy() outcome {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	proc, err := os.OpenRoot("/proc") // before the root is another one
	if err != nil {
		return outcome{Failure: fmt.Sprintf("open /proc: %v", err)}
	}
	if err := reaper.Adopt(); err != nil {
		return outcomeOf(err)
	}
	done := make(chan outcome, 1)
	tracer := make(chan int, 1)
	go func() { done <- c.commandInCopy(tracer) }()
	var o outcome
	select {
	case o = <-done:
	case <-end:
		o = outcome{Failure: "told to end"}
	}
	select {
	case pid := <-tracer:
		endTracer(pid)
	default:
	}
	if err := reaper.KillDescendants(proc); err != nil && !o.failed() {
		o = outcomeOf(err)
	}
	return o
}

// commandInCopy starts the command and waits for it. The process that traces it, if there
// is one, is told to the channel.
func (c *initConfig) commandInCopy(tracer chan<- int) outcome {
	if !c.Guest.Chroot {
		return c.commandInGuest(tracer)
	}
	err := enterCopy(rootFD)
	if err != nil {
		return outcomeOf(err)
	}
	pid, err := c.fork()
	if err != nil {
		return outcomeOf(err)
	}
	return await(pid)
}
