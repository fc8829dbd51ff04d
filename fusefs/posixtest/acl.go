package posixtest

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

const (
	accessACL  = "system.posix_acl_access"
	defaultACL = "system.posix_acl_default"

	nobody = 1<<32 - 1 // the id of entries that have none
)

// Tags of entries (linux/posix_acl.h).
const (
	userObj, user, groupObj, group, mask, other = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
)

type aclEntry struct {
	tag, perm uint16
	id        uint32
}

// acl is a list as the kernel takes it (linux/posix_acl_xattr.h).
func acl(entries ...aclEntry) string {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return string(b)
}

func aclCases() []testCase {
	// User 1000 may read, members of group 2000 may read and write.
	list := acl(aclEntry{userObj, 6, nobody}, aclEntry{user, 4, 1000}, aclEntry{groupObj, 0, nobody},
		aclEntry{group, 6, 2000}, aclEntry{mask, 6, nobody}, aclEntry{other, 0, nobody})
	inherit := acl(aclEntry{userObj, 7, nobody}, aclEntry{user, 7, 1000}, aclEntry{groupObj, 5, nobody},
		aclEntry{mask, 7, nobody}, aclEntry{other, 0, nobody})
	file := func(e *env) { e.write("file", "content"); e.setxattr("file", accessACL, list) }
	dir := func(e *env) { e.mkdir("dir"); e.setxattr("dir", defaultACL, inherit) }
	return []testCase{
		{name: "enforced", root: true, make: file, run: func(e *env) {
			for range 2 {
				e.mode("file", 0o660) // the group's bits are the mask
				equal(e, "list", e.getxattr("file", accessACL), list)
				e.as(1000, 1000, func(e *env) {
					e.content("file", "content")
					e.openFails("file", unix.O_WRONLY, unix.EACCES)
				})
				e.as(1001, 1001, func(e *env) { e.open("file", unix.O_RDWR) }, 2000)
				e.as(1001, 1001, func(e *env) { e.openFails("file", unix.O_RDONLY, unix.EACCES) })
				e.as(1001, 0, func(e *env) { e.openFails("file", unix.O_RDONLY, unix.EACCES) }) // the group of the file
				e.age("file")                                                                   // copied up
			}
		}},
		{name: "mask", root: true, make: file, run: func(e *env) {
			e.chmod("file", 0o640)
			e.as(1001, 1001, func(e *env) {
				e.content("file", "content")
				e.openFails("file", unix.O_WRONLY, unix.EACCES)
			}, 2000)
			want := acl(aclEntry{userObj, 6, nobody}, aclEntry{user, 4, 1000}, aclEntry{groupObj, 0, nobody},
				aclEntry{group, 6, 2000}, aclEntry{mask, 4, nobody}, aclEntry{other, 0, nobody})
			equal(e, "list", e.getxattr("file", accessACL), want)
		}},
		{name: "set", root: true, make: func(e *env) { e.write("file", "content"); e.chmod("file", 0o600) }, run: func(e *env) {
			e.as(1000, 1000, func(e *env) {
				e.openFails("file", unix.O_RDONLY, unix.EACCES)
				e.fails("set by another", unix.Setxattr("file", accessACL, []byte(list), 0), unix.EPERM)
			})
			wait := e.changes("file")
			e.setxattr("file", accessACL, list)
			wait("set", false, true)
			e.as(1000, 1000, func(e *env) { e.content("file", "content") })
			e.attrs("file", accessACL)
		}},
		{name: "remove", root: true, make: file, run: func(e *env) {
			e.check(unix.Removexattr(e.at("file"), accessACL))
			e.attrs("file")
			e.as(1000, 1000, func(e *env) { e.openFails("file", unix.O_RDONLY, unix.EACCES) })
		}},
		{name: "that is a mode", make: file, run: func(e *env) {
			e.setxattr("file", accessACL, acl(aclEntry{userObj, 6, nobody}, aclEntry{groupObj, 4, nobody}, aclEntry{other, 2, nobody}))
			e.mode("file", 0o642)
			e.attrs("file")
		}},
		{name: "default, of files", root: true, make: dir, run: func(e *env) {
			e.alone(func(e *env) {
				unix.Umask(0o077) // does not count where there is a default list
				e.openMode("dir/file", unix.O_CREAT|unix.O_WRONLY, 0o666)
				e.mode("dir/file", 0o660)
				want := acl(aclEntry{userObj, 6, nobody}, aclEntry{user, 7, 1000}, aclEntry{groupObj, 5, nobody},
					aclEntry{mask, 6, nobody}, aclEntry{other, 0, nobody})
				equal(e, "list", e.getxattr("dir/file", accessACL), want)
				e.attrs("dir/file", accessACL)
				e.check(unix.Mkfifo("dir/fifo", 0o600))
				e.mode("dir/fifo", 0o600)
				e.symlink("x", "dir/link")
				e.attrs("dir/link")
			})
			e.check(unix.Chmod(e.at("dir"), 0o755))
			e.as(1000, 1000, func(e *env) { e.open("dir/file", unix.O_RDWR) })
		}},
		{name: "default, of directories", root: true, make: dir, run: func(e *env) {
			e.alone(func(e *env) {
				unix.Umask(0o077)
				e.check(unix.Mkdir("dir/sub", 0o777))
				e.mode("dir/sub", 0o770)
				equal(e, "default list", e.getxattr("dir/sub", defaultACL), inherit)
				equal(e, "list", e.getxattr("dir/sub", accessACL), inherit)
				e.check(unix.Mkdir("dir/sub/sub", 0o700))
				equal(e, "default list below", e.getxattr("dir/sub/sub", defaultACL), inherit)
			})
			e.as(1000, 1000, func(e *env) { e.write("dir/sub/file", "") })
		}},
		{name: "default, of a temporary file", root: true, make: dir, run: func(e *env) {
			fd := e.openMode("dir", unix.O_TMPFILE|unix.O_RDWR, 0o666)
			equal(e, "mode", e.fstat(fd).Mode&0o7777, 0o660)
		}},
		{name: "default, moved to", make: dir, run: func(e *env) {
			e.write("file", "")
			e.rename("file", "dir/file")
			e.attrs("dir/file")
			e.mode("dir/file", 0o644)
		}},
		{name: "default, removed", make: dir, run: func(e *env) {
			e.check(unix.Removexattr(e.at("dir"), defaultACL))
			e.write("dir/file", "")
			e.attrs("dir/file")
			e.attrs("dir")
		}},
		{name: "wrong", make: func(e *env) { file(e); e.symlink("file", "link"); dir(e) }, run: func(e *env) {
			set := func(name, attr, value string) error { return unix.Lsetxattr(e.at(name), attr, []byte(value), 0) }
			e.fails("no list", set("file", accessACL, "x"), unix.EINVAL)
			e.fails("another version", set("file", accessACL, "\x03\x00\x00\x00"), unix.EOPNOTSUPP, unix.EINVAL)
			e.fails("without a mask", set("file", accessACL, acl(aclEntry{userObj, 6, nobody}, aclEntry{user, 4, 1000},
				aclEntry{groupObj, 0, nobody}, aclEntry{other, 0, nobody})), unix.EINVAL)
			e.fails("default list of a file", set("file", defaultACL, inherit), unix.EACCES)
			e.fails("of a symbolic link", set("link", accessACL, list), unix.EOPNOTSUPP, unix.EPERM)
			equal(e, "list", e.getxattr("file", accessACL), list)
		}},
		{name: "on a directory", root: true, make: func(e *env) {
			e.mkdir("dir")
			e.write("dir/file", "")
			e.setxattr("dir", accessACL, acl(aclEntry{userObj, 7, nobody}, aclEntry{user, 7, 1000},
				aclEntry{groupObj, 0, nobody}, aclEntry{mask, 7, nobody}, aclEntry{other, 0, nobody}))
		}, run: func(e *env) {
			e.as(1001, 1001, func(e *env) { e.openFails("dir/file", unix.O_RDONLY, unix.EACCES) })
			e.as(1000, 1000, func(e *env) {
				e.write("dir/new", "")
				e.remove("dir/file")
				e.names("dir", "new")
			})
		}},
	}
}
