package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// supervise runs the step's command under an init in namespaces of its own, and
// waits until both are gone. The calling goroutine is locked to its thread:
// Pdeathsig is sent when the thread ends that forked. The error is nil, a [CommandError], an [program.ExitError],
// or says what went wrong in between.
func (s *step) supervise(ctx context.Context) error {
	if s.root.FD() < 0 {
		return errors.New("run a build step: this needs detached mounts (Linux 5.2)")
	}
	if plan := s.plan(); plan != nil {
		err := s.superviseInit(ctx, plan)
		if !errors.Is(err, errAgain) {
			return err
		}
		planless.Store(true)
	}
	return s.superviseInit(ctx, nil)
}

func (s *step) superviseInit(ctx context.Context, plan *os.File) error {
	in, err := s.startInit(plan)
	if err != nil {
		return fmt.Errorf("start init of the step: %w", err)
	}
	if s.options.Script == "" {
		s.signals.yielded.Store(true)
		defer s.signals.yielded.Store(false)
		defer keepTerminal(s.options.Stdin)()
	}
	return in.wait(ctx)
}

// A runningInit is the parent's side of an init.
type runningInit struct {
	cmd    *exec.Cmd
	config *os.File // what it is told
	status *os.File // what it tells
	told   initConfig
	end    syscall.Signal // that ends it with all processes of the step
}

// startInit starts an init with a plan, or with nil as one; the plan is closed.
func (s *step) startInit(plan *os.File) (*runningInit, error) {
	if plan != nil {
		defer plan.Close()
	}
	configOut, configIn, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer configOut.Close()
	statusOut, statusIn, err := os.Pipe()
	if err != nil {
		configIn.Close()
		return nil, err
	}
	defer statusIn.Close()
	// Nothing is read or written: the file only carries the descriptor over.
	rootFD, err := unix.FcntlInt(uintptr(s.root.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		configIn.Close()
		statusOut.Close()
		return nil, err
	}
	root := os.NewFile(uintptr(rootFD), "root")
	defer root.Close()

	exe, err := ownProgram()
	if err != nil {
		configIn.Close()
		statusOut.Close()
		return nil, err
	}
	cmd := &exec.Cmd{
		Path:   exe,
		Args:   []string{initName},
		Env:    []string{},
		Stdout: s.options.Stdout,
		Stderr: s.options.Stderr,
		// In the order of configFD, statusFD, rootFD, scriptIn, planFD; a nil file is closed.
		ExtraFiles: []*os.File{configOut, statusIn, root, s.script, plan},
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID,
			Pdeathsig:  unix.SIGKILL,
		},
	}
	end := unix.SIGKILL
	if s.inCopy {
		end = unix.SIGTERM
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: end}
	}
	if s.options.Stdin != nil {
		cmd.Stdin = s.options.Stdin
	}
	if err := cmd.Start(); err != nil {
		configIn.Close()
		statusOut.Close()
		return nil, err
	}
	return &runningInit{cmd: cmd, config: configIn, status: statusOut, told: s.config, end: end}, nil
}

// ownProgram names this program for execve(2).
func ownProgram() (string, error) {
	const self = "/proc/self/exe"
	_, err := os.Stat(self)
	if err == nil {
		return self, nil
	}
	return "", &hintedError{fmt.Errorf("find the own program: %w", err), "mount /proc: `mount -t proc proc /proc`"}
}

// wait tells the init what to do and waits for the end of it and of every process
// in its namespace: the kernel kills those when the init ends, and lets the init
// be waited for only when they are gone.
func (in *runningInit) wait(ctx context.Context) error {
	defer in.status.Close()
	done := make(chan error, 1)
	go func() {
		// The init may be gone already; its end tells more than a broken pipe.
		_ = json.NewEncoder(in.config).Encode(in.told)
		in.config.Close()
		done <- in.cmd.Wait()
	}()
	var waitErr error
	select {
	case waitErr = <-done:
	case <-ctx.Done():
		// The error of a process that has just ended is of no interest.
		_ = in.cmd.Process.Signal(in.end)
		<-done
		return context.Cause(ctx)
	}
	var st outcome
	text, err := io.ReadAll(in.status)
	if err == nil {
		err = json.Unmarshal(text, &st)
	}
	if err != nil {
		return fmt.Errorf("the init of the step ended without a word: %w", errors.Join(waitErr, err))
	}
	if st.Again {
		return errAgain
	}
	return st.err()
}

// keepTerminal returns a function that makes this process' group the foreground
// one of the terminal again, if it is now: a shell in there gives the terminal to
// groups of its own, and cannot name ours to give it back.
func keepTerminal(tty *os.File) func() {
	fd := int(tty.Fd())
	group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	if err != nil || group != unix.Getpgrp() {
		return func() {}
	}
	return func() {
		if now, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err == nil && now == group {
			return
		}
		// From the background, this would stop us.
		signal.Ignore(syscall.SIGTTOU)
		defer signal.Reset(syscall.SIGTTOU)
		// Without it the caller's shell still takes the terminal back.
		_ = unix.IoctlSetPointerInt(fd, unix.TIOCSPGRP, group)
	}
}
