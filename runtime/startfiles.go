package runtime

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// startWithFiles starts a command that gets files besides the caller's descriptors, which
// pass through under their numbers: so these have any number that is free, and are told as
// arguments; a nil one as -1.
func startWithFiles(cmd *exec.Cmd, files ...*os.File) error {
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
