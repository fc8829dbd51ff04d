package overlay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A dent is an entry of a directory.
type dent struct {
	name string
	typ  uint8 // DT_ value, maybe DT_UNKNOWN
}

// dentReader reads directories; its buffer is used again.
type dentReader struct {
	buf []byte
}

// read gives all entries but "." and "..", sorted by name byte by byte. (Package os
// would stat each by a path where the filesystem does not tell types.)
func (r *dentReader) read(fd int) ([]dent, error) {
	if r.buf == nil {
		r.buf = make([]byte, 64<<10)
	}
	var all []dent
	for {
		n, err := unix.Getdents(fd, r.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			break
		}
		all = appendDents(all, r.buf[:n])
	}
	slices.SortFunc(all, func(a, b dent) int { return strings.Compare(a.name, b.name) })
	return all, nil
}

// appendDents takes apart a buffer of struct linux_dirent64, see getdents(2):
// inode and offset (8 bytes each), length (2), type (1), name with final NUL.
func appendDents(to []dent, b []byte) []dent {
	const nameOff = 19
	for len(b) >= nameOff {
		length := int(binary.NativeEndian.Uint16(b[16:]))
		if length < nameOff || length > len(b) {
			break
		}
		name, _, _ := bytes.Cut(b[nameOff:length], []byte{0})
		if s := string(name); s != "." && s != ".." {
			to = append(to, dent{name: s, typ: b[18]})
		}
		b = b[length:]
	}
	return to
}
