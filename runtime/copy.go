package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/fusefs"
	"github.com/ihucos/plash/overlay"
	"github.com/ihucos/plash/overlay/copytree"
	"github.com/ihucos/plash/runtime/ids"
	"github.com/ihucos/plash/runtime/program"
)

// Where nothing can be mounted, programs work in a copy of the container's tree, which is
// theirs until they end (package copytree): as its root by chroot(2), which is for root;
// or by proot, which stands between a program and the kernel (ptrace(2)) and can show it
// paths of the host in there.

// errNoMounts is wrapped by errors about a host that lets the caller, who has the right to
// mount as far as one can tell, mount nothing.
var errNoMounts = errors.New("nothing can be mounted here")

// mountDenied marks an error with which the kernel, or a filter, refuses to mount.
func mountDenied(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("%w: %w", errNoMounts, err)
	}
	return err
}

// noMounts tells whether an error is about a host where no backend can mount.
func noMounts(err error) bool {
	for _, e := range []error{errNoMounts, ErrNoNamespaces, overlay.ErrUnsupported, fusefs.ErrUnsupported} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// copyForced tells whether the user wants copies.
func copyForced() bool {
	b := os.Getenv(BackendVar)
	return b == "copy" || b == "proot"
}

// mountedOrCopied does something with mounts, and where there are none with a copy.
func mountedOrCopied(mounted, copied func() error) error {
	if copyForced() {
		return copied()
	}
	err := mounted()
	if os.Getenv(BackendVar) != "" || staged != nil || !noMounts(err) {
		return err
	}
	copyErr := copied()
	if errors.Is(copyErr, errNoWay) {
		return program.NotStarted(&hintedError{err, waysOut()})
	}
	return copyErr
}

// errNoWay is wrapped where neither chroot nor proot is possible.
var errNoWay = errors.New("neither chroot nor proot is possible here")

// waysOut says what a user can do on a host that allows next to nothing.
func waysOut() string {
	ways := []string{"install proot (sudo apt-get install proot)"}
	if hint := userNamespaceHint(); hint != "" {
		ways = append(ways, hint)
	}
	return strings.Join(append(ways, "or use sudo"), "; ")
}

// A guestWay is how a program gets into a copy.
type guestWay struct {
	proot string // the program; "" for chroot
}

// findWay finds the way into copies: for builds, what changes owners as they are wanted.
func findWay(s *cas.Store, build bool) (guestWay, error) {
	forced := os.Getenv(BackendVar)
	mayChroot := ids.HasCapabilities(unix.CAP_SYS_CHROOT)
	switch {
	case forced == "copy" && mayChroot, build && mayChroot && forced != "proot":
		return guestWay{}, nil
	case forced == "copy":
		return guestWay{}, &hintedError{fmt.Errorf("backend copy: %w: chroot is for root", errNoWay), BackendVar + "=proot"}
	}
	path, err := findProot(s)
	switch {
	case err == nil:
		return guestWay{proot: path}, nil
	case mayChroot && forced != "proot":
		return guestWay{}, nil
	}
	return guestWay{}, &hintedError{fmt.Errorf("backend proot: %w: %w", errNoWay, err), "sudo apt-get install proot"}
}

// takeCopy takes a copy of a container, and tells of its configuration.
func takeCopy(ctx context.Context, st *container.Store, id container.ID) (c *copytree.Copy, config container.ImageConfig, err error) {
	err = withImage(ctx, st, id, func(im *image) error {
		config = im.config
		c, err = copytree.Take(ctx, im.cas, im.digests())
		return err
	})
	return c, config, err
}

// keepLock has the lock of a copy inherited by what this process becomes. The number is
// one that programs do not use.
func keepLock(c *copytree.Copy) error {
	const high = 200
	fd := int(c.Lock().Fd())
	_, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD, high)
	if errors.Is(err, unix.EINVAL) { // RLIMIT_NOFILE is below
		_, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD, 3)
	}
	if err != nil {
		return fmt.Errorf("keep copy: %w", err)
	}
	return nil
}

// copyNotes is what is known of copies on a host, in the store: it holds as long as the
// host is what it is.
type copyNotes struct {
	Host  string          // hostKey
	Proot map[string]bool // by path: whether it works
	Told  map[string]bool // what the user was told
}

const copyNotesFile = "copies.json"

func readCopyNotes(s *cas.Store) copyNotes {
	key := hostKey()
	var n copyNotes
	b, err := os.ReadFile(filepath.Join(s.Dir(), copyNotesFile))
	if err != nil || json.Unmarshal(b, &n) != nil || n.Host != key || n.Proot == nil || n.Told == nil {
		return copyNotes{Host: key, Proot: map[string]bool{}, Told: map[string]bool{}}
	}
	return n
}

// write keeps the notes. Knowing less only costs time, so errors do not count.
func (n *copyNotes) write(s *cas.Store) {
	if b, err := json.Marshal(n); err == nil {
		_ = s.WriteHint(copyNotesFile, b)
	}
}

// tellOnce warns the user, once in a boot and store.
func tellOnce(s *cas.Store, warning string) {
	n := readCopyNotes(s)
	if n.Told[warning] {
		return
	}
	fmt.Fprintf(os.Stderr, "plash: warning: %s\n", warning)
	n.Told[warning] = true
	n.write(s)
}
