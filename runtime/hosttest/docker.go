package hosttest

import (
	"fmt"
	"os"
	"os/exec"
	goruntime "runtime"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/runtime/seccomp"
)

// dockerCaps are the capabilities of root in a container that Docker makes without
// options (daemon/pkg/oci/caps/defaults.go of moby).
var dockerCaps = []int{
	unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FSETID, unix.CAP_FOWNER, unix.CAP_MKNOD, unix.CAP_NET_RAW,
	unix.CAP_SETGID, unix.CAP_SETUID, unix.CAP_SETFCAP, unix.CAP_SETPCAP, unix.CAP_NET_BIND_SERVICE, unix.CAP_SYS_CHROOT,
	unix.CAP_KILL, unix.CAP_AUDIT_WRITE,
}

// dockerDenied are system calls that its seccomp filter refuses without CAP_SYS_ADMIN
// (profiles/seccomp/default.json).
var dockerDenied = []uint32{
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_FSOPEN, unix.SYS_FSCONFIG,
	unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_MOUNT_SETATTR,
}

// cloneNamespaces are the flags of clone(2) for namespaces.
const cloneNamespaces = 0x7e020000

// Confine makes the calling thread, and what it starts, like root in a container that
// Docker makes without options; a plain user is one there. No mount, no namespace.
func Confine() error {
	goruntime.LockOSThread()
	if os.Geteuid() == 0 {
		for c := 0; unix.Prctl(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0) == nil; c++ {
			if keep(c) {
				continue
			}
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil {
				return fmt.Errorf("drop capability %d: %w", c, err)
			}
		}
	} else if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	if err := seccomp.Install(dockerFilter()); err != nil {
		return fmt.Errorf("install filter: %w", err)
	}
	return nil
}

func keep(capability int) bool {
	for _, c := range dockerCaps {
		if c == capability {
			return true
		}
	}
	return false
}

func dockerFilter() []unix.SockFilter {
	f := []unix.SockFilter{seccomp.Load(seccomp.Number)}
	for _, nr := range dockerDenied {
		f = append(f, seccomp.IfEqual(nr, 0, 1), seccomp.Fail(unix.EPERM))
	}
	return append(f,
		// Its flags cannot be looked at; the C library takes clone then.
		seccomp.IfEqual(unix.SYS_CLONE3, 0, 1), seccomp.Fail(unix.ENOSYS),
		seccomp.IfEqual(unix.SYS_CLONE, 0, 3),
		seccomp.LoadArg(0),
		seccomp.IfAny(cloneNamespaces, 0, 1), seccomp.Fail(unix.EPERM),
		seccomp.Allow(),
	)
}

// Confined runs a command so. It may be called once in a process.
func Confined(cmd *exec.Cmd) error {
	if err := Confine(); err != nil {
		return err
	}
	return cmd.Run()
}
