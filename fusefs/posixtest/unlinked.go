package posixtest

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// unlinkedCases are about files that have no name any more, but descriptors.
func unlinkedCases() []testCase {
	file := func(e *env) { e.write("file", "0123456789") }
	return []testCase{
		{name: "read", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDONLY)
			e.remove("file")
			e.absent("file")
			equal(e, "read", e.pread(fd, 20, 0), "0123456789")
			st := e.fstat(fd)
			equal(e, "links", st.Nlink, 0)
			equal(e, "size", st.Size, 10)
		}},
		{name: "write", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			e.remove("file")
			e.pwrite(fd, "end", 9)
			e.check(unix.Ftruncate(fd, 11))
			equal(e, "read", e.pread(fd, 20, 0), "012345678en")
			equal(e, "size", e.fstat(fd).Size, 11)
			e.check(unix.Fsync(fd))
			e.names(".")
		}},
		{name: "attributes", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			e.remove("file")
			e.check(unix.Fchmod(fd, 0o611))
			e.check(unix.Fsetxattr(fd, "user.x", []byte("y"), 0))
			e.check(unix.Futimes(fd, []unix.Timeval{{Sec: 5}, {Sec: 7}}))
			st := e.fstat(fd)
			equal(e, "mode", st.Mode&0o7777, 0o611)
			equal(e, "mtime", st.Mtim.Sec, 7)
			b := make([]byte, 5)
			n, err := unix.Fgetxattr(fd, "user.x", b)
			e.check(err)
			equal(e, "attribute", string(b[:n]), "y")
		}},
		{name: "attributes by a reader", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDONLY)
			e.remove("file")
			e.check(unix.Fchmod(fd, 0o611))
			equal(e, "mode", e.fstat(fd).Mode&0o7777, 0o611)
			equal(e, "read", e.pread(fd, 20, 0), "0123456789")
			e.names(".")
		}},
		{name: "name used again", make: file, run: func(e *env) {
			old := e.open("file", unix.O_RDWR)
			e.remove("file")
			e.write("file", "other")
			e.pwrite(old, "old", 0)
			e.content("file", "other")
			equal(e, "read", e.pread(old, 20, 0), "old3456789")
			if e.fstat(old).Ino == e.stat("file").Ino {
				e.Error("both have the same inode number")
			}
		}},
		{name: "replaced by rename", make: func(e *env) { file(e); e.write("new", "new") }, run: func(e *env) {
			old := e.open("file", unix.O_RDWR)
			e.rename("new", "file")
			e.pwrite(old, "old", 0)
			e.content("file", "new")
			equal(e, "read", e.pread(old, 20, 0), "old3456789")
			equal(e, "links", e.fstat(old).Nlink, 0)
		}},
		{name: "linked again", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDONLY)
			e.remove("file")
			err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, e.at("x"), unix.AT_SYMLINK_FOLLOW)
			e.fails("link", err, unix.ENOENT)
		}},
		{name: "opened again", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDONLY)
			e.remove("file")
			again, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDWR|unix.O_CLOEXEC, 0)
			e.check(err)
			e.fds = append(e.fds, again)
			e.pwrite(again, "x", 0)
			equal(e, "read by who wrote", e.pread(again, 3, 0), "x12")
			equal(e, "read by the other", e.pread(fd, 3, 0), "x12")
			e.names(".")
		}},
		{name: "one of two names", make: func(e *env) { file(e); e.link("file", "other") }, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			e.remove("file")
			equal(e, "links", e.fstat(fd).Nlink, 1)
			e.pwrite(fd, "x", 0)
			e.content("other", "x123456789")
		}},
		{name: "mapped", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			m, err := unix.Mmap(fd, 0, 10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			e.check(err)
			e.close(fd)
			e.remove("file")
			m[0] = 'x'
			equal(e, "mapping", string(m), "x123456789")
			e.check(unix.Munmap(m))
		}},
		{name: "directory", make: func(e *env) { e.mkdir("dir") }, run: func(e *env) {
			fd := e.open("dir", unix.O_RDONLY|unix.O_DIRECTORY)
			e.remove("dir")
			_, err := unix.Getdents(fd, make([]byte, 1000))
			e.fails("list", err, unix.ENOENT)
			equal(e, "links", e.fstat(fd).Nlink, 0)
			_, err = unix.Openat(fd, "x", unix.O_CREAT|unix.O_WRONLY, 0o644)
			e.fails("create in it", err, unix.ENOENT)
			e.fails("mkdir in it", unix.Mkdirat(fd, "x", 0o755), unix.ENOENT)
			e.mkdir("dir")
			e.write("dir/x", "")
			_, err = unix.Openat(fd, "x", unix.O_RDONLY, 0)
			e.fails("open in the old one", err, unix.ENOENT)
		}},
		{name: "working directory", make: func(e *env) { e.mkdir("dir") }, run: func(e *env) {
			e.alone(func(e *env) {
				e.check(unix.Chdir("dir"))
				e.check(unix.Rmdir("../dir"))
				_, err := unix.Getcwd(make([]byte, 4096))
				e.fails("getcwd", err, unix.ENOENT)
				e.openFails("x", unix.O_CREAT|unix.O_WRONLY, unix.ENOENT)
				e.fails("mkdir", unix.Mkdir("x", 0o755), unix.ENOENT)
				e.check(unix.Chdir(".."))
				e.absent("dir")
			})
		}},
		{name: "fifo and symlink", make: func(e *env) {
			e.check(unix.Mkfifo(e.at("fifo"), 0o644))
			e.symlink("x", "link")
		}, run: func(e *env) {
			fifo, link := e.open("fifo", unix.O_PATH), e.open("link", unix.O_PATH|unix.O_NOFOLLOW)
			e.remove("fifo")
			e.remove("link")
			equal(e, "links of the FIFO", e.fstat(fifo).Nlink, 0)
			equal(e, "links of the symbolic link", e.fstat(link).Nlink, 0)
			b := make([]byte, 5)
			n, err := unix.Readlinkat(link, "", b)
			e.check(err)
			equal(e, "target", string(b[:n]), "x")
		}},
	}
}
