package posixtest

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

const kib = 1 << 10

func spaceCases() []testCase {
	file := func(e *env) { e.write("file", pattern(256*kib)) }
	// sparse has data in two places of 64 KiB, at 128 KiB and at 1 MiB. It is so large that it
	// is sparse in a layer too.
	sparse := func(e *env) {
		fd := e.open("file", unix.O_CREAT|unix.O_RDWR)
		e.check(unix.Ftruncate(fd, 80<<20))
		e.pwrite(fd, pattern(64*kib), 128*kib)
		e.pwrite(fd, pattern(64*kib), 1024*kib)
		e.check(unix.Fsync(fd))
	}
	return []testCase{
		{name: "allocate", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			e.check(unix.Fallocate(fd, 0, 200*kib, 100*kib))
			e.content("file", pattern(256*kib)+zeros(44*kib))
			e.check(unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 300*kib, 100*kib))
			e.size("file", 300*kib)
		}},
		{name: "punch a hole", make: file, run: func(e *env) {
			mode := uint32(unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE)
			e.reshaped(mode, 10_000, 100_000, func(s string) string { return s[:10_000] + zeros(100_000) + s[110_000:] })
			e.reshaped(mode, 255*kib, 10*kib, func(s string) string { return s[:255*kib] + zeros(kib) })
			fd := e.open("file", unix.O_RDWR)
			e.fails("punch without keeping the size", unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE, 0, 10), unix.EOPNOTSUPP, unix.EINVAL)
		}},
		{name: "zero a range", make: file, run: func(e *env) {
			e.reshaped(unix.FALLOC_FL_ZERO_RANGE, 10_000, 100_000, func(s string) string { return s[:10_000] + zeros(100_000) + s[110_000:] })
			e.reshaped(unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, 200*kib, 100*kib, func(s string) string { return s[:200*kib] + zeros(56*kib) })
			e.reshaped(unix.FALLOC_FL_ZERO_RANGE, 200*kib, 100*kib, func(s string) string { return s[:200*kib] + zeros(100*kib) })
		}},
		{name: "collapse a range", make: file, run: func(e *env) {
			e.reshaped(unix.FALLOC_FL_COLLAPSE_RANGE, 64*kib, 32*kib, func(s string) string { return s[:64*kib] + s[96*kib:] })
		}},
		{name: "insert a range", make: file, run: func(e *env) {
			e.reshaped(unix.FALLOC_FL_INSERT_RANGE, 64*kib, 32*kib, func(s string) string { return s[:64*kib] + zeros(32*kib) + s[64*kib:] })
		}},
		{name: "allocate wrongly", make: func(e *env) { file(e); e.check(unix.Mkfifo(e.at("fifo"), 0o644)) }, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			e.fails("nothing", unix.Fallocate(fd, 0, 0, 0), unix.EINVAL)
			e.fails("before the start", unix.Fallocate(fd, 0, -1, 10), unix.EINVAL)
			e.fails("too much", unix.Fallocate(fd, 0, 1<<62, 1<<62), unix.EFBIG)
			e.fails("read-only", unix.Fallocate(e.open("file", unix.O_RDONLY), 0, 0, 10), unix.EBADF)
			e.fails("FIFO", unix.Fallocate(e.open("fifo", unix.O_RDWR), 0, 0, 10), unix.ESPIPE)
			e.fails("mode that is none", unix.Fallocate(fd, 1<<30, 0, 10), unix.EOPNOTSUPP)
			e.content("file", pattern(256*kib))
		}},
		{name: "data and holes", make: sparse, run: func(e *env) {
			e.holes(e.open("file", unix.O_RDONLY))
			fd := e.open("file", unix.O_RDWR) // copied up now
			e.holes(fd)
			_, err := unix.Seek(fd, 80<<20, unix.SEEK_DATA)
			e.fails("data at the end", err, unix.ENXIO)
			_, err = unix.Seek(fd, 80<<20, unix.SEEK_HOLE)
			e.fails("hole at the end", err, unix.ENXIO)
			_, err = unix.Seek(fd, 2<<20, unix.SEEK_DATA)
			e.fails("data behind all data", err, unix.ENXIO)
		}},
		{name: "data without holes", make: file, run: func(e *env) {
			for _, flags := range []int{unix.O_RDONLY, unix.O_RDWR} {
				fd := e.open("file", flags)
				data, err := unix.Seek(fd, 5000, unix.SEEK_DATA)
				e.check(err)
				equal(e, "data", data, 5000)
				hole, err := unix.Seek(fd, 5000, unix.SEEK_HOLE)
				e.check(err)
				equal(e, "hole", hole, 256*kib)
			}
		}},
		{name: "holes stay", make: sparse, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			e.pwrite(fd, "x", 128*kib)
			e.check(unix.Fsync(fd))
			if st := e.fstat(fd); st.Blocks*512 > 1<<20 {
				e.Errorf("%d KiB of blocks for 128 KiB of data", st.Blocks/2)
			}
			equal(e, "read", e.pread(fd, 64*kib, 128*kib), "x"+pattern(64 * kib)[1:])
			equal(e, "read", e.pread(fd, 64*kib, 1024*kib), pattern(64*kib))
		}},
		{name: "blocks", run: func(e *env) {
			fd := e.open("file", unix.O_CREAT|unix.O_RDWR)
			equal(e, "blocks of an empty file", e.fstat(fd).Blocks, 0)
			e.put(fd, strings.Repeat("x", 100*kib))
			e.check(unix.Fsync(fd))
			if n := e.fstat(fd).Blocks; n < 200 || n > 300 {
				e.Errorf("100 KiB have %d blocks", n)
			}
			e.check(unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, 1<<20))
			if n := e.fstat(fd).Blocks; n < 2048 {
				e.Errorf("1 MiB that was allocated has %d blocks", n)
			}
		}},
	}
}

// reshaped changes "file" by fallocate(2) and wants the content that ext4 has then.
// A filesystem that cannot do it says so and leaves the file alone.
func (e *env) reshaped(mode uint32, off, n int64, want func(string) string) {
	fd := e.open("file", unix.O_RDWR)
	before := e.pread(fd, 1<<20, 0)
	err := unix.Fallocate(fd, mode, off, n)
	if err != nil {
		e.Errorf("fallocate with mode %#x: %v", mode, err)
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		equal(e, "content after EOPNOTSUPP", e.pread(fd, 1<<20, 0), before)
		return
	}
	equal(e, "content", e.pread(fd, 1<<20, 0), want(before))
	e.content("file", want(before))
}

// holes wants those of a file of two stretches of data.
func (e *env) holes(fd int) {
	for _, c := range []struct {
		what      string
		whence    int
		off, want int64
	}{
		{"first data", unix.SEEK_DATA, 0, 128 * kib},
		{"data inside of data", unix.SEEK_DATA, 130 * kib, 130 * kib},
		{"hole at the start", unix.SEEK_HOLE, 0, 0},
		{"hole behind data", unix.SEEK_HOLE, 128 * kib, 192 * kib},
		{"second data", unix.SEEK_DATA, 192 * kib, 1024 * kib},
		{"last hole", unix.SEEK_HOLE, 1024 * kib, 1088 * kib},
	} {
		got, err := unix.Seek(fd, c.off, c.whence)
		e.check(err)
		equal(e, c.what, got, c.want)
	}
}
