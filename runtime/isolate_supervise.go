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
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/runtime/bundle"
)

// A supervision is of an engine that runs a container.
type supervision struct {
	bundle.Run
	cmd  *exec.Cmd
	done chan struct{} // closed when the engine has ended
	last atomic.Int32  // the last signal that was passed on
	// killed is the signal whose default action has ended the container.
	killed atomic.Int32
}

// supervise runs the engine, and returns when it has ended.
func (c *isolated) supervise(told *json.Decoder) error {
	s := &supervision{
		Run:  bundle.Run{Engine: c.Engine, Bundle: c.bundleDir(), Dir: filepath.Join(c.dir, "engine"), Name: c.container.Name},
		done: make(chan struct{}),
	}
	if err := os.Mkdir(s.Dir, 0o700); err != nil {
		return fmt.Errorf("run %s: %w", s.Engine.Name, err)
	}
	// Of what a terminal sends, the engine gets its own.
	for _, sig := range passed {
		if !signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	s.cmd = s.Command()
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	s.cmd.Env = os.Environ()
	for _, name := range []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET"} {
		s.cmd.Env = unsetEnv(s.cmd.Env, name) // runc would pass on what they are about
	}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("run %s: %w", s.Engine.Name, err)
	}
	go s.listen(told)
	err := ignoreExit(s.cmd.Wait())
	close(s.done)
	if err != nil {
		return fmt.Errorf("run %s: %w", s.Engine.Name, err)
	}
	return s.outcome()
}

// listen passes on the signals that come.
func (s *supervision) listen(told *json.Decoder) {
	for {
		var p passedSignal
		if told.Decode(&p) != nil {
			_ = s.cmd.Process.Kill() // the parent is gone
			return
		}
		s.last.Store(int32(p.Signal))
		if !p.Seen {
			_ = s.cmd.Process.Signal(p.Signal) // it may have ended
		}
		go s.actByDefault(p.Signal)
	}
}

// actByDefault sees to it that a signal that ends processes ends the container, if its first
// process does nothing with it: that is the init of a pid namespace, to which the kernel
// does not apply the default action (pid_namespaces(7)).
func (s *supervision) actByDefault(sig syscall.Signal) {
	if sig == unix.SIGTSTP {
		return
	}
	for {
		if pid := s.Pid(); pid != 0 {
			deaf, err := hasDefault(pid, sig)
			if err == nil && deaf {
				s.killed.Store(int32(sig))
				_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
			}
			return
		}
		select {
		case <-s.done:
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
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
	sig := syscall.Signal(s.killed.Load())
	switch {
	case s.Pid() == 0:
		return s.notStarted()
	case sig != 0:
		return &CommandError{Code: 128 + int(sig), Signal: sig}
	case state.Signaled():
		return &CommandError{Code: 128 + int(state.Signal()), Signal: state.Signal()}
	case state.ExitStatus() != 0:
		return &CommandError{Code: state.ExitStatus()}
	}
	return nil
}

// notStarted says why there was no command.
func (s *supervision) notStarted() error {
	if sig := syscall.Signal(s.last.Load()); sig != 0 {
		return &CommandError{Code: 128 + int(sig), Signal: sig}
	}
	why := s.Said()
	if why == "" {
		why = s.cmd.ProcessState.String()
	}
	err := &ExitError{Code: codeNotStarted, Err: fmt.Errorf("run %s: %w", s.Engine.Name, errors.New(why))}
	switch text := strings.ToLower(why); {
	case !strings.Contains(text, "exec"):
	case strings.Contains(text, "permission denied"):
		err.Code = codeCannotExecute
	case strings.Contains(text, "not found"), strings.Contains(text, "no such file"):
		err.Code = codeNotFound
	}
	return err
}
