package runtime

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

	"github.com/ihucos/plash/overlay/copytree"
	"github.com/ihucos/plash/runtime/handover"
	"github.com/ihucos/plash/runtime/program"
	"github.com/ihucos/plash/runtime/share"
)

// proot(1) runs a program as if another directory were the root, by looking at all its
// system calls. It ignores signals, tells of a command's end by a signal only in words, and
// waits for all processes that the command has left. So the command is started by this
// program once more, inside, which tells outside how it ended.

// ownPath is where this program lies, which proot wants to know.
func ownPath() (string, error) {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return "", fmt.Errorf("find the own program: %w", err)
	}
	return exe, nil
}

// A guest is a command under proot, seen from outside.
type guest struct {
	proot string
	copy  *copytree.Copy
	dir   string // of the copy, where copy is nil
	binds []share.Bind
	fake  bool // let it seem to be root

	cmd    *exec.Cmd
	socket *os.File      // to the inside; the command ends when this is closed
	status *json.Decoder // what comes out of it
	words  *os.File      // what proot itself says
	waited error         // how proot ended, when nothing more comes
}

// inGuest is what the inside is told.
type inGuest struct {
	Argv, Env []string
	Also      string // where else the command may be, as PATH
	Dir       string // working directory; where it is not there, /
	Umask     int    // -1: leave it
	Group     int    // process group that the command belongs to
	Alone     bool   // what the command leaves is to end with it
}

// guestStatus is what the inside tells: first that the command runs, then how it ended.
type guestStatus struct {
	Pid     int
	Outcome *outcome `json:",omitempty"`
}

// guestProgram is where this program lies in a guest.
const guestProgram = "/.plash"

// start starts proot. The command gets the standard streams by the socket and not by proot,
// which would keep them as long as anything that the command has left.
func (g *guest) start(c inGuest, stdio ...*os.File) error {
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
	dir := g.dir
	var lock *os.File
	if g.copy != nil {
		dir, lock = g.copy.Dir(), g.copy.Lock()
	}
	args := []string{g.proot, "-r", dir, "-w", "/", "-v", "-1"}
	if g.fake {
		args = append(args, "-0")
	}
	for _, b := range g.shared() {
		args = append(args, "-b", b)
	}
	g.cmd = &exec.Cmd{
		Path: g.proot, Args: append(args, "-b", exe+":"+guestProgram, guestProgram, guestName), Env: prootEnv(), Stderr: g.words,
		// SIGQUIT, which a terminal sends to a group, makes proot kill the command.
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	if err := handover.Start(g.cmd, theirs, lock); err != nil {
		return errors.Join(fmt.Errorf("start proot: %w", err), ours.Close(), g.words.Close())
	}
	c.Group = unix.Getpgrp()
	// A guest that is gone already says more by its end.
	_ = handover.Send(ours, stdio)
	_ = json.NewEncoder(ours).Encode(c)
	return nil
}

// prootEnv is what proot itself needs to know: the command's variables are not for it.
func prootEnv() []string {
	env := []string{"PATH=" + program.DefaultPath}
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "PROOT_") || strings.HasPrefix(v, "TMPDIR=") {
			env = append(env, v)
		}
	}
	return env
}

// shared are the paths of the host that the guest sees.
func (g *guest) shared() []string {
	var paths []string
	for _, b := range g.binds {
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

// listen gives what the inside tells, and the end of that; also when proot has been
// killed and what it traced has not.
func (g *guest) listen() <-chan guestStatus {
	said := make(chan guestStatus)
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
			var s guestStatus
			if g.status.Decode(&s) != nil {
				<-gone
				return
			}
			said <- s
		}
	}()
	return said
}

// ended is the error about a guest that has told nothing: what proot has said, or how it
// ended.
func (g *guest) ended() error {
	err := g.waited
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	var b [1000]byte
	n, _ := g.words.ReadAt(b[:], 0) // it may have said less
	if line, _, _ := strings.Cut(string(b[:n]), "\n"); line != "" {
		err = fmt.Errorf("%w: %s", err, line)
	}
	return fmt.Errorf("run the command under %s: %w", filepath.Base(g.proot), err)
}

// memoryFile makes a file that has no name.
func memoryFile(what string) (*os.File, error) {
	fd, err := unix.MemfdCreate(what, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make file in memory: %w", err)
	}
	return os.NewFile(uintptr(fd), what), nil
}
