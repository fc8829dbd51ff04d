package posixtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func inotifyCases() []testCase {
	return []testCase{
		{name: "directory", make: func(e *env) { e.mkdir("dir"); e.write("dir/old", "x") }, run: func(e *env) {
			fd := e.watch("dir", unix.IN_CREATE|unix.IN_DELETE|unix.IN_MODIFY|unix.IN_MOVED_FROM|unix.IN_MOVED_TO|unix.IN_ATTRIB)
			e.put(e.open("dir/new", unix.O_CREAT|unix.O_WRONLY), "x")
			e.pwrite(e.open("dir/old", unix.O_WRONLY), "y", 0)
			e.chmod("dir/new", 0o600)
			e.rename("dir/new", "dir/moved")
			e.remove("dir/old")
			e.mkdir("dir/sub")
			e.events(fd, "create new", "modify new", "modify old", "attrib new", "from new", "to moved", "delete old", "create sub")
		}},
		{name: "file", make: func(e *env) { e.write("file", "content") }, run: func(e *env) {
			fd := e.watch("file", unix.IN_MODIFY|unix.IN_ATTRIB|unix.IN_DELETE_SELF)
			e.pwrite(e.open("file", unix.O_WRONLY), "x", 0)
			e.events(fd, "modify ")
			e.chmod("file", 0o600)
			e.events(fd, "attrib ")
		}},
	}
}

func (e *env) watch(name string, mask uint32) int {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	e.check(err)
	e.fds = append(e.fds, fd)
	_, err = unix.InotifyAddWatch(fd, e.at(name), mask)
	e.check(err)
	return fd
}

// events wants these to have been seen, others may have been as well.
func (e *env) events(fd int, want ...string) {
	words := map[uint32]string{
		unix.IN_CREATE: "create", unix.IN_DELETE: "delete", unix.IN_MODIFY: "modify", unix.IN_ATTRIB: "attrib",
		unix.IN_MOVED_FROM: "from", unix.IN_MOVED_TO: "to",
	}
	b := make([]byte, 64<<10)
	n, err := unix.Read(fd, b)
	if err != nil && !errors.Is(err, unix.EAGAIN) {
		e.Fatal(err)
	}
	var got []string
	for b = b[:max(n, 0)]; len(b) >= unix.SizeofInotifyEvent; {
		mask, length := binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[12:])
		name, _, _ := bytes.Cut(b[16:16+length], []byte{0})
		got = append(got, words[mask&^unix.IN_ISDIR]+" "+string(name))
		b = b[16+length:]
	}
	for _, w := range want {
		if !slices.Contains(got, w) {
			e.Errorf("event %q was not seen, but %q", w, strings.Join(got, ", "))
		}
	}
}
