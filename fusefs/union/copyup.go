package union

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/ihucos/plash/cas/erofs"
	"golang.org/x/sys/unix"
)

// raise gives the node of a directory, which is made in the upper directory if it
// is only in the layers.
func (u *FS) raise(id uint64) (*node, error) {
	if n := u.node(id); n != nil {
		return n, nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if id >= upperBit {
		return nil, unix.ESTALE
	}
	n, err := u.raiseDir(erofs.NID(id))
	if n == nil && err == nil {
		err = unix.ENOENT
	}
	return n, err
}

// raiseDir is raise for a caller that holds mu for writing. It gives nil if the
// directory is no longer there.
func (u *FS) raiseDir(dir erofs.NID) (*node, error) {
	if n := u.node(u.lowerID(dir)); n != nil {
		if n.gone {
			return nil, nil
		}
		return n, nil
	}
	trail, err := u.names.trail(dir)
	if err != nil {
		return nil, err
	}
	at := ref{n: u.root}
	for _, step := range trail {
		e, err := u.find(&at, step.name)
		if err != nil || !e.visible() || !e.below {
			return nil, err
		}
		var next ref
		if e.upper {
			next, err = u.take(&at, step.name, &e)
		} else {
			next.n, err = u.raiseOne(at.n, step.name, &e.lower)
		}
		if err != nil {
			return nil, err
		}
		if !next.n.merged || next.n.lower != step.dir {
			return nil, nil
		}
		at = next
	}
	return at.n, nil
}

// raiseOne makes a directory of the layers in the upper directory.
func (u *FS) raiseOne(dir *node, name string, in *erofs.Inode) (*node, error) {
	tmp := u.tmpName()
	if err := unix.Mkdirat(u.work, tmp, 0o700); err != nil {
		return nil, err
	}
	p := place{fd: u.work, name: tmp}
	err := u.copyAttrs(p, in, false)
	if err == nil {
		err = u.settle(dir, func(fd int) error {
			return unix.Renameat2(u.work, tmp, fd, name, unix.RENAME_NOREPLACE)
		})
	}
	if err != nil {
		return nil, errors.Join(err, unix.Unlinkat(u.work, tmp, unix.AT_REMOVEDIR))
	}
	var st unix.Stat_t
	d, err := u.dirfd(dir)
	if err != nil {
		return nil, err
	}
	defer u.dirs.put(d)
	if err := unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, err
	}
	dir.showsLess()
	return u.adopt(dir, name, &st, func(n *node) {
		n.lower, n.origin, n.merged, n.pinned = in.NID, true, true, true
		n.subdirs.Store(int64(in.Nlink) - 1)
	}), nil
}

// settle moves something into a directory, and leaves the directory the times it
// had: to whoever looks nothing has changed in it.
func (u *FS) settle(dir *node, move func(fd int) error) error {
	d, err := u.dirfd(dir)
	if err != nil {
		return err
	}
	defer u.dirs.put(d)
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return err
	}
	if err := move(d.fd); err != nil {
		return err
	}
	dir.version.Add(1)
	return place{fd: d.fd}.utimes(st.Atim, st.Mtim)
}

// copyAttrs gives a new file what the layers say of it. The mode comes after what an
// owner needs write permission for; that of a symbolic link cannot be set.
func (u *FS) copyAttrs(p place, in *erofs.Inode, origin bool) error {
	if in.UID != u.uid || in.GID != u.gid {
		if err := p.chown(int(in.UID), int(in.GID)); err != nil {
			return err
		}
	}
	if err := u.copyXattrs(p, in); err != nil {
		return err
	}
	if origin {
		// Not for symbolic links and the like where it would be a user.* one.
		err := p.setxattr(u.marks.prefix+originAttr, []byte(u.originValue(in.NID)), 0)
		if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOSPC) {
			return err
		}
	}
	if !in.IsSymlink() {
		if err := p.chmod(in.Mode); err != nil {
			return err
		}
	}
	mtime := unix.Timespec{Sec: in.MtimeSec, Nsec: int64(in.MtimeNsec)}
	return p.utimes(mtime, mtime)
}

func (u *FS) copyXattrs(p place, in *erofs.Inode) error {
	xattrs, err := u.view.Xattrs(in)
	if err != nil {
		return err
	}
	for _, x := range xattrs {
		if mine(x.Name) {
			continue
		}
		err := p.setxattr(x.Name, x.Value, 0)
		// What only root may set, only root may see; nobody else misses it.
		if errors.Is(err, unix.EPERM) && (strings.HasPrefix(x.Name, "trusted.") || strings.HasPrefix(x.Name, "security.")) {
			continue
		}
		if err != nil {
			return fmt.Errorf("copy attribute %s: %w", x.Name, err)
		}
	}
	return nil
}

// whole is for copyUp: all of a file's data.
const whole = -1

// copyUp gives the node of a file, which is copied to the upper directory, with
// all its names, if it is only in the layers. The caller holds no lock.
func (u *FS) copyUp(id uint64) (*node, error) {
	n, done, err := u.copyUpPart(id, whole)
	done()
	return n, err
}

// copyUpPart is copyUp where no more than limit bytes of the data are wanted. So that
// the caller cannot fail to open it when the rest is gone, a copy is open until done is called.
func (u *FS) copyUpPart(id uint64, limit int64) (n *node, done func(), err error) {
	n, f, err := u.copyUpOnce(id, limit)
	return n, func() {
		if f != nil {
			n.io.Lock()
			defer n.io.Unlock()
			u.putFile(n, f)
		}
	}, err
}

// copyUpOnce gives the file open if it was this call that copied it.
func (u *FS) copyUpOnce(id uint64, limit int64) (*node, *openFile, error) {
	for {
		u.tab.Lock()
		n, wait := u.byID[id], u.copying[id]
		stale := n == nil && (id >= upperBit || u.left.has(id))
		if n == nil && wait == nil && !stale {
			u.copying[id] = make(chan struct{})
		}
		u.tab.Unlock()
		switch {
		case n != nil:
			return n, nil, nil
		case stale:
			return nil, nil, unix.ESTALE
		case wait == nil:
			defer func() {
				u.tab.Lock()
				close(u.copying[id])
				delete(u.copying, id)
				u.tab.Unlock()
			}()
			return u.copyUpNow(erofs.NID(id), limit)
		}
		<-wait
	}
}

func (u *FS) copyUpNow(nid erofs.NID, limit int64) (n *node, f *openFile, err error) {
	in, err := u.view.Inode(nid)
	if err != nil {
		return nil, nil, err
	}
	if in.IsDir() {
		n, err = u.raise(u.lowerID(nid))
		return n, nil, err
	}
	names, err := u.names.of(&in)
	if err != nil {
		return nil, nil, err
	}
	tmp := u.tmpName()
	if len(names) > 1 {
		tmp = linkPrefix + strconv.FormatUint(uint64(nid), 10)
		limit = whole // if not all names can be placed, those that are have all of it
	}
	fd, err := u.copyFile(tmp, &in, limit)
	if err == nil {
		if fd >= 0 {
			f = &openFile{fd: fd, writable: true, refs: 1}
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		n, err = u.install(tmp, &in, names, f)
	}
	if err == nil {
		return n, f, nil
	}
	// Names that were placed already are right, and the rest still are the same file
	// in the layers.
	err = errors.Join(err, ignore(unix.Unlinkat(u.work, tmp, 0), unix.ENOENT))
	if f != nil && n == nil {
		err = errors.Join(err, unix.Close(fd))
		f = nil
	}
	return n, f, err
}

func ignore(err, what error) error {
	if errors.Is(err, what) {
		return nil
	}
	return err
}

// linkPrefix begins the name, in the work directory, of a copy that gets more than
// one name: if it is found there later, some may be missing.
const linkPrefix = "#links-"

// install gives a finished copy, which is open as f if it is a regular file, the names of
// the file that it is of. If none is left, someone has it open who alone sees what will
// happen to it.
func (u *FS) install(tmp string, in *erofs.Inode, names []lowerName, f *openFile) (*node, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(u.work, tmp, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, err
	}
	n := &node{
		typ: in.Mode & unix.S_IFMT, ino: st.Ino, lower: in.NID, origin: true, pinned: true, file: f,
	}
	placed, err := u.giveNames(tmp, names)
	keep := 0
	if len(placed) == 0 {
		if err == nil {
			keep, err = unix.Openat(u.work, tmp, openPath, 0)
		}
		if err != nil {
			return nil, err
		}
	}
	if err == nil && !(len(placed) == 1 && len(names) == 1) {
		err = unix.Unlinkat(u.work, tmp, 0)
	}
	u.tab.Lock()
	n.gone = len(placed) == 0
	n.stays = err != nil || !u.marks.fits(n.typ)
	for _, a := range placed {
		n.addName(a.dir, a.name)
	}
	u.enter(n)
	if n.gone {
		u.setKeep(n, keep)
	}
	delete(u.lowerGone, n.id)
	u.tab.Unlock()
	return n, err
}

// giveNames links a finished copy to all names that the file still has.
func (u *FS) giveNames(tmp string, names []lowerName) (placed []alias, err error) {
	for _, l := range names {
		dir, err := u.raiseIfVisible(l)
		if err != nil {
			return placed, err
		}
		if dir == nil {
			continue
		}
		err = u.settle(dir, func(fd int) error {
			if len(names) == 1 {
				return unix.Renameat2(u.work, tmp, fd, l.name, unix.RENAME_NOREPLACE)
			}
			return unix.Linkat(u.work, tmp, fd, l.name, 0)
		})
		if err != nil {
			return placed, err
		}
		placed = append(placed, alias{dir, l.name})
	}
	return placed, nil
}

// giveName gives a file that was copied up a name that it has in the layers, and for which there was no
// room then. The caller holds mu for writing.
func (u *FS) giveName(n, dir *node, name string) error {
	p, err := u.place(n)
	if err != nil {
		return err
	}
	defer p.done(u)
	if err := u.settle(dir, func(fd int) error { return p.link(fd, name) }); err != nil {
		return err
	}
	u.tab.Lock()
	defer u.tab.Unlock()
	n.addName(dir, name)
	return nil
}

// raiseIfVisible gives the directory of a name of the layers, in the upper directory, if
// it is that name which is seen there.
func (u *FS) raiseIfVisible(l lowerName) (*node, error) {
	dir, err := u.raiseDir(l.dir)
	if dir == nil || err != nil {
		return nil, err
	}
	e, err := u.find(&ref{n: dir}, l.name)
	if err != nil || e.upper || !e.below {
		return nil, err
	}
	return dir, nil
}

// recover finishes or clears away what an earlier union has left in the work
// directory when it was killed.
func (u *FS) recover() error {
	dents, err := readDents(u.work)
	if err != nil {
		return fmt.Errorf("read work directory: %w", err)
	}
	for _, d := range dents {
		if !strings.HasPrefix(d.name, "#") {
			continue
		}
		if number, ok := strings.CutPrefix(d.name, linkPrefix); ok {
			err = u.finishLinks(d.name, number)
		}
		if err == nil {
			err = u.clear(u.work, d.name)
		}
		if err != nil {
			return fmt.Errorf("clear %s from the work directory: %w", d.name, err)
		}
	}
	return nil
}

// finishLinks gives a copy the names that it still lacks. One that has none yet may not
// be complete.
func (u *FS) finishLinks(tmp, number string) error {
	nid, err := strconv.ParseUint(number, 10, 48)
	if err != nil {
		return nil
	}
	p := place{fd: u.work, name: tmp}
	var st unix.Stat_t
	if err := p.stat(&st); err != nil || st.Nlink < 2 {
		return err
	}
	if of, ok := u.readOrigin(p); !ok || uint64(of) != nid {
		return nil
	}
	in, err := u.view.Inode(erofs.NID(nid))
	if err != nil {
		return err
	}
	names, err := u.names.of(&in)
	if err != nil || len(names) < 2 {
		return err
	}
	_, err = u.giveNames(tmp, names)
	return err
}

// clear removes a name and all that is below it.
func (u *FS) clear(fd int, name string) error {
	err := unix.Unlinkat(fd, name, 0)
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return err
	}
	sub, err := unix.Openat(fd, name, openDir, 0)
	if errors.Is(err, unix.EACCES) {
		_ = place{fd: fd, name: name}.chmod(0o700)
		sub, err = unix.Openat(fd, name, openDir, 0)
	}
	if err != nil {
		return err
	}
	dents, err := readDents(sub)
	for _, d := range dents {
		if err == nil {
			err = u.clear(sub, d.name)
		}
	}
	if err := errors.Join(err, unix.Close(sub)); err != nil {
		return err
	}
	return unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
}
