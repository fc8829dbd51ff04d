package posixtest

import (
	"os"

	"golang.org/x/sys/unix"
)

func linkCases() []testCase {
	file := func(e *env) { e.write("file", "content") }
	// three is a file with three names.
	three := func(e *env) {
		e.mkdir("dir")
		e.write("one", "content")
		e.link("one", "two")
		e.link("one", "dir/three")
		e.age("one")
	}
	together := func(e *env, content string) {
		st := e.stat("one")
		for _, name := range []string{"one", "two", "dir/three"} {
			e.content(name, content)
			equal(e, "inode of "+name, e.stat(name).Ino, st.Ino)
			equal(e, "links of "+name, e.stat(name).Nlink, 3)
		}
	}
	return []testCase{
		{name: "made", make: func(e *env) { file(e); e.age("file") }, run: func(e *env) {
			before := e.stat("file")
			e.link("file", "link")
			a, b := e.stat("file"), e.stat("link")
			equal(e, "inode", b.Ino, a.Ino)
			equal(e, "inode as before", b.Ino, before.Ino)
			equal(e, "links", a.Nlink, 2)
			equal(e, "links by the new name", b.Nlink, 2)
			equal(e, "mtime", b.Mtim, longAgo)
			e.write("link", "written")
			e.content("file", "written")
			e.remove("file")
			equal(e, "links", e.stat("link").Nlink, 1)
			e.content("link", "written")
		}},
		{name: "to other kinds", root: true, make: func(e *env) {
			e.symlink("nowhere", "symlink")
			e.check(unix.Mkfifo(e.at("fifo"), 0o644))
			e.check(unix.Mknod(e.at("device"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
		}, run: func(e *env) {
			for _, name := range []string{"symlink", "fifo", "device"} {
				e.link(name, name+"2")
				equal(e, "inode of "+name, e.stat(name+"2").Ino, e.stat(name).Ino)
				equal(e, "links of "+name, e.stat(name).Nlink, 2)
			}
			e.target("symlink2", "nowhere")
		}},
		{name: "following a symlink", make: func(e *env) { file(e); e.symlink("file", "symlink") }, run: func(e *env) {
			e.check(unix.Linkat(unix.AT_FDCWD, e.at("symlink"), unix.AT_FDCWD, e.at("x"), unix.AT_SYMLINK_FOLLOW))
			equal(e, "inode", e.stat("x").Ino, e.stat("file").Ino)
			e.check(unix.Linkat(unix.AT_FDCWD, e.at("symlink"), unix.AT_FDCWD, e.at("y"), 0))
			e.target("y", "file")
		}},
		{name: "wrong", make: func(e *env) { file(e); e.mkdir("dir"); e.symlink("nowhere", "symlink") }, run: func(e *env) {
			e.fails("to a directory", unix.Link(e.at("dir"), e.at("x")), unix.EPERM)
			e.fails("over a file", unix.Link(e.at("file"), e.at("file")), unix.EEXIST)
			e.fails("over a symlink", unix.Link(e.at("file"), e.at("symlink")), unix.EEXIST)
			e.fails("over a directory", unix.Link(e.at("file"), e.at("dir")), unix.EEXIST)
			e.fails("to nothing", unix.Link(e.at("none"), e.at("x")), unix.ENOENT)
			e.fails("into nothing", unix.Link(e.at("file"), e.at("none/x")), unix.ENOENT)
			e.fails("below a file", unix.Link(e.at("file"), e.at("file/x")), unix.ENOTDIR)
		}},
		{name: "by descriptor", root: true, make: file, run: func(e *env) {
			fd := e.open("file", unix.O_PATH)
			e.check(unix.Linkat(fd, "", unix.AT_FDCWD, e.at("link"), unix.AT_EMPTY_PATH))
			equal(e, "inode", e.stat("link").Ino, e.stat("file").Ino)
		}},
		{name: "over what was removed", make: func(e *env) { file(e); e.write("gone", "") }, run: func(e *env) {
			e.remove("gone")
			e.link("file", "gone")
			e.content("gone", "content")
			equal(e, "links", e.stat("file").Nlink, 2)
		}},
		{name: "count", make: three, run: func(e *env) { together(e, "content") }},
		{name: "together after a write", make: three, run: func(e *env) {
			e.pwrite(e.open("two", unix.O_WRONLY), "C", 0)
			together(e, "Content")
		}},
		{name: "together after truncation", make: three, run: func(e *env) {
			e.check(unix.Truncate(e.at("dir/three"), 3))
			together(e, "con")
		}},
		{name: "together after chmod", make: three, run: func(e *env) {
			e.chmod("two", 0o600)
			e.mode("one", 0o600)
			e.mode("dir/three", 0o600)
			together(e, "content")
		}},
		{name: "together after times and attributes", make: three, run: func(e *env) {
			e.check(unix.Setxattr(e.at("one"), "user.x", []byte("y"), 0))
			e.check(os.Chtimes(e.at("one"), at(5), at(7)))
			equal(e, "mtime by another name", e.stat("two").Mtim.Sec, 7)
			equal(e, "attribute by another name", e.getxattr("dir/three", "user.x"), "y")
			together(e, "content")
		}},
		{name: "together after one is renamed", make: three, run: func(e *env) {
			e.rename("two", "x")
			e.rename("x", "two")
			together(e, "content")
			e.write("two", "new")
			together(e, "new")
		}},
		{name: "together after one is linked again", make: three, run: func(e *env) {
			e.link("one", "four")
			equal(e, "links", e.stat("two").Nlink, 4)
			e.write("four", "new")
			e.remove("four")
			together(e, "new")
		}},
		{name: "one removed", make: three, run: func(e *env) {
			e.remove("one")
			equal(e, "links", e.stat("two").Nlink, 2)
			e.write("two", "new")
			e.content("dir/three", "new")
			e.remove("dir/three")
			equal(e, "links", e.stat("two").Nlink, 1)
			e.names("dir")
		}},
		{name: "one replaced", make: three, run: func(e *env) {
			e.write("x", "other")
			e.rename("x", "one")
			equal(e, "links", e.stat("two").Nlink, 2)
			e.content("two", "content")
			e.content("one", "other")
		}},
		{name: "ctime", make: three, run: func(e *env) {
			wait := e.changes("two")
			e.link("one", "four")
			wait("link", false, true)
			wait = e.changes("two")
			e.remove("one")
			wait("unlink", false, true)
		}},
	}
}

func unlinkCases() []testCase {
	return []testCase{
		{name: "each kind", root: true, make: func(e *env) {
			for _, kind := range kinds {
				e.check(os.MkdirAll(e.at("aside"), 0o755))
				e.makeKind(kind, kind)
			}
		}, run: func(e *env) {
			for _, kind := range kinds {
				switch {
				case kind == "nothing":
					e.fails(kind, unix.Unlink(e.at(kind)), unix.ENOENT)
				case kind == "full directory":
					e.fails(kind, unix.Rmdir(e.at(kind)), unix.ENOTEMPTY)
				case isDir(kind):
					e.fails("unlink "+kind, unix.Unlink(e.at(kind)), unix.EISDIR)
					e.check(unix.Rmdir(e.at(kind)))
				default:
					e.fails("rmdir "+kind, unix.Rmdir(e.at(kind)), unix.ENOTDIR)
					e.check(unix.Unlink(e.at(kind)))
					e.absent(kind)
				}
			}
			e.names(".", "aside", "full directory")
		}},
		{name: "each kind in the place of each", root: true, make: func(e *env) {
			e.mkdir("aside")
			for _, old := range kinds {
				for _, kind := range kinds {
					e.makeKind(old, old+" "+kind)
				}
			}
		}, run: func(e *env) {
			for _, old := range kinds {
				for _, kind := range kinds {
					name := old + " " + kind
					e.check(os.RemoveAll(e.at(name)))
					e.check(os.RemoveAll(e.at("aside/" + name)))
					e.makeKind(kind, name)
					e.wantKind(kind, name, name)
				}
			}
		}},
		{name: "all in a directory, and it", make: func(e *env) {
			e.mkdir("dir", "dir/sub", "dir/sub/sub")
			e.write("dir/sub/file", "x")
			e.write("dir/sub/sub/file", "x")
			e.symlink("x", "dir/link")
		}, run: func(e *env) {
			for _, name := range []string{"dir/sub/sub/file", "dir/sub/sub", "dir/sub/file", "dir/sub", "dir/link"} {
				e.fails("rmdir", unix.Rmdir(e.at("dir")), unix.ENOTEMPTY)
				e.remove(name)
			}
			e.names("dir")
			e.remove("dir")
			e.absent("dir")
			e.mkdir("dir")
			e.names("dir")
		}},
		{name: "tree made again", make: func(e *env) { e.mkdir("dir", "dir/sub"); e.write("dir/sub/file", "old") }, run: func(e *env) {
			for range 3 {
				e.check(os.RemoveAll(e.at("dir")))
				e.mkdir("dir", "dir/sub")
				e.names("dir/sub")
				e.write("dir/sub/new", "")
				e.names("dir/sub", "new")
			}
		}},
		{name: "dots", make: func(e *env) { e.mkdir("dir") }, run: func(e *env) {
			e.fails("rmdir .", unix.Rmdir(e.dir+"/dir/."), unix.EINVAL)
			e.fails("rmdir ..", unix.Rmdir(e.dir+"/dir/.."), unix.ENOTEMPTY)
			e.fails("unlink .", unix.Unlink(e.dir+"/dir/."), unix.EISDIR)
		}},
		{name: "times of the directory", make: func(e *env) { e.mkdir("dir", "dir/sub"); e.write("dir/file", ""); e.age("dir") }, run: func(e *env) {
			for _, name := range []string{"dir/file", "dir/sub"} {
				e.age("dir")
				e.remove(name)
				if e.stat("dir").Mtim == longAgo {
					e.Errorf("mtime is as it was after removing %s", name)
				}
			}
		}},
	}
}
