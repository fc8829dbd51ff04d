package posixtest

import (
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

func specialCases() []testCase {
	fifo := func(e *env) { e.check(unix.Mkfifo(e.at("fifo"), 0o644)) }
	return []testCase{
		{name: "fifo", make: fifo, run: func(e *env) {
			e.openFails("fifo", unix.O_WRONLY|unix.O_NONBLOCK, unix.ENXIO)
			done := make(chan error, 1)
			go func() {
				w, err := os.OpenFile(e.at("fifo"), os.O_WRONLY, 0)
				if err == nil {
					_, err = w.WriteString("through the FIFO")
					err = firstError(err, w.Close())
				}
				done <- err
			}()
			r, err := os.Open(e.at("fifo"))
			e.check(err)
			b, err := io.ReadAll(r)
			e.check(firstError(err, r.Close(), <-done))
			equal(e, "read", string(b), "through the FIFO")
			equal(e, "size", e.stat("fifo").Size, 0)
		}},
		{name: "fifo of two names", make: func(e *env) { fifo(e); e.link("fifo", "other") }, run: func(e *env) {
			a, b := e.open("fifo", unix.O_RDWR|unix.O_NONBLOCK), e.open("other", unix.O_RDWR|unix.O_NONBLOCK)
			e.put(a, "x")
			c := make([]byte, 5)
			n, err := unix.Read(b, c)
			e.check(err)
			equal(e, "read by the other name", string(c[:n]), "x")
		}},
		{name: "fifo while its mode changes", make: fifo, run: func(e *env) {
			a := e.open("fifo", unix.O_RDWR|unix.O_NONBLOCK)
			e.chmod("fifo", 0o600) // copied up
			b := e.open("fifo", unix.O_RDWR|unix.O_NONBLOCK)
			e.put(a, "x")
			c := make([]byte, 5)
			n, err := unix.Read(b, c)
			e.check(err)
			equal(e, "read", string(c[:n]), "x")
		}},
		{name: "fifo by a user", root: true, make: func(e *env) { e.mkdir("dir"); e.chmod("dir", 0o777) }, run: func(e *env) {
			e.as(1000, 1001, func(e *env) {
				e.check(unix.Mkfifo("dir/fifo", 0o666))
				e.owner("dir/fifo", 1000, 1001)
				e.mode("dir/fifo", 0o644)
				e.fails("device", unix.Mknod("dir/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), unix.EPERM)
				e.check(unix.Mknod("dir/file", unix.S_IFREG|0o600, 0))
				e.write("dir/file", "x")
			})
		}},
		{name: "devices", root: true, make: func(e *env) {
			e.check(unix.Mknod(e.at("zero"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))))
			e.check(unix.Mknod(e.at("block"), unix.S_IFBLK|0o600, int(unix.Mkdev(4095, 1048575))))
		}, run: func(e *env) {
			var fs unix.Statfs_t
			e.check(unix.Statfs(e.dir, &fs))
			if fs.Flags&unix.ST_NODEV == 0 {
				b := []byte("xxx")
				n, err := unix.Read(e.open("zero", unix.O_RDONLY), b)
				e.check(err)
				equal(e, "read", string(b[:n]), zeros(3))
				e.openFails("block", unix.O_RDONLY, unix.ENXIO)
			}
			e.check(unix.Mknod(e.at("null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
			equal(e, "device", e.stat("null").Rdev, unix.Mkdev(1, 3))
			equal(e, "device", e.stat("block").Rdev, unix.Mkdev(4095, 1048575))
			equal(e, "type", e.stat("block").Mode&unix.S_IFMT, unix.S_IFBLK)
			e.fails("over what is there", unix.Mknod(e.at("null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))), unix.EEXIST)
			e.fails("a directory", unix.Mknod(e.at("x"), unix.S_IFDIR|0o600, 0), unix.EPERM, unix.EINVAL)
			e.age("zero")
			equal(e, "mtime", e.stat("zero").Mtim, longAgo)
		}},
		{name: "device 0:0", root: true, run: func(e *env) {
			e.check(unix.Mknod(e.at("whiteout"), unix.S_IFCHR|0o600, 0))
			equal(e, "device", e.stat("whiteout").Rdev, 0)
			e.names(".", "whiteout")
		}},
		{name: "socket", run: func(e *env) {
			e.alone(func(e *env) { // a socket's path is short
				fd := e.listen("socket")
				equal(e, "type", e.stat("socket").Mode&unix.S_IFMT, unix.S_IFSOCK)
				e.openFails("socket", unix.O_RDONLY, unix.ENXIO)
				other, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				e.check(err)
				e.fds = append(e.fds, other)
				e.fails("bind again", unix.Bind(other, &unix.SockaddrUnix{Name: "socket"}), unix.EADDRINUSE)
				e.rename("socket", "moved")
				e.chmod("moved", 0o600)
				e.link("moved", "link")
				for _, name := range []string{"moved", "link"} {
					e.connect(fd, name)
				}
				e.remove("moved")
				e.names(".", "link")
			})
		}},
		{name: "socket in a lower directory", make: func(e *env) { e.mkdir("dir"); e.write("dir/socket", "") }, run: func(e *env) {
			e.remove("dir/socket")
			e.alone(func(e *env) {
				e.connect(e.listen("dir/socket"), "dir/socket")
				e.remove("dir/socket")
				e.names("dir")
			})
		}},
		{name: "socket of the net package", run: func(e *env) {
			// The path of a socket has 108 bytes (unix(7)), and a test's directory may be deep.
			dir, err := unix.Open(e.at("."), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			e.check(err)
			e.fds = append(e.fds, dir)
			path := fmt.Sprintf("/proc/self/fd/%d/s", dir)
			l, err := net.Listen("unix", path)
			e.check(err)
			c, err := net.Dial("unix", path)
			e.check(err)
			e.check(firstError(c.Close(), l.Close()))
			e.absent("s")
		}},
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *env) listen(name string) int {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	e.check(err)
	e.fds = append(e.fds, fd)
	e.check(unix.Bind(fd, &unix.SockaddrUnix{Name: name}))
	e.check(unix.Listen(fd, 5))
	return fd
}

// connect sends a word to who listens.
func (e *env) connect(listener int, name string) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	e.check(err)
	e.fds = append(e.fds, fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		e.Fatalf("connect to %s: %v", name, err)
	}
	e.put(fd, "word")
	peer, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	e.check(err)
	e.fds = append(e.fds, peer)
	b := make([]byte, 10)
	n, err := unix.Read(peer, b)
	e.check(err)
	equal(e, "word", string(b[:n]), "word")
}
