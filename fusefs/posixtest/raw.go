package posixtest

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// A dirent is a record of getdents64(2).
type dirent struct {
	ino  uint64
	off  int64 // where to go on
	typ  byte
	name string
}

// getdents reads once into a buffer of size bytes; nothing at the end.
func (e *env) getdents(fd, size int) (all []dirent) {
	b := make([]byte, size)
	n, err := unix.Getdents(fd, b)
	e.check(err)
	for b = b[:n]; len(b) > 0; {
		length := binary.NativeEndian.Uint16(b[16:])
		name, _, _ := bytes.Cut(b[19:length], []byte{0})
		all = append(all, dirent{
			ino: binary.NativeEndian.Uint64(b), off: int64(binary.NativeEndian.Uint64(b[8:])),
			typ: b[18], name: string(name),
		})
		b = b[length:]
	}
	return all
}

// stream reads a directory to its end.
func (e *env) stream(fd, size int) (all []dirent) {
	for {
		some := e.getdents(fd, size)
		if len(some) == 0 {
			return all
		}
		all = append(all, some...)
	}
}
