// Package hosttest makes hosts that lack something, for tests: a command under it finds
// that the kernel does not know some filesystems.
//
// The kernel cannot be changed, and a seccomp filter cannot see names; but it can ask
// (seccomp_unotify(2), since Linux 5.0). So the calls that mount something stop, and
// are refused or let go on by what they name.
package hosttest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	goruntime "runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/runtime/seccomp"
)

// Without runs a command on a host that does not know some filesystems. It may be
// called once in a process.
func Without(types []string, cmd *exec.Cmd) error {
	goruntime.LockOSThread() // the filter is the thread's, and its children's
	listener, err := installFilter()
	if err != nil {
		return err
	}
	go answer(listener, types)
	return cmd.Run()
}

// installFilter gives the calling thread a filter that asks about fsopen(2) and
// mount(2).
func installFilter() (seccomp.Listener, error) {
	l, err := seccomp.Listen([]unix.SockFilter{
		seccomp.Load(seccomp.Number),
		seccomp.IfEqual(unix.SYS_FSOPEN, 2, 0),
		seccomp.IfEqual(unix.SYS_MOUNT, 1, 0),
		seccomp.Allow(),
		seccomp.Return(unix.SECCOMP_RET_USER_NOTIF),
	})
	if err != nil {
		return -1, fmt.Errorf("install filter: %w", err)
	}
	return l, nil
}

// answer refuses what names one of the types.
func answer(listener seccomp.Listener, types []string) {
	for {
		n, err := listener.Receive()
		if err != nil {
			if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOENT) {
				continue // the process that asked is gone
			}
			return
		}
		name := n.Args[0] // fsopen(name, flags)
		if n.Number == unix.SYS_MOUNT {
			name = n.Args[2] // mount(source, target, type, flags, data)
		}
		r := seccomp.Reply{ID: n.ID, Flags: seccomp.GoOn}
		if slices.Contains(types, readString(int(n.Pid), name)) {
			r = seccomp.Reply{ID: n.ID, Errno: -int32(unix.ENODEV)}
		}
		_ = listener.Send(r) // the process may be gone
	}
}

// readString reads a short string of another process.
func readString(pid int, at uint64) string {
	if at == 0 {
		return ""
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return ""
	}
	defer mem.Close()
	var b [16]byte
	n, _ := mem.ReadAt(b[:], int64(at))
	s, _, _ := strings.Cut(string(b[:n]), "\x00")
	return s
}
