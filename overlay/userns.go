package overlay

import (
	"errors"
	"strings"

	"github.com/moby/sys/userns"
	"golang.org/x/sys/unix"
)

// inUserNamespace tells whether this process is in another user namespace than the first.
// There, trusted.* attributes cannot be set, and overlayfs keeps its marks in user.overlay.*.
func inUserNamespace() bool { return userns.RunningInUserNS() }

// markName is the name of an attribute that overlayfs looks at.
func markName(mark string) string {
	if inUserNamespace() {
		return "user.overlay." + mark
	}
	return "trusted.overlay." + mark
}

// mayLack tells whether something that a file of an image has can be done without, where the
// users of the image are not all there: an owner, a file capability, an access control
// list that names others.
func mayLack(err error) bool {
	return inUserNamespace() && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP))
}

// flatXattr tells whether an attribute means something where all files belong to one user.
func flatXattr(name string) bool { return strings.HasPrefix(name, "user.") }
