package union

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// SetAttr changes owner, mode, size and times.
func (u *FS) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	limit := int64(whole)
	if in.Valid&fuse.FATTR_SIZE != 0 {
		limit = int64(in.Size)
	}
	n, done, err := u.copyUpPart(in.NodeId, limit)
	defer done()
	if err != nil {
		return status(err)
	}
	u.mu.RLock()
	defer u.mu.RUnlock()
	p, err := u.place(n)
	if err != nil {
		return status(err)
	}
	defer p.done(u)
	if err := u.setattr(n, p, in); err != nil {
		return status(err)
	}
	var st unix.Stat_t
	if err := p.stat(&st); err != nil {
		return status(err)
	}
	u.attr(n, &out.Attr, &st)
	out.SetTimeout(forever)
	return fuse.OK
}

func (u *FS) setattr(n *node, p place, in *fuse.SetAttrIn) error {
	if in.Valid&(fuse.FATTR_UID|fuse.FATTR_GID) != 0 {
		uid, gid := -1, -1
		if in.Valid&fuse.FATTR_UID != 0 {
			uid = int(in.Owner.Uid)
		}
		if in.Valid&fuse.FATTR_GID != 0 {
			gid = int(in.Owner.Gid)
		}
		if err := p.chown(uid, gid); err != nil {
			return err
		}
	}
	if in.Valid&fuse.FATTR_MODE != 0 && n.typ != unix.S_IFLNK {
		if err := p.chmod(in.Mode); err != nil {
			return err
		}
		if n.typ == unix.S_IFREG && privilegeBits(in.Mode) != 0 {
			n.watch()
		}
	}
	if in.Valid&fuse.FATTR_SIZE != 0 {
		if err := u.truncate(n, in); err != nil {
			return err
		}
	}
	omit := unix.Timespec{Nsec: unix.UTIME_OMIT}
	atime, mtime := omit, omit
	switch {
	case in.Valid&fuse.FATTR_ATIME_NOW != 0:
		atime.Nsec = unix.UTIME_NOW
	case in.Valid&fuse.FATTR_ATIME != 0:
		atime = unix.Timespec{Sec: int64(in.Atime), Nsec: int64(in.Atimensec)}
	}
	switch {
	case in.Valid&fuse.FATTR_MTIME_NOW != 0:
		mtime.Nsec = unix.UTIME_NOW
	case in.Valid&fuse.FATTR_MTIME != 0:
		mtime = unix.Timespec{Sec: int64(in.Mtime), Nsec: int64(in.Mtimensec)}
	}
	if atime == omit && mtime == omit {
		return nil
	}
	n.io.Lock() // see writeTimeless
	defer n.io.Unlock()
	return p.utimes(atime, mtime)
}

func (u *FS) truncate(n *node, in *fuse.SetAttrIn) error {
	n.io.Lock()
	defer n.io.Unlock()
	f, err := u.fileOf(n, true)
	if err != nil {
		return err
	}
	defer u.putFile(n, f)
	err = retry(func() error { return unix.Ftruncate(f.fd, int64(in.Size)) })
	if err == nil && in.Valid&fuse.FATTR_KILL_SUIDGID != 0 {
		err = u.killPrivileges(n.id, place{fd: f.fd})
	}
	return err
}
