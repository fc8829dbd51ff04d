// Package handover gives open files to other processes of plash: to one that is started, by
// descriptors that have any number ([Start], [Taken]), or to one that runs, through a socket
// ([Send], [Receive]).
//
// Invariants:
//   - The descriptors of the caller pass through to a process that is started under their numbers:
//     none of them is replaced.
//   - Files that are handed over are close-on-exec in the caller when a function has returned, and what
//     Taken gives is so in the process that took it.
//
// What the files are for, and who closes them, is for those who use it.
package handover

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Start starts a command that gets files besides the caller's descriptors, which pass through
// under their numbers: so these have any number that is free, and are told as arguments, behind
// those that there are; a nil one as -1. The command takes them by [Taken].
func Start(cmd *exec.Cmd, files ...*os.File) error {
	syscall.ForkLock.Lock()
	for _, f := range files {
		fd := -1
		if f != nil {
			fd = int(f.Fd())
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
				syscall.ForkLock.Unlock()
				return err
			}
		}
		cmd.Args = append(cmd.Args, strconv.Itoa(fd))
	}
	// Start takes the lock too, for reading. Whoever forks in between gives its child
	// pipes that end with it: a plash at this point forks nothing else.
	syscall.ForkLock.Unlock()
	err := cmd.Start()
	for _, f := range files {
		if f != nil {
			unix.CloseOnExec(int(f.Fd()))
		}
	}
	return err
}

// Taken are the files that [Start] gave to this process, from the arguments that tell of them; nil for
// one that is not there.
func Taken(args []string, name string) []*os.File {
	files := make([]*os.File, len(args))
	for i, arg := range args {
		if fd, err := strconv.Atoi(arg); err == nil && fd >= 0 {
			unix.CloseOnExec(fd)
			files[i] = os.NewFile(uintptr(fd), name)
		}
	}
	return files
}
