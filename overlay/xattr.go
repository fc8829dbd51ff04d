package overlay

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas/tarstream"
)

const (
	xattrACL        = "system.posix_acl_access"
	xattrACLDefault = "system.posix_acl_default"
	xattrCapability = "security.capability"
)

// xattrMax is the most that a list of attribute names and a value can be long
// (XATTR_LIST_MAX and XATTR_SIZE_MAX of linux/limits.h, for all filesystems).
const xattrMax = 64 << 10

// marks are what overlayfs has noted on a file of an upper directory, in the
// attributes trusted.overlay.* (or user.overlay.*, as a mount with userxattr does).
type marks struct {
	opaque   bool
	whiteout bool
	origin   bool // it was copied up
	// refers is the name of a mark that refers to the layers below: then the
	// upper directory alone does not tell what is there.
	refers string
}

// xattrReader reads extended attributes; its buffers are used again.
type xattrReader struct {
	names, value []byte
}

func newXattrReader() *xattrReader {
	return &xattrReader{names: make([]byte, xattrMax), value: make([]byte, xattrMax)}
}

// ofFD reads the attributes of an open file that belong into a layer, sorted by
// name, and overlayfs' marks.
func (r *xattrReader) ofFD(fd int) ([]tarstream.Xattr, marks, error) {
	return r.read(
		func(b []byte) (int, error) { return unix.Flistxattr(fd, b) },
		func(name string, b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) })
}

// ofPath does the same for a path, whose last component is not followed if it is
// a symbolic link.
func (r *xattrReader) ofPath(path string) ([]tarstream.Xattr, marks, error) {
	return r.read(
		func(b []byte) (int, error) { return unix.Llistxattr(path, b) },
		func(name string, b []byte) (int, error) { return unix.Lgetxattr(path, name, b) })
}

func (r *xattrReader) read(
	list func([]byte) (int, error), get func(string, []byte) (int, error),
) (xs []tarstream.Xattr, m marks, err error) {
	n, err := list(r.names)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, m, nil
	}
	if err != nil {
		return nil, m, fmt.Errorf("list attributes: %w", err)
	}
	for name := range bytes.SplitSeq(r.names[:n], []byte{0}) {
		name := string(name)
		mark, isMark := overlayMark(name)
		if !isMark && !layerXattr(name) {
			continue
		}
		n, err := get(name, r.value)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, m, fmt.Errorf("read attribute %s: %w", name, err)
		}
		if isMark {
			m.set(mark, name, string(r.value[:n]))
			continue
		}
		xs = append(xs, tarstream.Xattr{Name: name, Value: slices.Clone(r.value[:n])})
	}
	slices.SortFunc(xs, func(a, b tarstream.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return xs, m, nil
}

// overlayMark gives what stands behind overlayfs' prefix.
func overlayMark(name string) (mark string, ok bool) {
	if mark, ok = strings.CutPrefix(name, "trusted.overlay."); ok {
		return mark, true
	}
	return strings.CutPrefix(name, "user.overlay.")
}

func (m *marks) set(mark, name, value string) {
	switch mark {
	case "opaque":
		// "x" says that there are whiteouts of the xattr form inside (Linux 6.7).
		m.opaque = m.opaque || value == "y"
	case "whiteout":
		m.whiteout = true
	case "origin", "plash.origin": // overlayfs', the union's
		m.origin = true
	case "redirect", "metacopy":
		m.refers = name
	}
}

// layerXattr says which attributes belong to content, and into a layer: what
// the host's policy or filesystem put there (security.selinux, security.ima,
// security.evm, system.nfs4_acl, …) means nothing elsewhere.
func layerXattr(name string) bool {
	switch name {
	case xattrCapability, xattrACL, xattrACLDefault:
		return true
	}
	return strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "trusted.")
}

// dropXattrs removes the attributes of an open file that are not to be kept, as far as
// that is allowed.
func dropXattrs(fd int, keep map[string]bool) error {
	names := make([]byte, xattrMax)
	n, err := unix.Flistxattr(fd, names)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list attributes: %w", err)
	}
	for name := range strings.SplitSeq(string(names[:n]), "\x00") {
		if name == "" || keep[name] || name == "security.selinux" {
			continue
		}
		err := unix.Fremovexattr(fd, name)
		if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("remove attribute %s: %w", name, err)
		}
	}
	return nil
}
