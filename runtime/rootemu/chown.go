package rootemu

import (
	"errors"

	"golang.org/x/sys/unix"
)

func chown(c *caller) answer {
	return c.chownNamed(unix.AT_FDCWD, 0, true, false, c.ugid(1), c.ugid(2))
}

func lchown(c *caller) answer {
	return c.chownNamed(unix.AT_FDCWD, 0, false, false, c.ugid(1), c.ugid(2))
}

func fchownat(c *caller) answer {
	flags := c.num(4)
	if flags&^(unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) != 0 {
		return fails(unix.EINVAL)
	}
	return c.chownNamed(c.num(0), 1, flags&unix.AT_SYMLINK_NOFOLLOW == 0, flags&unix.AT_EMPTY_PATH != 0,
		c.ugid(2), c.ugid(3))
}

func fchown(c *caller) answer {
	if err := c.opened(c.num(0)); err != nil {
		return fails(err)
	}
	fd, err := c.file(c.num(0))
	if err != nil {
		return fails(err)
	}
	defer unix.Close(fd)
	return fails(c.give(fd, c.ugid(1), c.ugid(2)))
}

func (c *caller) chownNamed(dirfd int32, path int, follow, mayBeEmpty bool, uid, gid uint32) answer {
	fd, err := c.named(dirfd, path, follow, mayBeEmpty)
	if err != nil {
		return fails(err)
	}
	defer unix.Close(fd)
	return fails(c.give(fd, uid, gid))
}

// give gives a file to root as far as somebody else was asked for, and remembers who that was.
func (c *caller) give(fd int, uid, gid uint32) error {
	err := unix.Fchownat(fd, "", rootFor(uid), rootFor(gid), unix.AT_EMPTY_PATH)
	if err != nil && !refusal(err) {
		return err
	}
	if uid == noID && gid == noID {
		return nil
	}
	id, err := c.identify(fd)
	if errors.Is(err, errElsewhere) {
		return nil
	}
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	c.memory.update(id, func(r *record) {
		if uid != noID {
			r.UID = &uid
		}
		if gid != noID {
			r.GID = &gid
		}
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			r.setXattr(xattrCapability, nil) // as the kernel does
		}
	})
	return nil
}

// rootFor is who a file is given to in the place of another: root, or nobody if it is
// to stay whose it is.
func rootFor(id uint32) int {
	if id == noID {
		return -1
	}
	return 0
}

// refusal tells whether an error says that this user must not, or that there is no such other
// user here, and not that something is wrong.
func refusal(err error) bool {
	for _, errno := range []unix.Errno{unix.EPERM, unix.EACCES, unix.EINVAL, unix.EOVERFLOW, unix.EOPNOTSUPP, unix.ENOSYS} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
