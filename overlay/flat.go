package overlay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/cas/erofs"
	"github.com/ihucos/plash/cas/tarstream"
)

// Flat describes an upper directory that was written in a user namespace with one
// user, to whom everything belongs there. Who a file belongs to in the layer is then
// what somebody asked for, else what it was below, else root.
type Flat struct {
	// Below is what the layers below look like; nil: there are none.
	Below *cas.View
	// Recall tells what was asked for of a file, and what its filesystem could not hold; nil:
	// nothing is known.
	Recall func(FileID) (Remembered, bool)
}

// OpenFlat opens the layers below for [Flat]. The caller closes it.
func OpenFlat(
	ctx context.Context, s *cas.Store, layers []Layer, recall func(FileID) (Remembered, bool),
) (*Flat, error) {
	f := &Flat{Recall: recall}
	if len(layers) == 0 {
		return f, nil
	}
	var err error
	f.Below, err = s.View(ctx, digests(layers))
	return f, err
}

// Close closes the layers below.
func (f *Flat) Close() error {
	if f.Below == nil {
		return nil
	}
	return f.Below.Close()
}

// Remembered is what a file should have been made.
type Remembered struct {
	UID, GID *uint32 // nil: nobody said
	// Device is the type of a device (tarstream.TypeChar or TypeBlock) that an empty
	// file stands for, else 0.
	Device       byte
	Major, Minor uint32
	// Xattrs are in the place of those that it has. One without a value (nil) says that the file's own is
	// right, or that it has none.
	Xattrs []tarstream.Xattr
}

// root tells whether the file was given to root and its group, or to nobody.
func (r *Remembered) root() bool {
	return (r.UID == nil || *r.UID == 0) && (r.GID == nil || *r.GID == 0)
}

// A FileID tells a file from the others of its filesystem, also from a later one with the
// same inode number.
type FileID struct {
	Ino       uint64
	BirthSec  int64 // with BirthNsec, when it was made; 0 where the filesystem does not know
	BirthNsec uint32
	Handle    string // name_to_handle_at(2), with the generation of the inode; "" if there is none
}

// Identify gives the id of a file, which is not followed if it is a symbolic link.
// With an empty path it is dirfd itself.
func Identify(dirfd int, path string) (FileID, error) {
	flags := 0
	if path == "" {
		flags = unix.AT_EMPTY_PATH
	}
	var st unix.Statx_t
	err := unix.Statx(dirfd, path, flags|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_INO|unix.STATX_BTIME, &st)
	if err != nil {
		return FileID{}, err
	}
	id := FileID{Ino: st.Ino}
	if st.Mask&unix.STATX_BTIME != 0 {
		id.BirthSec, id.BirthNsec = st.Btime.Sec, st.Btime.Nsec
	}
	if h, _, err := unix.NameToHandleAt(dirfd, path, flags); err == nil {
		id.Handle = string(h.Bytes())
	}
	return id, nil
}

// flatten puts into e, the entry of the file at path below dirfd, what Flat knows of it.
func (p *packer) flatten(e *tarstream.Entry, dirfd int, path string, m marks) error {
	var asked Remembered
	if p.flat.Recall != nil {
		id, err := Identify(dirfd, path)
		if err != nil {
			return fmt.Errorf("identify: %w", err)
		}
		asked, _ = p.flat.Recall(id)
	}
	if asked.Device != 0 && e.Type == tarstream.TypeReg {
		e.Type, e.Size = asked.Device, 0
		e.Devmajor, e.Devminor = asked.Major, asked.Minor
	}
	was, err := p.entryBelow(e)
	if err != nil {
		return err
	}
	copied := m.origin || e.Type == tarstream.TypeDir && !m.opaque
	if copied {
		if err := p.inheritXattrs(e, &was, &asked); err != nil {
			return err
		}
	}
	e.Xattrs = mergeXattrs(e.Xattrs, asked.Xattrs, e.Mode)
	e.UID, e.GID = was.UID, was.GID
	if !copied && asked.root() {
		// A new file that only had what could be seen of the old one is its successor: passwd,
		// sed -i and cp -p give the new file the owner that they saw.
		return p.likeOriginal(e)
	}
	if asked.UID != nil {
		e.UID = *asked.UID
	}
	if asked.GID != nil {
		e.GID = *asked.GID
	}
	return nil
}

// likeOriginal gives a new file NAME- the owner that NAME has below, if there is one: passwd and its kin
// keep the old version so, as a copy with the owner that they saw.
func (p *packer) likeOriginal(e *tarstream.Entry) error {
	name, backup := strings.CutSuffix(e.Name, "-")
	if !backup || e.Type != tarstream.TypeReg {
		return nil
	}
	original, err := p.entryBelow(&tarstream.Entry{Name: name, Type: e.Type})
	if err == nil && original.Mode != 0 {
		e.UID, e.GID = original.UID, original.GID
	}
	return err
}

// inheritXattrs gives a file that was copied up the attributes that it had below and that the upper
// directory may not hold, if its content is what it was.
func (p *packer) inheritXattrs(e *tarstream.Entry, was *erofs.Inode, asked *Remembered) error {
	if was.Mode == 0 || e.Type == tarstream.TypeReg &&
		(was.Size != e.Size || was.MtimeSec != e.MtimeSec || was.MtimeNsec != e.MtimeNsec) {
		return nil
	}
	below, err := p.flat.Below.Xattrs(was)
	if err != nil {
		return fmt.Errorf("read attributes in the layers below: %w", err)
	}
	for _, x := range below {
		_, mark := overlayMark(x.Name)
		same := func(h tarstream.Xattr) bool { return h.Name == x.Name }
		if !mark && !flatXattr(x.Name) && !slices.ContainsFunc(e.Xattrs, same) && !slices.ContainsFunc(asked.Xattrs, same) {
			e.Xattrs = append(e.Xattrs, tarstream.Xattr{Name: x.Name, Value: x.Value})
		}
	}
	return nil
}

// mergeXattrs gives the attributes that a file of a mode has with those that it should have, a file
// capability in the form that is not bound to a namespace.
func mergeXattrs(have, want []tarstream.Xattr, mode uint32) []tarstream.Xattr {
	for _, x := range want {
		if x.Value == nil {
			continue
		}
		have = slices.DeleteFunc(have, func(h tarstream.Xattr) bool { return h.Name == x.Name })
		have = append(have, x)
	}
	for i, x := range have {
		switch x.Name {
		case xattrCapability:
			have[i].Value = plainCapability(x.Value)
		case xattrACL:
			have[i].Value = aclWithMode(x.Value, mode)
		}
	}
	slices.SortFunc(have, func(a, b tarstream.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return have
}

// plainCapability turns a struct vfs_ns_cap_data of a namespace's root (version 3) into the
// struct vfs_cap_data that means every root (version 2; linux/capability.h).
func plainCapability(v []byte) []byte {
	const revisionMask, revision2, revision3 = 0xff000000, 0x02000000, 0x03000000
	if len(v) != 24 {
		return v
	}
	magic := binary.LittleEndian.Uint32(v)
	if magic&revisionMask != revision3 {
		return v
	}
	v = slices.Clone(v[:20])
	binary.LittleEndian.PutUint32(v, magic&^revisionMask|revision2)
	return v
}

// entryBelow finds the file of an entry's path and type in the layers below; if there is none, one of
// mode 0 that belongs to root.
func (p *packer) entryBelow(e *tarstream.Entry) (erofs.Inode, error) {
	none := erofs.Inode{}
	if p.flat.Below == nil {
		return none, nil
	}
	path := strings.TrimSuffix(e.Name, "/")
	if path == "." {
		path = ""
	}
	in, err := p.below.find(p.flat.Below, path)
	if errors.Is(err, erofs.ErrNotExist) {
		return none, nil
	}
	if err != nil {
		return none, fmt.Errorf("look up in the layers below: %w", err)
	}
	if in.Mode&unix.S_IFMT != fileType(e.Type) {
		return none, nil
	}
	return in, nil
}

// OwnerBelow tells who the file of a type (S_IFMT of a mode) at a clean path, relative to the root,
// belongs to in the layers below; root, if there is none. It may be called at any time, by many.
func (f *Flat) OwnerBelow(path string, typ uint32) (uid, gid uint32) {
	if f.Below == nil {
		return 0, 0
	}
	in, err := new(lookupBelow).find(f.Below, path)
	if err != nil || in.Mode&unix.S_IFMT != typ&unix.S_IFMT {
		return 0, 0
	}
	return in.UID, in.GID
}

// fileType is the file type of a mode for the type of an entry.
func fileType(typ byte) uint32 {
	switch typ {
	case tarstream.TypeDir:
		return unix.S_IFDIR
	case tarstream.TypeSymlink:
		return unix.S_IFLNK
	case tarstream.TypeChar:
		return unix.S_IFCHR
	case tarstream.TypeBlock:
		return unix.S_IFBLK
	case tarstream.TypeFifo:
		return unix.S_IFIFO
	}
	return unix.S_IFREG
}

// A lookupBelow looks up paths, and knows the directory of the last one: entries of one
// directory come one after the other.
type lookupBelow struct {
	dir   string
	inode erofs.Inode
	known bool
}

// find gives the inode at a clean path. Symbolic links are not followed: what is packed lies
// in directories. It is
// erofs.ErrNotExist where there is nothing.
func (l *lookupBelow) find(v *cas.View, path string) (erofs.Inode, error) {
	if path == "" {
		return v.Inode(v.Root())
	}
	dir, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, name = path[:i], path[i+1:]
	}
	if !l.known || l.dir != dir {
		in, err := l.find(v, dir)
		if err != nil {
			return in, err
		}
		l.dir, l.inode, l.known = dir, in, true
	}
	if !l.inode.IsDir() {
		return erofs.Inode{}, erofs.ErrNotExist
	}
	d, err := v.Lookup(&l.inode, name)
	if err != nil {
		return erofs.Inode{}, err
	}
	return v.Inode(d.NID)
}
