package posixtest

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

var (
	longest  = strings.Repeat("n", 255)
	oddNames = []string{
		" ", "-", "-rf", "...", "..x", ".hidden", "a\nb", "tab\t", "comma,", "colon:", `back\slash`, `"quoted"`, "%", "$x", "*", "~", "=",
		"\x01\x7f", "\xff\xfe", "a\xc3", "ü", "u\u0308", "日本", "Case", "case", longest, strings.Repeat("ä", 127) + "x", strings.Repeat("\xff", 255),
	}
)

func nameCases() []testCase {
	return []testCase{
		{name: "odd", make: func(e *env) {
			for _, name := range oddNames {
				e.write(name, name)
			}
		}, run: func(e *env) {
			e.names(".", oddNames...)
			for _, name := range oddNames {
				e.content(name, name)
				e.write(name, name+"!")
				e.content(name, name+"!")
			}
			for i, name := range oddNames {
				e.remove(name)
				e.absent(name)
				e.mkdir(name)
				if i+1 < len(oddNames) {
					e.content(oddNames[i+1], oddNames[i+1]+"!")
				}
			}
			e.names(".", oddNames...)
		}},
		{name: "odd, new in a lower directory", make: func(e *env) { e.mkdir("dir"); e.write("dir/old", "") }, run: func(e *env) {
			for _, name := range oddNames {
				e.write("dir/"+name, name)
			}
			e.names("dir", append([]string{"old"}, oddNames...)...)
			for i, name := range oddNames[1:] {
				e.rename("dir/"+name, "dir/"+oddNames[i])
				e.content("dir/"+oddNames[i], name)
			}
		}},
		{name: "too long", make: func(e *env) { e.write("file", ""); e.mkdir("dir") }, run: func(e *env) {
			long := longest + "x"
			var st unix.Stat_t
			e.openFails(long, unix.O_CREAT|unix.O_WRONLY, unix.ENAMETOOLONG)
			e.openFails("dir/"+long, unix.O_RDONLY, unix.ENAMETOOLONG)
			e.fails("stat", unix.Stat(e.at(long), &st), unix.ENAMETOOLONG)
			e.fails("mkdir", unix.Mkdir(e.at(long), 0o755), unix.ENAMETOOLONG)
			e.fails("symlink", unix.Symlink("x", e.at(long)), unix.ENAMETOOLONG)
			e.fails("link", unix.Link(e.at("file"), e.at(long)), unix.ENAMETOOLONG)
			e.fails("rename", unix.Rename(e.at("file"), e.at(long)), unix.ENAMETOOLONG)
			e.fails("mkfifo", unix.Mkfifo(e.at(long), 0o644), unix.ENAMETOOLONG)
			e.fails("unlink", unix.Unlink(e.at(long)), unix.ENAMETOOLONG)
			e.names(".", "dir", "file")
		}},
		{name: "longest, of every kind", make: func(e *env) { e.write("file", "x") }, run: func(e *env) {
			e.link("file", longest)
			e.remove(longest)
			e.mkdir(longest)
			e.remove(longest)
			e.symlink("file", longest)
			e.content(longest, "x")
			e.remove(longest)
			e.rename("file", longest)
			e.content(longest, "x")
			e.remove(longest)
			e.names(".")
		}},
		{name: "long paths", make: func(e *env) { e.descend(true) }, run: func(e *env) {
			e.descend(false)
			_, err := os.ReadFile(e.at("d" + strings.Repeat("/"+strings.Repeat("d", 200), lowerDepth+newDepth)))
			e.fails("path of more than PATH_MAX", err, unix.ENAMETOOLONG)
			e.check(os.RemoveAll(e.at("d")))
		}},
		{name: "slashes and dots", make: func(e *env) { e.mkdir("dir", "dir/sub"); e.write("dir/file", "x") }, run: func(e *env) {
			for _, path := range []string{"/dir//file", "//dir/./file", "/dir/sub/../file", "/./dir/file"} {
				b, err := os.ReadFile(e.dir + path)
				e.check(err)
				equal(e, path, string(b), "x")
			}
			var st unix.Stat_t
			e.check(unix.Stat(e.dir+"/dir/sub/..", &st))
			equal(e, "inode of ..", st.Ino, e.stat("dir").Ino)
			e.fails("empty path", unix.Stat("", &st), unix.ENOENT)
			e.fails("below a file", unix.Stat(e.dir+"/dir/file/..", &st), unix.ENOTDIR)
		}},
		{name: "looked up before they are there", make: func(e *env) { e.mkdir("dir") }, run: func(e *env) {
			for _, name := range []string{"file", "dir/file"} {
				for range 3 {
					e.absent(name)
					e.write(name, "x")
					e.content(name, "x")
					e.remove(name)
				}
				e.absent(name)
				e.write("x", "y")
				e.rename("x", name)
				e.content(name, "y")
				e.absent("x")
				e.link(name, "x")
				e.content("x", "y")
				e.remove("x")
			}
		}},
	}
}

// Directories of 200 bytes each on the way to a file: those of the lower layer fit into
// a path, as tars have it, with those made later they do not.
const lowerDepth, newDepth = 18, 8

// descend goes down below "d", making the way there, or using it and making it longer.
func (e *env) descend(making bool) {
	e.alone(func(e *env) {
		if making {
			e.check(unix.Mkdir("d", 0o755))
		}
		e.check(unix.Chdir("d"))
		name := strings.Repeat("d", 200)
		down := func(n int, making bool) {
			for range n {
				if making {
					e.check(unix.Mkdir(name, 0o755))
				}
				e.check(unix.Chdir(name))
			}
		}
		down(lowerDepth, making)
		if making {
			e.write("file", "bottom")
			return
		}
		e.content("file", "bottom")
		e.write("file", "changed")
		e.content("file", "changed")
		down(newDepth, true)
		e.write("new", "new")
		e.names(".", "new")
		e.content("new", "new")
	})
}
