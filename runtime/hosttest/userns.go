package hosttest

import (
	"fmt"
	goruntime "runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// refuseUserNamespaces gives the calling thread a filter that refuses to make user namespaces.
// As clone3(2) has its flags in memory, where a filter cannot look, it is not there at all; who
// gets ENOSYS for it takes clone(2). (Docker's filter does the same.)
func refuseUserNamespaces() error {
	const (
		numberOffset = 0  // of nr in struct seccomp_data
		flagsOffset  = 16 // of args[0], its lower half where the machine is little endian
		refuse       = unix.SECCOMP_RET_ERRNO
	)
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: numberOffset},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 5, K: unix.SYS_CLONE3},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: unix.SYS_CLONE},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 2, K: unix.SYS_UNSHARE},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: flagsOffset},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, Jt: 2, K: unix.CLONE_NEWUSER},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		{Code: unix.BPF_RET | unix.BPF_K, K: refuse | uint32(unix.ENOSYS)},
		{Code: unix.BPF_RET | unix.BPF_K, K: refuse | uint32(unix.EPERM)},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	goruntime.KeepAlive(filter)
	if errno != 0 {
		return fmt.Errorf("install filter: %w", errno)
	}
	return nil
}
