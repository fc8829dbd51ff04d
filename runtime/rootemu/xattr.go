package rootemu

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	xattrCapability = "security.capability"
	xattrACL        = "system.posix_acl_access"
	xattrACLDefault = "system.posix_acl_default"
)

// remembrable tells whether an attribute is worth remembering where the kernel refuses it.
func remembrable(name string) bool {
	return name == xattrCapability || name == xattrACL || name == xattrACLDefault || strings.HasPrefix(name, "trusted.")
}

func setxattr(c *caller) answer { return c.setNamed(unix.AT_FDCWD, 0, true, false, 1, c.inArgs(2)) }

func lsetxattr(c *caller) answer { return c.setNamed(unix.AT_FDCWD, 0, false, false, 1, c.inArgs(2)) }

func fsetxattr(c *caller) answer {
	name, err := c.xattrName(1)
	if err != nil || !remembrable(name) {
		return asItWere // errors and all
	}
	if err := c.opened(c.num(0)); err != nil {
		return fails(err)
	}
	fd, err := c.file(c.num(0))
	if err != nil {
		return fails(err)
	}
	defer unix.Close(fd)
	return c.set(fd, name, c.inArgs(2))
}

// setxattrat(dirfd, path, flags, name, struct xattr_args *, size) has the value in a struct
// (linux/xattr.h).
func setxattrat(c *caller) answer {
	flags := c.num(2)
	var b [16]byte
	if flags&^(unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) != 0 || c.Args[5] != uint64(len(b)) ||
		c.readAll(c.addr(4), b[:]) != nil {
		return asItWere
	}
	v := valueArgs{
		addr: binary.NativeEndian.Uint64(b[:]), size: uint64(binary.NativeEndian.Uint32(b[8:])),
		flags: binary.NativeEndian.Uint32(b[12:]),
	}
	return c.setNamed(c.num(0), 1, flags&unix.AT_SYMLINK_NOFOLLOW == 0, flags&unix.AT_EMPTY_PATH != 0, 3, v)
}

// valueArgs say where the value of an attribute is, and how to set it.
type valueArgs struct {
	addr, size uint64
	flags      uint32
}

// inArgs finds them in the arguments from n on.
func (c *caller) inArgs(n int) valueArgs {
	return valueArgs{addr: c.addr(n), size: c.addr(n + 1), flags: uint32(c.Args[n+2])}
}

// xattrName is an argument that is the name of an attribute.
func (c *caller) xattrName(n int) (string, error) {
	const nameMax = 255 // XATTR_NAME_MAX
	return c.str(c.addr(n), nameMax+1, unix.ERANGE)
}

func (c *caller) setNamed(dirfd int32, path int, follow, mayBeEmpty bool, nameArg int, v valueArgs) answer {
	name, err := c.xattrName(nameArg)
	if err != nil || !remembrable(name) {
		return asItWere
	}
	fd, err := c.named(dirfd, path, follow, mayBeEmpty)
	if err != nil {
		return fails(err)
	}
	defer unix.Close(fd)
	return c.set(fd, name, v)
}

// set sets an attribute, or remembers it if the kernel refuses.
func (c *caller) set(fd int, name string, v valueArgs) answer {
	const sizeMax = 64 << 10 // XATTR_SIZE_MAX
	if v.size > sizeMax {
		return fails(unix.E2BIG)
	}
	value := make([]byte, v.size)
	if err := c.readAll(v.addr, value); err != nil {
		return fails(err)
	}
	err := unix.Setxattr(link(fd), name, value, int(v.flags))
	if err == nil || !c.remembersXattr(fd, name, err) {
		if err == nil {
			c.leave(fd, name)
		}
		return fails(err)
	}
	return fails(c.rememberXattr(fd, name, value, v.flags, err))
}

// remembersXattr tells whether an error in setting an attribute is one to make good.
func (c *caller) remembersXattr(fd int, name string, err error) bool {
	if name == xattrCapability && errors.Is(err, unix.EINVAL) {
		return false // the value is wrong
	}
	return refusal(err)
}

// rememberXattr remembers an attribute that could not be set because of refused.
func (c *caller) rememberXattr(fd int, name string, value []byte, flags uint32, refused error) error {
	if name == xattrACL || name == xattrACLDefault {
		acl, err := ownACL(value)
		if err != nil {
			return err
		}
		// What there can be of it: the bits of the mode are part of it.
		if err := unix.Setxattr(link(fd), name, acl, 0); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return refused
		}
	}
	if err := copyUp(fd); err != nil {
		return err
	}
	id, err := c.identify(fd)
	if errors.Is(err, errElsewhere) {
		return refused
	}
	if err != nil {
		return err
	}
	switch has := c.memory.xattr(id, name); {
	case has && flags&unix.XATTR_CREATE != 0:
		return unix.EEXIST
	case !has && flags&unix.XATTR_REPLACE != 0:
		return unix.ENODATA
	}
	c.memory.update(id, func(r *record) { r.setXattr(name, slices.Clone(value)) })
	return nil
}

// copyUp has overlayfs make the file one of the upper directory, without another change: a chown, also
// to nobody, would clear set-user-ID bits.
func copyUp(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return unix.Fchownat(fd, "", -1, -1, unix.AT_EMPTY_PATH)
	}
	return unix.Chmod(link(fd), st.Mode&0o7777)
}

func removexattr(c *caller) answer  { return c.removeNamed(unix.AT_FDCWD, 0, true, false, 1) }
func lremovexattr(c *caller) answer { return c.removeNamed(unix.AT_FDCWD, 0, false, false, 1) }

func fremovexattr(c *caller) answer {
	name, err := c.xattrName(1)
	if err != nil || !remembrable(name) {
		return asItWere
	}
	if err := c.opened(c.num(0)); err != nil {
		return fails(err)
	}
	fd, err := c.file(c.num(0))
	if err != nil {
		return fails(err)
	}
	defer unix.Close(fd)
	return c.remove(fd, name)
}

// removexattrat(dirfd, path, flags, name)
func removexattrat(c *caller) answer {
	flags := c.num(2)
	if flags&^(unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) != 0 {
		return asItWere
	}
	return c.removeNamed(c.num(0), 1, flags&unix.AT_SYMLINK_NOFOLLOW == 0, flags&unix.AT_EMPTY_PATH != 0, 3)
}

func (c *caller) removeNamed(dirfd int32, path int, follow, mayBeEmpty bool, nameArg int) answer {
	name, err := c.xattrName(nameArg)
	if err != nil || !remembrable(name) {
		return asItWere
	}
	fd, err := c.named(dirfd, path, follow, mayBeEmpty)
	if err != nil {
		return fails(err)
	}
	defer unix.Close(fd)
	return c.remove(fd, name)
}

func (c *caller) remove(fd int, name string) answer {
	err := unix.Removexattr(link(fd), name)
	switch {
	case err == nil:
		c.leave(fd, name)
	case c.leaves(fd, name):
		return done
	case errors.Is(err, unix.EPERM) && strings.HasPrefix(name, "trusted."):
		return fails(unix.ENODATA) // what root is told of one that is not there
	}
	return fails(err)
}

// leave leaves an attribute to the file itself, which is in the upper directory.
func (c *caller) leave(fd int, name string) {
	if id, err := c.identify(fd); err == nil {
		c.memory.leaveXattr(id, name)
	}
}

// leaves does so if the attribute is remembered, and tells whether it was.
func (c *caller) leaves(fd int, name string) bool {
	_, id, err := c.find(fd, false)
	return err == nil && c.memory.xattr(id, name) && c.memory.leaveXattr(id, name)
}
