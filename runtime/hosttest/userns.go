package hosttest

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/runtime/seccomp"
)

// refuseUserNamespaces gives the calling thread a filter that refuses to make user namespaces.
// As clone3(2) has its flags in memory, where a filter cannot look, it is not there at all; who
// gets ENOSYS for it takes clone(2). (Docker's filter does the same.)
func refuseUserNamespaces() error {
	err := seccomp.Install([]unix.SockFilter{
		seccomp.Load(seccomp.Number),
		seccomp.IfEqual(unix.SYS_CLONE3, 5, 0),
		seccomp.IfEqual(unix.SYS_CLONE, 1, 0),
		seccomp.IfEqual(unix.SYS_UNSHARE, 0, 2),
		seccomp.LoadArg(0),
		seccomp.IfAny(unix.CLONE_NEWUSER, 2, 0),
		seccomp.Allow(),
		seccomp.Fail(unix.ENOSYS),
		seccomp.Fail(unix.EPERM),
	})
	if err != nil {
		return fmt.Errorf("install filter: %w", err)
	}
	return nil
}
