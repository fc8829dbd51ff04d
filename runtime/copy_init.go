package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return outcome{Failure: fmt.Sprintf("have processes left to the init: %v", err)}
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
	if err := killDescendants(proc); err != nil && !o.failed() {
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
	return reap(pid)
}

// killDescendants kills all processes that this one started, and theirs, and waits until
// they are gone. As no other process gets them, that is when none is left to wait for.
func killDescendants(proc *os.Root) error {
	if _, err := proc.Lstat("self"); err != nil {
		return nil // nothing is mounted there, and others will have to do it
	}
	for {
		for _, pid := range descendants(proc) {
			_ = unix.Kill(pid, unix.SIGKILL) // it may be gone
		}
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			switch {
			case errors.Is(err, unix.EINTR):
				continue
			case errors.Is(err, unix.ECHILD):
				return nil
			case err != nil:
				return fmt.Errorf("wait for the processes of the step: %w", err)
			}
			if pid == 0 {
				break
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// descendants lists the processes below this one.
func descendants(proc *os.Root) []int {
	entries, err := fs.ReadDir(proc.FS(), ".")
	if err != nil {
		return nil
	}
	children := map[int][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := proc.ReadFile(e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		// proc_pid_stat(5): pid, the name in parentheses, which may contain anything, state,
		// parent.
		text := string(b)
		f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		if len(f) < 2 {
			continue
		}
		if parent, err := strconv.Atoi(f[1]); err == nil {
			children[parent] = append(children[parent], pid)
		}
	}
	all := children[os.Getpid()]
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}
