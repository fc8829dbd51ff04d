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

	aclUser  = 0x02
	aclGroup = 0x08
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
