package union

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	openDir  = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	openPath = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
)

// A place is where a file of the upper directory is: a name in a directory, or with an
// empty name what the descriptor itself refers to.
type place struct {
	fd   int
	name string
	dir  *dirEnt // holds fd open, if not nil
}

func (p place) done(u *FS) {
	if p.dir != nil {
		u.dirs.put(p.dir)
	}
}

// place finds a node; done must be called on the result. A descriptor that the node
// keeps, or its name in the work directory, serves where it has no other.
func (u *FS) place(n *node) (place, error) {
	u.tab.Lock()
	if n == u.root || len(n.names) == 0 {
		keep, hidden := n.keep, n.hidden
		u.tab.Unlock()
		switch {
		case hidden:
			return place{fd: u.work, name: n.hiddenName()}, nil
		case keep == 0:
			return place{}, unix.ESTALE
		}
		return place{fd: keep}, nil
	}
	a := n.names[0]
	u.tab.Unlock()
	d, err := u.dirfd(a.dir)
	if err != nil {
		return place{}, err
	}
	return place{fd: d.fd, name: a.name, dir: d}, nil
}

// at is the place of a node that keeps a descriptor.
func (n *node) at(*FS) place { return place{fd: n.keep} }

// path is a name for system calls that take no descriptor. It must be followed if
// the place has no name of its own, and must not if it has.
func (p place) path() string {
	s := "/proc/self/fd/" + strconv.Itoa(p.fd)
	if p.name != "" {
		s += "/" + p.name
	}
	return s
}

func (p place) stat(st *unix.Stat_t) error {
	if p.name == "" {
		return unix.Fstat(p.fd, st)
	}
	return unix.Fstatat(p.fd, p.name, st, unix.AT_SYMLINK_NOFOLLOW)
}

func (p place) chown(uid, gid int) error {
	return unix.Fchownat(p.fd, p.name, uid, gid, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH)
}

// chmod is not for symbolic links.
func (p place) chmod(mode uint32) error {
	if p.name != "" {
		// fchmodat2(2) came with Linux 6.6.
		err := unix.Fchmodat(p.fd, p.name, mode&0o7777, unix.AT_SYMLINK_NOFOLLOW)
		if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
			return err
		}
		fd, err := unix.Openat(p.fd, p.name, openPath, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		p = place{fd: fd}
	}
	return unix.Chmod(p.path(), mode&0o7777)
}

func (p place) utimes(atime, mtime unix.Timespec) error {
	ts := []unix.Timespec{atime, mtime}
	if p.name == "" {
		// Without a path since Linux 5.8.
		err := unix.UtimesNanoAt(p.fd, "", ts, unix.AT_EMPTY_PATH)
		if errors.Is(err, unix.EINVAL) {
			err = unix.UtimesNanoAt(unix.AT_FDCWD, p.path(), ts, 0)
		}
		return err
	}
	return unix.UtimesNanoAt(p.fd, p.name, ts, unix.AT_SYMLINK_NOFOLLOW)
}

func (p place) open(flags int) (int, error) {
	if p.name == "" {
		return again(func() (int, error) { return unix.Open(p.path(), flags&^unix.O_NOFOLLOW|unix.O_CLOEXEC, 0) })
	}
	return again(func() (int, error) { return unix.Openat(p.fd, p.name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0) })
}

func (p place) readlink() ([]byte, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(p.fd, p.name, buf)
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

func (p place) getxattr(name string, dest []byte) (int, error) {
	if p.name == "" {
		return unix.Getxattr(p.path(), name, dest)
	}
	return unix.Lgetxattr(p.path(), name, dest)
}

func (p place) setxattr(name string, value []byte, flags int) error {
	if p.name == "" {
		return unix.Setxattr(p.path(), name, value, flags)
	}
	return unix.Lsetxattr(p.path(), name, value, flags)
}

func (p place) listxattr(dest []byte) (int, error) {
	if p.name == "" {
		return unix.Listxattr(p.path(), dest)
	}
	return unix.Llistxattr(p.path(), dest)
}

func (p place) removexattr(name string) error {
	if p.name == "" {
		return unix.Removexattr(p.path(), name)
	}
	return unix.Lremovexattr(p.path(), name)
}
