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
	"unsafe"

	"golang.org/x/sys/unix"
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
// mount(2), and the descriptor on which it asks.
func installFilter() (int, error) {
	const numberOffset = 0 // of nr in struct seccomp_data
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: numberOffset},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 2, K: unix.SYS_FSOPEN},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: unix.SYS_MOUNT},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&prog)))
	goruntime.KeepAlive(filter)
	if errno != 0 {
		return -1, fmt.Errorf("install filter: %w", errno)
	}
	unix.CloseOnExec(int(fd))
	return int(fd), nil
}

// A notice is a struct seccomp_notif, a reply a struct seccomp_notif_resp
// (include/uapi/linux/seccomp.h).
type (
	notice struct {
		id    uint64
		pid   uint32
		flags uint32
		nr    int32
		arch  uint32
		ip    uint64
		args  [6]uint64
	}
	reply struct {
		id    uint64
		val   int64
		error int32
		flags uint32
	}
)

const (
	ioctlReceive = 0xc0502100 // SECCOMP_IOCTL_NOTIF_RECV
	ioctlSend    = 0xc0182101 // SECCOMP_IOCTL_NOTIF_SEND
	goOn         = 1          // SECCOMP_USER_NOTIF_FLAG_CONTINUE
)

// answer refuses what names one of the types.
func answer(listener int, types []string) {
	for {
		var n notice
		if err := ioctl(listener, ioctlReceive, unsafe.Pointer(&n)); err != nil {
			if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOENT) {
				continue // the process that asked is gone
			}
			return
		}
		name := n.args[0] // fsopen(name, flags)
		if n.nr == unix.SYS_MOUNT {
			name = n.args[2] // mount(source, target, type, flags, data)
		}
		r := reply{id: n.id, flags: goOn}
		if slices.Contains(types, readString(int(n.pid), name)) {
			r = reply{id: n.id, error: -int32(unix.ENODEV)}
		}
		_ = ioctl(listener, ioctlSend, unsafe.Pointer(&r)) // the process may be gone
	}
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
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
