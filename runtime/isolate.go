package runtime

import (
	"context"
	"errors"
	"os"
	"os/signal"
	goruntime "runtime"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/overlay"
	"github.com/ihucos/plash/runtime/bundle"
	"github.com/ihucos/plash/runtime/ids"
	"github.com/ihucos/plash/runtime/program"
)

// IsolateOptions say what [Isolate] runs, and how.
type IsolateOptions struct {
	// Argv takes the place of the Cmd of the image, and follows its Entrypoint. Where all of them
	// are empty it is the container's shell, as in [RunOptions].
	Argv []string
	// Mounts are what the container shares with the host, as in [RunOptions]; but nil stands for
	// nothing.
	Mounts []string
	// Engine is the program that runs containers, one of [bundle.Engines]; "" for the first
	// that is installed.
	Engine string
	// Meter is told how the copying of the tree for [WriteBundle] goes; nil: nobody is.
	Meter overlay.Meter
}

// Isolate runs what an image says (its entrypoint, environment, user, working directory) in
// a container of runc or crun, on the caller's terminal or standard streams. What it
// writes is dropped. It returns an [EndError] when the command has ended, or an [program.ExitError].
//
// Nothing of it outlives this process: not the mounts, the engine's state, or
// any process of the container. It needs [MaybeInit] in the program's main.
func Isolate(ctx context.Context, st *container.Store, id container.ID, o IsolateOptions) error {
	engine, err := bundle.Find(o.Engine)
	if err != nil {
		return program.NotStarted(err)
	}
	as := ids.AsCaller
	if needsStage() {
		as = ids.AsRoot
	}
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	defer restoreTerminal()()
	p := &passer{incoming: make(chan os.Signal, 16)}
	p.catch()
	defer signal.Stop(p.incoming)
	s, err := startStage(as, unix.SIGKILL, stageFiles{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}, stageConfig{
		Store: st.CAS().Dir(), ID: id, Isolated: &isolated{Argv: o.Argv, Mounts: o.Mounts, Engine: engine},
	})
	if err != nil {
		return program.NotStarted(err)
	}
	go p.pass(s)
	// Its end tells less than what it says.
	waitErr := ignoreExit(s.cmd.Wait())
	out, said, err := s.told()
	if err = errors.Join(waitErr, err, s.close()); err != nil {
		return program.NotStarted(err)
	}
	state := s.cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch last := syscall.Signal(p.last.Load()); {
	case said && out.Failure != "":
		return program.NotStarted(out.err())
	case said:
		return &EndError{Code: out.Code, Signal: out.Signal}
	case last != 0: // it came before there was someone to pass it to
		return &EndError{Code: 128 + int(last), Signal: last}
	case state.Signaled():
		return &EndError{Code: 128 + int(state.Signal()), Signal: state.Signal()}
	}
	return program.NotStarted(errors.New("the stage of the container ended without a word"))
}

// A passedSignal is what the stage of an isolated container is told of a signal.
type passedSignal struct {
	Signal syscall.Signal
	// FromTerminal says that it was sent to the whole process group.
	FromTerminal bool
}

// A passer passes signals on to such a stage. It is the one that can tell which of them
// come from the terminal: in another pid namespace, process groups have no numbers.
type passer struct {
	incoming chan os.Signal
	last     atomic.Int32 // the last one
}

// catch begins to collect signals.
func (p *passer) catch() {
	keepIgnored()
	for _, sig := range passed {
		if !signal.Ignored(sig) {
			signal.Notify(p.incoming, sig)
		}
	}
}

func (p *passer) pass(s *stage) {
	for sig := range p.incoming {
		n := sig.(syscall.Signal)
		p.last.Store(int32(n))
		// A stage that has ended needs no signals.
		_ = s.tell(passedSignal{Signal: n, FromTerminal: fromTerminal(n)})
	}
}

// restoreTerminal returns a function that gives the terminal the modes that it has now. The
// engine does that too, unless it is killed.
func restoreTerminal() func() {
	modes, err := unix.IoctlGetTermios(0, unix.TCGETS)
	if err != nil {
		return func() {}
	}
	return func() {
		now, err := unix.IoctlGetTermios(0, unix.TCGETS)
		if err != nil || *now == *modes {
			return
		}
		// From the background, this would stop us.
		signal.Ignore(syscall.SIGTTOU)
		defer signal.Reset(syscall.SIGTTOU)
		_ = unix.IoctlSetTermios(0, unix.TCSETS, modes) // the terminal may be gone
	}
}
