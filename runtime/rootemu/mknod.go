package rootemu

import (
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas/tarstream"
)

func mknod(c *caller) answer {
	return fails(c.makeDevice(unix.AT_FDCWD, 0, uint32(c.Args[1]), uint32(c.Args[2])))
}

func mknodat(c *caller) answer {
	return fails(c.makeDevice(c.num(0), 1, uint32(c.Args[2]), uint32(c.Args[3])))
}

// makeDevice makes an empty file where a device was asked for, and remembers that.
func (c *caller) makeDevice(dirfd int32, pathArg int, mode, dev uint32) error {
	parent, name, err := c.parent(dirfd, pathArg)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	if err := unix.Mknodat(parent, name, unix.S_IFREG|mode&0o7777, 0); err != nil {
		return err
	}
	fd, err := openPath(parent, name, unix.O_NOFOLLOW)
	if err != nil {
		return nil // somebody has removed it already
	}
	defer unix.Close(fd)
	id, err := c.identify(fd)
	if err != nil {
		return nil // not in the upper directory: an empty file is all there can be
	}
	c.memory.update(id, func(r *record) {
		r.Device = tarstream.TypeChar
		if mode&unix.S_IFMT == unix.S_IFBLK {
			r.Device = tarstream.TypeBlock
		}
		r.Major, r.Minor = unix.Major(uint64(dev)), unix.Minor(uint64(dev))
	})
	return nil
}
