package posixtest

import (
	"fmt"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

func renameCases() []testCase {
	file := func(e *env) { e.write("file", "content") }
	tree := func(e *env) {
		e.mkdir("dir", "dir/sub", "other")
		e.write("dir/file", "in dir")
		e.write("dir/sub/file", "in sub")
		e.write("other/file", "in other")
	}
	return []testCase{
		{name: "file", make: func(e *env) { file(e); e.age("file"); e.mkdir("dir") }, run: func(e *env) {
			before := e.stat("file")
			e.rename("file", "dir/moved")
			e.absent("file")
			e.content("dir/moved", "content")
			st := e.stat("dir/moved")
			equal(e, "inode", st.Ino, before.Ino)
			equal(e, "mtime", st.Mtim, longAgo)
			e.rename("dir/moved", "file")
			e.content("file", "content")
			e.names("dir")
		}},
		{name: "onto itself", make: func(e *env) { file(e); e.mkdir("dir") }, run: func(e *env) {
			e.rename("file", "file")
			e.rename("dir", "dir")
			e.fails("without replacing", e.rename2("file", "file", unix.RENAME_NOREPLACE), unix.EEXIST)
			e.content("file", "content")
			e.names(".", "dir", "file")
		}},
		{name: "onto a link of the same inode", make: func(e *env) { file(e); e.link("file", "link") }, run: func(e *env) {
			e.rename("file", "link") // does nothing, says POSIX
			e.names(".", "file", "link")
			equal(e, "links", e.stat("file").Nlink, 2)
		}},
		{name: "while open", make: func(e *env) { file(e); e.write("target", "old") }, run: func(e *env) {
			fd, old := e.open("file", unix.O_RDWR), e.open("target", unix.O_RDONLY)
			e.rename("file", "target")
			e.pwrite(fd, "C", 0)
			e.content("target", "Content")
			equal(e, "old content", e.pread(old, 10, 0), "old")
			equal(e, "links of the old one", e.fstat(old).Nlink, 0)
			equal(e, "inode", e.fstat(fd).Ino, e.stat("target").Ino)
		}},
		{name: "into its own child", make: tree, run: func(e *env) {
			e.fails("into a child", unix.Rename(e.at("dir"), e.at("dir/sub/x")), unix.EINVAL)
			e.fails("onto a child", unix.Rename(e.at("dir"), e.at("dir/sub")), unix.EINVAL)
			e.fails("onto a parent", unix.Rename(e.at("dir/sub"), e.at("dir")), unix.ENOTEMPTY)
			e.fails("exchange with a parent", e.rename2("dir/sub", "dir", unix.RENAME_EXCHANGE), unix.EINVAL)
			e.names("dir", "file", "sub")
		}},
		{name: "dots", make: tree, run: func(e *env) {
			e.fails("of .", unix.Rename(e.dir+"/dir/.", e.at("x")), unix.EBUSY)
			e.fails("of ..", unix.Rename(e.dir+"/dir/sub/..", e.at("x")), unix.EBUSY)
			e.fails("onto .", unix.Rename(e.at("other"), e.dir+"/dir/."), unix.EBUSY)
		}},
		{name: "paths that lead nowhere", make: func(e *env) { file(e); e.mkdir("dir") }, run: func(e *env) {
			e.fails("from nothing", unix.Rename(e.at("none"), e.at("x")), unix.ENOENT)
			e.fails("into nothing", unix.Rename(e.at("file"), e.at("none/x")), unix.ENOENT)
			e.fails("below a file", unix.Rename(e.at("dir"), e.at("file/x")), unix.ENOTDIR)
			e.fails("file with a slash", unix.Rename(e.at("file"), e.dir+"/x/"), unix.ENOTDIR)
			e.check(unix.Mkdir(e.at("new"), 0o755))
			e.check(unix.Rename(e.dir+"/new/", e.dir+"/new2/"))
			e.names(".", "dir", "file", "new2")
		}},
		{name: "wrong flags", make: func(e *env) { file(e); e.write("other", "") }, run: func(e *env) {
			e.fails("both flags", e.rename2("file", "other", unix.RENAME_EXCHANGE|unix.RENAME_NOREPLACE), unix.EINVAL)
			e.fails("no flag", e.rename2("file", "other", 1<<20), unix.EINVAL)
			e.content("file", "content")
		}},
		{name: "directories that are new", run: func(e *env) {
			tree(e)
			ino := e.stat("dir").Ino
			e.rename("dir", "other/moved")
			e.content("other/moved/sub/file", "in sub")
			equal(e, "inode", e.stat("other/moved").Ino, ino)
			var st unix.Stat_t
			e.check(unix.Stat(e.dir+"/other/moved/..", &st))
			equal(e, "inode of ..", st.Ino, e.stat("other").Ino)
			e.absent("dir")
			e.rename("other/moved/sub", "sub")
			e.names("other/moved", "file")
			e.names("sub", "file")
		}},
		{name: "directory moved", make: tree, run: func(e *env) {
			e.moveDir("dir", "other/moved")
			e.content("other/moved/file", "in dir")
			e.content("other/moved/sub/file", "in sub")
			e.absent("dir")
			e.mkdir("dir") // a new one, which shows nothing of the old
			e.names("dir")
			e.rename("dir", "dir2")
			e.names(".", "dir2", "other")
		}},
		{name: "directory by mv", make: func(e *env) { tree(e); e.write("dir/exe", "x"); e.chmod("dir/exe", 0o4755) }, run: func(e *env) {
			out, err := exec.Command("mv", e.at("dir"), e.at("moved")).CombinedOutput()
			if err != nil {
				e.Fatalf("mv: %v: %s", err, out)
			}
			e.names(".", "moved", "other")
			e.content("moved/sub/file", "in sub")
			e.mode("moved/exe", 0o4755)
			out, err = exec.Command("mv", e.at("moved"), e.at("dir")).CombinedOutput() // and back
			if err != nil {
				e.Fatalf("mv: %v: %s", err, out)
			}
			e.names("dir", "exe", "file", "sub")
		}},
		{name: "directory in the place of another", make: tree, run: func(e *env) {
			e.check(unix.Mkdir(e.at("new"), 0o755))
			e.fails("over a full one", unix.Rename(e.at("new"), e.at("other")), unix.ENOTEMPTY, unix.EEXIST)
			e.remove("other/file")
			e.write("new/x", "x")
			e.rename("new", "other")
			e.names("other", "x")
			e.absent("new")
			e.content("other/x", "x")
		}},
		{name: "directory over what was removed", make: tree, run: func(e *env) {
			e.remove("other/file")
			e.remove("other")
			e.mkdir("new")
			e.rename("new", "other")
			e.names("other")
			e.remove("other")
			e.write("x", "x")
			e.rename("x", "other")
			e.content("other", "x")
		}},
		{name: "replaces the whole file", make: func(e *env) { file(e); e.write("long", strings.Repeat("x", 100_000)) }, run: func(e *env) {
			e.rename("file", "long")
			e.content("long", "content")
			e.names(".", "long")
		}},
		{name: "around", make: func(e *env) {
			for i := range 5 {
				e.write(fmt.Sprint(i), fmt.Sprint(i))
			}
		}, run: func(e *env) {
			for range 3 {
				e.rename("0", "x")
				for i := 1; i < 5; i++ {
					e.rename(fmt.Sprint(i), fmt.Sprint(i-1))
				}
				e.rename("x", "4")
			}
			for i := range 5 {
				e.content(fmt.Sprint(i), fmt.Sprint((i+3)%5))
			}
		}},
		{name: "times of the directories", make: func(e *env) { e.mkdir("a", "b"); e.write("a/file", ""); e.age("a", "b") }, run: func(e *env) {
			e.rename("a/file", "b/file")
			for _, dir := range []string{"a", "b"} {
				if e.stat(dir).Mtim == longAgo {
					e.Errorf("mtime of %s is as it was", dir)
				}
			}
		}},
		{name: "link counts of the directories", run: func(e *env) {
			e.mkdir("a", "b", "a/sub")
			e.rename("a/sub", "b/sub")
			equal(e, "links of a", e.stat("a").Nlink, 2)
			equal(e, "links of b", e.stat("b").Nlink, 3)
		}},
		{name: "fifo and symlink", make: func(e *env) {
			e.check(unix.Mkfifo(e.at("fifo"), 0o640))
			e.symlink("target", "link")
		}, run: func(e *env) {
			e.rename("fifo", "fifo2")
			e.rename("link", "link2")
			equal(e, "mode", e.stat("fifo2").Mode, unix.S_IFIFO|0o640)
			e.target("link2", "target")
			e.names(".", "fifo2", "link2")
		}},
	}
}

func (e *env) rename2(from, to string, flags uint) error {
	return unix.Renameat2(unix.AT_FDCWD, e.at(from), unix.AT_FDCWD, e.at(to), flags)
}

// moveDir moves a directory with all in it, by rename(2) if that can be.
func (e *env) moveDir(from, to string) {
	err := unix.Rename(e.at(from), e.at(to))
	if e.lower && e.o.MovesNoLowerDirs {
		e.fails("rename of a directory of the lower layer", err, unix.EXDEV)
		out, err := exec.Command("mv", e.at(from), e.at(to)).CombinedOutput()
		if err != nil {
			e.Fatalf("mv: %v: %s", err, out)
		}
		return
	}
	e.check(err)
}
