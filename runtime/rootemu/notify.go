package rootemu

import (
	"errors"
	"fmt"
	goruntime "runtime"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/runtime/seccomp"
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
		n, err := w.listener.Receive()
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOENT): // who asked is gone, or everyone is (Linux 6.11)
			if w.listener.Deserted() {
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

func (w *worker) answer(n *seccomp.Notice) answer {
	c, ok := w.calls[callID{n.Arch, uint32(n.Number)}]
	if !ok {
		return asItWere
	}
	return c.do(&caller{worker: w, Notice: n, narrow: c.narrow})
}

// reply ends a call. If the caller is dead, nobody wants to know.
func (w *worker) reply(n *seccomp.Notice, a answer) {
	r := seccomp.Reply{ID: n.ID, Value: a.val}
	switch {
	case a.sent:
		return
	case a.goOn:
		r.Flags = seccomp.GoOn
	case a.err != nil:
		var errno unix.Errno
		if !errors.As(a.err, &errno) {
			errno = unix.EIO
		}
		r.Value, r.Errno = 0, -int32(errno)
	}
	if err := w.listener.Send(r); a.goOn && errors.Is(err, unix.EINVAL) {
		// Before Linux 5.5 a call cannot go on: tryOut gets to know it.
		r.Flags, r.Errno = 0, -int32(unix.ENOSYS)
		_ = w.listener.Send(r)
	}
}

// alive makes sure that what was opened in /proc was the caller's: if it still waits for
// the answer, its number was not another's meanwhile.
func (c *caller) alive() error {
	if c.listener.Valid(c.ID) != nil {
		return unix.ESRCH
	}
	return nil
}
