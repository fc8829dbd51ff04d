package rootemu

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// Files that a process makes which has become a user are the user's. What cannot be done here, the
// kernel does, or says why not; then they are root's.

func open(c *caller) answer { return c.create(unix.AT_FDCWD, 0, c.Args[1], c.Args[2]) }

func creat(c *caller) answer {
	return c.create(unix.AT_FDCWD, 0, unix.O_CREAT|unix.O_WRONLY|unix.O_TRUNC, c.Args[1])
}

func openat(c *caller) answer { return c.create(c.num(0), 1, c.Args[2], c.Args[3]) }

func mkdir(c *caller) answer { return c.makeDir(unix.AT_FDCWD, 0, uint32(c.Args[1])) }

func mkdirat(c *caller) answer { return c.makeDir(c.num(0), 1, uint32(c.Args[2])) }

func symlink(c *caller) answer { return c.makeLink(unix.AT_FDCWD, 1) }

func symlinkat(c *caller) answer { return c.makeLink(c.num(1), 2) }

// maker gives the credentials of a caller to whom what it makes belongs, or says that
// it is root's.
func (c *caller) maker() (creds, bool) {
	cr, _, err := c.ids.of(int(c.Pid))
	return cr, err == nil && (cr.uid[filesystem] != 0 || cr.gid[filesystem] != 0)
}

// create is open(2) of a file that is not there yet.
func (c *caller) create(dirfd int32, path int, flags, mode uint64) answer {
	cr, ok := c.maker()
	if !ok {
		return asItWere
	}
	parent, name, err := c.parent(dirfd, path)
	if err != nil {
		return asItWere
	}
	defer unix.Close(parent)
	// A file that is there is opened by the caller: that may take any time.
	fd, err := unix.Openat(parent, name, int(flags)|unix.O_EXCL|unix.O_CLOEXEC, uint32(mode)&0o7777)
	if err != nil {
		return asItWere
	}
	defer unix.Close(fd)
	c.own(fd, parent, &cr)
	return c.hand(fd, flags&unix.O_CLOEXEC)
}

// hand answers with a descriptor of the caller's own for one of ours.
func (c *caller) hand(fd int, cloexec uint64) answer {
	if err := c.listener.SendFile(c.ID, fd, uint32(cloexec)); err != nil {
		return fails(err)
	}
	return answer{sent: true}
}

func (c *caller) makeDir(dirfd int32, path int, mode uint32) answer {
	return c.make(dirfd, path, func(parent int, name string) error {
		return unix.Mkdirat(parent, name, mode&0o7777)
	})
}

func (c *caller) makeLink(dirfd int32, path int) answer {
	target, err := c.path(0)
	if err != nil {
		return asItWere
	}
	return c.make(dirfd, path, func(parent int, name string) error {
		return unix.Symlinkat(target, parent, name)
	})
}

// make makes a file that nothing is open of.
func (c *caller) make(dirfd int32, path int, how func(parent int, name string) error) answer {
	cr, ok := c.maker()
	if !ok {
		return asItWere
	}
	parent, name, err := c.parent(dirfd, path)
	if err != nil {
		return asItWere
	}
	defer unix.Close(parent)
	if err := how(parent, name); err != nil {
		return fails(err)
	}
	if fd, err := openPath(parent, name, unix.O_NOFOLLOW); err == nil {
		c.own(fd, parent, &cr)
		unix.Close(fd)
	}
	return done
}

// parent opens the directory of a path in which the caller wants to make something, and gives this
// thread the caller's umask.
func (c *caller) parent(dirfd int32, pathArg int) (fd int, name string, err error) {
	path, err := c.path(pathArg)
	if err != nil {
		return -1, "", err
	}
	dir, name := splitPath(path)
	if name == "" {
		return -1, "", unix.ENOENT
	}
	umask, err := c.umask()
	if err != nil {
		return -1, "", err
	}
	unix.Umask(umask)
	fd, err = c.open(dirfd, dir, unix.O_DIRECTORY)
	return fd, name, err
}

// splitPath splits a path before its last name, to which slashes behind it belong: the kernel
// decides what they mean there.
func splitPath(path string) (dir, name string) {
	trimmed := strings.TrimRight(path, "/")
	i := strings.LastIndexByte(trimmed, '/')
	dir, name = path[:i+1], path[i+1:]
	switch {
	case trimmed == "" && path != "":
		return "/", "."
	case dir == "":
		dir = "."
	}
	return dir, name
}

// own remembers that a new file belongs to who made it; in a directory with set-group-ID, the
// group is the directory's.
func (c *caller) own(fd, parent int, cr *creds) {
	uid, gid := cr.uid[filesystem], cr.gid[filesystem]
	var st unix.Stat_t
	if unix.Fstat(parent, &st) == nil && st.Mode&unix.S_ISGID != 0 {
		_, gid, _ = c.owner(parent, &st)
	}
	id, err := c.identify(fd)
	if err != nil {
		return // not in the upper directory: nobody else's there
	}
	c.memory.update(id, func(r *record) { r.UID, r.GID = &uid, &gid })
}

// owner tells who a file belongs to, and the record of it, if there is one.
func (w *worker) owner(fd int, st *unix.Stat_t) (uid, gid uint32, r record) {
	path, id, err := w.find(fd, false)
	if err != nil && !errors.Is(err, errElsewhere) {
		return st.Uid, st.Gid, record{}
	}
	uid, gid = st.Uid, st.Gid
	if path != "" {
		uid, gid = w.below(strings.TrimPrefix(path, "."), st.Mode)
	}
	if err != nil {
		return uid, gid, record{}
	}
	asked, _ := w.memory.Recall(id)
	if asked.UID != nil {
		uid = *asked.UID
	}
	if asked.GID != nil {
		gid = *asked.GID
	}
	return uid, gid, record{Remembered: asked}
}
