package overlay

import (
	"fmt"
	goruntime "runtime"

	"golang.org/x/sys/unix"
)

// inPrivateNamespace runs f on a thread that has a private copy of the mount
// namespace (and a root and working directory of its own). The thread ends with
// f, and with it everything that f attached; what f holds by descriptor stays.
func inPrivateNamespace(f func() error) error {
	done := make(chan error, 1)
	go privateThread(done, f)
	return <-done
}

func privateThread(done chan<- error, f func() error) {
	goruntime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The first thread cannot end before the process does, and its mount
		// namespace is what /proc/PID/mountinfo shows. As long as it is
		// locked here, another goroutine runs elsewhere.
		inner := make(chan error, 1)
		go privateThread(inner, f)
		done <- <-inner
		goruntime.UnlockOSThread()
		return
	}
	// Never unlocked: the Go runtime ends the thread with the goroutine.
	done <- func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("make private mount namespace: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
		return f()
	}()
}
