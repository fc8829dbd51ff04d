package posixtest

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// target wants a symbolic link to lead there.
func (e *env) target(name, want string) {
	got, err := os.Readlink(e.at(name))
	e.check(err)
	equal(e, "target of "+name, got, want)
}

func symlinkCases() []testCase {
	return []testCase{
		{name: "targets", make: func(e *env) {
			for i, target := range linkTargets {
				e.symlink(target, fmt.Sprint(i))
			}
		}, run: func(e *env) {
			for i, target := range linkTargets {
				name := fmt.Sprint(i)
				e.target(name, target)
				st := e.stat(name)
				equal(e, "size", st.Size, int64(len(target)))
				equal(e, "mode", st.Mode, unix.S_IFLNK|0o777)
			}
		}},
		{name: "too long, and empty", run: func(e *env) {
			e.fails("4096 bytes", unix.Symlink(strings.Repeat("x", 4096), e.at("x")), unix.ENAMETOOLONG)
			e.fails("empty", unix.Symlink("", e.at("x")), unix.ENOENT)
			e.names(".")
		}},
		{name: "over what is there", make: func(e *env) { e.write("file", ""); e.symlink("nowhere", "link") }, run: func(e *env) {
			e.fails("file", unix.Symlink("x", e.at("file")), unix.EEXIST)
			e.fails("link", unix.Symlink("x", e.at("link")), unix.EEXIST)
		}},
		{name: "read in part", make: func(e *env) { e.symlink("0123456789", "link"); e.write("file", "") }, run: func(e *env) {
			b := make([]byte, 4)
			n, err := unix.Readlink(e.at("link"), b)
			e.check(err)
			equal(e, "target", string(b[:n]), "0123")
			_, err = unix.Readlink(e.at("file"), b)
			e.fails("readlink of a file", err, unix.EINVAL)
		}},
		{name: "loops", make: func(e *env) {
			e.symlink("b", "a")
			e.symlink("a", "b")
			e.symlink("self/x", "self")
		}, run: func(e *env) {
			var st unix.Stat_t
			for _, name := range []string{"a", "b", "self", "a/x"} {
				e.fails("stat "+name, unix.Stat(e.at(name), &st), unix.ELOOP)
				e.openFails(name, unix.O_RDONLY, unix.ELOOP)
			}
			e.openFails("a", unix.O_CREAT|unix.O_WRONLY, unix.ELOOP)
		}},
		{name: "chains", make: func(e *env) {
			e.write("0", "end")
			for i := range 41 {
				e.symlink(fmt.Sprint(i), fmt.Sprint(i+1))
			}
		}, run: func(e *env) {
			// The kernel follows 40 in all, also if it has to begin the walk again (RCU walk, fs/namei.c),
			// and then counts those before that too: now and then that is one too many.
			var st unix.Stat_t
			for range 20 {
				if unix.Stat(e.at("40"), &st) != unix.ELOOP {
					break
				}
			}
			equal(e, "inode at the end", st.Ino, e.stat("0").Ino)
			e.content("20", "end")
			e.openFails("41", unix.O_RDONLY, unix.ELOOP)
		}},
		{name: "to directories", make: func(e *env) {
			e.mkdir("dir", "other")
			e.write("dir/file", "x")
			e.symlink("dir", "link")
			e.symlink("../dir/./file", "other/up")
		}, run: func(e *env) {
			e.content("link/file", "x")
			e.content("other/up", "x")
			e.write("link/new", "y")
			e.content("dir/new", "y")
			e.fails("rmdir of the link", unix.Rmdir(e.at("link")), unix.ENOTDIR)
			e.fails("unlink with a slash", unix.Unlink(e.dir+"/link/"), unix.ENOTDIR, unix.EISDIR)
			var st unix.Stat_t
			e.check(unix.Lstat(e.dir+"/link/", &st))
			equal(e, "inode with a slash", st.Ino, e.stat("dir").Ino)
			e.remove("link")
			e.names("dir", "file", "new")
		}},
		{name: "dangling", make: func(e *env) { e.symlink("nowhere", "link") }, run: func(e *env) {
			e.openFails("link", unix.O_RDWR, unix.ENOENT)
			e.fails("mkdir over it", unix.Mkdir(e.at("link"), 0o755), unix.EEXIST)
			e.fails("truncate", unix.Truncate(e.at("link"), 0), unix.ENOENT)
		}},
		{name: "owner and times", root: true, make: func(e *env) { e.write("file", ""); e.symlink("file", "link") }, run: func(e *env) {
			e.chown("link", 5, 6)
			e.owner("link", 5, 6)
			e.owner("file", 0, 0)
			e.age("link")
			equal(e, "mtime", e.stat("link").Mtim, longAgo)
			if e.stat("file").Mtim == longAgo {
				e.Error("the times of the target were set")
			}
			e.target("link", "file")
		}},
		{name: "attributes", root: true, make: func(e *env) { e.symlink("x", "link") }, run: func(e *env) {
			e.fails("user attribute", unix.Lsetxattr(e.at("link"), "user.x", []byte("y"), 0), unix.EPERM)
			e.check(unix.Lsetxattr(e.at("link"), "trusted.x", []byte("y"), 0))
			b := make([]byte, 5)
			n, err := unix.Lgetxattr(e.at("link"), "trusted.x", b)
			e.check(err)
			equal(e, "attribute", string(b[:n]), "y")
			e.fails("chmod", unix.Fchmodat(unix.AT_FDCWD, e.at("link"), 0o600, unix.AT_SYMLINK_NOFOLLOW), unix.EOPNOTSUPP)
		}},
	}
}

var linkTargets = []string{
	"x", "/absolute", "..", "a b\n", "\xff\xfe", "trailing/", "//", strings.Repeat("l", 59), strings.Repeat("l", 60),
	strings.Repeat("l", 255), strings.Repeat("p/", 1000), strings.Repeat("l", 4094), strings.Repeat("l", 4095),
}
