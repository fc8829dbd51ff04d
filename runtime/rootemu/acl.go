package rootemu

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// An access control list as an attribute is a version and entries (linux/posix_acl_xattr.h).
const (
	aclHeader  = 4
	aclVersion = 2
	aclEntry   = 8 // tag and permissions of 16 bits, id of 32

	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20
)

func checkACL(acl []byte) error {
	if len(acl) < aclHeader || (len(acl)-aclHeader)%aclEntry != 0 || binary.LittleEndian.Uint32(acl) != aclVersion {
		return unix.EINVAL
	}
	return nil
}

func aclTag(entry []byte) uint16 { return binary.LittleEndian.Uint16(entry) }

// ownACL is an access control list without the entries of users and groups that are not root.
func ownACL(acl []byte) ([]byte, error) {
	if err := checkACL(acl); err != nil {
		return nil, err
	}
	own := slices.Clone(acl[:aclHeader])
	for e := range slices.Chunk(acl[aclHeader:], aclEntry) {
		tag, id := aclTag(e), binary.LittleEndian.Uint32(e[4:])
		if (tag == aclUser || tag == aclGroup) && id != 0 {
			continue
		}
		own = append(own, e...)
	}
	return own, nil
}

// aclWithMode is an access control list after a chmod(2): of the group's bits it is the mask
// that changes, if there is one (acl(5)).
func aclWithMode(acl []byte, mode uint32) []byte {
	if checkACL(acl) != nil {
		return acl
	}
	acl = slices.Clone(acl)
	masked := false
	for e := range slices.Chunk(acl[aclHeader:], aclEntry) {
		masked = masked || aclTag(e) == aclMask
	}
	for e := range slices.Chunk(acl[aclHeader:], aclEntry) {
		perm := binary.LittleEndian.Uint16(e[2:])
		switch tag := aclTag(e); {
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
