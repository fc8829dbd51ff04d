package posixtest

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func openCases() []testCase {
	file := func(e *env) { e.write("file", "0123456789") }
	return []testCase{
		{name: "create", run: func(e *env) {
			e.alone(func(e *env) {
				unix.Umask(0o027)
				fd := e.openMode("file", unix.O_CREAT|unix.O_WRONLY, 0o666)
				e.mode("file", 0o640)
				equal(e, "size", e.fstat(fd).Size, 0)
				e.openMode("set", unix.O_CREAT|unix.O_WRONLY, 0o7777)
				e.mode("set", 0o7750)
			})
		}},
		{name: "create what is there", make: func(e *env) { file(e); e.age("file") }, run: func(e *env) {
			e.openMode("file", unix.O_CREAT|unix.O_RDWR, 0o600)
			e.content("file", "0123456789")
			e.mode("file", 0o644)
			equal(e, "mtime", e.stat("file").Mtim, longAgo)
		}},
		{name: "exclusive", make: func(e *env) { file(e); e.symlink("nowhere", "link"); e.mkdir("dir") }, run: func(e *env) {
			for _, name := range []string{"file", "link", "dir"} {
				e.openFails(name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, unix.EEXIST)
			}
			e.openMode("other", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o600)
			e.absent("nowhere")
		}},
		{name: "exclusive after removal", make: file, run: func(e *env) {
			e.remove("file")
			e.openFails("file", unix.O_RDWR, unix.ENOENT)
			e.put(e.open("file", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY), "new")
			e.content("file", "new")
		}},
		{name: "create through a dangling link", make: func(e *env) { e.symlink("target", "link") }, run: func(e *env) {
			e.put(e.open("link", unix.O_CREAT|unix.O_WRONLY), "x")
			e.content("target", "x")
		}},
		{name: "create in what is no directory", make: file, run: func(e *env) {
			e.openFails("file/x", unix.O_CREAT|unix.O_WRONLY, unix.ENOTDIR)
			e.openFails("none/x", unix.O_CREAT|unix.O_WRONLY, unix.ENOENT)
			e.openFails("file/x", unix.O_RDONLY, unix.ENOTDIR)
		}},
		{name: "trailing slash", make: file, run: func(e *env) {
			_, err := unix.Open(e.dir+"/file/", unix.O_RDONLY, 0)
			e.fails("open file/", err, unix.ENOTDIR)
			_, err = unix.Open(e.dir+"/new/", unix.O_CREAT|unix.O_WRONLY, 0o644)
			e.fails("create new/", err, unix.EISDIR)
		}},
		{name: "truncate", make: func(e *env) { file(e); e.age("file") }, run: func(e *env) {
			e.open("file", unix.O_TRUNC|unix.O_WRONLY)
			e.content("file", "")
			if e.stat("file").Mtim == longAgo {
				e.Error("mtime is as it was")
			}
		}},
		{name: "truncate while open elsewhere", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			e.open("file", unix.O_TRUNC|unix.O_WRONLY)
			equal(e, "read", e.pread(fd, 20, 0), "")
			e.pwrite(fd, "x", 2)
			e.content("file", "\x00\x00x")
		}},
		{name: "append", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_APPEND|unix.O_RDWR)
			e.put(fd, "ab")
			e.pwrite(fd, "cd", 0) // Linux appends all the same: pwrite(2), BUGS
			e.content("file", "0123456789abcd")
		}},
		{name: "append by two", make: file, run: func(e *env) {
			a, b := e.open("file", unix.O_APPEND|unix.O_WRONLY), e.open("file", unix.O_APPEND|unix.O_WRONLY)
			var want strings.Builder
			want.WriteString("0123456789")
			for i := range 50 {
				s := fmt.Sprintf("a%d\n", i)
				e.put(a, s)
				e.put(b, strings.ToUpper(s))
				want.WriteString(s + strings.ToUpper(s))
			}
			e.content("file", want.String())
		}},
		{name: "append set later", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_APPEND)
			e.check(err)
			e.put(fd, "x")
			_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, 0)
			e.check(err)
			e.pwrite(fd, "y", 0)
			e.content("file", "y123456789x")
		}},
		{name: "directories", make: func(e *env) { e.mkdir("dir"); file(e); e.symlink("dir", "link") }, run: func(e *env) {
			e.open("dir", unix.O_DIRECTORY|unix.O_RDONLY)
			e.open("link", unix.O_DIRECTORY|unix.O_RDONLY)
			e.openFails("file", unix.O_DIRECTORY|unix.O_RDONLY, unix.ENOTDIR)
			e.openFails("link", unix.O_DIRECTORY|unix.O_NOFOLLOW, unix.ENOTDIR)
			e.openFails("dir", unix.O_WRONLY, unix.EISDIR)
			e.openFails("dir", unix.O_RDWR, unix.EISDIR)
			e.openFails("dir", unix.O_CREAT|unix.O_RDONLY, unix.EISDIR)
			_, err := unix.Read(e.open("dir", unix.O_RDONLY), make([]byte, 10))
			e.fails("read a directory", err, unix.EISDIR)
		}},
		{name: "no follow", make: func(e *env) { file(e); e.symlink("file", "link") }, run: func(e *env) {
			e.openFails("link", unix.O_NOFOLLOW|unix.O_RDONLY, unix.ELOOP)
			e.open("file", unix.O_NOFOLLOW|unix.O_RDWR)
		}},
		{name: "path only", make: func(e *env) { file(e); e.symlink("file", "link") }, run: func(e *env) {
			fd := e.open("file", unix.O_PATH)
			_, err := unix.Read(fd, make([]byte, 1))
			e.fails("read", err, unix.EBADF)
			equal(e, "size", e.fstat(fd).Size, 10)
			link := e.open("link", unix.O_PATH|unix.O_NOFOLLOW)
			b := make([]byte, 10)
			n, err := unix.Readlinkat(link, "", b)
			e.check(err)
			equal(e, "target", string(b[:n]), "file")
			e.check(os.WriteFile(fmt.Sprintf("/proc/self/fd/%d", fd), []byte("by path"), 0))
			e.content("file", "by path")
			e.check(unix.Fchownat(fd, "", os.Getuid(), os.Getgid(), unix.AT_EMPTY_PATH))
		}},
		{name: "wrong direction", make: file, run: func(e *env) {
			_, err := unix.Write(e.open("file", unix.O_RDONLY), []byte("x"))
			e.fails("write", err, unix.EBADF)
			_, err = unix.Read(e.open("file", unix.O_WRONLY), make([]byte, 1))
			e.fails("read", err, unix.EBADF)
		}},
		{name: "reader before the first writer", make: file, run: func(e *env) {
			r := e.open("file", unix.O_RDONLY)
			equal(e, "read", e.pread(r, 20, 0), "0123456789")
			e.pwrite(e.open("file", unix.O_WRONLY), "new", 0)
			equal(e, "read after a write", e.pread(r, 20, 0), "new3456789")
			e.check(unix.Truncate(e.at("file"), 2))
			equal(e, "read after truncation", e.pread(r, 20, 0), "ne")
			equal(e, "size", e.fstat(r).Size, 2)
		}},
		{name: "reader and attributes", make: file, run: func(e *env) {
			r := e.open("file", unix.O_RDONLY)
			e.check(unix.Fchmod(r, 0o600))
			e.mode("file", 0o600)
			e.chmod("file", 0o640)
			equal(e, "mode", e.fstat(r).Mode&0o7777, 0o640)
		}},
		{name: "synchronous", make: file, run: func(e *env) {
			for _, flag := range []int{unix.O_SYNC, unix.O_DSYNC, unix.O_NOATIME} {
				e.pwrite(e.open("file", unix.O_RDWR|flag), "x", 3)
			}
			e.content("file", "012x456789")
		}},
		{name: "direct", make: func(e *env) { e.write("file", pattern(64<<10)) }, run: direct},
		{name: "many at once", make: func(e *env) {
			for i := range 100 {
				e.write(fmt.Sprint(i), fmt.Sprint(i))
			}
		}, run: func(e *env) {
			for range 8 {
				for i := range 100 {
					e.put(e.open(fmt.Sprint(i), unix.O_WRONLY|unix.O_APPEND), "+")
				}
			}
			for i := range 100 {
				e.content(fmt.Sprint(i), fmt.Sprint(i)+"++++++++")
			}
		}},
		{name: "temporary", run: temporary},
		{name: "temporary for good", run: func(e *env) {
			fd := e.openMode(".", unix.O_TMPFILE|unix.O_RDWR|unix.O_EXCL, 0o600)
			err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, e.at("x"), unix.AT_SYMLINK_FOLLOW)
			e.fails("link", err, unix.ENOENT)
		}},
		{name: "temporary in a lower directory", make: func(e *env) { e.mkdir("dir"); e.write("dir/file", "") }, run: func(e *env) {
			fd := e.openMode("dir", unix.O_TMPFILE|unix.O_RDWR, 0o600)
			err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, e.at("dir/file"), unix.AT_SYMLINK_FOLLOW)
			e.fails("link over a file", err, unix.EEXIST)
			e.names("dir", "file")
		}},
	}
}

func temporary(e *env) {
	e.alone(func(e *env) {
		unix.Umask(0o022)
		fd := e.openMode(".", unix.O_TMPFILE|unix.O_RDWR, 0o666)
		e.put(fd, "content")
		e.names(".")
		st := e.fstat(fd)
		equal(e, "links", st.Nlink, 0)
		equal(e, "mode", st.Mode&0o7777, 0o644)
		e.check(unix.Fsetxattr(fd, "user.x", []byte("y"), 0))
		e.check(unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, e.at("file"), unix.AT_SYMLINK_FOLLOW))
		e.content("file", "content")
		equal(e, "inode", e.stat("file").Ino, st.Ino)
		equal(e, "links", e.fstat(fd).Nlink, 1)
		e.pwrite(fd, "C", 0)
		e.content("file", "Content")
	})
}

// direct reads and writes past the page cache, between writes through it.
func direct(e *env) {
	fd, err := unix.Open(e.at("file"), unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	e.check(err)
	e.fds = append(e.fds, fd)
	m, err := unix.Mmap(-1, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON) // aligned
	e.check(err)
	defer func() { e.check(unix.Munmap(m)) }()
	want := []byte(pattern(64 << 10))
	cached := e.open("file", unix.O_RDWR)
	e.pwrite(cached, "cached", 8192+10)
	copy(want[8192+10:], "cached")
	n, err := unix.Pread(fd, m, 8192)
	e.check(err)
	equal(e, "direct read", string(m[:n]), string(want[8192:16384]))
	copy(m, strings.Repeat("direct", 2000))
	n, err = unix.Pwrite(fd, m, 4096)
	e.check(err)
	equal(e, "bytes written", n, 8192)
	copy(want[4096:], m)
	equal(e, "cached read", e.pread(cached, 64<<10, 0), string(want))
}
