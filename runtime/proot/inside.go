package proot

import (
	"encoding/json"
	"errors"
	"os"
	"os/signal"
	goruntime "runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/runtime/handover"
	"github.com/ihucos/plash/runtime/program"
	"github.com/ihucos/plash/runtime/reaper"
)

// insideName is the first argument of this program where it runs inside of proot. Alone
// it does nothing: so proot is tried.
const insideName = "plash-in-proot"

// MaybeInside is for the beginning of main. In a process that a [Guest] has started in there, it starts the
// command, tells how that ended, and ends with it; else it does nothing.
func MaybeInside() {
	if len(os.Args) < 2 || os.Args[1] != insideName {
		return
	}
	if len(os.Args) != 4 {
		os.Exit(0)
	}
	files := handover.Taken(os.Args[2:], "guest") // two, as Start has them; the last is a lock to be held
	socket := files[0]
	var c order
	err := handover.Receive(socket, 3)
	if err == nil {
		err = json.NewDecoder(socket).Decode(&c)
	}
	if err != nil {
		os.Exit(program.CodeNotStarted) // who asked is gone
	}
	status := json.NewEncoder(socket)
	end := c.run(socket, func(pid int) error { return status.Encode(Status{Pid: pid}) })
	if err := status.Encode(Status{End: &end}); err != nil {
		os.Exit(program.CodeNotStarted)
	}
	goruntime.KeepAlive(files)
	os.Exit(0)
}

// run runs the command. When asked ends, whose other end is who wants it, so does the
// command.
func (c *order) run(asked *os.File, started func(pid int) error) End {
	// Those of a terminal come to the command too, and are its business; exec gives it
	// back what they do.
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	// From proot's group back into that of the terminal; where there is none, it does
	// not matter.
	_ = unix.Setpgid(0, c.Group)
	if c.Umask >= 0 {
		unix.Umask(c.Umask)
	}
	if c.Dir == "" || unix.Chdir(c.Dir) != nil {
		c.Env = program.SetEnv(c.Env, "PWD", "/")
	}
	proc, err := os.OpenRoot("/proc")
	if err == nil && c.Alone {
		err = reaper.Adopt()
	}
	if err != nil {
		return failure(err)
	}
	pid, err := c.fork()
	if err != nil {
		return failure(err)
	}
	if err := started(pid); err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	go func() {
		var b [1]byte
		if _, err := asked.Read(b[:]); err != nil && !errors.Is(err, os.ErrClosed) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}()
	end := await(pid)
	if c.Alone {
		if err := reaper.KillDescendants(proc); err != nil && end == (End{}) {
			return failure(err)
		}
	}
	return end
}

func (c *Command) fork() (pid int, err error) {
	p, err := program.Find(c.Argv, c.Env, c.Also)
	if err != nil {
		return 0, err
	}
	// PRoot does not ask the kernel whether it knows the format, and jumps into programs of other machines.
	if _, err := p.CommandLine(); err != nil {
		return 0, err
	}
	return p.Fork(syscall.ForkExec, &syscall.ProcAttr{Env: c.Env, Files: []uintptr{0, 1, 2}})
}

// await waits for the end of the command.
func await(pid int) End {
	status, err := reaper.Wait(pid)
	switch {
	case err != nil:
		return failure(err)
	case status.Signaled():
		return End{Signal: status.Signal()}
	}
	return End{Code: status.ExitStatus()}
}

// failure is the end of what has not begun.
func failure(err error) End {
	end := End{Failure: err.Error()}
	var exit *program.ExitError
	if errors.As(err, &exit) {
		end.Code = exit.Code
	}
	return end
}
