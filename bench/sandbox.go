package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	goruntime "runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// scratchVar tells the process that measures where its scratch directory is, and
// that it is in the sandbox.
const scratchVar = "PLASH_BENCH_SCRATCH"

// sandbox runs this program again as the init of a pid namespace, in a mount
// namespace of its own, and waits. Filesystems are mounted and servers started
// by the dozen: however the measuring ends, kill -9 included, the kernel ends
// every process in there, and the mounts go with the last of them. A mount that nobody
// else sees is also one that a remount really makes cold. If the program in there
// fails, the error is its *exec.ExitError.
func sandbox() (err error) {
	// The child is killed when the thread ends that started it.
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	dir, err := os.MkdirTemp("/var/tmp", "plash-bench-")
	if err != nil {
		return err
	}
	defer func() {
		if rerr := os.RemoveAll(dir); rerr != nil {
			err = errors.Join(err, rerr)
		}
	}()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)

	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), scratchVar+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start in namespaces: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for n := 0; ; {
		select {
		case err := <-done:
			return err
		case sig := <-signals:
			// The first one asks for an orderly end, the second does not ask.
			if n++; n > 1 {
				sig = os.Kill
			}
			if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return fmt.Errorf("pass %v on: %w", sig, err)
			}
		}
	}
}

// enterSandbox makes a new process feel at home in the namespaces.
func enterSandbox() error {
	if os.Getpid() != 1 {
		return fmt.Errorf("%s is set, but this is no init of a pid namespace", scratchVar)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("keep mounts from the host: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc of the pid namespace: %w", err)
	}
	return nil
}
