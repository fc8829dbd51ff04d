package runtime

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/runtime/bundle"
	"github.com/ihucos/plash/runtime/program"
	"github.com/ihucos/plash/runtime/share"
)

// A supervision is of an engine that runs a container.
type supervision struct {
	bundle.Run
	cmd  *exec.Cmd
	done chan struct{} // closed when the engine has ended
	err  error         // of waiting for it

	terminal bool // the container has one
	// killed is the signal that has ended the container before its command ran, or by its default
	// action.
	killed syscall.Signal
}

// supervise runs the engine, and returns when it has ended.
func (c *isolated) supervise(told *json.Decoder) error {
	s := &supervision{
		Run:  bundle.Run{Engine: c.Engine, Bundle: c.bundleDir(), Dir: filepath.Join(c.dir, "engine"), Name: c.container.Name},
		done: make(chan struct{}), terminal: c.container.Terminal,
	}
	if err := os.Mkdir(s.Dir, 0o700); err != nil {
		return fmt.Errorf("run %s: %w", s.Engine.Name, err)
	}
	// What a terminal sends we get too, but it is for others.
	for _, sig := range passed {
		if !signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	s.cmd = s.Command()
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	s.cmd.Env = os.Environ()
	for _, name := range []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET"} {
		s.cmd.Env = program.UnsetEnv(s.cmd.Env, name) // runc would pass on what they are about
	}
	// In a session of its own only we send it signals. A container with a terminal has a session of
	// its own, and the engine must be in that of ours, which is raw and sends only sizes.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: !s.terminal}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("run %s: %w", s.Engine.Name, err)
	}
	go func() {
		s.err = ignoreExit(s.cmd.Wait())
		close(s.done)
	}()
	s.listen(told)
	if s.err != nil {
		return fmt.Errorf("run %s: %w", s.Engine.Name, s.err)
	}
	return s.outcome()
}

// listen passes on the signals that come, until the engine has ended.
func (s *supervision) listen(told *json.Decoder) {
	signals := make(chan passedSignal, 16)
	go func() {
		defer close(signals)
		for {
			var p passedSignal
			if told.Decode(&p) != nil {
				return // the parent is gone, and we soon are
			}
			signals <- p
		}
	}()
	resized := make(chan os.Signal, 1)
	if s.terminal {
		signal.Notify(resized, syscall.SIGWINCH)
	}
	for {
		select {
		case <-resized:
			s.resize()
		case p, ok := <-signals:
			if !ok {
				_ = s.cmd.Process.Kill()
				<-s.done
				return
			}
			s.pass(p)
		case <-s.done:
			return
		}
	}
}

// resize gives the container's terminal the size of ours: crun 1.8 does not.
func (s *supervision) resize() {
	size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
	if err != nil || s.Pid() == 0 {
		return // the engine begins with the size that there is
	}
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", s.Pid()), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return // it has ended
	}
	defer unix.Close(root)
	console, err := share.OpenInside(root, "/dev/console", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK)
	if err != nil {
		return // the container has done something with it
	}
	defer unix.Close(console)
	_ = unix.IoctlSetWinsize(console, unix.TIOCSWINSZ, size) // as before
}

// pass passes a signal on when the container's command runs: before that, its process is the
// engine's, and would do with the signal what that does.
func (s *supervision) pass(p passedSignal) {
	if !s.await() {
		if s.Pid() == 0 {
			s.killed = p.Signal
		}
		return
	}
	deaf, err := hasDefault(s.Pid(), p.Signal)
	switch {
	case err == nil && deaf && p.Signal != unix.SIGTSTP:
		// The process is the init of a pid namespace, to which the kernel does not apply
		// the default action (pid_namespaces(7)).
		s.killed = p.Signal
		_ = unix.Kill(s.Pid(), unix.SIGKILL)
	case !p.FromTerminal:
		_ = s.cmd.Process.Signal(p.Signal) // it may have ended
	case !s.terminal:
		// As the terminal would, whose session the container is not in.
		_ = unix.Kill(-s.Pid(), p.Signal) // the engine has made the process a group's leader
	}
}

// maxStart is how long the engine may take to start the command before it gets signals itself.
const maxStart = 10 * time.Second

// await waits until the command runs, and tells whether it does and has not ended.
func (s *supervision) await() bool {
	for end := time.Now().Add(maxStart); time.Now().Before(end); {
		if pid := s.Pid(); pid != 0 && !s.isEngine(pid) {
			return true
		}
		select {
		case <-s.done:
			return false
		case <-time.After(5 * time.Millisecond):
		}
	}
	return true
}

// isEngine tells whether a process has still to become the container's command.
func (s *supervision) isEngine(pid int) bool {
	// What runc calls itself between clone(2) and execve(2), where it is a copy of its program.
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil || strings.HasPrefix(string(name), "runc:[") {
		return true
	}
	program, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return true
	}
	for _, path := range []string{s.Path, fmt.Sprintf("/proc/%d/exe", s.cmd.Process.Pid)} {
		if engine, err := os.Stat(path); err == nil && os.SameFile(engine, program) {
			return true
		}
	}
	return false
}

// hasDefault tells whether a process neither catches, ignores nor blocks a signal: the masks
// in proc_pid_status(5).
func hasDefault(pid int, sig syscall.Signal) (bool, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(text)) {
		name, mask, _ := strings.Cut(line, ":")
		switch name {
		case "SigBlk", "SigIgn", "SigCgt":
			bits, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			if err != nil {
				return false, err
			}
			if bits&(1<<(uint(sig)-1)) != 0 {
				return false, nil
			}
		}
	}
	return true, nil
}

// outcome tells how the command has ended, from how the engine has.
func (s *supervision) outcome() error {
	state := s.cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case s.killed != 0:
		return &CommandError{Code: 128 + int(s.killed), Signal: s.killed}
	case s.Pid() == 0:
		return s.notStarted()
	case state.Signaled():
		return &CommandError{Code: 128 + int(state.Signal()), Signal: state.Signal()}
	case state.ExitStatus() != 0:
		return &CommandError{Code: state.ExitStatus()}
	}
	return nil
}

// notStarted says why there was no command.
func (s *supervision) notStarted() error {
	why := s.Said()
	if why == "" {
		why = s.cmd.ProcessState.String()
	}
	err := &program.ExitError{Code: program.CodeNotStarted, Err: fmt.Errorf("run %s: %w", s.Engine.Name, errors.New(why))}
	switch text := strings.ToLower(why); {
	case !strings.Contains(text, "exec"):
	case strings.Contains(text, "permission denied"):
		err.Code = program.CodeCannotExecute
	case strings.Contains(text, "not found"), strings.Contains(text, "no such file"):
		err.Code = program.CodeNotFound
	}
	return err
}
