package runtime

import (
	"errors"
	"fmt"
	goruntime "runtime"

	"golang.org/x/sys/unix"
)

// enterNamespace gives the calling thread, which must be locked to its
// goroutine, a mount namespace of its own. What is mounted in it stays in it;
// what the host mounts later (a USB stick under a shared /home) still shows.
func enterNamespace() error {
	if staged != nil && unix.Gettid() == unix.Getpid() {
		return nil // it began in one
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make private mount namespace: %w", mountDenied(err))
	}
	return makeSlave()
}

// inNamespace calls f on a thread that has a mount namespace of its own, and that
// ends with f: so do the mounts that f leaves, unless a process that f started
// is in the namespace.
func inNamespace(f func() error) error {
	done := make(chan error, 1)
	go namespaceThread(done, f)
	return <-done
}

func namespaceThread(done chan<- error, f func() error) {
	goruntime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The first thread does not end before the process. While it is locked here,
		// another goroutine runs elsewhere.
		namespaced := make(chan error, 1)
		go namespaceThread(namespaced, f)
		done <- <-namespaced
		goruntime.UnlockOSThread()
		return
	}
	// Never unlocked: the Go runtime ends the thread with the goroutine.
	if err := enterNamespace(); err != nil {
		done <- err
		return
	}
	done <- f()
}

// makeSlave cuts the way that mounts would take from this namespace to the
// host's.
func makeSlave() error {
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, "")
	if errors.Is(err, unix.EINVAL) {
		// In a chroot whose root is a plain directory, "/" names no mount.
		err = atNamespaceRoot(func() error {
			return unix.Mount("", ".", "", unix.MS_REC|unix.MS_SLAVE, "")
		})
	}
	if err != nil {
		return fmt.Errorf("keep mounts from the host: %w", mountDenied(err))
	}
	return nil
}

// atNamespaceRoot calls f in the root directory of the mount namespace as its
// working directory, where a chroot has hidden that, and comes back. The
// calling thread must not share its root and working directory with others.
func atNamespaceRoot(f func() error) (err error) {
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	cwd, err := unix.Open(".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(cwd)
	// A root that the working directory does not lie below stops no "..": with
	// /proc as the root, the way up ends at the namespace's root alone.
	if err := unix.Chroot("/proc"); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, unix.Fchdir(root), unix.Chroot("."), unix.Fchdir(cwd))
	}()
	if err := unix.Fchdir(root); err != nil {
		return err
	}
	var here, up unix.Stat_t
	for {
		if err := unix.Stat(".", &here); err != nil {
			return err
		}
		if err := unix.Chdir(".."); err != nil {
			return err
		}
		if err := unix.Stat(".", &up); err != nil {
			return err
		}
		if here.Dev == up.Dev && here.Ino == up.Ino {
			return f()
		}
	}
}

// enterRoot makes the mount that root is the root of the filesystem, and takes
// everything else out of the namespace.
func enterRoot(root int) error {
	if err := unix.Fchdir(root); err != nil {
		return fmt.Errorf("enter container: %w", err)
	}
	// pivot_root(2), NOTES: with "." for both, the old root ends up on top of the
	// new one, and unmounting "." takes it away.
	err := unix.PivotRoot(".", ".")
	if err == nil {
		if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
			return fmt.Errorf("take host filesystem away: %w", err)
		}
		return chdirRoot()
	}
	// On the initial ramfs, and in a chroot that is no mount, the root cannot be
	// changed but for this process and its children.
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("enter container: pivot_root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("enter container: chroot: %w", err)
	}
	return chdirRoot()
}

func chdirRoot() error {
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter container: %w", err)
	}
	return nil
}
