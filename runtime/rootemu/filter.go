package rootemu

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/runtime/seccomp"
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

// devices stops a mknod of a device, by the numbers of its arguments: all else the kernel makes
// for everyone, also character devices 0:0, which are overlayfs' whiteouts.
func devices(mode, dev uint32) onlyIf {
	return func(stop unix.SockFilter) []unix.SockFilter {
		return []unix.SockFilter{
			seccomp.LoadArg(mode),
			{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: unix.S_IFMT},
			seccomp.IfEqual(unix.S_IFBLK, 3, 0),
			seccomp.IfEqual(unix.S_IFCHR, 0, 3),
			seccomp.LoadArg(dev),
			seccomp.IfEqual(0, 1, 0),
			stop,
			seccomp.Allow(),
		}
	}
}

// keepingCaps stops a prctl(2) that decides whether capabilities outlast a setuid.
func keepingCaps(stop unix.SockFilter) []unix.SockFilter {
	return []unix.SockFilter{
		seccomp.LoadArg(0),
		seccomp.IfEqual(unix.PR_SET_KEEPCAPS, 0, 1),
		stop,
		seccomp.Allow(),
	}
}

// peerIDs stops a getsockopt(2) that asks who is at the other end of a socket.
func peerIDs(stop unix.SockFilter) []unix.SockFilter {
	return []unix.SockFilter{
		seccomp.LoadArg(1),
		seccomp.IfEqual(unix.SOL_SOCKET, 0, 3),
		seccomp.LoadArg(2),
		seccomp.IfEqual(unix.SO_PEERCRED, 0, 1),
		stop,
		seccomp.Allow(),
	}
}

// realTime stops a change of the limit in which identities are noted, by the number of the
// argument that says which limit.
func realTime(resource uint32) onlyIf {
	return func(stop unix.SockFilter) []unix.SockFilter {
		return []unix.SockFilter{
			seccomp.LoadArg(resource),
			seccomp.IfEqual(unix.RLIMIT_RTTIME, 0, 1),
			stop,
			seccomp.Allow(),
		}
	}
}

// creating stops an open(2) that may make a file, by the number of its flags.
func creating(flags uint32) onlyIf {
	return func(stop unix.SockFilter) []unix.SockFilter {
		return []unix.SockFilter{
			seccomp.LoadArg(flags),
			seccomp.IfAny(unix.O_CREAT, 0, 1),
			stop,
			seccomp.Allow(),
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
			seccomp.Load(seccomp.Caller + 4),
			seccomp.IfAtLeast(librariesFrom, 0, n+1),
			seccomp.IfAtLeast(librariesTo, n, 0),
		}
		return append(append(check, body...), seccomp.Allow())
	}
}

// program is the filter with action for the calls that it stops. Calls of machines that it does not
// know go to the kernel.
func program(machines []machine, action uint32, blind bool) []unix.SockFilter {
	var prog []unix.SockFilter
	for _, m := range machines {
		body := []unix.SockFilter{seccomp.Load(seccomp.Number)}
		if m.arch == unix.AUDIT_ARCH_X86_64 {
			// The x32 calls, which are told by a bit of the number alone. Hardly a kernel
			// has them, and none is needed.
			const x32 = 0x40000000
			body = append(
				body,
				seccomp.IfAtLeast(x32, 0, 1),
				seccomp.Fail(unix.ENOSYS),
			)
		}
		for _, c := range m.calls {
			if blind && !c.blind {
				continue
			}
			then := []unix.SockFilter{seccomp.Return(action)}
			if c.only != nil {
				then = c.only(seccomp.Return(action))
			}
			body = append(body, seccomp.IfEqual(c.nr, 0, uint8(len(then))))
			body = append(body, then...)
		}
		body = append(body, seccomp.Allow())
		prog = append(
			prog,
			seccomp.Load(seccomp.Arch), seccomp.IfEqual(m.arch, 1, 0),
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(len(body))},
		)
		prog = append(prog, body...)
	}
	return append(prog, seccomp.Allow())
}

// listeningFilter puts the calling thread under a filter that asks.
func listeningFilter() (seccomp.Listener, error) {
	// A second mknod of the same file, begun anew because of a signal, would say that it is there: see Listen.
	l, err := seccomp.Listen(program(machines, unix.SECCOMP_RET_USER_NOTIF, false))
	if err != nil {
		return -1, fmt.Errorf("install a seccomp filter that asks: %w", err)
	}
	return l, nil
}

// blindFilter puts the calling thread under a filter that lets calls succeed without effect.
func blindFilter() error {
	if err := seccomp.Install(program(machines, unix.SECCOMP_RET_ERRNO, true)); err != nil {
		return fmt.Errorf("install a seccomp filter: %w", err)
	}
	return nil
}
