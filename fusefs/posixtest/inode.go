package posixtest

import (
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

func inodeCases() []testCase {
	file := func(e *env) { e.write("file", "content") }
	return []testCase{
		{name: "stays", make: func(e *env) {
			file(e)
			e.mkdir("dir")
			e.symlink("x", "link")
			e.check(unix.Mkfifo(e.at("fifo"), 0o644))
		}, run: func(e *env) {
			for _, name := range []string{"file", "dir", "link", "fifo"} {
				ino, dev := e.stat(name).Ino, e.stat(name).Dev
				same := func(what, name string) {
					st := e.stat(name)
					equal(e, "inode of "+name+" after "+what, st.Ino, ino)
					equal(e, "device of "+name+" after "+what, st.Dev, dev)
				}
				e.age(name)
				same("times", name)
				if name == "file" {
					e.pwrite(e.open(name, unix.O_RDWR), "x", 0)
					same("write", name)
				}
				if name == "dir" {
					e.write("dir/new", "")
					same("new entry", name)
					continue
				}
				e.link(name, name+"2")
				same("link", name+"2")
				e.rename(name, name+"3")
				same("rename", name+"3")
				e.remove(name + "2")
				same("unlink", name+"3")
			}
		}},
		{name: "the same by descriptor", make: file, run: func(e *env) {
			r := e.open("file", unix.O_RDONLY)
			before := e.fstat(r)
			w := e.open("file", unix.O_RDWR)
			e.pwrite(w, "x", 0)
			for _, st := range []unix.Stat_t{e.fstat(r), e.fstat(w), e.stat("file")} {
				equal(e, "inode", st.Ino, before.Ino)
				equal(e, "device", st.Dev, before.Dev)
			}
		}},
		{name: "unique", make: func(e *env) {
			e.mkdir("a", "b")
			for i := range 200 {
				e.write(fmt.Sprintf("a/%d", i), "")
				e.mkdir(fmt.Sprintf("b/%d", i))
			}
		}, run: func(e *env) {
			for i := range 200 {
				e.write(fmt.Sprintf("a/new %d", i), "")
				e.mkdir(fmt.Sprintf("b/%d/new", i))
				e.age(fmt.Sprintf("a/%d", i/2))
			}
			seen := map[[2]uint64]string{}
			e.check(filepath.WalkDir(e.dir, func(path string, _ fs.DirEntry, err error) error {
				var st unix.Stat_t
				if err = firstError(err, unix.Lstat(path, &st)); err != nil {
					return err
				}
				key := [2]uint64{st.Dev, st.Ino}
				if other := seen[key]; other != "" {
					e.Errorf("%s and %s have the same inode number", other, path)
				}
				seen[key] = path
				return nil
			}))
			equal(e, "number of files", len(seen), 803)
		}},
		{name: "one device", make: func(e *env) { file(e); e.mkdir("dir"); e.write("dir/file", "") }, run: func(e *env) {
			e.write("new", "")
			e.write("file", "x")
			dev := e.stat(".").Dev
			for _, name := range []string{"file", "new", "dir", "dir/file"} {
				equal(e, "device of "+name, e.stat(name).Dev, dev)
			}
		}},
		{name: "statx", make: func(e *env) { file(e); e.age("file") }, run: func(e *env) {
			for range 2 {
				var sx unix.Statx_t
				e.check(unix.Statx(unix.AT_FDCWD, e.at("file"), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &sx))
				st := e.stat("file")
				const fields = unix.STATX_BASIC_STATS &^ unix.STATX_ATIME // which not all have
				equal(e, "basic fields", sx.Mask&fields, fields)
				equal(e, "inode", sx.Ino, st.Ino)
				equal(e, "mode", uint32(sx.Mode), st.Mode)
				equal(e, "links", uint64(sx.Nlink), uint64(st.Nlink))
				equal(e, "size", int64(sx.Size), st.Size)
				equal(e, "mtime", sx.Mtime.Sec, st.Mtim.Sec)
				equal(e, "nanoseconds of mtime", int64(sx.Mtime.Nsec), st.Mtim.Nsec)
				equal(e, "device", unix.Mkdev(sx.Dev_major, sx.Dev_minor), uint64(st.Dev))
				for _, how := range []int{unix.AT_STATX_FORCE_SYNC, unix.AT_STATX_DONT_SYNC} {
					e.check(unix.Statx(unix.AT_FDCWD, e.at("file"), how, unix.STATX_SIZE, &sx))
					equal(e, "size", int64(sx.Size), st.Size)
				}
				e.write("file", "other content")
			}
		}},
		{name: "statfs", make: file, run: func(e *env) {
			var sf unix.Statfs_t
			e.check(unix.Statfs(e.at("file"), &sf))
			equal(e, "length of names", sf.Namelen, 255)
			if sf.Bsize <= 0 || sf.Blocks == 0 || sf.Bfree > sf.Blocks || sf.Bavail > sf.Bfree {
				e.Errorf("block size %d, %d blocks, %d free, %d available", sf.Bsize, sf.Blocks, sf.Bfree, sf.Bavail)
			}
			var again unix.Statfs_t
			e.check(unix.Fstatfs(e.open("file", unix.O_RDONLY), &again))
			equal(e, "type by descriptor", again.Type, sf.Type)
			equal(e, "writable", sf.Flags&unix.ST_RDONLY, 0)
		}},
		{name: "size and blocks", make: func(e *env) { file(e); e.symlink("target", "link") }, run: func(e *env) {
			st := e.stat("file")
			equal(e, "size", st.Size, 7)
			if st.Blksize < 512 {
				e.Errorf("block size of %d", st.Blksize)
			}
			equal(e, "size of a link", e.stat("link").Size, 6)
			equal(e, "links", st.Nlink, 1)
		}},
		{name: "after a removal and a new file", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDONLY)
			ino := e.fstat(fd).Ino
			e.remove("file")
			for i := range 50 {
				e.write(fmt.Sprint(i), "")
				if e.stat(fmt.Sprint(i)).Ino == ino {
					e.Error("the number of an open file was given again")
				}
			}
		}},
	}
}
