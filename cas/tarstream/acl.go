package tarstream

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

const (
	xattrACLAccess  = "system.posix_acl_access"
	xattrACLDefault = "system.posix_acl_default"
)

// Tags of entries, of linux/posix_acl.h. Their order is the one the kernel
// demands entries to be in.
const (
	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20

	aclRequired = aclUserObj | aclGroupObj | aclOther

	aclVersion = 2              // of linux/posix_acl_xattr.h
	aclNoID    = math.MaxUint32 // of entries that name nobody
)

type aclEntry struct {
	tag, perm uint16
	id        uint32
}

// aclFromText turns an ACL from the text form of tar archives into the value of
// the kernel's extended attribute. Entries are separated by commas or newlines;
// star and libarchive add the numeric id as a fourth field.
//
// A user or group that is given by name only is left out, as names mean nothing
// here: that takes permission away and never gives any, for the mask stays. A
// mask that is missing is made as setfacl does. The result is nil if the ACL
// says nothing that the mode does not.
func aclFromText(text string, isDefault bool) ([]byte, error) {
	var acl []aclEntry
	empty := true
	for line := range strings.SplitSeq(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		for s := range strings.SplitSeq(line, ",") {
			s = strings.TrimSpace(s)
			if rest, ok := cutDefault(s); ok {
				if !isDefault {
					continue
				}
				s = rest
			}
			if s == "" {
				continue
			}
			empty = false
			e, known, err := parseACLEntry(s)
			if err != nil {
				return nil, err
			}
			if known {
				acl = append(acl, e)
			}
		}
	}
	if empty {
		return nil, nil
	}
	return encodeACL(acl, isDefault)
}

func cutDefault(s string) (string, bool) {
	if rest, ok := strings.CutPrefix(s, "default:"); ok {
		return rest, true
	}
	return strings.CutPrefix(s, "d:")
}

// parseACLEntry reads "tag:qualifier:permissions[:id]". Not known is an entry
// whose name has no number.
func parseACLEntry(s string) (e aclEntry, known bool, err error) {
	f := strings.Split(s, ":")
	for i := range f {
		f[i] = strings.TrimSpace(f[i])
	}
	if len(f) == 2 { // "mask:r-x", "other:r-x"
		f = []string{f[0], "", f[1]}
	}
	if len(f) < 3 || len(f) > 4 {
		return e, false, fmt.Errorf("entry %q", s)
	}
	e.id = aclNoID
	switch named := f[1] != ""; {
	case (f[0] == "user" || f[0] == "u") && named:
		e.tag = aclUser
	case f[0] == "user" || f[0] == "u":
		e.tag = aclUserObj
	case (f[0] == "group" || f[0] == "g") && named:
		e.tag = aclGroup
	case f[0] == "group" || f[0] == "g":
		e.tag = aclGroupObj
	case (f[0] == "mask" || f[0] == "m") && !named:
		e.tag = aclMask
	case (f[0] == "other" || f[0] == "o") && !named:
		e.tag = aclOther
	default:
		return e, false, fmt.Errorf("entry %q", s)
	}
	if e.perm, err = parseACLPerm(f[2]); err != nil {
		return e, false, fmt.Errorf("entry %q: %w", s, err)
	}
	if f[1] == "" {
		return e, true, nil
	}
	id, ok := parseDecimal([]byte(f[len(f)-1]))
	if len(f) == 3 {
		id, ok = parseDecimal([]byte(f[1]))
	} else if !ok {
		return e, false, fmt.Errorf("entry %q", s)
	}
	if ok && id >= aclNoID {
		return e, false, fmt.Errorf("entry %q: id out of range", s)
	}
	e.id = uint32(id)
	return e, ok, nil
}

func parseACLPerm(s string) (perm uint16, err error) {
	for _, c := range s {
		switch c {
		case 'r':
			perm |= 4
		case 'w':
			perm |= 2
		case 'x':
			perm |= 1
		case '-':
		default:
			return 0, fmt.Errorf("permissions %q", s)
		}
	}
	return perm, nil
}

func encodeACL(acl []aclEntry, isDefault bool) ([]byte, error) {
	var seen, class uint16
	for _, e := range acl {
		if e.tag != aclUser && e.tag != aclGroup && seen&e.tag != 0 {
			return nil, errors.New("an entry is there twice")
		}
		seen |= e.tag
		if e.tag == aclUser || e.tag == aclGroup || e.tag == aclGroupObj {
			class |= e.perm
		}
	}
	if seen&aclRequired != aclRequired {
		return nil, errors.New("the entry of the owner, the group or the others is missing")
	}
	if seen == aclRequired && !isDefault {
		return nil, nil
	}
	if seen&(aclUser|aclGroup) != 0 && seen&aclMask == 0 {
		acl = append(acl, aclEntry{tag: aclMask, perm: class, id: aclNoID})
	}
	slices.SortStableFunc(acl, func(a, b aclEntry) int {
		return cmp.Or(cmp.Compare(a.tag, b.tag), cmp.Compare(a.id, b.id))
	})
	value := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+8*len(acl)), aclVersion)
	for _, e := range acl {
		value = binary.LittleEndian.AppendUint16(value, e.tag)
		value = binary.LittleEndian.AppendUint16(value, e.perm)
		value = binary.LittleEndian.AppendUint32(value, e.id)
	}
	return value, nil
}

// modeOfACL returns the mode with the permissions that an ACL in binary form has,
// or as it is if the ACL is not a whole one.
func modeOfACL(acl []byte, mode uint32) uint32 {
	if len(acl) < 4 || len(acl)%8 != 4 || binary.LittleEndian.Uint32(acl) != aclVersion {
		return mode
	}
	var seen, user, group, mask, other uint16
	for e := acl[4:]; len(e) > 0; e = e[8:] {
		tag, perm := binary.LittleEndian.Uint16(e), binary.LittleEndian.Uint16(e[2:])&7
		seen |= tag
		switch tag {
		case aclUserObj:
			user = perm
		case aclGroupObj:
			group = perm
		case aclMask:
			mask = perm
		case aclOther:
			other = perm
		}
	}
	if seen&aclRequired != aclRequired {
		return mode
	}
	if seen&aclMask != 0 {
		group = mask
	}
	return mode&^0o777 | uint32(user<<6|group<<3|other)
}
