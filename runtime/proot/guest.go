package proot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/runtime/handover"
	"github.com/ihucos/plash/runtime/program"
	"github.com/ihucos/plash/runtime/share"
)

// A Guest is a command under proot, seen from outside.
type Guest struct {
	Proot string   // the program
	Dir   string   // the root
	Lock  *os.File // which the command, and all that it leaves, holds; or nil
	Binds []share.Bind
	Fake  bool // let it seem to be root

	cmd    *exec.Cmd
	socket *os.File      // to the inside; the command ends when this is closed
	status *json.Decoder // what comes out of it
	words  *os.File      // what proot itself says
	waited error         // how proot ended, when nothing more comes
}

// A Command is what is run in a guest.
type Command struct {
	Argv, Env []string
	Also      string // where else the command may be, as PATH
	Dir       string // working directory; where it is not there, /
	Umask     int    // -1: leave it
	Alone     bool   // what the command leaves is to end with it
}

// An order is what the inside is told.
type order struct {
	Command
	Group int // process group that the command belongs to
}

// A Status is what the inside tells: first that the command runs, then how it ended.
type Status struct {
	Pid int
	End *End `json:",omitempty"`
}

// An End is how a command ended, or why there was none.
type End struct {
	Failure string         `json:",omitempty"` // why there was no command, or no end of it
	Code    int            // the exit code; for a Failure the one of a program.ExitError, or 0
	Signal  syscall.Signal // that killed the command
}

// Start starts proot, which runs the command with the given standard streams: three. They go by the
// socket and not by proot, which would keep them as long as anything that the command has left.
// What comes of it is for [Guest.Listen].
func (g *Guest) Start(c Command, stdio ...*os.File) error {
	exe, err := ownPath()
	if err != nil {
		return err
	}
	ours, theirs, err := handover.Pair()
	if err != nil {
		return fmt.Errorf("start proot: %w", err)
	}
	defer theirs.Close()
	g.socket, g.status = ours, json.NewDecoder(ours)
	if g.words, err = memoryFile("what proot says"); err != nil {
		return errors.Join(fmt.Errorf("start proot: %w", err), ours.Close())
	}
	args := []string{g.Proot, "-r", g.Dir, "-w", "/", "-v", "-1"}
	if g.Fake {
		args = append(args, "-0")
	}
	for _, b := range g.shared() {
		args = append(args, "-b", b)
	}
	g.cmd = &exec.Cmd{
		Path: g.Proot, Args: append(args, "-b", exe+":"+Self, Self, insideName), Env: ownEnv(), Stderr: g.words,
		// SIGQUIT, which a terminal sends to a group, makes proot kill the command.
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	if err := handover.Start(g.cmd, theirs, g.Lock); err != nil {
		return errors.Join(fmt.Errorf("start proot: %w", err), ours.Close(), g.words.Close())
	}
	// A guest that is gone already says more by its end.
	_ = handover.Send(ours, stdio)
	_ = json.NewEncoder(ours).Encode(order{c, unix.Getpgrp()})
	return nil
}

// Pid is proot's process. It kills all that it traces on SIGQUIT, while processes that lose it
// otherwise would go on with the host's root.
func (g *Guest) Pid() int { return g.cmd.Process.Pid }

// ownEnv is what proot itself needs to know: the command's variables are not for it.
func ownEnv() []string {
	env := []string{"PATH=" + program.DefaultPath}
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "PROOT_") || strings.HasPrefix(v, "TMPDIR=") {
			env = append(env, v)
		}
	}
	return env
}

// shared are the paths of the host that the guest sees.
func (g *Guest) shared() []string {
	var paths []string
	for _, b := range g.Binds {
		if _, err := os.Stat(b.HostPath()); err != nil {
			continue
		}
		if strings.ContainsAny(b.HostPath(), ":!") {
			b.LeaveOut(errors.New("proot does not take such a name"))
			continue
		}
		if b.From != "" {
			paths = append(paths, b.From+":"+b.Path)
			continue
		}
		paths = append(paths, b.Path)
	}
	return paths
}

// Listen gives what the inside tells, and closes the channel when nothing more comes; also when
// proot has been killed and what it traced has not.
func (g *Guest) Listen() <-chan Status {
	said := make(chan Status)
	gone := make(chan struct{})
	go func() {
		g.waited = g.cmd.Wait()
		// What was told before can still be read.
		time.AfterFunc(time.Second, func() { _ = g.socket.Close() })
		close(gone)
	}()
	go func() {
		defer close(said)
		for {
			var s Status
			if g.status.Decode(&s) != nil {
				<-gone
				return
			}
			said <- s
		}
	}()
	return said
}

// Ended is the error about a guest that has told nothing when the channel of [Guest.Listen] is
// closed: what proot has said, or how it ended.
func (g *Guest) Ended() error {
	err := g.waited
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	var b [1000]byte
	n, _ := g.words.ReadAt(b[:], 0) // it may have said less
	if line, _, _ := strings.Cut(string(b[:n]), "\n"); line != "" {
		err = fmt.Errorf("%w: %s", err, line)
	}
	return fmt.Errorf("run the command under %s: %w", filepath.Base(g.Proot), err)
}

// memoryFile makes a file that has no name.
func memoryFile(what string) (*os.File, error) {
	fd, err := unix.MemfdCreate(what, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make file in memory: %w", err)
	}
	return os.NewFile(uintptr(fd), what), nil
}
