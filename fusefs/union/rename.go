package union

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A moving is a rename that is under way; both directories are in the upper directory.
type moving struct {
	from, to    *node
	name, newTo string
	fd, newFD   int
	src, dst    entry
	n, replaced *node
	exchange    bool
	swap        bool // there is a directory full of whiteouts where it goes
}

// errAgain is for a file that was copied up, or not yet, meanwhile.
var errAgain = errors.New("changed meanwhile")

// Rename moves a name. A directory that is in the layers, or has something there, is
// not moved: EXDEV, upon which programs copy.
func (u *FS) Rename(_ <-chan struct{}, in *fuse.RenameIn, name, newName string) fuse.Status {
	if in.Flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 ||
		in.Flags == unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE {
		return fuse.EINVAL
	}
	for {
		err := u.lift(in.NodeId, name)
		if err == nil && in.Flags&unix.RENAME_EXCHANGE != 0 {
			err = u.lift(in.Newdir, newName)
		} else if err == nil && in.Flags == 0 {
			err = u.parted(in.Newdir, newName)
		}
		if err == nil {
			err = u.rename(in, name, newName)
		}
		if err != errAgain {
			return status(err)
		}
	}
}

// lift copies up what is to be moved.
func (u *FS) lift(dir uint64, name string) error {
	r, ok, err := u.onlyBelow(dir, name)
	if err == nil && ok && !r.in.IsDir() {
		_, err = u.copyUp(r.id(u))
	}
	return err
}

func (u *FS) rename(in *fuse.RenameIn, name, newName string) error {
	m := moving{name: name, newTo: newName, exchange: in.Flags&unix.RENAME_EXCHANGE != 0}
	var err error
	if m.from, err = u.raise(in.NodeId); err != nil {
		return err
	}
	if m.to, err = u.raise(in.Newdir); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	d, err := u.dirfd(m.from)
	if err != nil {
		return err
	}
	defer u.dirs.put(d)
	to, err := u.dirfd(m.to)
	if err != nil {
		return err
	}
	defer u.dirs.put(to)
	m.fd, m.newFD = d.fd, to.fd
	if m.src, m.n, err = u.movable(m.from, name); err != nil {
		return err
	}
	if m.dst, err = u.find(&ref{n: m.to}, newName); err != nil {
		return err
	}
	switch {
	case m.exchange:
		err = u.exchange(&m)
	case in.Flags&unix.RENAME_NOREPLACE != 0 && m.dst.visible():
		err = unix.EEXIST
	default:
		err = u.replace(&m)
	}
	m.from.version.Add(1)
	m.to.version.Add(1)
	return err
}

// movable finds what can be moved.
func (u *FS) movable(dir *node, name string) (entry, *node, error) {
	at := ref{n: dir}
	e, err := u.find(&at, name)
	switch {
	case err != nil:
		return e, nil, err
	case !e.visible():
		return e, nil, unix.ENOENT
	case !e.upper && e.lower.IsDir():
		return e, nil, unix.EXDEV
	case !e.upper:
		n := u.node(u.lowerID(e.lower.NID))
		if n == nil {
			return e, nil, errAgain
		}
		if err := u.giveName(n, dir, name); err != nil {
			return e, nil, err
		}
		return u.movable(dir, name)
	}
	r, err := u.take(&at, name, &e)
	if err == nil && r.n.merged {
		err = unix.EXDEV
	}
	return e, r.n, err
}

// cover has a directory hide what the layers have where it goes.
func (u *FS) cover(n *node, fd int, name string, over *entry) error {
	if !n.isDir() || !over.below || !over.lower.IsDir() {
		return nil
	}
	return u.makeOpaque(place{fd: fd, name: name})
}

func (u *FS) exchange(m *moving) error {
	var err error
	if m.dst, m.replaced, err = u.movable(m.to, m.newTo); err != nil {
		return err
	}
	if err := u.cover(m.n, m.fd, m.name, &m.dst); err != nil {
		return err
	}
	if err := u.cover(m.replaced, m.newFD, m.newTo, &m.src); err != nil {
		return err
	}
	if err := unix.Renameat2(m.fd, m.name, m.newFD, m.newTo, unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	if m.n != m.replaced {
		u.moved(m.n, m.from, m.name, m.to, m.newTo)
		u.moved(m.replaced, m.to, m.newTo, m.from, m.name)
	}
	m.n.version.Add(1)
	m.replaced.version.Add(1)
	return nil
}

// replace moves over what is there, if anything.
func (u *FS) replace(m *moving) error {
	if m.dst.visible() {
		r, err := u.take(&ref{n: m.to}, m.newTo, &m.dst)
		if err != nil {
			return err
		}
		if m.replaced = r.n; r.n == m.n {
			return nil
		}
		if m.dst.upper {
			u.keep(r.n, m.to, m.newTo)
		}
		if err := u.replaceable(m, &r); err != nil {
			if m.dst.upper {
				u.unkeep(r.n)
			}
			return err
		}
	}
	err := u.cover(m.n, m.fd, m.name, &m.dst)
	if err == nil {
		err = u.move(m)
	}
	if err != nil {
		if m.replaced != nil && m.dst.upper {
			u.unkeep(m.replaced)
		}
		return err
	}
	if m.dst.visible() {
		u.lost(m.to, m.newTo, &m.dst, m.replaced)
	}
	u.moved(m.n, m.from, m.name, m.to, m.newTo)
	m.n.version.Add(1)
	return nil
}

// replaceable checks what the kernel leaves to filesystems.
func (u *FS) replaceable(m *moving, r *ref) error {
	if !m.dst.isDir() {
		if m.n.isDir() {
			return unix.ENOTDIR
		}
		return nil
	}
	if !m.n.isDir() {
		return unix.EISDIR
	}
	if err := u.wantEmpty(r); err != nil || !m.dst.upper {
		return err
	}
	dents, err := readDentsAt(m.newFD, m.newTo)
	m.swap = len(dents) > 0
	return err
}

// move does the rename itself. If the layers have the old name, a whiteout takes its
// place, in one step where the filesystem can do that.
func (u *FS) move(m *moving) error {
	if m.swap || m.dst.whiteout && m.n.isDir() {
		return u.swap(m)
	}
	if !m.src.below {
		return unix.Renameat(m.fd, m.name, m.newFD, m.newTo)
	}
	if u.marks.devices {
		err := unix.Renameat2(m.fd, m.name, m.newFD, m.newTo, unix.RENAME_WHITEOUT)
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	// A crash between the two steps leaves the file in both places.
	if err := u.expectWhiteouts(m.from); err != nil {
		return err
	}
	if err := unix.Renameat(m.fd, m.name, m.newFD, m.newTo); err != nil {
		return err
	}
	return u.whiteout(m.fd, m.name)
}

// swap moves a directory to where there is a whiteout, or a directory full of them, over
// which rename(2) does not go: they change places, and then that one is taken away.
func (u *FS) swap(m *moving) error {
	exchange := func() error {
		return unix.Renameat2(m.fd, m.name, m.newFD, m.newTo, unix.RENAME_EXCHANGE)
	}
	err := exchange()
	if err != nil {
		return err
	}
	switch {
	case m.dst.whiteout && !m.src.below:
		err = unix.Unlinkat(m.fd, m.name, 0)
	case m.dst.whiteout: // is what the layers' name needs
	case m.src.below:
		err = u.replaceByWhiteout(m.from, m.fd, m.name, true)
	default:
		err = u.takeAway(m.fd, m.name)
	}
	if err != nil {
		err = errors.Join(err, exchange())
	}
	return err
}

// Link gives a file a further name.
func (u *FS) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	n, err := u.copyUp(in.Oldnodeid)
	if err != nil {
		return status(err)
	}
	dir, err := u.raise(in.NodeId)
	if err != nil {
		return status(err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.link(n, dir, name); err != nil {
		return status(err)
	}
	dir.version.Add(1)
	var st unix.Stat_t
	if err := u.stat(n, &st); err != nil {
		return status(err)
	}
	return status(u.reply(&ref{n: n}, &st, out))
}

func (u *FS) link(n, dir *node, name string) error {
	e, err := u.find(&ref{n: dir}, name)
	if err != nil {
		return err
	}
	if e.visible() {
		return unix.EEXIST
	}
	p, err := u.place(n)
	if err != nil {
		return err
	}
	defer p.done(u)
	d, err := u.dirfd(dir)
	if err != nil {
		return err
	}
	defer u.dirs.put(d)
	if !e.whiteout {
		err = p.link(d.fd, name)
	} else {
		tmp := u.tmpName()
		if err = p.link(u.work, tmp); err == nil {
			if err = u.moveIn(tmp, d.fd, name, false, true); err != nil {
				err = errors.Join(err, unix.Unlinkat(u.work, tmp, 0))
			}
		}
	}
	if err != nil {
		return err
	}
	u.tab.Lock()
	defer u.tab.Unlock()
	n.addName(dir, name)
	if n.gone {
		n.gone = false
		u.byIno[n.ino] = n
	}
	u.drop(n)
	return nil
}

func (p place) link(fd int, name string) error {
	if p.name == "" {
		return unix.Linkat(unix.AT_FDCWD, p.path(), fd, name, unix.AT_SYMLINK_FOLLOW)
	}
	return unix.Linkat(p.fd, p.name, fd, name, 0)
}
