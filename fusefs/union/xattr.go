package union

import (
	"bytes"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// GetXAttr reads an extended attribute.
func (u *FS) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if mine(name) {
		return 0, fuse.ENODATA
	}
	u.mu.RLock()
	defer u.mu.RUnlock()
	r, err := u.ref(h.NodeId)
	if err != nil {
		return 0, status(err)
	}
	if r.n == nil {
		xattrs, err := u.view.Xattrs(&r.in)
		for _, x := range xattrs {
			if x.Name == name {
				return fill(dest, x.Value)
			}
		}
		if err != nil {
			return 0, status(err)
		}
		return 0, fuse.ENODATA
	}
	if name == capabilityAttr && h.Uid != 0 && r.n.watched.Load() {
		u.beforeWrite(r.n)
	}
	if r.n.bare.Load() {
		return 0, fuse.ENODATA
	}
	p, err := u.place(r.n)
	if err != nil {
		return 0, status(err)
	}
	defer p.done(u)
	n, err := p.getxattr(name, dest)
	return uint32(max(n, 0)), status(err)
}

// fill answers with a value, or where there is no room for it with its size.
func fill(dest, value []byte) (uint32, fuse.Status) {
	if len(value) > len(dest) {
		return uint32(len(value)), fuse.ERANGE
	}
	return uint32(copy(dest, value)), fuse.OK
}

// ListXAttr lists the extended attributes.
func (u *FS) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	u.mu.RLock()
	defer u.mu.RUnlock()
	r, err := u.ref(h.NodeId)
	if err != nil {
		return 0, status(err)
	}
	var names []byte
	add := func(name string) {
		// Filesystems show trusted.* to root alone.
		if name != "" && !mine(name) && (h.Uid == 0 || !strings.HasPrefix(name, "trusted.")) {
			names = append(append(names, name...), 0)
		}
	}
	if r.n == nil {
		xattrs, err := u.view.Xattrs(&r.in)
		if err != nil {
			return 0, status(err)
		}
		for _, x := range xattrs {
			add(x.Name)
		}
		return fill(dest, names)
	}
	if r.n.bare.Load() {
		return 0, fuse.OK
	}
	p, err := u.place(r.n)
	if err != nil {
		return 0, status(err)
	}
	defer p.done(u)
	buf := make([]byte, xattrSizeMax) // XATTR_LIST_MAX is the same
	n, err := p.listxattr(buf)
	if err != nil {
		return 0, status(err)
	}
	for name := range bytes.SplitSeq(buf[:n], []byte{0}) {
		add(string(name))
	}
	return fill(dest, names)
}

// SetXAttr sets an extended attribute.
func (u *FS) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, value []byte) fuse.Status {
	return status(u.changeXattr(in.NodeId, name, func(n *node, p place) error {
		if err := p.setxattr(name, value, int(in.Flags)); err != nil {
			return err
		}
		if name == aclAccess && in.SetXAttrFlags&fuse.SETXATTR_ACL_KILL_SGID != 0 {
			var st unix.Stat_t
			if err := p.stat(&st); err != nil {
				return err
			}
			return p.chmod(st.Mode &^ unix.S_ISGID)
		}
		return nil
	}))
}

// RemoveXAttr removes an extended attribute.
func (u *FS) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return status(u.changeXattr(h.NodeId, name, func(_ *node, p place) error { return p.removexattr(name) }))
}

func (u *FS) changeXattr(id uint64, name string, change func(*node, place) error) error {
	if mine(name) {
		return unix.EOPNOTSUPP
	}
	n, err := u.copyUp(id)
	if err != nil {
		return err
	}
	u.mu.RLock()
	defer u.mu.RUnlock()
	p, err := u.place(n)
	if err != nil {
		return err
	}
	defer p.done(u)
	n.bare.Store(false)
	err = change(n, p)
	if name == aclDefault {
		n.defACL.Store(aclUnknown)
	}
	return err
}
