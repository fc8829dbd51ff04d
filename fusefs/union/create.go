package union

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A making is a file that is to be made.
type making struct {
	name  string
	owner fuse.Owner
	mode  uint32 // with the type
	umask uint32
	// mk makes it at a name, where there is nothing, with a mode; for a regular file,
	// it gives it open.
	mk func(fd int, name string, mode uint32) (int, error)
}

// made is a file that was made.
type made struct {
	n  *node
	st unix.Stat_t
	fd int // of a regular file, open for reading and writing; else -1
}

func isDir(mode uint32) bool { return mode&unix.S_IFMT == unix.S_IFDIR }

// make makes a file in a directory, and has the kernel told of it.
func (u *FS) make(parent uint64, m making, tell func(f *made) error) error {
	dir, err := u.raise(parent)
	if err != nil {
		return err
	}
	u.mu.RLock()
	defer u.mu.RUnlock()
	f, err := u.makeIn(dir, m)
	if err != nil {
		return err
	}
	return tell(&f)
}

func (u *FS) makeIn(dir *node, m making) (f made, err error) {
	_, below, err := u.below(&ref{n: dir}, m.name)
	if err != nil {
		return f, err
	}
	d, err := u.dirfd(dir)
	if err != nil {
		return f, err
	}
	defer u.dirs.put(d)
	acl, err := u.hasDefaultACL(dir)
	if err != nil {
		return f, err
	}
	f, err = u.makeAt(dir, d.fd, m, below, acl)
	dir.version.Add(1)
	if err != nil {
		return f, err
	}
	f.n = u.adopt(dir, m.name, &f.st, nil)
	if !acl {
		f.n.bare.Store(true)
		f.n.defACL.Store(aclNone)
	}
	return f, nil
}

// makeAt makes a file in its place if it will be as it should be from the first moment,
// or else in the work directory.
func (u *FS) makeAt(dir *node, fd int, m making, below, acl bool) (f made, err error) {
	mode := m.mode
	if !acl && mode&unix.S_IFMT != unix.S_IFLNK {
		mode &^= m.umask // a default ACL takes its place
	}
	fits := m.owner.Uid == u.uid && m.owner.Gid == u.gid && (acl || mode&0o7777&u.umask == 0)
	if fits && !below {
		f.fd, err = m.mk(fd, m.name, mode)
		if err == nil {
			return f, f.look(fd, m.name)
		}
		if !errors.Is(err, unix.EEXIST) {
			return f, err
		}
	}
	// There may be a whiteout.
	e, err := u.find(&ref{n: dir}, m.name)
	if err != nil {
		return f, err
	}
	if e.visible() {
		return f, unix.EEXIST
	}
	return u.makeInWork(fd, m, mode, &e, acl)
}

func (f *made) look(fd int, name string) error {
	if f.fd >= 0 {
		return unix.Fstat(f.fd, &f.st)
	}
	return unix.Fstatat(fd, name, &f.st, unix.AT_SYMLINK_NOFOLLOW)
}

func (u *FS) makeInWork(fd int, m making, mode uint32, e *entry, acl bool) (f made, err error) {
	tmp := u.tmpName()
	f.fd, err = m.mk(u.work, tmp, mode&(unix.S_IFMT|0o700))
	if err != nil {
		return f, err
	}
	defer func() {
		if err == nil {
			return
		}
		if f.fd >= 0 {
			unix.Close(f.fd)
		}
		err = errors.Join(err, ignore(u.clear(u.work, tmp), unix.ENOENT))
	}()
	p := place{fd: u.work, name: tmp}
	if err := u.dress(fd, p, m.owner, mode, acl); err != nil {
		return f, err
	}
	if isDir(mode) && e.below && e.lower.IsDir() {
		if err := u.makeOpaque(p); err != nil {
			return f, err
		}
	}
	if err := f.look(u.work, tmp); err != nil {
		return f, err
	}
	return f, u.moveIn(tmp, fd, m.name, isDir(mode), e.upper)
}

// moveIn moves a finished file from the work directory to where there is nothing, or
// a whiteout.
func (u *FS) moveIn(tmp string, fd int, name string, dir, whiteout bool) error {
	switch {
	case !whiteout:
		return unix.Renameat2(u.work, tmp, fd, name, unix.RENAME_NOREPLACE)
	case !dir:
		return unix.Renameat(u.work, tmp, fd, name)
	}
	if err := unix.Renameat2(u.work, tmp, fd, name, unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	return unix.Unlinkat(u.work, tmp, 0)
}

// dress gives a new file owner, mode and access control lists, as it would get them
// in the directory fd.
func (u *FS) dress(fd int, p place, owner fuse.Owner, mode uint32, acl bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_ISGID != 0 {
		owner.Gid = st.Gid
		if isDir(mode) {
			mode |= unix.S_ISGID
		}
	}
	if owner.Uid != u.uid || owner.Gid != u.gid {
		if err := p.chown(int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
	}
	if mode&unix.S_IFMT == unix.S_IFLNK {
		return nil
	}
	if !acl {
		return p.chmod(mode)
	}
	return inheritACL(place{fd: fd}, p, mode)
}

// Create makes a regular file and opens it.
func (u *FS) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	return status(u.make(in.NodeId, making{
		name: name, owner: in.Owner, mode: in.Mode&0o7777 | unix.S_IFREG, umask: in.Umask, mk: mkFile,
	}, func(f *made) error {
		u.openNew(f, &out.OpenOut)
		return u.reply(&ref{n: f.n}, &f.st, &out.EntryOut)
	}))
}

func mkFile(fd int, name string, mode uint32) (int, error) {
	const flags = unix.O_RDWR | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	return again(func() (int, error) { return unix.Openat(fd, name, flags, mode&0o7777) })
}

// Tmpfile makes a file without a name (O_TMPFILE; Linux 6.2).
func (u *FS) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	f, err := u.makeNameless(in)
	if err != nil {
		return status(err)
	}
	u.openNew(&f, &out.OpenOut)
	return status(u.reply(&ref{n: f.n}, &f.st, &out.EntryOut))
}

func (u *FS) makeNameless(in *fuse.CreateIn) (f made, err error) {
	dir, err := u.raise(in.NodeId)
	if err != nil {
		return f, err
	}
	u.mu.RLock()
	defer u.mu.RUnlock()
	d, err := u.dirfd(dir)
	if err != nil {
		return f, err
	}
	defer u.dirs.put(d)
	acl, err := u.hasDefaultACL(dir)
	if err != nil {
		return f, err
	}
	mode := in.Mode&0o7777 | unix.S_IFREG
	if !acl {
		mode &^= in.Umask
	}
	f.fd, err = again(func() (int, error) {
		return unix.Openat(u.work, ".", unix.O_RDWR|unix.O_TMPFILE|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return f, err
	}
	keep := -1
	if err = u.dress(d.fd, place{fd: f.fd}, in.Owner, mode, acl); err == nil {
		if err = unix.Fstat(f.fd, &f.st); err == nil {
			keep, err = again(func() (int, error) { return unix.Open(place{fd: f.fd}.path(), unix.O_PATH|unix.O_CLOEXEC, 0) })
		}
	}
	if err != nil {
		return f, errors.Join(err, unix.Close(f.fd))
	}
	u.tab.Lock()
	f.n = &node{typ: unix.S_IFREG, ino: f.st.Ino, gone: true}
	u.enter(f.n)
	u.setKeep(f.n, keep)
	u.tab.Unlock()
	return f, nil
}

// Mkdir makes a directory.
func (u *FS) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return u.makeNode(in.NodeId, making{
		name: name, owner: in.Owner, mode: in.Mode&0o7777 | unix.S_IFDIR, umask: in.Umask,
		mk: func(fd int, name string, mode uint32) (int, error) {
			return -1, unix.Mkdirat(fd, name, mode&0o7777)
		},
	}, out)
}

// Mknod makes a device, FIFO, socket or regular file.
func (u *FS) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	if in.Mode&unix.S_IFMT == unix.S_IFCHR && in.Rdev == 0 {
		return fuse.EPERM // it would be a whiteout
	}
	return u.makeNode(in.NodeId, making{
		name: name, owner: in.Owner, mode: in.Mode, umask: in.Umask,
		mk: func(fd int, name string, mode uint32) (int, error) {
			return -1, unix.Mknodat(fd, name, mode, int(in.Rdev))
		},
	}, out)
}

// Symlink makes a symbolic link.
func (u *FS) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return u.makeNode(h.NodeId, making{
		name: name, owner: h.Owner, mode: unix.S_IFLNK | 0o777,
		mk: func(fd int, name string, _ uint32) (int, error) {
			return -1, unix.Symlinkat(target, fd, name)
		},
	}, out)
}

func (u *FS) makeNode(parent uint64, m making, out *fuse.EntryOut) fuse.Status {
	return status(u.make(parent, m, func(f *made) error { return u.reply(&ref{n: f.n}, &f.st, out) }))
}
