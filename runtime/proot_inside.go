package runtime

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

// guestName is the first argument of this program where it runs inside of proot. Alone
// it does nothing: so proot is tried.
const guestName = "plash-in-proot"

// maybeGuest is MaybeInit for the inside of a guest: it starts the command, tells how it
// ended, and ends with it.
func maybeGuest() {
	if len(os.Args) < 2 || os.Args[1] != guestName {
		return
	}
	if len(os.Args) != 4 {
		os.Exit(0)
	}
	files := handover.Taken(os.Args[2:], "guest") // two, as start has them; the last is a lock to be held
	socket := files[0]
	var c inGuest
	err := handover.Receive(socket, 3)
	if err == nil {
		err = json.NewDecoder(socket).Decode(&c)
	}
	if err != nil {
		os.Exit(program.CodeNotStarted) // who asked is gone
	}
	status := json.NewEncoder(socket)
	o := c.command(socket, func(pid int) error { return status.Encode(guestStatus{Pid: pid}) })
	if err := status.Encode(guestStatus{Outcome: &o}); err != nil {
		os.Exit(program.CodeNotStarted)
	}
	goruntime.KeepAlive(files)
	os.Exit(0)
}

// command runs the command. When asked ends, whose other end is who wants it, so does the
// command.
func (c *inGuest) command(asked *os.File, started func(pid int) error) outcome {
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
		return outcomeOf(err)
	}
	pid, err := c.fork()
	if err != nil {
		return outcomeOf(err)
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
	o := await(pid)
	if c.Alone {
		if err := reaper.KillDescendants(proc); err != nil && !o.failed() {
			return outcomeOf(err)
		}
	}
	return o
}

func (c *inGuest) fork() (pid int, err error) {
	p, err := program.Find(c.Argv, c.Env, c.Also)
	if err != nil {
		return 0, err
	}
	return p.Fork(syscall.ForkExec, &syscall.ProcAttr{Env: c.Env, Files: []uintptr{0, 1, 2}})
}
