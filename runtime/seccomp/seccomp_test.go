package seccomp

import (
	"errors"
	"os"
	goruntime "runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// onThread calls f on a thread that ends with it.
func onThread(t *testing.T, f func() error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, or no_new_privs for good")
	}
	done := make(chan error)
	go func() {
		goruntime.LockOSThread() // and never unlocked
		done <- f()
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// getpgid is a call that nobody else makes here.
func getpgid(pid int) (int, unix.Errno) {
	r, _, errno := unix.RawSyscall(unix.SYS_GETPGID, uintptr(pid), 0, 0)
	return int(r), errno
}

func TestFilter(t *testing.T) {
	const other, large, bit, allowed = 7, 1000, 1 << 4, 0
	onThread(t, func() error {
		err := Install([]unix.SockFilter{
			Load(Number), IfEqual(unix.SYS_GETPGID, 1, 0), Allow(),
			LoadArg(0),
			IfEqual(other, 0, 1), Fail(unix.EXDEV),
			IfAtLeast(large, 0, 1), Fail(unix.E2BIG),
			IfAny(bit, 1, 0), Allow(),
			Fail(unix.EDOM),
		})
		for arg, want := range map[int]unix.Errno{other: unix.EXDEV, large: unix.E2BIG, large + bit: unix.E2BIG, bit: unix.EDOM, bit + 1: unix.EDOM, allowed: 0} {
			if _, errno := getpgid(arg); errno != want {
				err = errors.Join(err, errno, errors.New("expected: "+want.Error()))
			}
		}
		return err
	})
}

func TestListen(t *testing.T) {
	group := unix.Getpgrp() // which is a getpgid
	onThread(t, func() error {
		l, err := Listen([]unix.SockFilter{
			Load(Number), IfEqual(unix.SYS_GETPGID, 0, 1), Return(unix.SECCOMP_RET_USER_NOTIF), Allow(),
		})
		if err != nil {
			return err
		}
		defer unix.Close(int(l))
		l.OnOneCPU()
		if l.Deserted() {
			return errors.New("nobody is under the filter")
		}
		tid := unix.Gettid()
		answered := make(chan error)
		go func() {
			for _, r := range []Reply{{Value: 77}, {Errno: -int32(unix.EXDEV)}, {Flags: GoOn}} {
				n, err := l.Receive()
				if err == nil && (int(n.Pid) != tid || n.Number != unix.SYS_GETPGID || n.Args[0] != 0 || n.Arch == 0) {
					err = errors.New("another call")
				}
				r.ID = n.ID
				err = errors.Join(err, l.Valid(n.ID), l.Send(r))
				if l.Valid(n.ID) == nil {
					err = errors.Join(err, errors.New("it still waits after the answer"))
				}
				answered <- err
			}
		}()
		for _, want := range []struct {
			value int
			errno unix.Errno
		}{{77, 0}, {-1, unix.EXDEV}, {group, 0}} {
			value, errno := getpgid(0)
			if errno != want.errno || errno == 0 && value != want.value {
				err = errors.Join(err, errno, errors.New("another answer"))
			}
			err = errors.Join(err, <-answered)
		}
		return err
	})
}
