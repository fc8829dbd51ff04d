package posixtest

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// copyCases are the ways in which the kernel moves data from file to file.
func copyCases() []testCase {
	const size = 100 * kib
	file := func(e *env) { e.write("file", pattern(size)) }
	return []testCase{
		{name: "copy_file_range", make: file, run: func(e *env) {
			in, out := e.open("file", unix.O_RDONLY), e.open("new", unix.O_CREAT|unix.O_RDWR)
			inOff, outOff := int64(1000), int64(10)
			for left := 50_000; left > 0; {
				n, err := unix.CopyFileRange(in, &inOff, out, &outOff, left, 0)
				e.check(err)
				if n == 0 {
					e.Fatal("nothing was copied")
				}
				left -= n
			}
			equal(e, "input offset", inOff, 51_000)
			equal(e, "output offset", outOff, 50_010)
			e.content("new", zeros(10)+pattern(size)[1000:51_000])
			n, err := unix.CopyFileRange(in, nil, out, nil, 10, 0)
			e.check(err)
			equal(e, "bytes copied", n, 10)
			equal(e, "start", e.pread(out, 10, 0), pattern(10))
		}},
		{name: "copy_file_range into a file of the lower layer", make: func(e *env) { file(e); e.write("to", "0123456789") }, run: func(e *env) {
			in, out := e.open("file", unix.O_RDONLY), e.open("to", unix.O_RDWR)
			inOff, outOff := int64(0), int64(5)
			n, err := unix.CopyFileRange(in, &inOff, out, &outOff, 3, 0)
			e.check(err)
			equal(e, "bytes copied", n, 3)
			e.content("to", "01234"+pattern(3)+"89")
		}},
		{name: "copy_file_range in one file", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			inOff, outOff := int64(0), int64(50_000)
			n, err := unix.CopyFileRange(fd, &inOff, fd, &outOff, 10_000, 0)
			e.check(err)
			equal(e, "bytes copied", n, 10_000)
			p := pattern(size)
			e.content("file", p[:50_000]+p[:10_000]+p[60_000:])
			inOff, outOff = 0, 5
			_, err = unix.CopyFileRange(fd, &inOff, fd, &outOff, 10, 0)
			e.fails("overlapping ranges", err, unix.EINVAL)
		}},
		{name: "copy_file_range wrongly", make: func(e *env) { file(e); e.mkdir("dir") }, run: func(e *env) {
			in := e.open("file", unix.O_RDONLY)
			_, err := unix.CopyFileRange(in, nil, e.open("file", unix.O_RDONLY), nil, 10, 0)
			e.fails("to a read-only descriptor", err, unix.EBADF)
			_, err = unix.CopyFileRange(in, nil, e.open("x", unix.O_CREAT|unix.O_WRONLY|unix.O_APPEND), nil, 10, 0)
			e.fails("to the end", err, unix.EBADF)
			_, err = unix.CopyFileRange(e.open("dir", unix.O_RDONLY), nil, e.open("x", unix.O_WRONLY), nil, 10, 0)
			e.fails("from a directory", err, unix.EISDIR)
			off := int64(size)
			n, err := unix.CopyFileRange(in, &off, e.open("x", unix.O_WRONLY), nil, 10, 0)
			e.check(err)
			equal(e, "bytes copied at the end", n, 0)
		}},
		{name: "sendfile", make: file, run: func(e *env) {
			in, out := e.open("file", unix.O_RDONLY), e.open("new", unix.O_CREAT|unix.O_RDWR)
			off := int64(1000)
			for left := 50_000; left > 0; {
				n, err := unix.Sendfile(out, in, &off, left)
				e.check(err)
				if n == 0 {
					e.Fatal("nothing was sent")
				}
				left -= n
			}
			e.content("new", pattern(size)[1000:51_000])
		}},
		{name: "splice", make: file, run: func(e *env) {
			r, w, err := os.Pipe()
			e.check(err)
			defer r.Close()
			defer w.Close()
			in, out := e.open("file", unix.O_RDONLY), e.open("new", unix.O_CREAT|unix.O_RDWR)
			off := int64(5)
			n, err := unix.Splice(in, &off, int(w.Fd()), nil, 8192, 0)
			e.check(err)
			equal(e, "bytes read", n, 8192)
			n, err = unix.Splice(int(r.Fd()), nil, out, nil, 8192, 0)
			e.check(err)
			equal(e, "bytes written", n, 8192)
			e.content("new", pattern(size)[5:8197])
		}},
		{name: "clone", make: file, run: func(e *env) {
			out := e.open("new", unix.O_CREAT|unix.O_RDWR)
			err := unix.IoctlFileClone(out, e.open("file", unix.O_RDONLY))
			if err == nil { // btrfs and xfs can
				e.content("new", pattern(size))
				return
			}
			e.fails("clone", err, unix.EOPNOTSUPP, unix.EXDEV, unix.EINVAL, unix.ENOTTY)
		}},
		{name: "io.Copy", make: file, run: func(e *env) {
			in, err := os.Open(e.at("file"))
			e.check(err)
			defer in.Close()
			out, err := os.Create(e.at("new"))
			e.check(err)
			n, err := io.Copy(out, in)
			e.check(err)
			e.check(out.Close())
			equal(e, "bytes copied", n, size)
			e.content("new", pattern(size))
		}},
	}
}
