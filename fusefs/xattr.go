package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// GetXAttr copies the value of an extended attribute. Access control lists lie in the
// index as the kernel hands them to programs.
func (fs *filesystem) GetXAttr(_ <-chan struct{}, header *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	if fs.noXattrs {
		return 0, fuse.ENOSYS // and the kernel asks no more, which it would at each exec
	}
	in, err := fs.inode(header.NodeId)
	if err != nil {
		return 0, fs.failed(header.NodeId, err)
	}
	size, status := 0, fuse.ENOATTR
	err = fs.image.EachXattr(&in, func(prefix string, suffix, value []byte) {
		n := len(prefix)
		if len(attr) != n+len(suffix) || attr[:n] != prefix || attr[n:] != string(suffix) {
			return
		}
		size, status = len(value), fuse.OK
		if len(value) > len(dest) {
			status = fuse.ERANGE
			return
		}
		copy(dest, value)
	})
	if err != nil {
		return 0, fs.failed(header.NodeId, err)
	}
	return uint32(size), status
}

// ListXAttr lists the names of extended attributes, each with a NUL.
func (fs *filesystem) ListXAttr(_ <-chan struct{}, header *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	in, err := fs.inode(header.NodeId)
	if err != nil {
		return 0, fs.failed(header.NodeId, err)
	}
	size := 0
	err = fs.image.EachXattr(&in, func(prefix string, suffix, _ []byte) {
		end := size + len(prefix) + len(suffix) + 1
		if end <= len(dest) {
			n := size + copy(dest[size:], prefix)
			n += copy(dest[n:], suffix)
			dest[n] = 0
		}
		size = end
	})
	switch {
	case err != nil:
		return 0, fs.failed(header.NodeId, err)
	case size > 1<<16: // more than the kernel lets through
		return 0, fuse.Status(unix.E2BIG)
	case size > len(dest):
		return uint32(size), fuse.ERANGE
	}
	return uint32(size), fuse.OK
}
