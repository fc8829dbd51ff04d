package posixtest

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

func directoryCases() []testCase {
	return []testCase{
		{name: "make", run: func(e *env) {
			e.alone(func(e *env) {
				unix.Umask(0o027)
				e.check(unix.Mkdir("dir", 0o777))
				e.mode("dir", 0o750)
				e.check(unix.Mkdir("sticky", 0o1777))
				e.mode("sticky", 0o1750)
				unix.Umask(0)
				e.check(unix.Mkdir("open", 0o777))
				e.mode("open", 0o777)
			})
		}},
		{name: "make what is there", make: func(e *env) {
			e.write("file", "")
			e.mkdir("dir")
			e.symlink("nowhere", "link")
		}, run: func(e *env) {
			for _, name := range []string{"file", "dir", "link", "."} {
				e.fails("mkdir "+name, unix.Mkdir(e.at(name), 0o755), unix.EEXIST)
			}
			e.fails("mkdir in nothing", unix.Mkdir(e.at("none/x"), 0o755), unix.ENOENT)
			e.fails("mkdir below a file", unix.Mkdir(e.at("file/x"), 0o755), unix.ENOTDIR)
			e.check(unix.Mkdir(e.dir+"/slash/", 0o755))
		}},
		{name: "in a lower directory", make: func(e *env) { e.mkdir("dir", "dir/old"); e.write("dir/file", "") }, run: func(e *env) {
			e.mkdir("dir/new", "dir/old/new")
			e.write("dir/new/file", "x")
			e.names("dir", "file", "new", "old")
			e.names("dir/old", "new")
		}},
		{name: "link count", make: func(e *env) { e.mkdir("dir", "dir/a", "dir/b"); e.write("dir/file", "") }, run: func(e *env) {
			equal(e, "links", e.stat("dir").Nlink, 4)
			e.mkdir("dir/c")
			equal(e, "links with one more", e.stat("dir").Nlink, 5)
			e.remove("dir/a")
			e.remove("dir/c")
			equal(e, "links with one left", e.stat("dir").Nlink, 3)
		}},
		{name: "times", make: func(e *env) { e.mkdir("dir"); e.age("dir") }, run: func(e *env) {
			for _, op := range []func(){
				func() { e.write("dir/file", "x") },
				func() { e.mkdir("dir/sub") },
				func() { e.symlink("x", "dir/link") },
				func() { e.link("dir/file", "dir/file2") },
				func() { e.check(unix.Mkfifo(e.at("dir/fifo"), 0o644)) },
				func() { e.rename("dir/file", "dir/file3") },
			} {
				e.age("dir")
				op()
				if e.stat("dir").Mtim == longAgo {
					e.Error("mtime is as it was")
				}
			}
			e.age("dir")
			e.write("dir/file3", "y")
			equal(e, "mtime after writing to a file in it", e.stat("dir").Mtim, longAgo)
		}},
		{name: "attributes are kept", root: true, make: func(e *env) {
			e.mkdir("dir", "dir/sub")
			e.chown("dir", 5, 6)
			e.chmod("dir", 0o2751)
			e.check(unix.Setxattr(e.at("dir"), "user.x", []byte("y"), 0))
			e.check(unix.Setxattr(e.at("dir"), "trusted.x", []byte("z"), 0))
			e.age("dir/sub")
		}, run: func(e *env) {
			e.write("dir/sub/file", "") // all directories above are copied up
			e.owner("dir", 5, 6)
			e.mode("dir", 0o2751)
			equal(e, "user attribute", e.getxattr("dir", "user.x"), "y")
			equal(e, "trusted attribute", e.getxattr("dir", "trusted.x"), "z")
		}},
		{name: "time is kept when something far below changes", make: func(e *env) {
			e.mkdir("dir", "dir/sub")
			e.write("dir/sub/file", "x")
			e.age("dir/sub", "dir")
		}, run: func(e *env) {
			e.write("dir/sub/file", "y")
			equal(e, "mtime of the directory", e.stat("dir/sub").Mtim, longAgo)
			equal(e, "mtime of the one above", e.stat("dir").Mtim, longAgo)
		}},
		{name: "setgid", root: true, make: func(e *env) {
			e.mkdir("dir")
			e.chown("dir", 1000, 2000)
			e.chmod("dir", 0o2777)
		}, run: func(e *env) {
			e.as(1001, 1001, func(e *env) {
				e.openMode("dir/file", unix.O_CREAT|unix.O_WRONLY, 0o644)
				e.owner("dir/file", 1001, 2000)
				e.mkdir("dir/sub", "dir/sub/sub")
				e.owner("dir/sub", 1001, 2000)
				e.mode("dir/sub", 0o2755)
				e.mode("dir/sub/sub", 0o2755)
				e.symlink("x", "dir/link")
				e.owner("dir/link", 1001, 2000)
				// Who is not in the group cannot make programs that run as it.
				e.openMode("dir/program", unix.O_CREAT|unix.O_WRONLY, 0o2755)
				e.mode("dir/program", 0o755)
			})
			e.as(1001, 1001, func(e *env) {
				e.openMode("dir/member", unix.O_CREAT|unix.O_WRONLY, 0o2755)
				e.mode("dir/member", 0o2755)
			}, 2000)
		}},
		{name: "sticky", root: true, make: func(e *env) {
			e.mkdir("dir")
			e.chown("dir", 1000, 1000)
			e.chmod("dir", 0o1777)
			for _, name := range []string{"dir/a", "dir/b", "dir/c"} {
				e.write(name, "")
				e.chown(name, 1001, 1001)
			}
			e.mkdir("dir/sub")
			e.chown("dir/sub", 1001, 1001)
		}, run: func(e *env) {
			e.as(1002, 1002, func(e *env) {
				e.fails("unlink", unix.Unlink("dir/a"), unix.EPERM)
				e.fails("rmdir", unix.Rmdir("dir/sub"), unix.EPERM)
				e.fails("rename", unix.Rename("dir/a", "dir/x"), unix.EPERM)
				e.write("dir/mine", "")
				e.fails("rename over it", unix.Rename("dir/mine", "dir/a"), unix.EPERM)
				e.rename("dir/mine", "dir/mine2")
				e.remove("dir/mine2")
			})
			e.as(1001, 1001, func(e *env) { e.remove("dir/a"); e.rename("dir/b", "dir/b2") }) // its owner
			e.as(1000, 1000, func(e *env) { e.remove("dir/c") })                              // the directory's owner
			e.names("dir", "b2", "sub")
		}},
		{name: "by descriptor", make: func(e *env) {
			e.mkdir("dir", "dir/sub")
			e.write("dir/file", "content")
			e.write("dir/gone", "")
		}, run: func(e *env) {
			path, fd := e.open("dir", unix.O_PATH), e.open("dir", unix.O_RDONLY)
			e.write("dir/first", "") // copied up behind their back
			for i, dir := range []int{path, fd} {
				name := []string{"a", "b"}[i]
				file, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
				e.check(err)
				e.check(unix.Close(file))
				e.check(unix.Mkdirat(dir, "dir "+name, 0o755))
				e.check(unix.Fchmodat(dir, "file", 0o600, 0))
				e.check(unix.Renameat(dir, name, dir, "sub/"+name))
				var st unix.Stat_t
				e.check(unix.Fstatat(dir, "sub/"+name, &st, 0))
			}
			e.check(unix.Unlinkat(fd, "gone", 0))
			e.check(unix.Unlinkat(path, "dir a", unix.AT_REMOVEDIR))
			e.check(unix.Fchmod(fd, 0o711))
			equal(e, "inode", e.fstat(fd).Ino, e.stat("dir").Ino)
			e.mode("dir", 0o711)
			e.names("dir", "dir b", "file", "first", "sub")
			e.names("dir/sub", "a", "b")
			e.all(e.stream(fd, 1000), 4)
		}},
		{name: "working directory", make: func(e *env) { e.mkdir("dir", "dir/sub"); e.write("dir/sub/file", "x") }, run: func(e *env) {
			e.alone(func(e *env) {
				e.check(unix.Chdir("dir/sub"))
				e.write("file", "y")
				e.write("new", "")
				e.names(".", "file", "new")
				e.names("..", "sub")
				e.check(unix.Chdir(".."))
				e.content("sub/file", "y")
				e.write("above", "")
				e.names("../dir", "above", "sub")
			})
		}},
		{name: "deep", make: func(e *env) {
			dir := "d"
			for range 60 {
				e.mkdir(dir)
				dir = filepath.Join(dir, "d")
			}
			e.write(dir, "bottom")
		}, run: func(e *env) {
			dir := "d"
			for range 60 {
				dir = filepath.Join(dir, "d")
			}
			e.content(dir, "bottom")
			e.write(dir, "changed")
			e.content(dir, "changed")
			e.check(os.RemoveAll(e.at("d")))
			e.names(".")
		}},
	}
}
