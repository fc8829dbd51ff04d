package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// tally is what was met in a tree. Contenders that show the same tree must agree on it,
// else they do not do the same work.
type tally struct {
	entries int
	bytes   int64 // of regular files
}

// stays tells an error where another tally was expected.
func (got tally) stays(want tally) error {
	if got != want {
		return fmt.Errorf("met %d entries and %d bytes, expected %d and %d", got.entries, got.bytes, want.entries, want.bytes)
	}
	return nil
}

// walk asks for the attributes of every entry below a directory, as find -size does:
// each directory is listed, its entries are looked at in that order, and
// then the directories among them. It calls visit, unless that is nil, with the path of
// each regular file.
func walk(dir string, visit func(path string, size int64)) (tally, error) {
	w := walker{buf: make([]byte, 64<<10)}
	w.file = func(fd int, path string, e dirent) error {
		var st unix.Stat_t
		if err := unix.Fstatat(fd, e.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("stat %s/%s: %w", path, e.name, err)
		}
		w.entries++
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			w.bytes += st.Size
			if visit != nil {
				visit(path+"/"+e.name, st.Size)
			}
		}
		return nil
	}
	err := w.directory(unix.AT_FDCWD, dir, dir)
	return w.tally, err
}

// readAll reads every regular file below a directory whole, in the order in which
// the directories list them.
func readAll(dir string) (tally, error) {
	w := walker{buf: make([]byte, 64<<10)}
	data := make([]byte, 128<<10)
	w.file = func(fd int, path string, e dirent) error {
		w.entries++
		if e.typ != unix.DT_REG {
			return nil
		}
		n, err := readFile(fd, e.name, data)
		w.bytes += n
		if err != nil {
			return fmt.Errorf("read %s/%s: %w", path, e.name, err)
		}
		return nil
	}
	err := w.directory(unix.AT_FDCWD, dir, dir)
	return w.tally, err
}

func readFile(dirfd int, name string, buf []byte) (total int64, err error) {
	fd, err := unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	for {
		n, err := unix.Read(fd, buf)
		if n <= 0 || err != nil {
			return total, err
		}
		total += int64(n)
	}
}

// walker goes through a tree with system calls alone, since what the os package
// adds to them (sorting, FileInfo) would count as much as a warm lookup.
type walker struct {
	tally
	buf  []byte
	file func(dirfd int, path string, e dirent) error
}

func (w *walker) directory(at int, name, path string) (err error) {
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	var all []dirent
	for {
		n, err := unix.Getdents(fd, w.buf)
		if err != nil {
			return fmt.Errorf("list %s: %w", path, err)
		}
		if n <= 0 {
			break
		}
		if all, err = appendDirents(all, w.buf[:n]); err != nil {
			return fmt.Errorf("list %s: %w", path, err)
		}
	}
	for i := range all {
		if err := all[i].findType(fd); err != nil {
			return fmt.Errorf("stat %s/%s: %w", path, all[i].name, err)
		}
		if err := w.file(fd, path, all[i]); err != nil {
			return err
		}
	}
	for _, e := range all {
		if e.typ == unix.DT_DIR {
			if err := w.directory(fd, e.name, path+"/"+e.name); err != nil {
				return err
			}
		}
	}
	return nil
}

type dirent struct {
	name string
	typ  byte
}

// findType asks for the type of an entry where the directory does not tell it, as
// every program would have to.
func (e *dirent) findType(dirfd int) error {
	if e.typ != unix.DT_UNKNOWN {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, e.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	e.typ = byte(st.Mode & unix.S_IFMT >> 12) // the DT_ constants are these bits
	return nil
}

// appendDirents reads what getdents64(2) returns: inode and offset of 8 bytes,
// the record's length of 2, the type, and the name up to a zero.
func appendDirents(all []dirent, buf []byte) ([]dirent, error) {
	const header = 19
	for len(buf) > 0 {
		if len(buf) < header {
			return nil, io.ErrUnexpectedEOF
		}
		size := int(binary.NativeEndian.Uint16(buf[16:]))
		if size < header || size > len(buf) {
			return nil, io.ErrUnexpectedEOF
		}
		name, _, _ := bytes.Cut(buf[header:size], []byte{0})
		if s := string(name); s != "." && s != ".." {
			all = append(all, dirent{s, buf[18]})
		}
		buf = buf[size:]
	}
	return all, nil
}
