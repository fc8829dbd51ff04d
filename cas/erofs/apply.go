package erofs

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Apply puts the layer that an image holds on top of the tree: entries are added
// or replaced, whiteouts and opaque directories take away what is in the tree and do
// not get into it. Directories that the layer only implies keep the
// attributes they have here; where the tree has a symbolic link to a
// directory in the place of such a directory, the link is followed, so that a
// layer which lists "lib/x" and nothing of "lib" means the same on a root
// filesystem where lib is a link.
func (t *Tree) Apply(im *Image) error {
	root, err := im.Inode(im.root)
	if err != nil {
		return err
	}
	a := &applier{t: t, im: im, devices: make([]int, len(im.devices)+1), inodes: make(map[NID]uint32)}
	packed, marks, err := a.inode(&root)
	if err != nil {
		return err
	}
	if marks.opaque {
		t.clearRoot()
	}
	if !marks.implied {
		*t.inodes.at(t.ents.at(rootEntry).ino) = packed
	}
	return a.entries(rootEntry, &root)
}

type applier struct {
	t       *Tree
	im      *Image
	devices []int // number in the tree by number in the image; 0: not used yet
	inodes  map[NID]uint32
	entered int // entries so far
	depth   int
}

// marks are what a layer's index says of a directory besides its attributes.
type marks struct {
	implied bool // no entry described it
	opaque  bool // what is below does not show in it
}

// entries merges the entries of directory in of the image into directory dir
// of the tree.
func (a *applier) entries(dir uint32, in *Inode) error {
	// In a damaged image a directory may lie in itself.
	if a.depth++; a.depth > maxDepth+1 {
		return fmt.Errorf("%w: directories of depth %d", ErrCorrupt, a.depth)
	}
	var failed error
	err := a.im.ReadDir(in, func(e Dirent) bool {
		if a.entered++; a.entered > len(a.im.b)/direntSize {
			failed = fmt.Errorf("%w: more entries than fit", ErrCorrupt)
			return false
		}
		failed = a.entry(dir, e)
		return failed == nil
	})
	a.depth--
	return errors.Join(err, failed)
}

func (a *applier) entry(dir uint32, e Dirent) error {
	t, name := a.t, string(e.Name)
	in, err := a.im.Inode(e.NID)
	if err != nil {
		return err
	}
	if in.IsDir() {
		return a.subdir(dir, name, &in)
	}
	if old, there := t.find(dir, name); there {
		t.kill(old)
	}
	if in.IsWhiteout() {
		return nil
	}
	ino, seen := a.inodes[e.NID]
	if !seen {
		packed, _, err := a.inode(&in)
		if err != nil {
			return err
		}
		ino = t.addInode(packed)
		if in.Nlink > 1 {
			a.inodes[e.NID] = ino
		}
	}
	return t.insert(dir, name, ino)
}

func (a *applier) subdir(dir uint32, name string, in *Inode) error {
	t := a.t
	packed, marks, err := a.inode(in)
	if err != nil {
		return err
	}
	if old, there := t.find(dir, name); there {
		was := t.inodes.at(t.ents.at(old).ino)
		switch {
		case was.isDir():
			if marks.implied {
				packed = *was
			}
			if !marks.opaque {
				*was = packed
				return a.entries(old, in)
			}
		case was.isSymlink() && marks.implied:
			if to, err := t.follow(dir, was, false, new(int)); err == nil {
				return a.entries(to, in)
			}
		}
		// A new entry of the name leaves all that was below the old one behind.
		t.kill(old)
	}
	if err := t.insert(dir, name, t.addInode(packed)); err != nil {
		return err
	}
	return a.entries(uint32(t.ents.n-1), in)
}

// clearRoot takes away all entries of the root directory.
func (t *Tree) clearRoot() {
	for i := range uint32(t.ents.n) {
		if e := t.ents.at(i); i != rootEntry && e.parent == rootEntry {
			e.dead = true
		}
	}
	t.lastGood = false
}

// inode packs an inode of the image for the tree, and tells the marks apart
// from its extended attributes.
func (a *applier) inode(in *Inode) (packed inode, m marks, err error) {
	packed = inode{
		mode: in.Mode, uid: in.UID, gid: in.GID, mtime: in.MtimeSec, nsec: in.MtimeNsec,
	}
	body, err := a.im.xattrBody(in)
	if err != nil {
		return packed, m, err
	}
	var kept strings.Builder
	err = forXattr(body, func(index byte, suffix, _, raw []byte) {
		switch {
		case index == impliedIndex:
			m.implied = true
		case index == 4 && string(suffix) == opaqueName:
			m.opaque = true
		default:
			kept.Write(raw)
		}
	})
	if err != nil {
		return packed, m, fmt.Errorf("inode %d: %w", in.NID, err)
	}
	packed.xattrs = a.t.internBody(kept.String())
	switch in.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		err = a.extents(&packed, in)
	case unix.S_IFLNK:
		var target string
		if target, err = a.im.Readlink(in); err == nil {
			err = a.t.setTarget(&packed, target)
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		packed.where = int64(in.start)
	case unix.S_IFDIR:
		if m.implied {
			packed.flags |= inodeImplied
		}
	}
	return packed, m, err
}

// extents takes over where a file's data lies, with the numbers its devices
// have in the tree.
func (a *applier) extents(packed *inode, in *Inode) error {
	packed.size = in.Size
	var ext []Extent
	var failed error
	err := a.im.Extents(in, func(e Extent) bool {
		e.Device, e.Phys, failed = a.place(e)
		ext = append(ext, e)
		return failed == nil
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	return a.t.setExtents(packed, ext)
}

// place finds an extent's device in the tree. What lies in the image
// itself is copied.
func (a *applier) place(e Extent) (device int, phys int64, err error) {
	if e.Device == 0 {
		data, err := a.im.bytes(e.Phys, e.Len)
		if err != nil {
			return 0, 0, err
		}
		phys = int64(len(a.t.data))
		a.t.data = append(a.t.data, data...)
		a.t.data = append(a.t.data, zeros[:roundUp(e.Len, BlockSize)-e.Len]...)
		return 0, phys, nil
	}
	if a.devices[e.Device] == 0 {
		d := a.im.devices[e.Device-1]
		n, err := a.t.AddDevice(d.Tag, int64(d.Blocks)*BlockSize)
		if err != nil {
			return 0, 0, err
		}
		a.devices[e.Device] = n
	}
	return a.devices[e.Device], e.Phys, nil
}
