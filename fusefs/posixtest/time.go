package posixtest

import (
	"time"

	"golang.org/x/sys/unix"
)

func at(sec int64) time.Time { return time.Unix(sec, 0) }

func moment(ts unix.Timespec) time.Time { return time.Unix(ts.Unix()) }

// changes remembers a file's times. The function that it returns wants mtime and ctime
// to have changed since, or not.
func (e *env) changes(name string) func(what string, mtime, ctime bool) {
	before := e.stat(name)
	time.Sleep(aging)
	return func(what string, mtime, ctime bool) {
		after := e.stat(name)
		if (before.Mtim != after.Mtim) != mtime {
			e.Errorf("%s: mtime was %v and is %v", what, before.Mtim, after.Mtim)
		}
		if (before.Ctim != after.Ctim) != ctime {
			e.Errorf("%s: ctime was %v and is %v", what, before.Ctim, after.Ctim)
		}
	}
}

func (e *env) utimes(name string, atime, mtime unix.Timespec) {
	e.check(unix.UtimesNanoAt(unix.AT_FDCWD, e.at(name), []unix.Timespec{atime, mtime}, unix.AT_SYMLINK_NOFOLLOW))
}

func timeCases() []testCase {
	file := func(e *env) { e.write("file", "content"); e.age("file") }
	now := unix.Timespec{Nsec: unix.UTIME_NOW}
	omit := unix.Timespec{Nsec: unix.UTIME_OMIT}
	return []testCase{
		{name: "set", make: func(e *env) { file(e); e.mkdir("dir"); e.symlink("x", "link") }, run: func(e *env) {
			for _, name := range []string{"file", "dir", "link"} {
				for _, ts := range []unix.Timespec{
					{},
					{Sec: 1},
					{Nsec: 999999999},
					{Sec: 1700000000, Nsec: 1},
					{Sec: -1, Nsec: 5},
					{Sec: -1e9},
					{Sec: 1<<31 - 1},
					{Sec: 1 << 31, Nsec: 7},
					{Sec: 1 << 32, Nsec: 123},
					{Sec: 15032385535},
				} {
					e.utimes(name, ts, unix.Timespec{Sec: ts.Sec - 1, Nsec: ts.Nsec})
					st := e.stat(name)
					equal(e, "atime of "+name, st.Atim, ts)
					equal(e, "mtime of "+name, st.Mtim, unix.Timespec{Sec: ts.Sec - 1, Nsec: ts.Nsec})
				}
			}
		}},
		{name: "beyond what can be", make: file, run: func(e *env) {
			// ext4's inodes of 256 bytes end in 2446. Times are cut off there, without
			// an error: utimensat(2).
			for _, sec := range []int64{1 << 40, -1 << 40} {
				e.utimes("file", omit, unix.Timespec{Sec: sec})
				if got := e.stat("file").Mtim.Sec; got > 0 != (sec > 0) {
					e.Errorf("mtime %d became %d", sec, got)
				}
			}
		}},
		{name: "now and omit", make: file, run: func(e *env) {
			wait := e.changes("file")
			e.utimes("file", omit, omit)
			wait("omit both", false, false)
			e.utimes("file", now, omit)
			wait("atime now", false, true)
			if d := time.Since(moment(e.stat("file").Atim)); d < -time.Second || d > time.Minute {
				e.Errorf("atime is %v ago", d)
			}
			wait = e.changes("file")
			e.utimes("file", omit, now)
			wait("mtime now", true, true)
		}},
		{name: "by descriptor", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDONLY)
			e.check(unix.Futimes(fd, []unix.Timeval{{Sec: 5, Usec: 6}, {Sec: 7, Usec: 8}}))
			equal(e, "mtime", e.stat("file").Mtim, unix.Timespec{Sec: 7, Nsec: 8000})
			e.fails("nanoseconds that are none", unix.UtimesNanoAt(unix.AT_FDCWD, e.at("file"), []unix.Timespec{{Nsec: 1e9}, {}}, 0), unix.EINVAL)
		}},
		{name: "by others", root: true, make: func(e *env) {
			file(e)
			e.chown("file", 1000, 1000)
			e.chmod("file", 0o666)
			e.write("other", "")
			e.age("other")
		}, run: func(e *env) {
			set := func(name string, a, m unix.Timespec) error {
				return unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{a, m}, 0)
			}
			e.as(1001, 1001, func(e *env) {
				e.fails("a time", set("file", unix.Timespec{Sec: 5}, unix.Timespec{Sec: 5}), unix.EPERM)
				e.fails("one of them", set("file", omit, now), unix.EPERM)
				e.check(set("file", now, now)) // may write
				e.fails("now, without writing", set("other", now, now), unix.EACCES)
				e.check(set("other", omit, omit))
			})
			e.as(1000, 1000, func(e *env) { e.check(set("file", unix.Timespec{Sec: 5}, unix.Timespec{Sec: 6})) })
			equal(e, "mtime", e.stat("file").Mtim.Sec, 6)
			equal(e, "mtime of the other", e.stat("other").Mtim, longAgo)
		}},
		{name: "write and truncate", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			for what, op := range map[string]func(){
				"write":           func() { e.pwrite(fd, "x", 0) },
				"truncate":        func() { e.check(unix.Truncate(e.at("file"), 3)) },
				"ftruncate":       func() { e.check(unix.Ftruncate(fd, 5)) },
				"allocate":        func() { e.check(unix.Fallocate(fd, 0, 0, 10)) },
				"copy_file_range": func() { e.copyInto(fd) },
			} {
				e.age("file")
				wait := e.changes("file")
				op()
				wait(what, true, true)
			}
			e.age("file")
			wait := e.changes("file")
			e.pread(fd, 10, 0)
			e.check(unix.Fsync(fd))
			wait("read and fsync", false, false)
			_, err := unix.Pwrite(fd, nil, 0)
			e.check(err)
			wait("write of nothing", false, false)
		}},
		{name: "other changes", make: file, run: func(e *env) {
			for _, op := range []struct {
				what string
				do   func()
			}{
				{"chmod", func() { e.chmod("file", 0o600) }},
				{"setxattr", func() { e.check(unix.Setxattr(e.at("file"), "user.x", nil, 0)) }},
				{"removexattr", func() { e.check(unix.Removexattr(e.at("file"), "user.x")) }},
				{"link", func() { e.link("file", "link") }},
				{"unlink", func() { e.remove("link") }},
				{"rename", func() { e.rename("file", "x"); e.rename("x", "file") }},
				{"chown", func() { e.chown("file", -1, e.gid()) }},
			} {
				wait := e.changes("file")
				op.do()
				wait(op.what, false, true)
			}
		}},
		{name: "kept when copied up", make: func(e *env) { file(e); e.link("file", "link") }, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			equal(e, "mtime", e.fstat(fd).Mtim, longAgo)
			equal(e, "mtime by name", e.stat("file").Mtim, longAgo)
			e.close(fd)
			equal(e, "mtime after close", e.stat("file").Mtim, longAgo)
		}},
		{name: "set, then closed", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			e.pwrite(fd, "written", 0)
			e.age("file")
			e.close(fd)
			equal(e, "mtime", e.stat("file").Mtim, longAgo)
		}},
		{name: "clock", run: func(e *env) {
			before := time.Now().Add(-20 * time.Millisecond)
			e.write("file", "x")
			st := e.stat("file")
			for _, ts := range []unix.Timespec{st.Atim, st.Mtim, st.Ctim} {
				if t := moment(ts); t.Before(before) || t.After(time.Now()) {
					e.Errorf("a new file has the time %v, now is %v", t, time.Now())
				}
			}
		}},
	}
}

func (e *env) gid() int { return int(e.stat("file").Gid) }

func (e *env) copyInto(fd int) {
	from := e.open("source", unix.O_CREAT|unix.O_RDWR)
	e.pwrite(from, "source", 0)
	in, out := int64(0), int64(0)
	_, err := unix.CopyFileRange(from, &in, fd, &out, 3, 0)
	e.check(err)
}
