// Package seccomp puts threads under filters of their system calls (seccomp(2)), and answers for the
// kernel where a filter asks (seccomp_unotify(2)).
//
// A filter is a program of the kernel's classic BPF over a struct seccomp_data (linux/seccomp.h). What the
// functions here give are its instructions; jumps go forward over so many of them. The machines are
// little-endian. What to stop and what to answer is for those who use it.
package seccomp

import (
	goruntime "runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Offsets in a struct seccomp_data, in bytes.
const (
	Number = 0 // of the call
	Arch   = 4 // AUDIT_ARCH_…
	Caller = 8 // the instruction pointer, its lower half
	args   = 16
)

// Load loads 32 bits at an offset.
func Load(off uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
}

// LoadArg loads the lower half of an argument, counted from 0.
func LoadArg(n uint32) unix.SockFilter { return Load(args + 8*n) }

// IfEqual jumps by whether what was loaded is k.
func IfEqual(k uint32, yes, no uint8) unix.SockFilter { return jump(unix.BPF_JEQ, k, yes, no) }

// IfAtLeast jumps by whether what was loaded is k or more, as a number without sign.
func IfAtLeast(k uint32, yes, no uint8) unix.SockFilter { return jump(unix.BPF_JGE, k, yes, no) }

// IfAny jumps by whether what was loaded has any of the bits of k.
func IfAny(k uint32, yes, no uint8) unix.SockFilter { return jump(unix.BPF_JSET, k, yes, no) }

func jump(test uint16, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, K: k, Jt: yes, Jf: no}
}

// Return ends the program with an action, SECCOMP_RET_….
func Return(action uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
}

// Allow lets the call go to the kernel.
func Allow() unix.SockFilter { return Return(unix.SECCOMP_RET_ALLOW) }

// Fail has the call fail.
func Fail(errno unix.Errno) unix.SockFilter { return Return(unix.SECCOMP_RET_ERRNO | uint32(errno)) }

// Install puts the calling thread, which should be locked, and what it starts under a filter. It needs
// CAP_SYS_ADMIN in the user namespace, or no_new_privs. The error is an errno.
func Install(filter []unix.SockFilter) error {
	_, err := install(filter, 0)
	return err
}

func install(filter []unix.SockFilter, flags uintptr) (int, error) {
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	goruntime.KeepAlive(filter)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}
