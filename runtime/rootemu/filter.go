package rootemu

import (
	"fmt"
	goruntime "runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A call is a system call that the filter stops.
type call struct {
	nr uint32
	do func(*caller) answer
	// only says which of these calls it stops, by their arguments.
	only onlyIf
	// blind says that a filter that can do no better makes the call return 0.
	blind bool
	// narrow says that the call has ids of 16 bits.
	narrow bool
}

// An onlyIf is a condition on arguments.
type onlyIf func(stop unix.SockFilter) []unix.SockFilter

// A machine is a set of system calls, as one processor may have several.
type machine struct {
	arch  uint32 // AUDIT_ARCH_…
	calls []call
}

// Offsets in struct seccomp_data (linux/seccomp.h); the lower half of an argument comes first,
// as our machines are little-endian.
const (
	offNumber = 0
	offArch   = 4
	offCaller = 8 // instruction_pointer
	offArgs   = 16
)

func load(off uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
}

func loadArg(n uint32) unix.SockFilter { return load(offArgs + 8*n) }

// ifEqual goes over so many instructions, if the accumulator is k and if it is not.
func ifEqual(k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: yes, Jf: no}
}

func ret(action uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
}

// devices stops a mknod of a device, by the numbers of its arguments: all else the kernel makes
// for everyone, also character devices 0:0, which are overlayfs' whiteouts.
func devices(mode, dev uint32) onlyIf {
	return func(stop unix.SockFilter) []unix.SockFilter {
		return []unix.SockFilter{
			loadArg(mode),
			{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: unix.S_IFMT},
			ifEqual(unix.S_IFBLK, 3, 0),
			ifEqual(unix.S_IFCHR, 0, 3),
			loadArg(dev),
			ifEqual(0, 1, 0),
			stop,
			ret(unix.SECCOMP_RET_ALLOW),
		}
	}
}

// keepingCaps stops a prctl(2) that decides whether capabilities outlast a setuid.
func keepingCaps(stop unix.SockFilter) []unix.SockFilter {
	return []unix.SockFilter{
		loadArg(0),
		ifEqual(unix.PR_SET_KEEPCAPS, 0, 1),
		stop,
		ret(unix.SECCOMP_RET_ALLOW),
	}
}

// peerIDs stops a getsockopt(2) that asks who is at the other end of a socket.
func peerIDs(stop unix.SockFilter) []unix.SockFilter {
	return []unix.SockFilter{
		loadArg(1),
		ifEqual(unix.SOL_SOCKET, 0, 3),
		loadArg(2),
		ifEqual(unix.SO_PEERCRED, 0, 1),
		stop,
		ret(unix.SECCOMP_RET_ALLOW),
	}
}

// realTime stops a change of the limit in which identities are noted, by the number of the
// argument that says which limit.
func realTime(resource uint32) onlyIf {
	return func(stop unix.SockFilter) []unix.SockFilter {
		return []unix.SockFilter{
			loadArg(resource),
			ifEqual(unix.RLIMIT_RTTIME, 0, 1),
			stop,
			ret(unix.SECCOMP_RET_ALLOW),
		}
	}
}

// creating stops an open(2) that may make a file, by the number of its flags.
func creating(flags uint32) onlyIf {
	return func(stop unix.SockFilter) []unix.SockFilter {
		return []unix.SockFilter{
			loadArg(flags),
			{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: unix.O_CREAT, Jf: 1},
			stop,
			ret(unix.SECCOMP_RET_ALLOW),
		}
	}
}

// ofUsers stops a call, if also says so, where a shared library makes it in a process that has become a
// user and then executed a program: see spread.
func ofUsers(also onlyIf) onlyIf {
	return func(stop unix.SockFilter) []unix.SockFilter {
		body := []unix.SockFilter{stop}
		if also != nil {
			body = also(stop)
		}
		n := uint8(len(body))
		check := []unix.SockFilter{
			load(offCaller + 4),
			{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: librariesFrom, Jf: n + 1},
			{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: librariesTo, Jt: n},
		}
		return append(append(check, body...), ret(unix.SECCOMP_RET_ALLOW))
	}
}

// program is the filter with action for the calls that it stops. Calls of machines that it does not
// know go to the kernel.
func program(machines []machine, action uint32, blind bool) []unix.SockFilter {
	var prog []unix.SockFilter
	for _, m := range machines {
		body := []unix.SockFilter{load(offNumber)}
		if m.arch == unix.AUDIT_ARCH_X86_64 {
			// The x32 calls, which are told by a bit of the number alone. Hardly a kernel
			// has them, and none is needed.
			const x32 = 0x40000000
			body = append(
				body,
				unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: x32, Jf: 1},
				ret(unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS)),
			)
		}
		for _, c := range m.calls {
			if blind && !c.blind {
				continue
			}
			then := []unix.SockFilter{ret(action)}
			if c.only != nil {
				then = c.only(ret(action))
			}
			body = append(body, ifEqual(c.nr, 0, uint8(len(then))))
			body = append(body, then...)
		}
		body = append(body, ret(unix.SECCOMP_RET_ALLOW))
		prog = append(
			prog,
			load(offArch), ifEqual(m.arch, 1, 0),
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(len(body))},
		)
		prog = append(prog, body...)
	}
	return append(prog, ret(unix.SECCOMP_RET_ALLOW))
}

// listeningFilter puts the calling thread under a filter that asks, and gives the descriptor on which
// it does.
func listeningFilter() (int, error) {
	// A call that has been taken up is not begun anew because of a signal (Linux 5.19): a second
	// mknod would say that the file is there.
	const waitKillable = 1 << 5 // SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	prog := program(machines, unix.SECCOMP_RET_USER_NOTIF, false)
	fd, errno := install(prog, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|waitKillable)
	if errno == unix.EINVAL {
		fd, errno = install(prog, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
	}
	if errno != 0 {
		return -1, fmt.Errorf("install a seccomp filter that asks: %w", errno)
	}
	unix.CloseOnExec(fd)
	return fd, nil
}

// blindFilter puts the calling thread under a filter that lets calls succeed without effect.
func blindFilter() error {
	if _, errno := install(program(machines, unix.SECCOMP_RET_ERRNO, true), 0); errno != 0 {
		return fmt.Errorf("install a seccomp filter: %w", errno)
	}
	return nil
}

// install needs CAP_SYS_ADMIN in the user namespace.
func install(filter []unix.SockFilter, flags uintptr) (int, unix.Errno) {
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	goruntime.KeepAlive(filter)
	return int(fd), errno
}
