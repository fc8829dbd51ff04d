package posixtest

import (
	"strings"

	"golang.org/x/sys/unix"
)

func dataCases() []testCase {
	const large = 300 << 10
	file := func(e *env) { e.write("file", "0123456789") }
	big := func(e *env) { e.write("file", pattern(large)) }
	return []testCase{
		{name: "end of file", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDONLY)
			equal(e, "read over the end", e.pread(fd, 20, 7), "789")
			equal(e, "read at the end", e.pread(fd, 20, 10), "")
			equal(e, "read beyond the end", e.pread(fd, 20, 1<<40), "")
			_, err := unix.Pread(fd, make([]byte, 1), -1)
			e.fails("read before the start", err, unix.EINVAL)
		}},
		{name: "middle of a large file", make: big, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			e.pwrite(fd, "middle", 200_001)
			want := pattern(large)
			want = want[:200_001] + "middle" + want[200_007:]
			e.content("file", want)
			equal(e, "read", e.pread(fd, large+1, 0), want)
		}},
		{name: "read while written", make: big, run: func(e *env) {
			r, w := e.open("file", unix.O_RDONLY), e.open("file", unix.O_WRONLY)
			want := []byte(pattern(large))
			for off := 0; off < large; off += 9999 {
				e.pwrite(w, "here", int64(off))
				want = append(want[:off], append([]byte("here"), want[min(off+4, large):]...)...)
				e.size("file", int64(len(want)))
			}
			equal(e, "read by a new descriptor", e.pread(e.open("file", unix.O_RDONLY), large+10, 0), string(want))
			equal(e, "read by the old descriptor", e.pread(r, large+10, 0), string(want))
		}},
		{name: "sizes and offsets", run: func(e *env) {
			fd := e.open("file", unix.O_CREAT|unix.O_RDWR)
			var want []byte
			for i, n := range []int{1, 4095, 4096, 4097, 1, 65536, 131072, 131073, 1 << 20, 3, 3<<20 + 1} {
				piece := strings.Repeat(string(rune('a'+i)), n)
				e.pwrite(fd, piece, int64(len(want)))
				want = append(want, piece...)
				e.size("file", int64(len(want)))
			}
			equal(e, "read", e.pread(fd, len(want)+1, 0), string(want))
		}},
		{name: "beyond the end", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			e.pwrite(fd, "end", 10_000)
			e.content("file", "0123456789"+zeros(9990)+"end")
		}},
		{name: "vectors", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			n, err := unix.Pwritev(fd, [][]byte{[]byte("ab"), {}, []byte("c")}, 4)
			e.check(err)
			equal(e, "bytes written", n, 3)
			n, err = unix.Pwritev2(fd, [][]byte{[]byte("end")}, 0, unix.RWF_APPEND)
			e.check(err)
			equal(e, "bytes appended", n, 3)
			a, b := make([]byte, 5), make([]byte, 20)
			n, err = unix.Preadv(fd, [][]byte{a, b}, 0)
			e.check(err)
			equal(e, "read", string(a)+string(b[:n-5]), "0123abc789end")
		}},
		{name: "file offset", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			e.put(fd, "ab")
			off, err := unix.Seek(fd, 3, unix.SEEK_CUR)
			e.check(err)
			equal(e, "offset", off, 5)
			e.put(fd, "cd")
			off, err = unix.Seek(fd, -1, unix.SEEK_END)
			e.check(err)
			equal(e, "offset from the end", off, 9)
			e.put(fd, "xyz")
			e.content("file", "ab234cd78xyz")
			_, err = unix.Seek(fd, -1, unix.SEEK_SET)
			e.fails("seek before the start", err, unix.EINVAL)
		}},
		{name: "64-bit offsets", make: func(e *env) {
			file(e)
			e.check(unix.Truncate(e.at("file"), 6<<30))
		}, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			e.pwrite(fd, "far", 5<<30)
			e.pwrite(fd, "farther", 20<<30)
			equal(e, "read", e.pread(fd, 4, 5<<30), "far\x00")
			equal(e, "read", e.pread(fd, 10, 20<<30), "farther")
			equal(e, "start", e.pread(fd, 12, 0), "0123456789\x00\x00")
			e.size("file", 20<<30+7)
		}},
		{name: "too far", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			_, err := unix.Pwrite(fd, []byte("xx"), 1<<63-1)
			e.fails("write", err, unix.EFBIG, unix.EINVAL)
			e.fails("truncate", unix.Ftruncate(fd, 1<<63-1), unix.EFBIG, unix.EINVAL)
			e.content("file", "0123456789")
		}},
		{name: "size is seen at once", make: file, run: func(e *env) {
			a, b := e.open("file", unix.O_RDWR), e.open("file", unix.O_RDWR)
			for i := range int64(20) {
				e.pwrite(a, "x", 10+i*1000)
				equal(e, "size by the other", e.fstat(b).Size, 11+i*1000)
				end, err := unix.Seek(b, 0, unix.SEEK_END)
				e.check(err)
				equal(e, "end", end, 11+i*1000)
				e.size("file", 11+i*1000)
			}
		}},
		{name: "by two names of a descriptor", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			e.rename("file", "moved")
			e.pwrite(fd, "x", 0)
			e.content("moved", "x123456789")
		}},
		{name: "sync", make: func(e *env) { file(e); e.mkdir("dir") }, run: func(e *env) {
			for _, fd := range []int{e.open("file", unix.O_RDONLY), e.open("file", unix.O_RDWR), e.open("dir", unix.O_RDONLY), e.open(".", unix.O_RDONLY)} {
				e.check(unix.Fsync(fd))
				e.check(unix.Fdatasync(fd))
				e.check(unix.Syncfs(fd))
			}
			fd := e.open("file", unix.O_RDWR)
			e.pwrite(fd, "x", 0)
			e.check(unix.SyncFileRange(fd, 0, 10, unix.SYNC_FILE_RANGE_WRITE))
			e.fails("fsync of a path", unix.Fsync(e.open("file", unix.O_PATH)), unix.EBADF)
		}},
		{name: "sync after rename and removal", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			e.pwrite(fd, "x", 0)
			e.rename("file", "new")
			e.check(unix.Fsync(fd))
			e.remove("new")
			e.check(unix.Fsync(fd))
		}},
		{name: "advice", make: big, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			for _, advice := range []int{unix.FADV_SEQUENTIAL, unix.FADV_WILLNEED, unix.FADV_DONTNEED} {
				e.check(unix.Fadvise(fd, 0, 0, advice))
			}
			e.pwrite(fd, "x", 5)
			e.check(unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED))
			equal(e, "read", e.pread(fd, 1, 5), "x")
		}},
	}
}

func truncateCases() []testCase {
	file := func(e *env) { e.write("file", pattern(10_000)) }
	return []testCase{
		{name: "down and up", make: file, run: func(e *env) {
			want := pattern(10_000)
			for _, size := range []int{9_999, 4097, 8192, 4096, 100, 5000, 0, 20_000} {
				e.check(unix.Truncate(e.at("file"), int64(size)))
				want = want[:min(size, len(want))]
				want += zeros(size - len(want))
				e.size("file", int64(size))
				e.content("file", want)
			}
		}},
		{name: "by descriptor", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			e.check(unix.Ftruncate(fd, 3))
			e.check(unix.Ftruncate(fd, 6))
			equal(e, "read", e.pread(fd, 10, 0), pattern(3)+zeros(3))
		}},
		{name: "tail of a page", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			e.check(unix.Ftruncate(fd, 100))
			e.pwrite(fd, "x", 200)
			equal(e, "read", e.pread(fd, 300, 0), pattern(100)+zeros(100)+"x")
		}},
		{name: "to the same size", make: func(e *env) { file(e); e.age("file") }, run: func(e *env) {
			e.check(unix.Truncate(e.at("file"), 10_000)) // Linux changes the times: POSIX asks for it since 2008
			e.content("file", pattern(10_000))
			if e.stat("file").Mtim == longAgo {
				e.Error("mtime is as it was")
			}
		}},
		{name: "wrong", make: func(e *env) {
			file(e)
			e.mkdir("dir")
			e.symlink("file", "link")
			e.check(unix.Mkfifo(e.at("fifo"), 0o644))
		}, run: func(e *env) {
			e.fails("directory", unix.Truncate(e.at("dir"), 0), unix.EISDIR)
			e.fails("FIFO", unix.Truncate(e.at("fifo"), 0), unix.EINVAL)
			e.fails("negative", unix.Truncate(e.at("file"), -1), unix.EINVAL)
			e.fails("no file", unix.Truncate(e.at("none"), 0), unix.ENOENT)
			e.fails("read-only descriptor", unix.Ftruncate(e.open("file", unix.O_RDONLY), 0), unix.EINVAL)
			e.content("file", pattern(10_000))
			e.check(unix.Truncate(e.at("link"), 1))
			e.size("file", 1)
		}},
		{name: "huge", make: file, run: func(e *env) {
			e.check(unix.Truncate(e.at("file"), 1<<42))
			e.size("file", 1<<42)
			equal(e, "read", e.pread(e.open("file", unix.O_RDONLY), 10, 1<<41), zeros(10))
		}},
	}
}
