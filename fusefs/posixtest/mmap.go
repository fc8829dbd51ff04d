package posixtest

import (
	"golang.org/x/sys/unix"
)

func mmapCases() []testCase {
	const size = 3*4096 + 100
	file := func(e *env) { e.write("file", pattern(size)) }
	return []testCase{
		{name: "private", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDONLY)
			m := e.mmap(fd, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
			equal(e, "mapping", string(m), pattern(size))
			copy(m[5000:], "mine")
			e.content("file", pattern(size))
		}},
		{name: "executable", make: file, run: func(e *env) {
			m := e.mmap(e.open("file", unix.O_RDONLY), size, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
			equal(e, "mapping", string(m), pattern(size))
		}},
		{name: "shared, read", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			m := e.mmap(fd, size, unix.PROT_READ, unix.MAP_SHARED)
			equal(e, "mapping", string(m), pattern(size))
			e.pwrite(fd, "changed", 5000)
			equal(e, "mapping after write", string(m[5000:5007]), "changed")
			e.pwrite(e.open("file", unix.O_WRONLY), "again", 5000)
			equal(e, "mapping after write by another", string(m[5000:5007]), "agained")
		}},
		{name: "shared, of a reader", make: file, run: func(e *env) {
			m := e.mmap(e.open("file", unix.O_RDONLY), size, unix.PROT_READ, unix.MAP_SHARED)
			equal(e, "mapping", string(m), pattern(size))
			e.pwrite(e.open("file", unix.O_WRONLY), "changed", 5000)
			equal(e, "mapping after write", string(m[5000:5007]), "changed")
		}},
		{name: "shared, written", make: func(e *env) { file(e); e.age("file") }, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			m := e.mmap(fd, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			copy(m[5000:], "mapped")
			equal(e, "read", e.pread(fd, 6, 5000), "mapped")
			equal(e, "read by another", e.pread(e.open("file", unix.O_RDONLY), 6, 5000), "mapped")
			e.check(unix.Msync(m, unix.MS_SYNC))
			if e.stat("file").Mtim == longAgo {
				e.Error("mtime is as it was after msync")
			}
			p := pattern(size)
			e.content("file", p[:5000]+"mapped"+p[5006:])
		}},
		{name: "behind the end", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			m := e.mmap(fd, 4*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			equal(e, "what is behind the end", string(m[size:size+10]), zeros(10))
			m[size+5] = 'x' // of the last page: goes nowhere
			e.check(unix.Msync(m, unix.MS_SYNC))
			e.content("file", pattern(size))
		}},
		{name: "grown", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			m := e.mmap(fd, 8*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			e.check(unix.Ftruncate(fd, 8*4096))
			copy(m[7*4096:], "new page")
			equal(e, "read", e.pread(fd, 8, 7*4096), "new page")
			e.check(unix.Ftruncate(fd, 5000))
			e.check(unix.Ftruncate(fd, 8*4096))
			equal(e, "mapping of what was cut off", string(m[6000:6010]), zeros(10))
		}},
		{name: "survives its descriptor", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			m := e.mmap(fd, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			e.close(fd)
			e.rename("file", "moved")
			copy(m, "mapped")
			e.check(unix.Msync(m, unix.MS_ASYNC))
			equal(e, "content", e.pread(e.open("moved", unix.O_RDONLY), 6, 0), "mapped")
		}},
		{name: "two mappings", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			a := e.mmap(fd, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			b := e.mmap(e.open("file", unix.O_RDWR), size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			copy(a[100:], "one")
			equal(e, "other mapping", string(b[100:103]), "one")
			copy(b[4096:], "two")
			equal(e, "first mapping", string(a[4096:4099]), "two")
		}},
		{name: "write and map in turn", make: file, run: func(e *env) {
			fd := e.open("file", unix.O_RDWR)
			m := e.mmap(fd, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			want := []byte(pattern(size))
			for i := 0; i < size-20; i += 700 {
				e.pwrite(fd, "write", int64(i))
				copy(want[i:], "write")
				copy(m[i+10:], "map")
				copy(want[i+10:], "map")
			}
			equal(e, "mapping", string(m), string(want))
			equal(e, "read", e.pread(fd, size, 0), string(want))
			e.check(unix.Fsync(fd))
			e.content("file", string(want))
		}},
		{name: "wrong", make: func(e *env) { file(e); e.mkdir("dir") }, run: func(e *env) {
			_, err := unix.Mmap(e.open("file", unix.O_RDONLY), 0, 10, unix.PROT_WRITE, unix.MAP_SHARED)
			e.fails("shared and written, of a reader", err, unix.EACCES)
			_, err = unix.Mmap(e.open("file", unix.O_WRONLY), 0, 10, unix.PROT_READ, unix.MAP_PRIVATE)
			e.fails("of a writer alone", err, unix.EACCES)
			_, err = unix.Mmap(e.open("dir", unix.O_RDONLY), 0, 10, unix.PROT_READ, unix.MAP_PRIVATE)
			e.fails("of a directory", err, unix.ENODEV)
		}},
	}
}

func (e *env) mmap(fd, size, prot, flags int) []byte {
	m, err := unix.Mmap(fd, 0, size, prot, flags)
	e.check(err)
	e.Cleanup(func() { _ = unix.Munmap(m) }) // it may be unmapped
	return m
}
