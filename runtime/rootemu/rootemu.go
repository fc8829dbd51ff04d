// Package rootemu makes a user namespace with a single user look to a program as if it were
// root among users: what package managers do, and the kernel refuses where no other user is
// mapped, succeeds, and what was asked for is remembered.
//
// A seccomp filter stops the system calls in question, and this process answers for the
// kernel (seccomp_unotify(2), Linux 5.0; to let a call go on, 5.5):
//
//   - chown and its kin: the file is given to root, which it belongs to anyway, so that
//     everything else that a chown does is done: errors, set-user-ID bits, overlayfs'
//     copy in the upper directory. The owner is remembered.
//   - mknod of a device makes an empty file. The device is remembered.
//   - attributes that the kernel refuses (trusted.*, file capabilities, access control
//     lists that name users) are remembered.
//   - setuid and its kin: what was set is told by getuid and its kin. Programs that such a
//     process executes see what is remembered in stat(2), and what they make is the user's.
//
// Files are remembered by the inode that they have in the upper directory of the container,
// with its time of birth and its generation, so a file that is renamed or linked stays what
// it is, and a new one of the same number is another. On other filesystems that the
// container sees, these calls succeed without effect.
//
// The emulation protects nobody from anyone: the processes in it are one user to the kernel,
// and the one who started this process. Hence a caller that changes its memory or its
// directories under our hands deceives only itself. It does not make stat(2) tell what is
// remembered to root, nor to programs that make system calls without a C library, and does not
// refuse what a user must not do.
package rootemu

import (
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/runtime/seccomp"
)

// Options say where to emulate.
type Options struct {
	// Upper is the upper directory of the filesystem that is this process' root.
	Upper *os.File
	// OwnerBelow tells who a file of a type (as in a mode) at a path belongs to in the layers
	// below, where it shows as root's; nil: all belong to root. See [overlay.Flat.OwnerBelow].
	OwnerBelow func(path string, typ uint32) (uid, gid uint32)
}

// An Emulation is what goes on since [Fork].
type Emulation struct {
	// Memory is what was asked for until now.
	Memory *Memory
	// Blind is the reason that calls can only be made to succeed here, or not even that:
	// nothing is remembered then, devices are not made at all, and processes stay root to
	// themselves. It is nil if all is well.
	Blind error
}

// workers is how many calls are answered at a time. More than processors: one may wait for a disk,
// copying a file up.
const workers = 4

// Fork calls fork on a thread whose children are under the emulation, with all that descend
// from them. They are served by this process until it ends. The process must have all capabilities
// in its user namespace, its root must be the container's, and it must see itself in /proc. No thread of
// it comes under the emulation but the one that ends with fork.
func Fork(o Options, fork func()) *Emulation {
	e := &Emulation{Memory: newMemory()}
	e.Blind = onThread(func() error { return serveThen(o, e.Memory, fork) })
	if e.Blind != nil {
		e.Blind = errors.Join(e.Blind, onThread(func() error {
			err := blindFilter()
			fork()
			return err
		}))
	}
	return e
}

// onThread calls f on a thread that ends with it.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		goruntime.LockOSThread() // and never unlocked
		done <- f()
	}()
	return <-done
}

// serveThen puts the calling thread under the emulation and calls fork, if the emulation works.
func serveThen(o Options, m *Memory, fork func()) error {
	if len(machines) == 0 {
		return fmt.Errorf("emulate root: the system calls of %s are not known", goruntime.GOARCH)
	}
	s, err := newServer(o, m)
	if err != nil {
		return err
	}
	if s.listener, err = listeningFilter(); err != nil {
		return errors.Join(err, s.close())
	}
	// Who asks sleeps until the answer: it is twice as fast so.
	s.listener.OnOneCPU()
	ready := make(chan error)
	for range workers {
		go s.serve(ready)
	}
	for range workers {
		err = errors.Join(err, <-ready)
	}
	if err == nil {
		err = tryOut()
	}
	if err != nil {
		// The workers end with the thread, as nobody asks any more.
		return err
	}
	fork()
	return nil
}

// tryOut has a call go through the server: one that is let go on, which needs Linux 5.5.
func tryOut() error {
	if err := unix.Fsetxattr(-1, "user.plash", nil, 0); !errors.Is(err, unix.EBADF) {
		return fmt.Errorf("try the emulation: %w", err)
	}
	return nil
}

// A server answers the calls.
type server struct {
	listener seccomp.Listener
	proc     int // /proc
	root     int // the container's
	upper    int
	rootID   place
	memory   *Memory
	below    func(path string, typ uint32) (uid, gid uint32)
	ids      *identities
	lookups  atomic.Uint64 // see settle
}

func newServer(o Options, m *Memory) (_ *server, err error) {
	s := &server{listener: -1, proc: -1, root: -1, upper: -1, memory: m, below: o.OwnerBelow, ids: newIdentities()}
	if s.below == nil {
		s.below = func(string, uint32) (uint32, uint32) { return 0, 0 }
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("prepare root emulation: %w", err), s.close())
		}
	}()
	if s.proc, err = unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return s, &os.PathError{Op: "open", Path: "/proc", Err: err}
	}
	var b [32]byte
	n, err := unix.Readlinkat(s.proc, "self", b[:])
	if err != nil {
		return s, &os.PathError{Op: "readlink", Path: "/proc/self", Err: err}
	}
	if self := string(b[:n]); self != strconv.Itoa(os.Getpid()) {
		return s, fmt.Errorf("/proc is of another pid namespace: this process is %d and %s there", os.Getpid(), self)
	}
	if s.root, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return s, &os.PathError{Op: "open", Path: "/", Err: err}
	}
	if s.rootID, err = placeOf(s.root, ""); err != nil {
		return s, fmt.Errorf("look at /: %w", err)
	}
	if s.upper, err = unix.FcntlInt(o.Upper.Fd(), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return s, fmt.Errorf("take upper directory: %w", err)
	}
	m.handles = lastingHandles(s.upper)
	return s, s.ids.reset()
}

// close is for a server that has not begun.
func (s *server) close() error {
	var err error
	for _, fd := range []int{int(s.listener), s.proc, s.root, s.upper} {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
	}
	return err
}
