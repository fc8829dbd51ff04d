package erofs

import (
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"strings"

	"golang.org/x/sys/unix"
)

var (
	// ErrPath says that a path cannot be an entry: it leaves the root, or it or a
	// part of it is too long.
	ErrPath = errors.New("bad path")
	// ErrLink says that a hard link's target is not there or cannot be linked.
	ErrLink = errors.New("bad hard link")
	// ErrLimit says that something does not fit into the format.
	ErrLimit = errors.New("too large for the index")
)

const (
	// maxPath is the longest path of an entry in bytes: Linux' PATH_MAX.
	maxPath = 4096
	// maxDepth is how many names lead to an entry at most. A path that goes through symbolic links leads to
	// more of them than it has itself.
	maxDepth = maxPath
	// freeImplied and impliedPerEntry are how many directories a tree may have that no entry describes: a
	// path of 4 KB makes 2,000, and a few megabytes of compressed paths would take all memory.
	freeImplied     = 1 << 18
	impliedPerEntry = 16
)

// Tree is a filesystem tree in memory that becomes an image. It is made for
// millions of entries: entries and inodes lie in slices without pointers, about
// 100 bytes and the name each.
//
// It holds what a layer says, so a name can also be a whiteout, a directory
// opaque, and a directory implied: made because something lies in it, without
// an entry of its own. An implied directory takes its attributes from the
// layers below when images are merged.
type Tree struct {
	// ReadDevice reads len(p) bytes at off of a device. It is called by Align, for
	// what cannot be addressed in blocks and so is copied into the image.
	ReadDevice func(device int, p []byte, off int64) error

	ents    arena[entry]
	inodes  arena[inode]
	names   []byte // names of entries and targets of symbolic links
	table   []uint32
	live    int // entries of table
	paths   int // that were put
	implied int // directories made for them
	seed    maphash.Seed
	devices []Device
	extents []Extent
	xattrs  []string // serialised, see packXattrs; 0 is none
	xattrID map[string]uint32
	data    []byte // what lies in the image itself, at device 0
	short   []shortDevice

	lastDir  string // cache for dirFor: tars list a directory's entries together
	lastEnt  uint32
	lastGood bool
}

// shortDevice is a device that ends within a block.
type shortDevice struct {
	n    int
	size int64 // in bytes
}

// entry is a name in a directory. Entry 0 is the root. A parent always
// stands before its children.
type entry struct {
	parent  uint32
	name    uint32 // offset in names
	ino     uint32
	nameLen uint8
	dead    bool   // replaced or deleted, and with it all below
	depth   uint16 // how many names lead to it from the root
}

type inode struct {
	mtime  int64
	size   int64
	where  int64 // regular: offset in its device, or the first of extents; symlink: offset in names; device: encoded number
	mode   uint32
	uid    uint32
	gid    uint32
	nsec   uint32
	xattrs uint32
	nlink  uint32
	count  uint32 // of extents; contiguous: one extent, described by where and device alone
	device uint16
	flags  uint8
}

const contiguous = math.MaxUint32

const (
	inodeImplied  uint8 = 1 << iota // a directory without an entry of its own
	inodeOpaque                     // a directory that hides what is below
	inodeUnpacked                   // extents are not aligned: to be copied into the image
)

const rootEntry = 0

// NewTree returns a tree that holds only an implied root directory.
func NewTree() *Tree {
	t := &Tree{
		seed:    maphash.MakeSeed(),
		table:   make([]uint32, 1024),
		xattrs:  []string{""},
		xattrID: map[string]uint32{"": 0},
	}
	t.inodes.add(impliedDir)
	t.ents.add(entry{})
	return t
}

var impliedDir = inode{mode: unix.S_IFDIR | 0o755, flags: inodeImplied}

// AddDevice adds a device, or finds the one that has the same tag, and
// returns its number for [Extent.Device]. Size is in bytes and rounded up to
// whole blocks.
func (t *Tree) AddDevice(tag string, size int64) (int, error) {
	for i, d := range t.devices {
		if d.Tag == tag {
			return i + 1, nil
		}
	}
	blocks := roundUp(size, BlockSize) / BlockSize
	switch {
	case len(t.devices) == maxDevices:
		return 0, fmt.Errorf("%w: more than %d blobs", ErrLimit, maxDevices)
	case blocks >= maxBlocks:
		return 0, fmt.Errorf("%w: a blob of %d bytes, the limit is 2 TiB", ErrLimit, size)
	}
	t.devices = append(t.devices, Device{Tag: tag, Blocks: uint64(blocks)})
	return len(t.devices), nil
}

// SetDevice gives a device its tag and size when they are known at last.
func (t *Tree) SetDevice(n int, tag string, size int64) error {
	blocks := roundUp(size, BlockSize) / BlockSize
	if blocks >= maxBlocks {
		return fmt.Errorf("%w: a blob of %d bytes, the limit is 2 TiB", ErrLimit, size)
	}
	t.devices[n-1] = Device{Tag: tag, Blocks: uint64(blocks)}
	if size%BlockSize != 0 {
		t.short = append(t.short, shortDevice{n, size})
	}
	return nil
}

// Len returns the number of entries ever put, the root included.
func (t *Tree) Len() int { return t.ents.n }

// Put makes path an entry with the given attributes, extended attributes
// and content, and replaces what was there; a directory that was there keeps
// its entries if the new one is a directory too. Missing parents are made. A
// symbolic link's target is content.Target, a regular file's data
// content.Extents: sorted, within Size, not overlapping.
func (t *Tree) Put(path string, a Attr, xattrs []Xattr, c Content) error {
	dir, name, err := t.dirFor(path)
	if err != nil {
		return err
	}
	in, err := t.newInode(a, xattrs, c)
	if err != nil {
		return err
	}
	if name == "" {
		if !a.IsDir() {
			return fmt.Errorf("%w: the root is not a directory", ErrPath)
		}
		in.flags |= t.inodes.at(t.ents.at(rootEntry).ino).flags & inodeOpaque
		*t.inodes.at(t.ents.at(rootEntry).ino) = in
		return nil
	}
	if old, ok := t.find(dir, name); ok {
		was := t.inodes.at(t.ents.at(old).ino)
		switch {
		case was.isDir() && a.IsDir():
			in.flags |= was.flags & inodeOpaque
			*was = in
			return nil
		case was.isWhiteout() && a.IsDir():
			// The directory replaces one that lies below.
			in.flags |= inodeOpaque
		}
		t.kill(old)
	}
	return t.insert(dir, name, t.addInode(in))
}

// Content is what an inode holds.
type Content struct {
	Target  string   // of a symbolic link
	Extents []Extent // of a regular file
}

// Link makes path another name of the file at target.
func (t *Tree) Link(path, target string) error {
	tdir, tname, err := t.walk(target, false)
	if err != nil {
		return fmt.Errorf("%w to %q: %w", ErrLink, target, err)
	}
	to, ok := t.find(tdir, tname)
	switch {
	case !ok || tname == "":
		return fmt.Errorf("%w: %q is not there", ErrLink, target)
	case t.inodes.at(t.ents.at(to).ino).isDir():
		return fmt.Errorf("%w: %q is a directory", ErrLink, target)
	case t.inodes.at(t.ents.at(to).ino).isWhiteout():
		return fmt.Errorf("%w: %q is deleted", ErrLink, target)
	}
	dir, name, err := t.dirFor(path)
	if err != nil {
		return err
	}
	if name == "" {
		return fmt.Errorf("%w: the root as a link", ErrPath)
	}
	ino := t.ents.at(to).ino
	if old, ok := t.find(dir, name); ok {
		if t.ents.at(old).ino == ino {
			return nil
		}
		t.kill(old)
	}
	return t.insert(dir, name, ino)
}

// Whiteout says that path is deleted from the layers below. It does not hide an
// entry of this tree, but makes a directory opaque.
func (t *Tree) Whiteout(path string) error {
	dir, name, err := t.dirFor(path)
	if err != nil {
		return err
	}
	if name == "" {
		return fmt.Errorf("%w: a whiteout of the root", ErrPath)
	}
	if old, ok := t.find(dir, name); ok {
		if in := t.inodes.at(t.ents.at(old).ino); in.isDir() {
			in.flags |= inodeOpaque
		}
		return nil
	}
	return t.insert(dir, name, t.addInode(inode{mode: unix.S_IFCHR}))
}

// Opaque says that nothing of the layers below shows in the directory at path.
func (t *Tree) Opaque(path string) error {
	dir, err := t.dirAt(path)
	if err != nil {
		return err
	}
	t.inodes.at(t.ents.at(dir).ino).flags |= inodeOpaque
	return nil
}

// newInode checks attributes and content and packs them.
func (t *Tree) newInode(a Attr, xattrs []Xattr, c Content) (inode, error) {
	in := inode{mtime: a.MtimeSec, nsec: a.MtimeNsec, mode: a.Mode, uid: a.UID, gid: a.GID}
	var err error
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if a.Size < 0 || a.Size > maxFile {
			return in, fmt.Errorf("%w: a file of %d bytes", ErrLimit, a.Size)
		}
		in.size = a.Size
		err = t.setExtents(&in, c.Extents)
	case unix.S_IFLNK:
		err = t.setTarget(&in, c.Target)
	case unix.S_IFCHR, unix.S_IFBLK:
		major, minor := unix.Major(a.Rdev), unix.Minor(a.Rdev)
		if major > 0xfff || minor > 0xfffff {
			return in, fmt.Errorf("%w: device number %d:%d", ErrLimit, major, minor)
		}
		in.where = int64(encodeDev(major, minor))
	case unix.S_IFDIR, unix.S_IFIFO, unix.S_IFSOCK:
	default:
		return in, fmt.Errorf("%w: file type %#o", ErrLimit, a.Mode&unix.S_IFMT)
	}
	if err != nil {
		return in, err
	}
	in.xattrs, err = t.internXattrs(xattrs)
	return in, err
}

func (t *Tree) setTarget(in *inode, target string) error {
	switch {
	case target == "":
		return fmt.Errorf("%w: a symbolic link to nothing", ErrPath)
	case len(target) > maxSymlink:
		return fmt.Errorf("%w: the target of a symbolic link has %d bytes, the limit is %d", ErrLimit, len(target), maxSymlink)
	case strings.IndexByte(target, 0) >= 0:
		return fmt.Errorf("%w: a NUL byte in the target of a symbolic link", ErrPath)
	}
	in.size = int64(len(target))
	in.where = int64(len(t.names))
	t.names = append(t.names, target...)
	return nil
}

// setExtents records where a file's data lies.
func (t *Tree) setExtents(in *inode, ext []Extent) error {
	if len(ext) == 1 && ext[0].Off == 0 && ext[0].Len == in.size && ext[0].Phys%BlockSize == 0 &&
		ext[0].Phys >= 0 && uint(ext[0].Device) <= uint(len(t.devices)) {
		in.count, in.device, in.where = contiguous, uint16(ext[0].Device), ext[0].Phys
		return nil
	}
	var end int64
	for _, e := range ext {
		if e.Off < end || e.Len < 0 || e.Len > in.size-e.Off || e.Device < 0 || e.Device > len(t.devices) || e.Phys < 0 {
			return fmt.Errorf("%w: extent of %d bytes at %d of a file of %d bytes", ErrLimit, e.Len, e.Off, in.size)
		}
		end = e.Off + e.Len
		// A block has to come from one place as a whole; only the last may be short.
		if e.Off%BlockSize != 0 || e.Phys%BlockSize != 0 || (e.Len%BlockSize != 0 && end != in.size) {
			in.flags |= inodeUnpacked
		}
	}
	in.where, in.count = int64(len(t.extents)), uint32(len(ext))
	t.extents = append(t.extents, ext...)
	return nil
}

// extentsOf returns the extents of a regular file; buf is used for a short list.
func (t *Tree) extentsOf(in *inode, buf *[1]Extent) []Extent {
	if in.count == contiguous {
		if in.size == 0 {
			return nil
		}
		buf[0] = Extent{Len: in.size, Device: int(in.device), Phys: in.where}
		return buf[:]
	}
	return t.extents[in.where : in.where+int64(in.count)]
}

func (in *inode) isDir() bool      { return in.mode&unix.S_IFMT == unix.S_IFDIR }
func (in *inode) isRegular() bool  { return in.mode&unix.S_IFMT == unix.S_IFREG }
func (in *inode) isSymlink() bool  { return in.mode&unix.S_IFMT == unix.S_IFLNK }
func (in *inode) isWhiteout() bool { return in.mode&unix.S_IFMT == unix.S_IFCHR && in.where == 0 }

func (t *Tree) addInode(in inode) uint32 {
	t.inodes.add(in)
	return uint32(t.inodes.n - 1)
}

func (t *Tree) nameOf(e *entry) []byte { return t.names[e.name : e.name+uint32(e.nameLen)] }

func (t *Tree) target(in *inode) string { return string(t.names[in.where : in.where+in.size]) }
