package tarstream

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// readEntry makes r.entry of the header block and of the headers before it.
func (r *Reader) readEntry(flag byte) error {
	e := &r.entry
	*e = Entry{HeaderOff: e.HeaderOff}
	f := r.blk.format()
	r.setNames(f)
	size, err := r.setFields(f)
	if err != nil {
		return err
	}
	hasData, err := r.setType(flag)
	if err != nil {
		return err
	}
	if err := r.setXattrs(); err != nil {
		return err
	}
	if !hasData {
		size = 0
	}
	if size > math.MaxInt64-r.off-blockSize {
		return fmt.Errorf("%w: size %d", ErrHeader, size)
	}
	e.DataOff = r.off
	r.end = r.off + roundUp(size)
	r.pad = roundUp(size) - size
	if e.Type != TypeReg {
		return nil
	}
	e.Size, e.DataLen = size, size
	return r.setSparse(flag, f)
}

func (r *Reader) setNames(f format) {
	e := &r.entry
	switch {
	case r.local.set&paxSparseName != 0:
		e.Name = r.local.sparseName
	case r.pax(paxPath) != nil:
		e.Name = r.pax(paxPath).path
	case r.longName != "":
		e.Name = r.longName
	default:
		name := cstring(r.blk.name())
		if p := r.blk.prefixOf(f); len(p) > 0 {
			e.Name = string(p) + "/" + string(name)
		} else {
			e.Name = string(name)
		}
	}
	switch {
	case r.pax(paxLinkpath) != nil:
		e.Linkname = r.pax(paxLinkpath).linkpath
	case r.longLink != "":
		e.Linkname = r.longLink
	default:
		e.Linkname = string(cstring(r.blk.linkname()))
	}
}

// setFields sets the numbers and returns the size field.
func (r *Reader) setFields(f format) (size int64, err error) {
	e, b := &r.entry, &r.blk
	mode, ok := parseNumber(b.mode())
	if !ok {
		return 0, fmt.Errorf("%w: mode %q", ErrHeader, b.mode())
	}
	e.Mode = uint32(mode) & 0o7777
	if p := r.pax(paxUID); p != nil {
		e.UID = p.uid
	} else if e.UID, err = fieldID("uid", b.uid()); err != nil {
		return 0, err
	}
	if p := r.pax(paxGID); p != nil {
		e.GID = p.gid
	} else if e.GID, err = fieldID("gid", b.gid()); err != nil {
		return 0, err
	}
	if p := r.pax(paxMtime); p != nil {
		e.MtimeSec, e.MtimeNsec = p.mtimeSec, p.mtimeNsec
	} else if e.MtimeSec, ok = parseNumber(b.mtime()); !ok {
		return 0, fmt.Errorf("%w: mtime %q", ErrHeader, b.mtime())
	}
	if p := r.pax(paxSize); p != nil {
		size = p.size
	} else if size, err = r.payloadSize(); err != nil {
		return 0, err
	}
	if flag := b.flag(); flag != TypeChar && flag != TypeBlock {
		return size, nil
	}
	return size, r.setDevice(f)
}

func (r *Reader) setDevice(f format) (err error) {
	e := &r.entry
	if p := r.pax(paxDevmajor); p != nil {
		e.Devmajor = p.devmajor
	} else if f != formatV7 {
		if e.Devmajor, err = fieldUint32("device number", r.blk.devmajor()); err != nil {
			return err
		}
	}
	if p := r.pax(paxDevminor); p != nil {
		e.Devminor = p.devminor
	} else if f != formatV7 {
		e.Devminor, err = fieldUint32("device number", r.blk.devminor())
	}
	return err
}

// setType sets the type and says whether data follows.
func (r *Reader) setType(flag byte) (hasData bool, err error) {
	e := &r.entry
	switch flag {
	case 0, '0', '7':
		e.Type = TypeReg
		if strings.HasSuffix(e.Name, "/") {
			e.Type = TypeDir // v7 had no other way to say it
		}
		return true, nil
	case TypeLink, TypeSymlink, TypeChar, TypeBlock, TypeDir, TypeFifo:
		e.Type = flag
		return false, nil
	case 'D':
		e.Type = TypeDir
		return true, nil
	case 'M':
		return false, fmt.Errorf("%w: a part of a multi-volume archive", ErrUnsupported)
	}
	if flag < 'A' || flag > 'Z' {
		return false, fmt.Errorf("%w: entry of type %q", ErrUnsupported, flag)
	}
	e.Type = TypeReg
	return true, nil
}

func fieldUint32(what string, field []byte) (uint32, error) {
	n, ok := parseNumber(field)
	if !ok || n < 0 || n > math.MaxUint32 {
		return 0, fmt.Errorf("%w: %s %q", ErrHeader, what, field)
	}
	return uint32(n), nil
}

// fieldID reads a user or group id. The greatest number is the kernel's "no id".
func fieldID(what string, field []byte) (uint32, error) {
	n, err := fieldUint32(what, field)
	if err == nil && n == math.MaxUint32 {
		err = fmt.Errorf("%w: %s %d is no id", ErrHeader, what, n)
	}
	return n, err
}

// setXattrs joins the attributes of the global and the local header.
func (r *Reader) setXattrs() error {
	if len(r.local.xattrs) == 0 && len(r.global.xattrs) == 0 && (r.local.set|r.global.set)&paxACLs == 0 {
		return nil
	}
	r.xattrs = r.xattrs[:0]
	if err := r.addACL(paxACLAccess, xattrACLAccess); err != nil {
		return err
	}
	if err := r.addACL(paxACLDefault, xattrACLDefault); err != nil {
		return err
	}
	r.xattrs = append(r.xattrs, r.global.xattrs...)
	inherited := sortXattrs(r.xattrs)
	r.xattrs = inherited
	for _, x := range sortXattrs(r.local.xattrs) {
		// POSIX: an empty value takes an earlier one away. Without an earlier one
		// it is an attribute with an empty value, as GNU tar writes it.
		_, found := slices.BinarySearchFunc(inherited, x.Name, func(x Xattr, name string) int {
			return strings.Compare(x.Name, name)
		})
		if found && len(x.Value) == 0 {
			x.Value = nil
		}
		r.xattrs = append(r.xattrs, x)
	}
	r.xattrs = slices.DeleteFunc(sortXattrs(r.xattrs), func(x Xattr) bool { return x.Value == nil })
	if len(r.xattrs) > 0 {
		r.entry.Xattrs = r.xattrs
	}
	// An access ACL holds the permissions too, and setting one sets them (Linux
	// posix_acl_update_mode). libarchive's mode has the group's entry where the
	// kernel has the mask.
	for _, x := range r.xattrs {
		if x.Name == xattrACLAccess {
			r.entry.Mode = modeOfACL(x.Value, r.entry.Mode)
		}
	}
	return nil
}

// addACL adds an ACL that the archive has as text. One in binary form, which
// comes behind it, wins.
func (r *Reader) addACL(field paxSet, name string) error {
	p := r.pax(field)
	if p == nil {
		return nil
	}
	text := p.aclAccess
	if field == paxACLDefault {
		text = p.aclDefault
	}
	value, err := aclFromText(text, field == paxACLDefault)
	if err != nil {
		return fmt.Errorf("%w: ACL %q: %w", ErrHeader, text, err)
	}
	if value != nil {
		r.xattrs = append(r.xattrs, Xattr{name, value})
	}
	return nil
}

// sortXattrs sorts by name and keeps the last of those with the same name.
func sortXattrs(xs []Xattr) []Xattr {
	slices.SortStableFunc(xs, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	kept := xs[:0]
	for _, x := range xs {
		if n := len(kept); n > 0 && kept[n-1].Name == x.Name {
			kept[n-1] = x
		} else {
			kept = append(kept, x)
		}
	}
	return kept
}

// cloneValue copies a value; the result is never nil, which would mean "gone".
func cloneValue(v []byte) []byte {
	return append(make([]byte, 0, len(v)), v...)
}
