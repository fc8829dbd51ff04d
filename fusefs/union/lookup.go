package union

import (
	"errors"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/ihucos/plash/cas/erofs"
	"golang.org/x/sys/unix"
)

// forever is how long the kernel may keep names and attributes: only requests that
// come from it change them.
const forever = 24 * time.Hour

// An entry is what a name in a directory stands for.
type entry struct {
	upper    bool // it is in the upper directory, as st says
	st       unix.Stat_t
	whiteout bool // and is a whiteout there
	below    bool // the layers have the name, and they show through
	lower    erofs.Inode
}

// visible tells whether there is anything to see.
func (e *entry) visible() bool { return e.upper && !e.whiteout || !e.upper && e.below }

// find looks a name up in both places.
func (u *FS) find(dir *ref, name string) (e entry, err error) {
	if len(name) > erofs.MaxName && dir.n == nil {
		return e, unix.ENAMETOOLONG
	}
	if e.lower, e.below, err = u.below(dir, name); err != nil || dir.n == nil {
		return e, err
	}
	d, err := u.dirfd(dir.n)
	if err != nil {
		return e, err
	}
	defer u.dirs.put(d)
	p := place{fd: d.fd, name: name}
	switch err := p.stat(&e.st); {
	case errors.Is(err, unix.ENOENT):
	case err != nil:
		return e, err
	default:
		e.upper = true
		e.whiteout = u.marks.isWhiteout(dir.n, &e.st, p)
	}
	return e, nil
}

// take makes a ref of an entry that is visible. A node has the name noted.
func (u *FS) take(dir *ref, name string, e *entry) (ref, error) {
	if !e.upper {
		// It may have been copied up under a name that nobody has looked up.
		if n := u.node(u.lowerID(e.lower.NID)); n != nil && !e.lower.IsDir() {
			return ref{n: n}, nil
		}
		return ref{in: e.lower}, nil
	}
	u.tab.Lock()
	n := u.byIno[e.st.Ino]
	if n != nil {
		n.addName(dir.n, name)
		if u.unhide(n) {
			e.st.Nlink--
		}
	}
	u.tab.Unlock()
	if n != nil {
		return ref{n: n}, nil
	}
	d, err := u.dirfd(dir.n)
	if err != nil {
		return ref{}, err
	}
	defer u.dirs.put(d)
	p := place{fd: d.fd, name: name}
	fresh := &node{}
	switch {
	case e.st.Mode&unix.S_IFMT == unix.S_IFDIR:
		if e.below && e.lower.IsDir() {
			fresh.merged, fresh.origin, fresh.lower = true, true, e.lower.NID
		}
		if err := u.marks.of(fresh, p); err != nil {
			return ref{}, err
		}
	case u.origins.Load():
		fresh.lower, fresh.origin = u.readOrigin(p)
	}
	n = u.adopt(dir.n, name, &e.st, func(n *node) {
		n.merged, n.origin, n.lower = fresh.merged, fresh.origin, fresh.lower
		n.xwhite.Store(fresh.xwhite.Load())
	})
	return ref{n: n}, nil
}

// Lookup finds a name.
func (u *FS) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	u.mu.RLock()
	defer u.mu.RUnlock()
	dir, err := u.ref(h.NodeId)
	if err != nil {
		return status(err)
	}
	return status(u.lookup(&dir, name, out))
}

func (u *FS) lookup(dir *ref, name string, out *fuse.EntryOut) error {
	e, err := u.find(dir, name)
	if err != nil {
		return err
	}
	if !e.visible() {
		out.SetEntryTimeout(forever) // with node 0: there is none
		return nil
	}
	r, err := u.take(dir, name, &e)
	if err != nil {
		return err
	}
	return u.reply(&r, &e.st, out)
}

// reply tells the kernel of a file, which from then on knows it. st is what is known
// of a node.
func (u *FS) reply(r *ref, st *unix.Stat_t, out *fuse.EntryOut) error {
	if r.n == nil {
		u.lowerAttr(&out.Attr, &r.in)
	} else {
		if st.Ino != r.n.ino {
			if err := u.stat(r.n, st); err != nil {
				return err
			}
		}
		u.tab.Lock()
		r.n.lookups++
		if r.n.pinned {
			r.n.told = time.Now()
		}
		u.tab.Unlock()
		u.attr(r.n, &out.Attr, st)
	}
	out.NodeId = r.id(u)
	out.SetEntryTimeout(forever)
	out.SetAttrTimeout(forever)
	return nil
}

func (u *FS) attr(n *node, a *fuse.Attr, st *unix.Stat_t) {
	*a = fuse.Attr{
		Ino: n.shown(), Size: uint64(st.Size), Blocks: uint64(st.Blocks),
		Atime: uint64(st.Atim.Sec), Atimensec: uint32(st.Atim.Nsec),
		Mtime: uint64(st.Mtim.Sec), Mtimensec: uint32(st.Mtim.Nsec),
		Ctime: uint64(st.Ctim.Sec), Ctimensec: uint32(st.Ctim.Nsec),
		Mode: st.Mode, Nlink: uint32(st.Nlink), Owner: fuse.Owner{Uid: st.Uid, Gid: st.Gid},
		Rdev: uint32(st.Rdev), Blksize: uint32(st.Blksize),
	}
	u.tab.Lock()
	gone, hidden := n.gone, n.hidden
	u.tab.Unlock()
	switch {
	case gone:
		a.Nlink = 0
	case hidden:
		a.Nlink--
	case n.merged:
		a.Nlink = u.mergedLinks(n, a.Nlink)
	}
}

// stat asks the upper directory's filesystem.
func (u *FS) stat(n *node, st *unix.Stat_t) error {
	p, err := u.place(n)
	if err == nil {
		defer p.done(u)
		return p.stat(st)
	}
	u.tab.Lock()
	last := n.last
	u.tab.Unlock()
	if last == nil {
		return err
	}
	*st = *last
	return nil
}

// GetAttr tells the attributes of a file.
func (u *FS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	u.mu.RLock()
	defer u.mu.RUnlock()
	return status(u.getattr(in.NodeId, out))
}

func (u *FS) getattr(id uint64, out *fuse.AttrOut) error {
	r, err := u.ref(id)
	if err != nil {
		return err
	}
	if r.n == nil {
		u.lowerAttr(&out.Attr, &r.in)
	} else {
		var st unix.Stat_t
		if err := u.stat(r.n, &st); err != nil {
			return err
		}
		u.attr(r.n, &out.Attr, &st)
	}
	out.SetTimeout(forever)
	return nil
}

// Readlink tells where a symbolic link points.
func (u *FS) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	u.mu.RLock()
	defer u.mu.RUnlock()
	r, err := u.ref(h.NodeId)
	if err != nil {
		return nil, status(err)
	}
	if r.n == nil {
		target, err := u.view.Readlink(&r.in)
		return []byte(target), status(err)
	}
	p, err := u.place(r.n)
	if err != nil {
		return nil, status(err)
	}
	defer p.done(u)
	target, err := p.readlink()
	return target, status(err)
}

// StatFs tells of the filesystem that the upper directory is on.
func (u *FS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(u.root.keep, &st) }); err != nil {
		return status(err)
	}
	*out = fuse.StatfsOut{
		Blocks: st.Blocks, Bfree: st.Bfree, Bavail: st.Bavail, Files: st.Files, Ffree: st.Ffree,
		Bsize: uint32(st.Bsize), NameLen: uint32(st.Namelen), Frsize: uint32(st.Frsize),
	}
	return fuse.OK
}

// Access is the kernel's: it checks permissions by what it knows.
func (u *FS) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.ENOSYS }
