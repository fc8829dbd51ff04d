package overlay

import (
	"encoding/binary"
	"slices"
)

// An access control list as an attribute is a version and entries (linux/posix_acl_xattr.h).
const (
	aclHeader = 4
	aclEntry  = 8 // tag and permissions of 16 bits, id of 32

	aclUserObj  = 0x01
	aclGroupObj = 0x04
	aclMask     = 0x10
	aclOther    = 0x20
)

// aclWithMode is an access control list after a chmod(2): of the group's bits it is the mask
// that changes, if there is one (acl(5)).
func aclWithMode(acl []byte, mode uint32) []byte {
	if len(acl) < aclHeader || (len(acl)-aclHeader)%aclEntry != 0 {
		return acl
	}
	acl = slices.Clone(acl)
	masked := false
	for e := range slices.Chunk(acl[aclHeader:], aclEntry) {
		masked = masked || binary.LittleEndian.Uint16(e) == aclMask
	}
	for e := range slices.Chunk(acl[aclHeader:], aclEntry) {
		perm := binary.LittleEndian.Uint16(e[2:])
		switch tag := binary.LittleEndian.Uint16(e); {
		case tag == aclUserObj:
			perm = uint16(mode >> 6 & 7)
		case tag == aclMask, tag == aclGroupObj && !masked:
			perm = uint16(mode >> 3 & 7)
		case tag == aclOther:
			perm = uint16(mode & 7)
		}
		binary.LittleEndian.PutUint16(e[2:], perm)
	}
	return acl
}
