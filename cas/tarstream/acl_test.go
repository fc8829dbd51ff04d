package tarstream

import (
	"encoding/binary"
	"fmt"
	"testing"
)

// showACL writes an ACL in binary form down again.
func showACL(b []byte) string {
	if b == nil {
		return "none"
	}
	s := fmt.Sprint("v", binary.LittleEndian.Uint32(b))
	for b = b[4:]; len(b) > 0; b = b[8:] {
		s += fmt.Sprintf(" %x:%o:%d", binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), int32(binary.LittleEndian.Uint32(b[4:])))
	}
	return s
}

func TestACLFromText(t *testing.T) {
	for _, c := range []struct {
		in        string
		isDefault bool
		want      string
	}{
		{"user::rwx,user:1000:r--,group::r-x,mask::r-x,other::r--", false, "v2 1:7:-1 2:4:1000 4:5:-1 10:5:-1 20:4:-1"},
		{"user::rwx\nuser:1000:r--\ngroup::r-x\nmask::r-x\nother::r--\n", false, "v2 1:7:-1 2:4:1000 4:5:-1 10:5:-1 20:4:-1"},
		{"# file: x\nuser::rwx # the owner\ngroup::r-x\nmask::rwx\nother::r--", false, "v2 1:7:-1 4:5:-1 10:7:-1 20:4:-1"},
		{"u::rwx,g::r-x,o::r--,m::rw-,u:lisa:r--:502,g:staff:-w-:20,g:7:x", false, "v2 1:7:-1 2:4:502 4:5:-1 8:1:7 8:2:20 10:6:-1 20:4:-1"},
		{"user::rwx,group::r-x,other:r--,mask:r-x", false, "v2 1:7:-1 4:5:-1 10:5:-1 20:4:-1"},
		// A name without number is left out, the mask is not.
		{"user::rwx,user:lisa:rwx,group::r--,mask::rwx,other::---", false, "v2 1:7:-1 4:4:-1 10:7:-1 20:0:-1"},
		// A mask is made if there is none.
		{"user::rwx,user:1:-w-,group::r--,other::---", false, "v2 1:7:-1 2:2:1 4:4:-1 10:6:-1 20:0:-1"},
		// The kernel's order, ids ascending.
		{"other::r,user:9:r,user:5:r,mask::r,group:3:r,group:2:r,group::r,user::r", false, "v2 1:4:-1 2:4:5 2:4:9 4:4:-1 8:4:2 8:4:3 10:4:-1 20:4:-1"},
		{"user::rwx,group::r-x,other::r-x", false, "none"},
		{"user::rwx,group::r-x,other::r-x", true, "v2 1:7:-1 4:5:-1 20:5:-1"},
		{"default:user::rwx,default:group::r-x,d:other::r-x", true, "v2 1:7:-1 4:5:-1 20:5:-1"},
		{"default:user::rwx,default:group::r-x,default:other::r-x", false, "none"},
		{"", true, "none"},
		{",\n, #", false, "none"},
		{"user::rwx", false, "error"},
		{"user::rwx,user::rwx,group::r-x,other::r-x", false, "error"},
		{"user:lisa:rwx", false, "error"},
		{"user::rwx,group::r-x,other:7:r-x", false, "error"},
		{"user::rwx,group::r-x,other::rwz", false, "error"},
		{"user::rwx,group::r-x,other::r-x,user:1:r:x", false, "error"},
		{"user::rwx,group::r-x,other::r-x,user:4294967295:r", false, "error"},
		{"owner@:rwx:allow", false, "error"},
		{"user", false, "error"},
		{"a:b:c:d:e", false, "error"},
	} {
		got, err := aclFromText(c.in, c.isDefault)
		s := showACL(got)
		if err != nil {
			s = "error"
		}
		if s != c.want {
			t.Errorf("%q: %s, want %s (%v)", c.in, s, c.want, err)
		}
	}
}

func TestModeOfACL(t *testing.T) {
	text := func(s string) []byte {
		b, err := aclFromText(s, true)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, c := range []struct {
		acl  []byte
		want uint32
	}{
		{text("user::rw,group::r,mask::rw,other::x"), 0o4661},
		{text("user::rw,group::r,other::x"), 0o4641},
		{text("user::rw,group::r,other::x")[:12], 0o4777},
		{text("user::rw,group::r,other::x")[:13], 0o4777},
		{[]byte("\x01\x00\x00\x00"), 0o4777},
		{nil, 0o4777},
	} {
		if got := modeOfACL(c.acl, 0o4777); got != c.want {
			t.Errorf("%s: %o, want %o", showACL(c.acl), got, c.want)
		}
	}
}
