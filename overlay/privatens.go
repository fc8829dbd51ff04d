package overlay

import (
	"fmt"
	"os"
	goruntime "runtime"

	"golang.org/x/sys/unix"
)

// inPrivateNamespace runs f on a thread that has a private copy of the calling
// thread's mount namespace (and a root and working directory of its own). The
// thread ends with f, and with it everything that f attached; what f holds by
// descriptor stays.
func inPrivateNamespace(f func() error) error {
	// A thread for a goroutine is not made from the one that starts it, which may
	// have left the namespace that the process began in.
	ns, err := os.Open(threadNamespace)
	if err != nil {
		return fmt.Errorf("open mount namespace: %w", err)
	}
	defer ns.Close()
	done := make(chan error, 1)
	go privateThread(done, ns, f)
	return <-done
}

const threadNamespace = "/proc/thread-self/ns/mnt" // since Linux 3.17

func privateThread(done chan<- error, ns *os.File, f func() error) {
	goruntime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The first thread cannot end before the process does, and its mount
		// namespace is what /proc/PID/mountinfo shows. As long as it is
		// locked here, another goroutine runs elsewhere.
		inner := make(chan error, 1)
		go privateThread(inner, ns, f)
		done <- <-inner
		goruntime.UnlockOSThread()
		return
	}
	// Never unlocked: the Go runtime ends the thread with the goroutine.
	done <- func() error {
		if err := enterNamespace(ns); err != nil {
			return fmt.Errorf("enter mount namespace: %w", err)
		}
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("make private mount namespace: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
		return f()
	}()
}

// enterNamespace moves the thread to a mount namespace if it is in another. (Not
// if it is in it: setns(2) would undo a chroot.)
func enterNamespace(ns *os.File) error {
	var mine, want unix.Stat_t
	if err := unix.Stat(threadNamespace, &mine); err != nil {
		return err
	}
	if err := unix.Fstat(int(ns.Fd()), &want); err != nil {
		return err
	}
	if mine.Dev == want.Dev && mine.Ino == want.Ino {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS)
}
