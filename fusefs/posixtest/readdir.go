package posixtest

import (
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

func readdirCases() []testCase {
	const many = 10_000
	fill := func(e *env, n int) {
		e.mkdir("dir")
		for i := range n {
			e.write(fmt.Sprintf("dir/entry %d", i), "")
		}
	}
	return []testCase{
		{name: "types and inodes", root: true, make: func(e *env) {
			e.mkdir("aside")
			for _, kind := range kinds {
				e.makeKind(kind, kind)
			}
		}, run: func(e *env) {
			e.consistent(".")
			e.write("file", "changed")
			e.chmod("large file", 0o600)
			e.write("hard link", "changed")
			e.rename("fifo", "fifo2")
			e.write("new", "")
			e.remove("symlink")
			e.consistent(".")
			e.consistent("aside")
			e.consistent("full directory")
		}},
		{name: "dots", make: func(e *env) { e.mkdir("dir") }, run: func(e *env) {
			dots := map[string]uint64{}
			for _, d := range e.stream(e.open("dir", unix.O_RDONLY), 1000) {
				dots[d.name] = d.ino
			}
			equal(e, "number of entries", len(dots), 2)
			equal(e, "inode of .", dots["."], e.stat("dir").Ino)
			equal(e, "inode of ..", dots[".."], e.stat(".").Ino)
		}},
		{name: "many", make: func(e *env) { fill(e, many) }, run: func(e *env) {
			fd := e.open("dir", unix.O_RDONLY)
			e.all(e.stream(fd, 32768), many)
			for i := range 100 {
				e.remove(fmt.Sprintf("dir/entry %d", i*100))
				e.write(fmt.Sprintf("dir/entry %d", many+i), "")
			}
			_, err := unix.Seek(fd, 0, unix.SEEK_SET)
			e.check(err)
			e.all(e.stream(fd, 32768), many)
		}},
		{name: "small buffers", make: func(e *env) { fill(e, 500) }, run: func(e *env) {
			e.all(e.stream(e.open("dir", unix.O_RDONLY), 100), 500)
			_, err := unix.Getdents(e.open("dir", unix.O_RDONLY), make([]byte, 10))
			e.fails("buffer that is too small", err, unix.EINVAL)
		}},
		{name: "remove while reading", make: func(e *env) { fill(e, 3000) }, run: func(e *env) {
			fd := e.open("dir", unix.O_RDONLY)
			removed := 0
			for some := e.getdents(fd, 1000); len(some) > 0; some = e.getdents(fd, 1000) {
				for _, d := range some {
					if d.name != "." && d.name != ".." {
						e.remove("dir/" + d.name)
						removed++
					}
				}
			}
			equal(e, "removed", removed, 3000)
			e.names("dir")
			e.remove("dir")
		}},
		{name: "come and go while reading", make: func(e *env) { fill(e, 2000) }, run: func(e *env) {
			// What is there all the time is seen once.
			fd := e.open("dir", unix.O_RDONLY)
			seen := map[string]int{}
			for i := 0; ; i++ {
				some := e.getdents(fd, 2000)
				if len(some) == 0 {
					break
				}
				for _, d := range some {
					seen[d.name]++
				}
				e.write(fmt.Sprintf("dir/new %d", i), "")
				if i < 30 {
					e.remove(fmt.Sprintf("dir/entry %d", i*3))
				}
				if i > 0 {
					e.rename(fmt.Sprintf("dir/new %d", i-1), fmt.Sprintf("dir/moved %d", i-1))
				}
			}
			for i := range 2000 {
				if n := seen[fmt.Sprintf("entry %d", i)]; n != 1 && (i > 90 || i%3 != 0) {
					e.Errorf("entry %d was seen %d times", i, n)
				}
			}
		}},
		{name: "seek back", make: func(e *env) { fill(e, 300) }, run: func(e *env) {
			fd := e.open("dir", unix.O_RDONLY)
			all := e.stream(fd, 500)
			for _, i := range []int{0, 1, 7, 150, 299} {
				_, err := unix.Seek(fd, all[i].off, unix.SEEK_SET)
				e.check(err)
				rest := e.stream(fd, 500)
				if len(rest) != len(all)-i-1 {
					e.Errorf("%d entries behind entry %d, want %d", len(rest), i, len(all)-i-1)
					continue
				}
				for j, d := range rest {
					equal(e, "entry", d.name, all[i+1+j].name)
				}
			}
		}},
		{name: "rewind", make: func(e *env) { fill(e, 3) }, run: func(e *env) {
			fd := e.open("dir", unix.O_RDONLY)
			e.all(e.stream(fd, 1000), 3)
			equal(e, "entries at the end", len(e.stream(fd, 1000)), 0)
			e.write("dir/entry 3", "")
			e.remove("dir/entry 1")
			_, err := unix.Seek(fd, 0, unix.SEEK_SET)
			e.check(err)
			e.all(e.stream(fd, 1000), 3)
		}},
		{name: "two streams", make: func(e *env) { fill(e, 400) }, run: func(e *env) {
			a, b := e.open("dir", unix.O_RDONLY), e.open("dir", unix.O_RDONLY)
			var fromA, fromB []dirent
			for {
				someA, someB := e.getdents(a, 600), e.getdents(b, 900)
				fromA, fromB = append(fromA, someA...), append(fromB, someB...)
				if len(someA)+len(someB) == 0 {
					break
				}
			}
			e.all(fromA, 400)
			e.all(fromB, 400)
		}},
		{name: "after each change", make: func(e *env) { fill(e, 3) }, run: func(e *env) {
			e.names("dir", "entry 0", "entry 1", "entry 2")
			e.write("dir/new", "")
			e.names("dir", "entry 0", "entry 1", "entry 2", "new")
			e.remove("dir/entry 1")
			e.names("dir", "entry 0", "entry 2", "new")
			e.rename("dir/entry 0", "dir/entry 2")
			e.names("dir", "entry 2", "new")
			e.link("dir/new", "dir/entry 1")
			e.names("dir", "entry 1", "entry 2", "new")
			e.check(e.rename2("dir/new", "dir/x", unix.RENAME_NOREPLACE))
			e.names("dir", "entry 1", "entry 2", "x")
			e.check(os.RemoveAll(e.at("dir")))
			e.mkdir("dir")
			e.names("dir")
		}},
		{name: "removed entries come back", make: func(e *env) { fill(e, 50) }, run: func(e *env) {
			for range 3 {
				for i := range 50 {
					e.remove(fmt.Sprintf("dir/entry %d", i))
				}
				e.names("dir")
				for i := range 50 {
					e.write(fmt.Sprintf("dir/entry %d", i), "")
				}
				e.all(e.stream(e.open("dir", unix.O_RDONLY), 1000), 50)
			}
		}},
	}
}

// all wants n entries, each once, and the dots.
func (e *env) all(got []dirent, n int) {
	names := make([]string, len(got))
	for i, d := range got {
		names[i] = d.name
	}
	slices.Sort(names)
	if i := slices.Index(names, "."); i < 0 || !slices.Contains(names, "..") {
		e.Error("no dots")
	}
	if len(slices.Compact(slices.Clone(names))) != len(names) {
		e.Error("entries are there twice")
	}
	equal(e, "number of entries", len(names)-2, n)
}

// consistent wants what a directory says of its entries to be what stat(2) says.
func (e *env) consistent(dir string) {
	for _, d := range e.stream(e.open(dir, unix.O_RDONLY), 4096) {
		if d.name == ".." || d.name == "." {
			continue
		}
		st := e.stat(dir + "/" + d.name)
		equal(e, "inode of "+d.name, d.ino, st.Ino)
		equal(e, "type of "+d.name, uint32(d.typ), st.Mode>>12)
	}
}
