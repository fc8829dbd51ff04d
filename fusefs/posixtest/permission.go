package posixtest

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Whom files belong to and who asks for them, in these cases.
const (
	owner, ownersGroup = 1000, 2000
	another, alien     = 1001, 3000
)

func permissionCases() []testCase {
	modes := []uint32{0, 0o400, 0o200, 0o040, 0o020, 0o004, 0o002, 0o600, 0o060, 0o006, 0o640, 0o644, 0o666, 0o077, 0o700, 0o111}
	return []testCase{
		{name: "files", root: true, make: func(e *env) {
			for _, mode := range modes {
				e.owned(fmt.Sprintf("%03o", mode), mode)
			}
		}, run: func(e *env) {
			for range 2 {
				for _, mode := range modes {
					name := fmt.Sprintf("%03o", mode)
					e.as(owner, alien, func(e *env) { e.allows(name, mode>>6) })
					e.as(owner, ownersGroup, func(e *env) { e.allows(name, mode>>6) })
					e.as(another, ownersGroup, func(e *env) { e.allows(name, mode>>3) })
					e.as(another, alien, func(e *env) { e.allows(name, mode>>3) }, ownersGroup)
					e.as(another, alien, func(e *env) { e.allows(name, mode) })
					e.allows(name, 6|mode>>6&1|mode>>3&1|mode&1) // root reads and writes all
					e.age(name)                                  // copied up
				}
			}
		}},
		{name: "directories", root: true, make: func(e *env) {
			for mode := range uint32(8) {
				name := fmt.Sprintf("%o", mode)
				e.mkdir(name)
				e.write(name+"/file", "x")
				e.chmod(name+"/file", 0o666)
				e.write(name+"/gone", "")
				e.chmod(name, 0o700|mode)
			}
		}, run: func(e *env) {
			e.as(another, alien, func(e *env) {
				for mode := range uint32(8) {
					name := fmt.Sprintf("%o", mode)
					allowed := func(what string, err error, bits uint32) {
						if mode&bits == bits {
							e.check(err)
						} else {
							e.fails(what+" in a directory of mode "+name, err, unix.EACCES)
						}
					}
					fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
					e.fds = append(e.fds, fd)
					allowed("list", err, 4)
					var st unix.Stat_t
					allowed("stat", unix.Stat(name+"/file", &st), 1)
					allowed("truncate", unix.Truncate(name+"/file", 0), 1)
					allowed("mkdir", unix.Mkdir(name+"/sub", 0o755), 3)
					allowed("symlink", unix.Symlink("x", name+"/link"), 3)
					allowed("unlink", unix.Unlink(name+"/gone"), 3)
					allowed("rename", unix.Rename(name+"/file", name+"/file2"), 3)
				}
			})
		}},
		{name: "owner of what is made", root: true, make: func(e *env) { e.mkdir("dir"); e.chmod("dir", 0o777) }, run: func(e *env) {
			e.as(another, alien, func(e *env) {
				e.write("dir/file", "")
				e.mkdir("dir/sub")
				e.symlink("x", "dir/link")
				e.check(unix.Mkfifo("dir/fifo", 0o600))
				fd := e.openMode("dir", unix.O_TMPFILE|unix.O_RDWR, 0o600)
				equal(e, "owner of a temporary file", e.fstat(fd).Uid, another)
				for _, name := range []string{"file", "sub", "link", "fifo"} {
					e.owner("dir/"+name, another, alien)
				}
				e.openMode("dir/readonly", unix.O_CREAT|unix.O_RDWR, 0o400) // may write to it this once
				e.mode("dir/readonly", 0o400)
			})
		}},
		{name: "copied up by others", root: true, make: func(e *env) {
			e.mkdir("dir", "dir/sub")
			e.owned("dir/sub/file", 0o666)
			e.chown("dir/sub", 0, ownersGroup)
			e.chmod("dir/sub", 0o711)
		}, run: func(e *env) {
			e.as(another, alien, func(e *env) { e.pwrite(e.open("dir/sub/file", unix.O_WRONLY), "x", 0) })
			e.owner("dir/sub/file", owner, ownersGroup)
			e.mode("dir/sub/file", 0o666)
			e.owner("dir/sub", 0, ownersGroup)
			e.mode("dir/sub", 0o711)
			e.owner("dir", 0, 0)
		}},
		{name: "access", root: true, make: func(e *env) { e.owned("file", 0o640); e.owned("program", 0o751) }, run: func(e *env) {
			e.as(another, alien, func(e *env) {
				e.check(unix.Access("file", unix.F_OK))
				e.fails("read", unix.Access("file", unix.R_OK), unix.EACCES)
				e.check(unix.Access("program", unix.X_OK))
				e.fails("write", unix.Access("program", unix.X_OK|unix.W_OK), unix.EACCES)
				e.fails("nothing", unix.Access("none", unix.F_OK), unix.ENOENT)
			})
			e.fails("execution by root", unix.Access(e.at("file"), unix.X_OK), unix.EACCES)
			e.check(unix.Access(e.at("program"), unix.R_OK|unix.W_OK|unix.X_OK))
			// access(2) asks for the real user, the effective one would be root.
			e.alone(func(e *env) {
				if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, another, 0, 0); errno != 0 {
					e.Fatal(errno)
				}
				e.fails("read by the real user", unix.Access("file", unix.R_OK), unix.EACCES)
				e.check(unix.Faccessat2(unix.AT_FDCWD, "file", unix.R_OK, unix.AT_EACCESS))
			})
		}},
		{name: "above the directory", root: true, make: func(e *env) {
			e.mkdir("closed", "closed/open")
			e.write("closed/open/file", "x")
			e.chmod("closed/open", 0o777)
			e.chmod("closed/open/file", 0o666)
			e.chmod("closed", 0o700)
		}, run: func(e *env) {
			e.as(another, alien, func(e *env) {
				e.openFails("closed/open/file", unix.O_RDONLY, unix.EACCES)
				e.fails("mkdir", unix.Mkdir("closed/open/x", 0o755), unix.EACCES)
				e.fails("chdir", unix.Chdir("closed"), unix.EACCES)
			})
			e.chmod("closed", 0o711)
			e.as(another, alien, func(e *env) { e.write("closed/open/file", "y") })
			e.chmod("closed", 0o700)
			e.as(another, alien, func(e *env) { e.openFails("closed/open/file", unix.O_RDONLY, unix.EACCES) })
		}},
		{name: "descriptors outlast them", root: true, make: func(e *env) { e.owned("file", 0o666) }, run: func(e *env) {
			e.as(another, alien, func(e *env) {
				fd := e.open("file", unix.O_RDWR)
				e.check(unix.Chdir("/"))
				e.pwrite(fd, "x", 0)
			})
			r, w := e.open("file", unix.O_RDONLY), e.open("file", unix.O_WRONLY)
			e.chmod("file", 0)
			e.as(another, alien, func(e *env) {
				e.pwrite(w, "y", 0)
				equal(e, "read", e.pread(r, 5, 0), "y")
				e.openFails("file", unix.O_RDONLY, unix.EACCES)
			})
		}},
		{name: "directories of others cannot be moved", root: true, make: func(e *env) { e.mkdir("dir", "other"); e.chmod(".", 0o777) }, run: func(e *env) {
			e.chmod(".", 0o777)
			e.as(another, alien, func(e *env) {
				// It would change "..": write permission for the directory itself is needed.
				e.mkdir("mine")
				e.fails("move", unix.Rename("dir", "mine/dir"), unix.EACCES, unix.EXDEV)
				e.rename("mine", "mine2")
			})
		}},
		{name: "immutable owner's rights", root: true, make: func(e *env) { e.owned("file", 0o644) }, run: func(e *env) {
			e.as(another, alien, func(e *env) {
				e.openFails("file", unix.O_RDONLY|unix.O_NOATIME, unix.EPERM)
				e.fails("attribute", unix.Setxattr("file", "user.x", nil, 0), unix.EACCES)
				e.fails("truncate", unix.Truncate("file", 0), unix.EACCES)
			})
			e.as(owner, alien, func(e *env) { e.open("file", unix.O_RDWR|unix.O_NOATIME) })
		}},
	}
}

func (e *env) owned(name string, mode uint32) {
	e.write(name, "x")
	e.chown(name, owner, ownersGroup)
	e.chmod(name, mode)
}

// allows wants the bits (read 4, write 2, execute 1) to be what can be done.
func (e *env) allows(name string, bits uint32) {
	for _, c := range []struct {
		bit    uint32
		what   string
		flags  int
		access uint32
	}{
		{4, "read", unix.O_RDONLY, unix.R_OK},
		{2, "write", unix.O_WRONLY, unix.W_OK},
		{6, "read and write", unix.O_RDWR, unix.R_OK | unix.W_OK},
		{1, "execute", -1, unix.X_OK},
	} {
		err := unix.Access(e.at(name), c.access)
		if err == nil && c.flags >= 0 {
			e.close(e.open(name, c.flags))
		}
		if bits&c.bit == c.bit {
			if err != nil {
				e.Errorf("%s %s as %d: %v", c.what, name, unix.Getuid(), err)
			}
			continue
		}
		e.fails(c.what+" "+name, err, unix.EACCES)
		if c.flags >= 0 {
			e.openFails(name, c.flags, unix.EACCES)
		}
	}
}
