package overlay

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas/erofs"
)

// A specialError says that a device, FIFO or socket could not be made.
type specialError struct{ err error }

func (e *specialError) Error() string { return e.err.Error() }
func (e *specialError) Unwrap() error { return e.err }

// leaveOut drops the error that a device cannot be made here, where a tree may do
// without: mknod(2) is for who has CAP_MKNOD.
func (u *unpacker) leaveOut(err error) error {
	var special *specialError
	if u.lenient && errors.As(err, &special) && errors.Is(err, unix.EPERM) {
		u.left.device()
		return nil
	}
	return err
}

// denies says whether an error about an owner or attribute counts: that the host does
// not allow, or know, one is none where the tree may do without.
func (u *unpacker) denies(err error) bool {
	if err == nil {
		return false
	}
	// EINVAL: an id that is not mapped in our user namespace.
	allowed := errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)
	return !u.lenient || !allowed
}

// mode is the mode that an inode gets. In the tree of a plain user, who owns all of it,
// that lets him through: inside he is to be as good as root.
func (u *unpacker) mode(in *erofs.Inode) uint32 { return treeMode(in, u.user) }

func treeMode(in *erofs.Inode, user bool) uint32 {
	mode := in.Mode & 0o7777
	switch {
	case user && in.IsDir():
		mode |= 0o700
	case user && in.IsRegular():
		mode |= 0o600
	}
	return mode
}
