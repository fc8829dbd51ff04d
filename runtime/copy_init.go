package runtime

import (
	"fmt"
	"os"

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
// it is told by SIGTERM when that is, also by the kernel when its own parent is gone. Such a
// signal may have come already.
func (c *initConfig) runInCopy(end <-chan os.Signal) outcome {
	proc, err := os.OpenRoot("/proc") // before the root is another one
	if err != nil {
		return outcome{Failure: fmt.Sprintf("open /proc: %v", err)}
	}
	if err := reaper.Adopt(); err != nil {
		return outcomeOf(err)
	}
	done := make(chan outcome, 1)
	started := make(chan int, 1)
	go func() { done <- c.commandInCopy(started) }()
	var o outcome
	select {
	case o = <-done:
	case <-end:
		o = outcome{Failure: "told to end"}
	}
	// What is just being started would not be found.
	if tracer := <-started; tracer != 0 {
		endTracer(tracer)
	}
	if err := reaper.KillDescendants(proc); err != nil && !o.failed() {
		o = outcomeOf(err)
	}
	return o
}

// commandInCopy starts the command and waits for it. That it is started, or cannot be, is
// told by the process that traces it, 0 if there is none.
func (c *initConfig) commandInCopy(started chan<- int) outcome {
	if !c.Guest.Chroot {
		return c.commandInGuest(started)
	}
	pid := 0
	err := enterCopy(rootFD)
	if err == nil {
		pid, err = c.fork()
	}
	started <- 0
	if err != nil {
		return outcomeOf(err)
	}
	return await(pid)
}
