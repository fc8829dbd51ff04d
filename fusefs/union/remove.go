package union

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Unlink removes a name that is no directory's.
func (u *FS) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if err := u.parted(h.NodeId, name); err != nil {
		return status(err)
	}
	dir, err := u.raise(h.NodeId)
	if err != nil {
		return status(err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	e, r, err := u.victim(dir, name)
	if err != nil {
		return status(err)
	}
	if e.isDir() {
		return fuse.EISDIR
	}
	return status(u.unlink(dir, name, e, r.n))
}

// parted copies a file of the layers up if it has several names: the links of what is
// left must be counted right, and stay together.
func (u *FS) parted(dir uint64, name string) error {
	r, ok, err := u.onlyBelow(dir, name)
	if err == nil && ok && !r.in.IsDir() && r.in.Nlink > 1 {
		_, err = u.copyUp(r.id(u))
	}
	return err
}

// onlyBelow tells whether a name is seen in the layers, and of what.
func (u *FS) onlyBelow(id uint64, name string) (r ref, ok bool, err error) {
	u.mu.RLock()
	defer u.mu.RUnlock()
	dir, err := u.ref(id)
	if err != nil {
		return r, false, err
	}
	if _, below, err := u.below(&dir, name); !below || err != nil {
		return r, false, err
	}
	e, err := u.find(&dir, name)
	return ref{in: e.lower}, err == nil && !e.upper && e.below, err
}

// victim finds what is to go away, and makes sure of getting at it afterwards: it may
// be open, or someone's working directory.
func (u *FS) victim(dir *node, name string) (e entry, r ref, err error) {
	at := ref{n: dir}
	if e, err = u.find(&at, name); err != nil {
		return e, r, err
	}
	if !e.visible() {
		return e, r, unix.ENOENT
	}
	if r, err = u.take(&at, name, &e); err == nil && e.upper {
		u.keep(r.n, dir, name)
	}
	return e, r, err
}

func (e *entry) isDir() bool {
	if e.upper {
		return isDir(e.st.Mode)
	}
	return e.below && e.lower.IsDir()
}

func (u *FS) unlink(dir *node, name string, e entry, n *node) error {
	d, err := u.dirfd(dir)
	if err != nil {
		return err
	}
	defer u.dirs.put(d)
	switch {
	case !e.upper:
		err = u.hide(dir, d.fd, name)
	case e.below:
		err = u.replaceByWhiteout(dir, d.fd, name, false)
	default:
		err = unix.Unlinkat(d.fd, name, 0)
	}
	if err != nil {
		if n != nil {
			u.unkeep(n)
		}
		return err
	}
	dir.version.Add(1)
	u.lost(dir, name, &e, n)
	return nil
}

// lost notes that a name is gone.
func (u *FS) lost(dir *node, name string, e *entry, n *node) {
	if !e.upper && e.lower.IsDir() {
		dir.showsLess()
	}
	if n == nil || !e.upper {
		if n == nil {
			u.tab.Lock()
			u.lowerGone[u.lowerID(e.lower.NID)] = struct{}{}
			u.tab.Unlock()
		}
		return
	}
	u.loseName(n, dir, name)
	if n.isDir() || e.st.Nlink <= 1 {
		u.vanish(n, &e.st)
	}
}

// hide puts a whiteout where the upper directory has nothing.
func (u *FS) hide(dir *node, fd int, name string) error {
	if err := u.expectWhiteouts(dir); err != nil {
		return err
	}
	return u.whiteout(fd, name)
}

// replaceByWhiteout takes an entry of the upper directory away and puts a whiteout in its
// place, in one step.
func (u *FS) replaceByWhiteout(dir *node, fd int, name string, isDir bool) error {
	if err := u.expectWhiteouts(dir); err != nil {
		return err
	}
	tmp := u.tmpName()
	if err := u.whiteout(u.work, tmp); err != nil {
		return err
	}
	if isDir {
		if err := unix.Renameat2(u.work, tmp, fd, name, unix.RENAME_EXCHANGE); err != nil {
			return errors.Join(err, unix.Unlinkat(u.work, tmp, 0))
		}
		u.discard(tmp)
		return nil
	}
	if err := unix.Renameat(u.work, tmp, fd, name); err != nil {
		return errors.Join(err, unix.Unlinkat(u.work, tmp, 0))
	}
	return nil
}

// Rmdir removes an empty directory.
func (u *FS) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	dir, err := u.raise(h.NodeId)
	if err != nil {
		return status(err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	e, r, err := u.victim(dir, name)
	if err != nil {
		return status(err)
	}
	if err = unix.ENOTDIR; e.isDir() {
		if err = u.wantEmpty(&r); err == nil {
			err = u.rmdir(dir, name, &e)
		}
	}
	if err != nil {
		if r.n != nil {
			u.unkeep(r.n)
		}
		return status(err)
	}
	dir.version.Add(1)
	u.lost(dir, name, &e, r.n)
	return fuse.OK
}

func (u *FS) wantEmpty(dir *ref) error {
	ents, err := u.list(dir)
	if err == nil && len(ents) > 0 {
		err = unix.ENOTEMPTY
	}
	return err
}

func (u *FS) rmdir(dir *node, name string, e *entry) error {
	d, err := u.dirfd(dir)
	if err != nil {
		return err
	}
	defer u.dirs.put(d)
	switch {
	case !e.upper:
		return u.hide(dir, d.fd, name)
	case e.below:
		return u.replaceByWhiteout(dir, d.fd, name, true)
	}
	err = unix.Unlinkat(d.fd, name, unix.AT_REMOVEDIR)
	if !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	return u.takeAway(d.fd, name) // there are whiteouts in it
}

// takeAway removes a directory that has whiteouts in it.
func (u *FS) takeAway(fd int, name string) error {
	tmp := u.tmpName()
	if err := unix.Renameat2(fd, name, u.work, tmp, unix.RENAME_NOREPLACE); err != nil {
		return err
	}
	u.discard(tmp)
	return nil
}

// discard removes what is of no use any more from the work directory. What is left behind,
// the next union clears away.
func (u *FS) discard(tmp string) {
	if errors.Is(u.clear(u.work, tmp), unix.EMFILE) {
		u.dirs.shrink()
		_ = u.clear(u.work, tmp)
	}
}
