package rootemu

import (
	"errors"
	"fmt"
	goruntime "runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A notice is a struct seccomp_notif, a reply a struct seccomp_notif_resp
// (linux/seccomp.h).
type (
	notice struct {
		id    uint64
		pid   uint32 // of the thread, in our pid namespace
		flags uint32
		nr    int32
		arch  uint32
		ip    uint64
		args  [6]uint64
	}
	reply struct {
		id    uint64
		val   int64
		errno int32
		flags uint32
	}
)

const (
	ioctlReceive = 0xc0502100 // SECCOMP_IOCTL_NOTIF_RECV
	ioctlSend    = 0xc0182101 // SECCOMP_IOCTL_NOTIF_SEND
	ioctlValid   = 0x40082102 // SECCOMP_IOCTL_NOTIF_ID_VALID
	ioctlFlags   = 0x40082104 // SECCOMP_IOCTL_NOTIF_SET_FLAGS
	flagSameCPU  = 1          // SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
	flagGoOn     = 1          // SECCOMP_USER_NOTIF_FLAG_CONTINUE
)

// An answer is how a call ends.
type answer struct {
	val  int64
	err  error // with an errno
	goOn bool  // the kernel does it
	sent bool  // it was given already
}

var (
	done     = answer{}
	asItWere = answer{goOn: true}
)

func fails(err error) answer { return answer{err: err} }

// A worker is a thread that answers one call after the other. Its working directory is
// /proc, its root and umask are its own.
type worker struct {
	*server
	calls map[callID]call
	lost  error // why the thread did not come back from the root of a caller
}

type callID struct{ arch, nr uint32 }

// serve answers calls until nobody can make any. It says when it begins, or that it cannot.
func (s *server) serve(ready chan<- error) {
	goruntime.LockOSThread() // which is never unlocked: the thread ends with the worker
	w := &worker{server: s, calls: map[callID]call{}}
	for _, m := range machines {
		for _, c := range m.calls {
			w.calls[callID{m.arch, c.nr}] = c
		}
	}
	err := unix.Unshare(unix.CLONE_FS)
	if err == nil {
		err = unix.Fchdir(s.proc)
	}
	if err != nil {
		ready <- fmt.Errorf("make a thread with a root of its own: %w", err)
		return
	}
	ready <- nil
	for {
		var n notice
		err := w.ioctl(ioctlReceive, unsafe.Pointer(&n))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOENT): // who asked is gone, or everyone is (Linux 6.11)
			if w.deserted() {
				return
			}
			continue
		case err != nil:
			return
		}
		w.reply(&n, w.answer(&n))
		if w.lost != nil {
			return
		}
	}
}

// deserted tells whether nobody is left under the filter.
func (w *worker) deserted() bool {
	p := []unix.PollFd{{Fd: int32(w.listener)}}
	_, err := unix.Poll(p, 0)
	return err == nil && p[0].Revents&unix.POLLHUP != 0
}

func (w *worker) answer(n *notice) answer {
	c, ok := w.calls[callID{n.arch, uint32(n.nr)}]
	if !ok {
		return asItWere
	}
	return c.do(&caller{worker: w, notice: n, narrow: c.narrow})
}

// reply ends a call. If the caller is dead, nobody wants to know.
func (w *worker) reply(n *notice, a answer) {
	r := reply{id: n.id, val: a.val}
	switch {
	case a.sent:
		return
	case a.goOn:
		r.flags = flagGoOn
	case a.err != nil:
		var errno unix.Errno
		if !errors.As(a.err, &errno) {
			errno = unix.EIO
		}
		r.val, r.errno = 0, -int32(errno)
	}
	if err := w.ioctl(ioctlSend, unsafe.Pointer(&r)); a.goOn && errors.Is(err, unix.EINVAL) {
		// Before Linux 5.5 a call cannot go on: tryOut gets to know it.
		r.flags, r.errno = 0, -int32(unix.ENOSYS)
		_ = w.ioctl(ioctlSend, unsafe.Pointer(&r))
	}
}

func (s *server) ioctl(request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s.listener), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// alive makes sure that what was opened in /proc was the caller's: if it still waits for
// the answer, its number was not another's meanwhile.
func (c *caller) alive() error {
	id := c.id
	if err := c.ioctl(ioctlValid, unsafe.Pointer(&id)); err != nil {
		return unix.ESRCH
	}
	return nil
}
