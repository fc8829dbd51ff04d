package union

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// SetAttr changes owner, mode, size and times.
func (u *FS) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	limit := int64(whole)
	if in.Valid&fuse.FATTR_SIZE != 0 {
		limit = int64(in.Size)
	}
	n, err := u.copyUp(in.NodeId, limit)
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
		err = killPrivileges(f.fd)
	}
	return err
}

// hasPrivileges tells whether whoever writes to a file takes something away from it.
func hasPrivileges(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && privilegeBits(&st) != 0
}

// privilegeBits are the bits of a mode that go when an ordinary user writes to the file.
// The set-group-ID bit of a file that its group may not execute means something else.
func privilegeBits(st *unix.Stat_t) uint32 {
	bits := st.Mode & unix.S_ISUID
	if st.Mode&(unix.S_ISGID|unix.S_IXGRP) == unix.S_ISGID|unix.S_IXGRP {
		bits |= unix.S_ISGID
	}
	return bits
}

// killPrivileges does what the kernel does for its own filesystems, when it says that it
// is needed (FUSE_HANDLE_KILLPRIV_V2).
func killPrivileges(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if bits := privilegeBits(&st); bits != 0 {
		if err := unix.Fchmod(fd, st.Mode&0o7777&^bits); err != nil {
			return err
		}
	}
	err := unix.Fremovexattr(fd, "security.capability")
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}
