package seccomp

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Listener is the descriptor on which a filter asks. Any number of threads may receive from it and
// answer.
type Listener int

// A Notice is a call that waits: struct seccomp_notif.
type Notice struct {
	ID     uint64
	Pid    uint32 // of the thread, in our pid namespace
	_      uint32
	Number int32
	Arch   uint32
	_      uint64 // the instruction pointer
	Args   [6]uint64
}

// A Reply is how it ends: struct seccomp_notif_resp.
type Reply struct {
	ID    uint64
	Value int64
	Errno int32 // negative
	Flags uint32
}

// GoOn is a flag of replies: the kernel does the call (Linux 5.5).
const GoOn = 1 // SECCOMP_USER_NOTIF_FLAG_CONTINUE

const (
	ioctlReceive = 0xc0502100 // SECCOMP_IOCTL_NOTIF_RECV
	ioctlSend    = 0xc0182101 // SECCOMP_IOCTL_NOTIF_SEND
	ioctlValid   = 0x40082102 // SECCOMP_IOCTL_NOTIF_ID_VALID
	ioctlAddFD   = 0x40182103 // SECCOMP_IOCTL_NOTIF_ADDFD
	ioctlFlags   = 0x40082104 // SECCOMP_IOCTL_NOTIF_SET_FLAGS
)

// Listen is [Install] for a filter that asks (SECCOMP_RET_USER_NOTIF, since Linux 5.0). A call that has been
// taken up is not begun anew because of a signal, where the kernel can do that (5.19).
func Listen(filter []unix.SockFilter) (Listener, error) {
	const waitKillable = 1 << 5 // SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	fd, err := install(filter, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|waitKillable)
	if errors.Is(err, unix.EINVAL) {
		fd, err = install(filter, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
	}
	if err == nil {
		unix.CloseOnExec(fd)
	}
	return Listener(fd), err
}

// Receive waits for the next call. ENOENT says that who made it is gone, or that everyone is (6.11).
func (l Listener) Receive() (Notice, error) {
	var n Notice // which has to be zeros
	err := l.ioctl(ioctlReceive, unsafe.Pointer(&n))
	return n, err
}

// Deserted tells whether nobody is left under the filter.
func (l Listener) Deserted() bool {
	p := []unix.PollFd{{Fd: int32(l)}}
	_, err := unix.Poll(p, 0)
	return err == nil && p[0].Revents&unix.POLLHUP != 0
}

// Send ends a call. ENOENT says that nobody wants to know.
func (l Listener) Send(r Reply) error { return l.ioctl(ioctlSend, unsafe.Pointer(&r)) }

// SendFile ends a call with a descriptor of the caller's own for one of ours (5.14).
func (l Listener) SendFile(id uint64, fd int, flags uint32) error {
	const flagSend = 2 // SECCOMP_ADDFD_FLAG_SEND
	add := struct {    // struct seccomp_notif_addfd
		id                         uint64
		flags, fd, newFD, newFlags uint32
	}{id: id, flags: flagSend, fd: uint32(fd), newFlags: flags}
	return l.ioctl(ioctlAddFD, unsafe.Pointer(&add))
}

// Valid returns an error unless the call still waits: then its Pid was not another thread's meanwhile.
func (l Listener) Valid(id uint64) error { return l.ioctl(ioctlValid, unsafe.Pointer(&id)) }

// OnOneCPU has who asks and who answers take turns on one CPU, where the kernel can do that (6.6): it is
// faster.
func (l Listener) OnOneCPU() {
	const syncWakeUp = 1 // SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(l), ioctlFlags, syncWakeUp)
}

func (l Listener) ioctl(request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(l), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}
