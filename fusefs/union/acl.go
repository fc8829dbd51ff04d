package union

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// An access control list as an attribute (linux/posix_acl_xattr.h): version 2 in four
// bytes, then entries of tag and permissions, two bytes each, and an id of four.
const (
	aclHeader    = 4
	aclEntry     = 8
	aclUserObj   = 0x01
	aclGroupObj  = 0x04
	aclMask      = 0x10
	aclOther     = 0x20
	xattrSizeMax = 64 << 10 // XATTR_SIZE_MAX, linux/limits.h
)

// What is known of a directory's default ACL.
const (
	aclUnknown = iota
	aclNone
	aclThere
)

// hasDefaultACL tells whether what is made in a directory inherits a list from it.
func (u *FS) hasDefaultACL(dir *node) (bool, error) {
	if known := dir.defACL.Load(); known != aclUnknown {
		return known == aclThere, nil
	}
	p, err := u.place(dir)
	if err != nil {
		return false, err
	}
	defer p.done(u)
	known := int32(aclNone)
	switch _, err := p.getxattr(aclDefault, nil); {
	case err == nil:
		known = aclThere
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.EOPNOTSUPP):
	default:
		return false, err
	}
	dir.defACL.CompareAndSwap(aclUnknown, known)
	return known == aclThere, nil
}

// inheritACL gives a new file mode and lists as the kernel does where a directory has
// a default list (posix_acl_create of fs/posix_acl.c): it becomes the file's access
// list, with the permissions that the mode does not ask for taken away, and the default
// list of a directory.
func inheritACL(dir, p place, mode uint32) error {
	buf := make([]byte, xattrSizeMax)
	n, err := dir.getxattr(aclDefault, buf)
	if errors.Is(err, unix.ENODATA) {
		return p.chmod(mode)
	}
	if err != nil {
		return err
	}
	acl := buf[:n]
	if isDir(mode) {
		if err := p.setxattr(aclDefault, acl, 0); err != nil {
			return err
		}
	}
	mode = restrictACL(acl, mode)
	if err := p.chmod(mode); err != nil {
		return err
	}
	if len(acl) <= aclHeader+3*aclEntry {
		return nil // says no more than the mode
	}
	return p.setxattr(aclAccess, acl, 0)
}

// restrictACL takes from a list what a mode does not have, and from the mode what the
// list does not have. Where there is a mask, it stands for the group's part of the mode.
func restrictACL(acl []byte, mode uint32) uint32 {
	hasMask := false
	for b := acl[min(aclHeader, len(acl)):]; len(b) >= aclEntry; b = b[aclEntry:] {
		hasMask = hasMask || binary.LittleEndian.Uint16(b) == aclMask
	}
	for b := acl[min(aclHeader, len(acl)):]; len(b) >= aclEntry; b = b[aclEntry:] {
		shift := -1
		switch tag := binary.LittleEndian.Uint16(b); {
		case tag == aclUserObj:
			shift = 6
		case tag == aclMask, tag == aclGroupObj && !hasMask:
			shift = 3
		case tag == aclOther:
			shift = 0
		}
		if shift < 0 {
			continue
		}
		perm := uint32(binary.LittleEndian.Uint16(b[2:])) & (mode >> shift) & 7
		binary.LittleEndian.PutUint16(b[2:], uint16(perm))
		mode = mode&^(7<<shift) | perm<<shift
	}
	return mode
}
