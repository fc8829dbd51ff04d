package erofs

import (
	"fmt"
	"sort"
	"strings"
)

// overlayPrefixes are the names that overlayfs gives a meaning to. A layer
// cannot bring them along: the kernel would take them for its own marks.
var overlayPrefixes = [...]string{"trusted.overlay.", "user.overlay."}

const opaqueName = "overlay.opaque" // under trusted.

// internXattrs serialises extended attributes and returns their number; equal
// sets share one. Names that EROFS has no prefix for, and the marks of
// overlayfs, are left out.
func (t *Tree) internXattrs(xattrs []Xattr) (uint32, error) {
	if len(xattrs) == 0 {
		return 0, nil
	}
	body, err := packXattrs(xattrs)
	if err != nil {
		return 0, err
	}
	return t.internBody(string(body)), nil
}

func (t *Tree) internBody(body string) uint32 {
	id, ok := t.xattrID[body]
	if !ok {
		id = uint32(len(t.xattrs))
		t.xattrs = append(t.xattrs, body)
		t.xattrID[body] = id
	}
	return id
}

// packXattrs makes the entries of an inline xattr body, sorted by name.
func packXattrs(xattrs []Xattr) ([]byte, error) {
	sorted := make([]Xattr, len(xattrs))
	copy(sorted, xattrs)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].Name < sorted[j].Name })
	var body []byte
next:
	for _, x := range sorted {
		for _, p := range overlayPrefixes {
			if strings.HasPrefix(x.Name, p) {
				continue next
			}
		}
		for _, p := range xattrPrefixes {
			suffix, ok := strings.CutPrefix(x.Name, p.prefix)
			if !ok || (suffix == "") != (p.prefix[len(p.prefix)-1] != '.') {
				continue
			}
			if len(suffix) > MaxName || len(x.Value) > 0xffff {
				return nil, fmt.Errorf("%w: extended attribute %q of %d bytes", ErrLimit, x.Name, len(x.Value))
			}
			body = appendXattr(body, p.index, suffix, x.Value)
			break
		}
	}
	if len(body) > maxXattrBody-xattrHdrSize-64 { // 64: our own marks
		return nil, fmt.Errorf("%w: %d bytes of extended attributes", ErrLimit, len(body))
	}
	return body, nil
}

func appendXattr(body []byte, index byte, suffix string, value []byte) []byte {
	body = append(body, byte(len(suffix)), index, byte(len(value)), byte(len(value)>>8))
	body = append(body, suffix...)
	body = append(body, value...)
	for len(body)%4 != 0 {
		body = append(body, 0)
	}
	return body
}

// xattrBody returns an inode's xattr entries with our marks, without header.
func (t *Tree) xattrBody(in *inode) string {
	body := t.xattrs[in.xattrs]
	if in.flags&(inodeImplied|inodeOpaque) == 0 {
		return body
	}
	b := []byte(body)
	if in.flags&inodeOpaque != 0 {
		b = appendXattr(b, 4, opaqueName, []byte("y"))
	}
	if in.flags&inodeImplied != 0 {
		b = appendXattr(b, impliedIndex, "", nil)
	}
	return string(b)
}

// xattrSize is the room that xattr entries of n bytes take behind an inode.
func xattrSize(n int) int64 {
	if n == 0 {
		return 0
	}
	return xattrHdrSize + int64(n)
}

// forXattr calls fn for each entry of a serialised body. It returns an error
// if the body is not well formed.
func forXattr(body []byte, fn func(index byte, suffix, value, raw []byte)) error {
	for len(body) > 0 {
		if len(body) < 4 {
			return fmt.Errorf("%w: extended attributes end early", ErrCorrupt)
		}
		nlen, vlen := int(body[0]), int(le.Uint16(body[2:]))
		size := (4 + nlen + vlen + 3) &^ 3
		if size > len(body) {
			return fmt.Errorf("%w: an extended attribute of %d bytes where %d are left", ErrCorrupt, size, len(body))
		}
		fn(body[1], body[4:4+nlen], body[4+nlen:4+nlen+vlen], body[:size])
		body = body[size:]
	}
	return nil
}
