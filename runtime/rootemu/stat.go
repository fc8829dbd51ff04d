package rootemu

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas/tarstream"
)

// What stat(2) and its kin say to a process that has become a user: who files belong to, so that it finds
// its own, and which files are devices.

func stat(c *caller) answer { return c.statNamed(unix.AT_FDCWD, 0, 0, 1) }

func lstat(c *caller) answer { return c.statNamed(unix.AT_FDCWD, 0, unix.AT_SYMLINK_NOFOLLOW, 1) }

func fstatat(c *caller) answer { return c.statNamed(c.num(0), 1, c.num(3), 2) }

func fstat(c *caller) answer {
	if !c.sees() {
		return asItWere
	}
	fd, err := c.file(c.num(0))
	if err != nil {
		return asItWere
	}
	defer unix.Close(fd)
	return c.tellStat(fd, 1)
}

// sees tells whether a caller is a user.
func (c *caller) sees() bool {
	cr, _, err := c.ids.of(int(c.Pid))
	return err == nil && cr.user()
}

func (c *caller) statNamed(dirfd int32, path int, flags int32, out int) answer {
	if !c.sees() || flags&^(unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT) != 0 {
		return asItWere
	}
	fd, err := c.named(dirfd, path, flags&unix.AT_SYMLINK_NOFOLLOW == 0, flags&unix.AT_EMPTY_PATH != 0)
	if err != nil {
		return asItWere // the kernel says it again
	}
	defer unix.Close(fd)
	return c.tellStat(fd, out)
}

// tellStat answers with a struct stat.
func (c *caller) tellStat(fd, out int) answer {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return asItWere
	}
	uid, gid, r := c.owner(fd, &st)
	st.Uid, st.Gid = uid, gid
	if typ := deviceType(&r); typ != 0 {
		st.Mode = st.Mode&^unix.S_IFMT | typ
		st.Rdev = unix.Mkdev(r.Major, r.Minor)
	}
	return fails(c.write(c.addr(out), unsafe.Slice((*byte)(unsafe.Pointer(&st)), unsafe.Sizeof(st))))
}

func statx(c *caller) answer {
	const (
		sync  = unix.AT_STATX_FORCE_SYNC | unix.AT_STATX_DONT_SYNC
		known = unix.AT_SYMLINK_NOFOLLOW | unix.AT_EMPTY_PATH | unix.AT_NO_AUTOMOUNT | sync
	)
	flags := c.num(2)
	if !c.sees() || flags&^known != 0 {
		return asItWere
	}
	fd, err := c.named(c.num(0), 1, flags&unix.AT_SYMLINK_NOFOLLOW == 0, flags&unix.AT_EMPTY_PATH != 0)
	if err != nil {
		return asItWere
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	var x unix.Statx_t
	if unix.Fstat(fd, &st) != nil ||
		unix.Statx(fd, "", int(flags)&sync|unix.AT_EMPTY_PATH, int(uint32(c.Args[3])), &x) != nil {
		return asItWere
	}
	uid, gid, r := c.owner(fd, &st)
	x.Uid, x.Gid = uid, gid
	if typ := deviceType(&r); typ != 0 {
		x.Mode = x.Mode&^unix.S_IFMT | uint16(typ)
		x.Rdev_major, x.Rdev_minor = r.Major, r.Minor
	}
	return fails(c.write(c.addr(4), unsafe.Slice((*byte)(unsafe.Pointer(&x)), unsafe.Sizeof(x))))
}

// deviceType is the file type of a device that a file stands for, or 0.
func deviceType(r *record) uint32 {
	switch r.Device {
	case tarstream.TypeChar:
		return unix.S_IFCHR
	case tarstream.TypeBlock:
		return unix.S_IFBLK
	}
	return 0
}
