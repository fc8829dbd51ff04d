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
	goruntime "runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/replay"
	"github.com/ihucos/plash/runtime/handover"
	"github.com/ihucos/plash/runtime/ids"
	"github.com/ihucos/plash/runtime/program"
)

// Who may not mount does so in a user namespace of his own. A Go program has threads from
// its beginning and cannot move into one, so the program is started again there: a stage. It
// either becomes the command of a run, or runs the command of a layer and packs what
// that changed. Its parent passes signals on and waits.

// stageName is the name under which the program is started again.
const stageName = "plash-stage"

// A stageConfig tells a stage what to do. It comes when its ids are mapped.
type stageConfig struct {
	Store string
	ID    container.ID
	Flat  bool // see [ids.Maps]
	// Single says that there is one user in the namespace.
	Single bool
	// One of these is what to do.
	Run   *RunOptions  `json:",omitempty"` // Exec
	Look  []string     `json:",omitempty"` // WithMount
	Layer *layerConfig `json:",omitempty"` // RunLayer
	Clean bool         `json:",omitempty"` // Reclaim
	// Examine says what works, as JSON, where a layer's tar would go.
	Examine bool `json:",omitempty"`

	Isolated *isolated `json:",omitempty"` // Isolate

	told *json.Decoder // what else the stage is told
}

// needsStage tells whether this process cannot mount as it is.
func needsStage() bool { return !ids.HasCapabilities(unix.CAP_SYS_ADMIN) }

// ErrNoNamespaces is wrapped by errors about hosts that let the caller have no user namespace
// to mount in.
var ErrNoNamespaces = errors.New("no user namespaces here")

// A stage is the parent's side of one.
type stage struct {
	cmd    *exec.Cmd
	config *os.File // what it is told
	status *os.File // what it tells
}

// stageFiles are what a stage gets besides the caller's descriptors.
type stageFiles struct {
	stdin, stdout, stderr *os.File
	tar                   *os.File // where a layer's tar goes, or nil
}

// tell tells a stage more.
func (s *stage) tell(more any) error { return json.NewEncoder(s.config).Encode(more) }

// startStage starts a stage. The calling goroutine is locked to its thread: Pdeathsig is
// sent when the thread ends that forked.
func startStage(as ids.Mapping, death syscall.Signal, files stageFiles, c stageConfig) (*stage, error) {
	maps, subErr := ids.For(as)
	s, err := startWith(maps, death, files, c)
	if errors.Is(err, ids.ErrNoSubordinate) {
		// They are set up for this user, and yet do not work.
		s, err = startWith(maps.WithoutSubordinate(), death, files, c)
	}
	if err != nil {
		return nil, errors.Join(err, subErr)
	}
	return s, nil
}

func startWith(maps ids.Maps, death syscall.Signal, files stageFiles, c stageConfig) (_ *stage, err error) {
	c.Flat, c.Single = maps.Flat, maps.Single()
	exe, err := ownProgram()
	if err != nil {
		return nil, err
	}
	configOut, configIn, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	defer configOut.Close()
	statusOut, statusIn, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make pipe: %w", err), configIn.Close())
	}
	defer statusIn.Close()
	s := &stage{config: configIn, status: statusOut}
	s.cmd = &exec.Cmd{
		Path: exe, Env: os.Environ(),
		Stdin: files.stdin, Stdout: files.stdout, Stderr: files.stderr,
		SysProcAttr: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Pdeathsig: death},
	}
	if c.Isolated != nil {
		s.cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWPID | unix.CLONE_NEWCGROUP
	}
	maps.Apply(s.cmd.SysProcAttr)
	if err := s.start(configOut, statusIn, files.tar); err != nil {
		return nil, errors.Join(refused(maps, err), s.close())
	}
	if err := maps.Write(s.cmd.Process.Pid); err != nil {
		return nil, errors.Join(err, s.kill(), s.close())
	}
	// A stage that is gone already says more by its end.
	_ = s.tell(c)
	return s, nil
}

// refused says why there is no stage, from the error of forking it.
func refused(maps ids.Maps, err error) error {
	if maps.None {
		return &hintedError{fmt.Errorf("make namespaces: %w", err), "`plash-doctor` says what works here"}
	}
	err = fmt.Errorf("make user namespace: %w", err)
	for _, denied := range []error{unix.EPERM, unix.ENOSPC, unix.EINVAL, unix.ENOSYS, unix.EUSERS, unix.EACCES} {
		if errors.Is(err, denied) {
			return fmt.Errorf("%w: %w", ErrNoNamespaces, err)
		}
	}
	return err
}

// start forks.
func (s *stage) start(files ...*os.File) error {
	s.cmd.Args = []string{stageName}
	return handover.Start(s.cmd, files...)
}

func (s *stage) close() error { return errors.Join(s.config.Close(), s.status.Close()) }

func (s *stage) kill() error {
	// The reason of its end is known.
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	return nil
}

// told reads what the stage says when it ends, or becomes the command: then nothing.
func (s *stage) told() (o outcome, said bool, err error) {
	text, err := io.ReadAll(s.status)
	if err != nil || len(text) == 0 {
		return o, false, err
	}
	return o, true, json.Unmarshal(text, &o)
}

// passed are the signals that are passed on to a command. Those that a terminal makes
// reach the command by themselves. With a handler for SIGTSTP we do not stop before the command
// does, if it does: see waitWithStops.
var passed = []os.Signal{
	syscall.SIGTSTP, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2,
	syscall.SIGALRM, syscall.SIGVTALRM, syscall.SIGPROF, syscall.SIGIO, syscall.SIGPWR,
}

// becomeStaged is Exec and WithMount by a stage. It returns an [EndError] when the command
// has ended, or an [program.ExitError].
func becomeStaged(c stageConfig) error {
	goruntime.LockOSThread()
	keepIgnored()
	signals := make(chan os.Signal, 16)
	for _, sig := range passed {
		if !signal.Ignored(sig) {
			signal.Notify(signals, sig)
		}
	}
	defer signal.Stop(signals)
	s, err := startStage(ids.AsSelf, unix.SIGKILL, stageFiles{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}, c)
	if err != nil {
		return program.NotStarted(err)
	}
	pid := s.cmd.Process.Pid
	go func() {
		for sig := range signals {
			if n := sig.(syscall.Signal); !fromTerminal(n) {
				// If the command has ended, so do we.
				_ = unix.Kill(pid, n)
			}
		}
	}()
	state, err := waitWithStops(pid)
	if err != nil {
		return program.NotStarted(errors.Join(err, s.close()))
	}
	o, failed, err := s.told()
	if err = errors.Join(err, s.close()); err != nil {
		return program.NotStarted(fmt.Errorf("wait for the command: %w", err))
	}
	switch {
	case failed:
		return program.NotStarted(o.err())
	case state.Signaled():
		return &EndError{Code: 128 + int(state.Signal()), Signal: state.Signal()}
	}
	return &EndError{Code: state.ExitStatus()}
}

// keepIgnored ignores what our caller does, so that the stage does too. That children end we
// have to know.
func keepIgnored() {
	for sig := range unix.SIGSYS + 1 {
		if sig != unix.SIGCHLD && replay.Ignored(int(sig)) {
			signal.Ignore(sig)
		}
	}
}

// An EndError says that the command of [Exec] or [WithMount] ran, as another process, and
// has ended. There is nothing to tell, but the process should end as the command did.
type EndError struct {
	Code   int            // 128+N if signal N killed it
	Signal syscall.Signal // N, or 0
}

func (e *EndError) Error() string { return fmt.Sprintf("command ended with exit code %d", e.Code) }

// ExitCode is the code that a program reporting the error ends with.
func (e *EndError) ExitCode() int { return e.Code }

// Raise ends this process by the signal that ended the command, if one did: a shell tells its
// user so, or goes on with its script, by how its child ended. Else it returns.
func (e *EndError) Raise() {
	if e.Signal == 0 {
		return
	}
	// There is one core at most, that of the command.
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	// Past the Go runtime, which has a handler for some that does not let go.
	var defaultAction [4]uint64 // struct kernel_sigaction
	syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(e.Signal), uintptr(unsafe.Pointer(&defaultAction)), 0, 8, 0, 0)
	if unix.Kill(unix.Getpid(), e.Signal) == nil {
		time.Sleep(time.Second) // signals arrive on a thread of the kernel's choice
	}
}

// fromTerminal tells whether a signal that we got has reached the command too: a terminal
// sends these to all processes of its foreground group.
func fromTerminal(sig syscall.Signal) bool {
	if sig != unix.SIGINT && sig != unix.SIGQUIT && sig != unix.SIGTSTP {
		return false
	}
	tty, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(tty)
	group, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// waitWithStops waits until a child ends. When the child stops we do, so that a shell
// which controls jobs sees it, and when we go on it does.
func waitWithStops(pid int) (unix.WaitStatus, error) {
	for {
		var state unix.WaitStatus
		_, err := unix.Wait4(pid, &state, unix.WUNTRACED, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, fmt.Errorf("wait for the command: %w", err)
		case !state.Stopped():
			return state, nil
		}
		if err := unix.Kill(unix.Getpid(), unix.SIGSTOP); err != nil {
			return 0, fmt.Errorf("stop with the command: %w", err)
		}
		// A shell wakes the whole group; kill -CONT wakes us alone.
		_ = unix.Kill(pid, unix.SIGCONT)
	}
}

// layerStaged is RunLayer by a stage: that makes the tar, which becomes a layer here.
func layerStaged(ctx context.Context, st *container.Store, parent container.ID, o LayerOptions) (staged *cas.Staged, err error) {
	ctx, signals := interruptible(ctx)
	defer signals.stop()
	c := o.config()
	files := o.files()
	if o.Script == "" {
		signals.yielded.Store(true)
		defer keepTerminal(files.stdin)()
	}
	tarOut, tarIn, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	defer tarOut.Close()
	files.tar = tarIn
	var s *stage
	done := make(chan error, 1)
	go func() {
		goruntime.LockOSThread()
		var startErr error
		s, startErr = startStage(ids.AsRoot, unix.SIGTERM, files, stageConfig{Store: st.CAS().Dir(), ID: parent, Layer: c})
		done <- errors.Join(startErr, tarIn.Close())
		if startErr != nil {
			return
		}
		// On the thread that forked.
		err := s.cmd.Wait()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = nil // what it told says more
		}
		done <- err
	}()
	if err := <-done; err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() {
		var interrupted *InterruptError
		sig := unix.SIGTERM
		if errors.As(context.Cause(ctx), &interrupted) {
			sig = interrupted.Signal
		}
		_ = unix.Kill(s.cmd.Process.Pid, sig)
	})
	staged, ingestErr := st.CAS().Ingest(ctx, tarOut, cas.IngestOptions{})
	tarOut.Close()
	o2, said, toldErr := s.told()
	waitErr := <-done
	stop()
	err = errors.Join(toldErr, s.close(), waitErr)
	switch {
	case context.Cause(ctx) != nil:
		err = context.Cause(ctx)
	case err != nil:
	case !said:
		err = errors.New("the stage of the build ended without a word")
	case o2.failed():
		err = o2.err()
	default:
		err = ingestErr
	}
	if err != nil && staged != nil {
		err = errors.Join(err, staged.Close())
		staged = nil
	}
	return staged, err
}
