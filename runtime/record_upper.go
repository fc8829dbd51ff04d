package runtime

import (
	"errors"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/replay"
)

// upper makes the upper directory, with the attributes that it was prepared with.
func (p *recorder) upper(dir string, u upperAttr) {
	p.mkdir(dir)
	p.Call(unix.SYS_FCHOWNAT, cwd(), replay.String(dir), replay.Number(int(u.Uid)), replay.Number(int(u.Gid)), replay.Number(0))
	p.Call(unix.SYS_FCHMODAT, cwd(), replay.String(dir), replay.Number(int(u.Mode&^unix.S_IFMT)))
	for _, x := range u.xattrs {
		p.Call(unix.SYS_LSETXATTR, replay.String(dir), replay.String(x.name), replay.Bytes(x.value), replay.Number(len(x.value)), replay.Number(0))
	}
	times := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, u.Mtim}
	b := (*[unsafe.Sizeof(times)]byte)(unsafe.Pointer(&times))
	p.Call(unix.SYS_UTIMENSAT, cwd(), replay.String(dir), replay.Bytes(b[:]), replay.Number(0))
}

// upperAttr is what a new upper directory looks like.
type upperAttr struct {
	unix.Stat_t
	xattrs []struct {
		name  string
		value []byte
	}
}

// readUpper is for an upper directory before it is mounted: overlayfs leaves marks
// on it.
func readUpper(dir string) (u upperAttr, err error) {
	if err := unix.Lstat(dir, &u.Stat_t); err != nil {
		return u, err
	}
	var names [replay.BufSize]byte
	n, err := unix.Llistxattr(dir, names[:])
	if errors.Is(err, unix.EOPNOTSUPP) {
		return u, nil
	}
	if err != nil {
		return u, err
	}
	for _, name := range strings.FieldsFunc(string(names[:n]), func(r rune) bool { return r == 0 }) {
		var value [replay.BufSize]byte
		n, err := unix.Lgetxattr(dir, name, value[:])
		if err != nil {
			return u, err
		}
		u.xattrs = append(u.xattrs, struct {
			name  string
			value []byte
		}{name, value[:n]})
	}
	return u, nil
}
