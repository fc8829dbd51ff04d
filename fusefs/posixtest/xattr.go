package posixtest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// getxattr returns an attribute's value, also of a symbolic link; nothing if it is
// not there.
func (e *env) getxattr(name, attr string) string {
	b := make([]byte, 64<<10)
	n, err := unix.Lgetxattr(e.at(name), attr, b)
	if errors.Is(err, unix.ENODATA) {
		return ""
	}
	e.check(err)
	return string(b[:n])
}

func (e *env) setxattr(name, attr, value string) {
	if err := unix.Lsetxattr(e.at(name), attr, []byte(value), 0); err != nil {
		e.Fatalf("set %s of %s: %v", attr, name, err)
	}
}

// attrs wants a file to have these attributes, but for what a security module adds.
func (e *env) attrs(name string, want ...string) {
	b := make([]byte, 64<<10)
	n, err := unix.Llistxattr(e.at(name), b)
	e.check(err)
	got := slices.DeleteFunc(strings.Split(string(b[:n]), "\x00"), func(s string) bool { return s == "" || s == "security.selinux" })
	slices.Sort(got)
	want = slices.Sorted(slices.Values(want))
	equal(e, "attributes of "+name, strings.Join(got, " "), strings.Join(want, " "))
}

func xattrCases() []testCase {
	file := func(e *env) {
		e.write("file", "content")
		e.setxattr("file", "user.a", "1")
		e.setxattr("file", "user.b", "2")
	}
	set := func(e *env, flags int, attr string) error {
		return unix.Setxattr(e.at("file"), attr, []byte("new"), flags)
	}
	return []testCase{
		{name: "set, replace, remove", make: file, run: func(e *env) {
			e.setxattr("file", "user.c", "3")
			e.setxattr("file", "user.a", "one")
			e.check(unix.Removexattr(e.at("file"), "user.b"))
			e.attrs("file", "user.a", "user.c")
			equal(e, "value", e.getxattr("file", "user.a"), "one")
			_, err := unix.Getxattr(e.at("file"), "user.b", make([]byte, 10))
			e.fails("get what is gone", err, unix.ENODATA)
			e.fails("remove what is gone", unix.Removexattr(e.at("file"), "user.b"), unix.ENODATA)
			e.content("file", "content")
		}},
		{name: "flags", make: file, run: func(e *env) {
			e.fails("create what is there", set(e, unix.XATTR_CREATE, "user.a"), unix.EEXIST)
			e.fails("replace what is not there", set(e, unix.XATTR_REPLACE, "user.x"), unix.ENODATA)
			e.check(set(e, unix.XATTR_CREATE, "user.x"))
			e.check(set(e, unix.XATTR_REPLACE, "user.a"))
			e.fails("a flag that is none", set(e, 1<<8, "user.a"), unix.EINVAL)
			e.attrs("file", "user.a", "user.b", "user.x")
			equal(e, "value", e.getxattr("file", "user.a"), "new")
		}},
		{name: "buffers", make: file, run: func(e *env) {
			n, err := unix.Getxattr(e.at("file"), "user.a", nil)
			e.check(err)
			equal(e, "size of the value", n, 1)
			e.setxattr("file", "user.a", "12345")
			_, err = unix.Getxattr(e.at("file"), "user.a", make([]byte, 4))
			e.fails("value into 4 bytes", err, unix.ERANGE)
			n, err = unix.Listxattr(e.at("file"), nil)
			e.check(err)
			if n < 14 {
				e.Errorf("size of the list is %d", n)
			}
			_, err = unix.Listxattr(e.at("file"), make([]byte, 10))
			e.fails("list into 10 bytes", err, unix.ERANGE)
		}},
		{name: "values", make: func(e *env) {
			file(e)
			e.setxattr("file", "user.empty", "")
			e.setxattr("file", "user.bytes", "\x00\xff\n")
			e.setxattr("file", "user.long", strings.Repeat("v", 2000))
			e.setxattr("file", "user.ü=\" 1", "name")
		}, run: func(e *env) {
			e.chmod("file", 0o600) // copied up
			n, err := unix.Getxattr(e.at("file"), "user.empty", make([]byte, 10))
			e.check(err)
			equal(e, "size of the empty value", n, 0)
			equal(e, "bytes", e.getxattr("file", "user.bytes"), "\x00\xff\n")
			equal(e, "long value", e.getxattr("file", "user.long"), strings.Repeat("v", 2000))
			equal(e, "odd name", e.getxattr("file", "user.ü=\" 1"), "name")
		}},
		{name: "too large", make: file, run: func(e *env) {
			big := make([]byte, 64<<10+1)
			e.fails("value of more than 64 KiB", unix.Setxattr(e.at("file"), "user.x", big, 0), unix.E2BIG)
			long := "user." + strings.Repeat("n", 251)
			e.fails("name of 256 bytes", set(e, 0, long), unix.ERANGE)
			e.check(set(e, 0, long[:255]))
			equal(e, "value of a name of 255 bytes", e.getxattr("file", long[:255]), "new")
			// What fits is up to the filesystem (ext4: a block, without ea_inode).
			err := unix.Setxattr(e.at("file"), "user.large", big[:64<<10], 0)
			if err != nil {
				e.fails("value of 64 KiB", err, unix.ENOSPC, unix.E2BIG, unix.EDQUOT)
			}
			equal(e, "value of another", e.getxattr("file", "user.a"), "1")
		}},
		{name: "names", make: file, run: func(e *env) {
			e.fails("without namespace", set(e, 0, "x"), unix.EOPNOTSUPP)
			e.fails("of no namespace", set(e, 0, "other.x"), unix.EOPNOTSUPP)
			e.fails("empty", set(e, 0, ""), unix.ERANGE)
			e.fails("namespace alone", set(e, 0, "user."), unix.EINVAL)
			e.attrs("file", "user.a", "user.b")
		}},
		{name: "many", make: file, run: func(e *env) {
			want := []string{"user.a", "user.b"}
			for i := range 60 {
				want = append(want, fmt.Sprintf("user.attribute %d", i))
				e.setxattr("file", want[i+2], fmt.Sprint(i))
			}
			e.attrs("file", want...)
			for i := range 60 {
				equal(e, "value", e.getxattr("file", want[i+2]), fmt.Sprint(i))
				e.check(unix.Removexattr(e.at("file"), want[i+2]))
			}
			e.attrs("file", "user.a", "user.b")
		}},
		{name: "by descriptor", make: func(e *env) { file(e); e.mkdir("dir"); e.setxattr("dir", "user.d", "4") }, run: func(e *env) {
			for _, name := range []string{"file", "dir"} {
				fd := e.open(name, unix.O_RDONLY)
				e.check(unix.Fsetxattr(fd, "user.x", []byte("y"), 0))
				b := make([]byte, 10)
				n, err := unix.Fgetxattr(fd, "user.x", b)
				e.check(err)
				equal(e, "value", string(b[:n]), "y")
				e.check(unix.Fremovexattr(fd, "user.x"))
			}
			e.attrs("dir", "user.d")
			e.attrs("file", "user.a", "user.b")
		}},
		{name: "copied up", root: true, make: func(e *env) {
			file(e)
			e.setxattr("file", "trusted.t", "3")
			e.setxattr("file", "security.capability", capability)
		}, run: func(e *env) {
			e.age("file")
			e.attrs("file", "security.capability", "trusted.t", "user.a", "user.b")
			equal(e, "trusted attribute", e.getxattr("file", "trusted.t"), "3")
			equal(e, "capability", e.getxattr("file", "security.capability"), capability)
			e.setxattr("file", "security.plash", "4") // which is in no layer: it is up to the host
			e.rename("file", "moved")
			equal(e, "security attribute", e.getxattr("moved", "security.plash"), "4")
		}},
		{name: "trusted", root: true, make: func(e *env) { file(e); e.setxattr("file", "trusted.t", "1"); e.chmod("file", 0o666) }, run: func(e *env) {
			e.setxattr("file", "trusted.u", "2")
			e.attrs("file", "trusted.t", "trusted.u", "user.a", "user.b")
			e.as(1000, 1000, func(e *env) {
				e.attrs("file", "user.a", "user.b")
				_, err := unix.Getxattr("file", "trusted.t", make([]byte, 10))
				e.fails("get", err, unix.ENODATA)
				e.fails("set", set(e, 0, "trusted.t"), unix.EPERM)
			})
		}},
		{name: "names of overlayfs", root: true, make: file, run: func(e *env) {
			e.setxattr("file", "trusted.overlay.opaque", "y")
			equal(e, "value", e.getxattr("file", "trusted.overlay.opaque"), "y")
		}},
		{name: "capability", root: true, make: file, run: func(e *env) {
			e.setxattr("file", "security.capability", capability)
			equal(e, "value", e.getxattr("file", "security.capability"), capability)
			e.fails("that is none", unix.Setxattr(e.at("file"), "security.capability", []byte("x"), 0), unix.EINVAL)
			e.check(unix.Removexattr(e.at("file"), "security.capability"))
			e.attrs("file", "user.a", "user.b")
		}},
		{name: "other kinds", root: true, make: func(e *env) {
			e.check(unix.Mkfifo(e.at("fifo"), 0o644))
			e.check(unix.Mknod(e.at("device"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
		}, run: func(e *env) {
			for _, name := range []string{"fifo", "device"} {
				e.fails("user attribute of a "+name, unix.Setxattr(e.at(name), "user.x", nil, 0), unix.EPERM)
				e.setxattr(name, "trusted.x", "y")
				equal(e, "trusted attribute of a "+name, e.getxattr(name, "trusted.x"), "y")
			}
		}},
		{name: "permission", root: true, make: func(e *env) {
			file(e)
			e.mkdir("sticky")
			e.chmod("sticky", 0o1777)
			e.write("secret", "")
			e.setxattr("secret", "user.a", "1")
			e.chmod("secret", 0o600)
		}, run: func(e *env) {
			e.as(1000, 1000, func(e *env) {
				e.fails("set of a file that is not to be written", set(e, 0, "user.a"), unix.EACCES)
				equal(e, "value of a file that may be read", e.getxattr("file", "user.a"), "1")
				_, err := unix.Getxattr("secret", "user.a", make([]byte, 10))
				e.fails("value of a file that may not", err, unix.EACCES)
				e.fails("set of a sticky directory of another", unix.Setxattr("sticky", "user.x", nil, 0), unix.EPERM)
			})
		}},
	}
}
