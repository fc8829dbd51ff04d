package posixtest

import (
	"os"

	"golang.org/x/sys/unix"
)

func modeCases() []testCase {
	file := func(e *env) { e.write("file", "content"); e.age("file") }
	return []testCase{
		{name: "all bits", make: func(e *env) { file(e); e.mkdir("dir") }, run: func(e *env) {
			for _, mode := range []uint32{0, 0o644, 0o4755, 0o2755, 0o1777, 0o7777, 0o7000, 0o600} {
				e.chmod("file", mode)
				e.mode("file", mode)
				if mode&0o700 == 0o700 || os.Geteuid() == 0 {
					e.chmod("dir", mode)
					e.mode("dir", mode)
				}
			}
			e.content("file", "content")
		}},
		{name: "times", make: file, run: func(e *env) {
			wait := e.changes("file")
			e.chmod("file", 0o600)
			wait("chmod", false, true)
		}},
		{name: "by descriptor", make: file, run: func(e *env) {
			e.check(unix.Fchmod(e.open("file", unix.O_RDONLY), 0o604))
			e.mode("file", 0o604)
			e.fails("of a path", unix.Fchmod(e.open("file", unix.O_PATH), 0o600), unix.EBADF)
		}},
		{name: "other kinds", root: true, make: func(e *env) {
			e.check(unix.Mkfifo(e.at("fifo"), 0o600))
			e.check(unix.Mknod(e.at("device"), unix.S_IFBLK|0o600, int(unix.Mkdev(7, 300))))
		}, run: func(e *env) {
			for _, name := range []string{"fifo", "device"} {
				e.chmod(name, 0o644)
				e.mode(name, 0o644)
				e.chown(name, 7, 8)
				e.owner(name, 7, 8)
			}
			equal(e, "device", e.stat("device").Rdev, unix.Mkdev(7, 300))
		}},
		{name: "owner", root: true, make: func(e *env) { file(e); e.mkdir("dir"); e.symlink("file", "link") }, run: func(e *env) {
			wait := e.changes("file")
			e.chown("file", 1000, 2000)
			wait("chown", false, true)
			e.owner("file", 1000, 2000)
			e.chown("file", -1, 3000)
			e.owner("file", 1000, 3000)
			e.chown("file", 1<<32-2, -1)
			e.owner("file", 1<<32-2, 3000)
			e.chown("dir", 100_000, 100_001)
			e.owner("dir", 100_000, 100_001)
			e.check(unix.Chown(e.at("link"), 9, 9))
			e.owner("file", 9, 9)
			e.owner("link", 0, 0)
		}},
		{name: "owner by others", root: true, make: func(e *env) { file(e); e.chown("file", 1000, 1000) }, run: func(e *env) {
			e.as(1000, 1000, func(e *env) {
				e.fails("give away", unix.Chown("file", 1001, -1), unix.EPERM)
				e.fails("foreign group", unix.Chown("file", -1, 1001), unix.EPERM)
				e.check(unix.Chown("file", -1, 2000))
				e.owner("file", 1000, 2000)
				e.chmod("file", 0o600)
			}, 2000)
			e.as(1001, 2000, func(e *env) {
				e.fails("chmod", unix.Chmod("file", 0o777), unix.EPERM)
				e.fails("chown", unix.Chown("file", 1001, -1), unix.EPERM)
			})
			e.mode("file", 0o600)
		}},
		{name: "setgid outside of the group", root: true, make: func(e *env) { file(e); e.chown("file", 1000, 2000) }, run: func(e *env) {
			e.as(1000, 1000, func(e *env) {
				e.chmod("file", 0o2755) // without an error
				e.mode("file", 0o755)
			})
			e.as(1000, 2000, func(e *env) {
				e.chmod("file", 0o2755)
				e.mode("file", 0o2755)
			})
		}},
	}
}

// capability is a struct vfs_cap_data of version 2: magic with the "effective" bit,
// permitted and inheritable, twice.
const capability = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// privilegeCases are about what programs lose that run with the rights of their owner,
// when they change.
func privilegeCases() []testCase {
	program := func(e *env) {
		e.write("file", "content")
		e.chown("file", 1000, 1000)
		e.chmod("file", 0o6777)
		e.check(unix.Setxattr(e.at("file"), "security.capability", []byte(capability), 0))
	}
	change := func(name string, f func(e *env), mode uint32, keepsCapability bool) testCase {
		return testCase{name: name, root: true, make: program, run: func(e *env) {
			f(e)
			e.mode("file", mode)
			want := ""
			if keepsCapability {
				want = capability
			}
			equal(e, "capability", e.getxattr("file", "security.capability"), want)
		}}
	}
	stranger := func(f func(e *env)) func(e *env) {
		return func(e *env) { e.as(1001, 1001, f) }
	}
	// The file becomes a program while it is open, and is written to after that.
	whileOpen := func(name string, by func(e *env, f func(e *env)), mode uint32) testCase {
		return testCase{name: name, root: true, make: func(e *env) { e.write("file", "content") }, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			e.pwrite(fd, "x", 0)
			for i := range 2 { // what is cleared once can be set again
				program(e)
				e.mode("file", 0o6777)
				by(e, func(e *env) { e.pwrite(fd, "y", int64(i)) })
				e.mode("file", mode)
				equal(e, "capability", e.getxattr("file", "security.capability"), "")
			}
			equal(e, "content", e.pread(fd, 3, 0), "cyn")
		}}
	}
	return []testCase{
		whileOpen("write while open by another", func(e *env, f func(e *env)) { e.as(1001, 1001, f) }, 0o777),
		whileOpen("write while open by the owner", func(e *env, f func(e *env)) { e.as(1000, 1000, f) }, 0o777),
		whileOpen("write while open by root", func(e *env, f func(e *env)) { f(e) }, 0o6777),
		change("write while another has it open", func(e *env) {
			fd := e.open("file", unix.O_RDONLY)
			e.as(1001, 1001, func(e *env) { e.pwrite(e.open("file", unix.O_WRONLY), "x", 0) })
			equal(e, "content", e.pread(fd, 3, 0), "xon")
		}, 0o777, false),
		change("write by root", func(e *env) { e.write("file", "x") }, 0o6777, false),
		change("write by another", stranger(func(e *env) { e.pwrite(e.open("file", unix.O_WRONLY), "x", 0) }), 0o777, false),
		change("write by the owner", func(e *env) {
			e.as(1000, 1000, func(e *env) { e.pwrite(e.open("file", unix.O_WRONLY), "x", 0) })
		}, 0o777, false),
		change("append by another", stranger(func(e *env) { e.put(e.open("file", unix.O_WRONLY|unix.O_APPEND), "x") }), 0o777, false),
		change("truncate by another", stranger(func(e *env) { e.check(unix.Truncate("file", 2)) }), 0o777, false),
		change("truncate by root", func(e *env) { e.check(unix.Truncate(e.at("file"), 2)) }, 0o6777, false),
		change("open to truncate by another", stranger(func(e *env) { e.open("file", unix.O_WRONLY|unix.O_TRUNC) }), 0o777, false),
		change("allocate by another", stranger(func(e *env) { e.check(unix.Fallocate(e.open("file", unix.O_WRONLY), 0, 0, 100)) }), 0o777, false),
		change("open for writing", stranger(func(e *env) { e.open("file", unix.O_RDWR) }), 0o6777, true),
		change("chown by root", func(e *env) { e.chown("file", 1002, 1002) }, 0o777, false),
		change("chown of the group by the owner", func(e *env) {
			e.as(1000, 1000, func(e *env) { e.check(unix.Chown("file", -1, 2000)) }, 2000)
		}, 0o777, false),
		change("chmod", func(e *env) { e.chmod("file", 0o4711) }, 0o4711, true),
		change("times", func(e *env) { e.age("file") }, 0o6777, true),
		change("link", func(e *env) { e.link("file", "link") }, 0o6777, true),
		change("rename", func(e *env) { e.rename("file", "x"); e.rename("x", "file") }, 0o6777, true),
		change("another attribute", func(e *env) { e.check(unix.Setxattr(e.at("file"), "user.x", nil, 0)) }, 0o6777, true),
		{name: "setgid without the group's execution", root: true, make: func(e *env) {
			e.write("file", "content")
			e.chown("file", 1000, 1000)
			e.chmod("file", 0o6766)
		}, run: func(e *env) {
			// The mark of mandatory locks, once: chown by root leaves it.
			e.chown("file", 1002, 1002)
			e.mode("file", 0o2766)
		}},
		{name: "chown of a directory", root: true, make: func(e *env) { e.mkdir("dir"); e.chmod("dir", 0o6755) }, run: func(e *env) {
			e.chown("dir", 5, 5)
			e.mode("dir", 0o6755)
		}},
	}
}
