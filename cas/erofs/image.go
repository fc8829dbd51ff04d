package erofs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sort"

	"golang.org/x/sys/unix"
)

// Image reads an index in place. It may be used by any number of goroutines.
type Image struct {
	b       []byte
	meta    int64 // offset of the inodes
	root    NID
	flags   byte
	devices []Device
	owners  func(uid, gid uint32) (uint32, uint32) // nil: as they are
}

// Open reads the superblock and device table of an image and verifies the
// checksum of the whole. The bytes are used in place and must not change. The
// error wraps [ErrCorrupt] if they are no undamaged index of this version.
func Open(b []byte) (*Image, error) {
	im, err := OpenVerified(b)
	if err != nil {
		return nil, err
	}
	want := le.Uint32(b[superOffset+bodySumOffset:])
	if sum := crcOf(b[checksummedBody:]); sum != want {
		return nil, fmt.Errorf("%w: expected checksum %08x, found %08x", ErrCorrupt, want, sum)
	}
	return im, nil
}

// OpenVerified is [Open] for an image whose checksum is known to be right. It does
// not read the whole.
func OpenVerified(b []byte) (*Image, error) {
	if len(b) < checksummedBody || len(b)%BlockSize != 0 {
		return nil, fmt.Errorf("%w: %d bytes", ErrCorrupt, len(b))
	}
	s := b[superOffset : superOffset+BlockSize]
	switch {
	case le.Uint32(s) != superMagic:
		return nil, fmt.Errorf("%w: no EROFS superblock", ErrCorrupt)
	case le.Uint32(s[superSumOffset:]) != superChecksum(s):
		return nil, fmt.Errorf("%w: superblock: expected checksum %08x, found %08x", ErrCorrupt, le.Uint32(s[superSumOffset:]), superChecksum(s))
	case string(bytes.TrimRight(s[64:80], "\x00")) != formatName:
		return nil, fmt.Errorf("%w: expected format %q, found %q", ErrCorrupt, formatName, s[64:80])
	case s[12] != blockBits || le.Uint32(s[80:])&^knownIncompat != 0:
		return nil, fmt.Errorf("%w: unknown features", ErrCorrupt)
	case int64(le.Uint32(s[36:]))*BlockSize != int64(len(b)):
		return nil, fmt.Errorf("%w: expected %d blocks, found %d", ErrCorrupt, le.Uint32(s[36:]), len(b)/BlockSize)
	}
	im := &Image{
		b:     b,
		meta:  int64(le.Uint32(s[40:])) * BlockSize,
		root:  NID(le.Uint16(s[14:])),
		flags: s[52],
	}
	n := int(le.Uint16(s[86:]))
	slots, err := im.bytes(firstDeviceSlot*deviceSize, int64(n)*deviceSize)
	if err != nil {
		return nil, err
	}
	for ; n > 0; n-- {
		im.devices = append(im.devices, Device{
			Tag:    string(bytes.TrimRight(slots[:64], "\x00")),
			Blocks: uint64(le.Uint32(slots[64:])),
		})
		slots = slots[deviceSize:]
	}
	return im, nil
}

// Plain reads the superblock of the image file at path and reports whether it
// can be shown as it is, as HasWhiteouts denies. Nothing else is verified.
func Plain(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, fmt.Errorf("open index: %w", err)
	}
	defer f.Close()
	s := make([]byte, BlockSize)
	if _, err := f.ReadAt(s, superOffset); err != nil {
		return false, fmt.Errorf("read index %s: %w", path, err)
	}
	if le.Uint32(s) != superMagic || le.Uint32(s[superSumOffset:]) != superChecksum(s) {
		return false, fmt.Errorf("read index %s: %w", path, ErrCorrupt)
	}
	return s[52]&flagWhiteouts == 0, nil
}

// bytes returns n bytes at an offset of the image.
func (im *Image) bytes(off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || off > int64(len(im.b)) || n > int64(len(im.b))-off {
		return nil, fmt.Errorf("%w: %d bytes at %d of %d", ErrCorrupt, n, off, len(im.b))
	}
	return im.b[off : off+n : off+n], nil
}

// Root returns the number of the root directory.
func (im *Image) Root() NID { return im.root }

// Devices returns the device table; [Extent.Device] n is its element n-1.
func (im *Image) Devices() []Device { return im.devices }

// HasWhiteouts reports whether the image says that something of the layers below is
// deleted. Then it is no filesystem to be shown as it is.
func (im *Image) HasWhiteouts() bool { return im.flags&flagWhiteouts != 0 }

// ImpliedRoot reports whether no entry described the root directory.
func (im *Image) ImpliedRoot() bool { return im.flags&flagImpliedRoot != 0 }

// MayHaveXattrs reports whether an inode may have extended attributes, and whether
// access control lists may be among them.
func (im *Image) MayHaveXattrs() (some, acls bool) {
	return im.flags&flagNoXattrs == 0, im.flags&flagNoACLs == 0
}

// Totals returns the size of the image and its devices, in blocks, and the number of
// inodes: what the kernel tells of the filesystem.
func (im *Image) Totals() (blocks, inodes uint64) {
	blocks = uint64(len(im.b)) / BlockSize
	for _, d := range im.devices {
		blocks += d.Blocks
	}
	return blocks, le.Uint64(im.b[superOffset+16:])
}

// MapOwners has every inode that is read from now on belong to who f says for the user
// and group that it has in the image. It is not for use beside readers.
func (im *Image) MapOwners(f func(uid, gid uint32) (uint32, uint32)) { im.owners = f }

// Inode reads an inode.
func (im *Image) Inode(n NID) (Inode, error) {
	if n > NID(len(im.b)/slotSize) {
		return Inode{}, fmt.Errorf("%w: inode %d", ErrCorrupt, n)
	}
	off := im.meta + int64(n)*slotSize
	b, err := im.bytes(off, inodeSize)
	if err != nil {
		return Inode{}, fmt.Errorf("inode %d: %w", n, err)
	}
	format := le.Uint16(b)
	in := Inode{
		Attr: Attr{
			Mode:      uint32(le.Uint16(b[4:])),
			UID:       le.Uint32(b[24:]),
			GID:       le.Uint32(b[28:]),
			MtimeSec:  int64(le.Uint64(b[32:])),
			MtimeNsec: le.Uint32(b[40:]),
			Size:      int64(le.Uint64(b[8:])),
		},
		NID:        n,
		Nlink:      le.Uint32(b[44:]),
		layout:     uint8(format >> 1 & 7),
		start:      le.Uint32(b[16:]),
		xattrCount: le.Uint16(b[2:]),
		xattrOff:   off + inodeSize,
	}
	if im.owners != nil {
		in.UID, in.GID = im.owners(in.UID, in.GID)
	}
	in.tail = in.xattrOff
	if in.xattrCount > 0 {
		in.tail += xattrHdrSize + 4*int64(in.xattrCount-1)
	}
	if format&1 != inodeExtended || in.Size < 0 || in.Size > maxFile {
		return Inode{}, fmt.Errorf("inode %d: %w: format %#x, size %d", n, ErrCorrupt, format, in.Size)
	}
	return in, in.check(im)
}

// check completes what depends on the type of file.
func (in *Inode) check(im *Image) error {
	ok := false
	switch in.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		switch in.layout {
		case layoutChunk:
			in.chunkBits = blockBits + uint8(in.start&chunkFormatBitsMask)
			ok = in.start&^chunkFormatBitsMask == chunkFormatIndexes
			in.tail = roundUp(in.tail, chunkIdxSize)
		case layoutPlain:
			ok = in.Size == 0
		}
	case unix.S_IFDIR, unix.S_IFLNK:
		ok = (in.layout == layoutPlain || in.layout == layoutInline) && in.Size <= int64(len(im.b))
	case unix.S_IFCHR, unix.S_IFBLK:
		in.Rdev = unix.Mkdev(decodeDev(in.start))
		ok = true
	case unix.S_IFIFO, unix.S_IFSOCK:
		ok = true
	}
	if !ok {
		return fmt.Errorf("inode %d: %w: mode %#o with layout %d", in.NID, ErrCorrupt, in.Mode, in.layout)
	}
	return nil
}

// block returns block i of a directory's or symbolic link's data; the last one
// is as long as the data.
func (im *Image) block(in *Inode, i int64) ([]byte, error) {
	n := min(in.Size-i*BlockSize, BlockSize)
	off := (int64(in.start) + i) * BlockSize
	if in.layout == layoutInline && (i+1)*BlockSize > in.Size {
		off = in.tail
	}
	b, err := im.bytes(off, n)
	if err != nil {
		return nil, fmt.Errorf("data of inode %d: %w", in.NID, err)
	}
	return b, nil
}

// Readlink returns the target of a symbolic link.
func (im *Image) Readlink(in *Inode) (string, error) {
	if !in.IsSymlink() || in.Size > maxSymlink {
		return "", fmt.Errorf("inode %d: %w: a symbolic link of mode %#o and %d bytes", in.NID, ErrCorrupt, in.Mode, in.Size)
	}
	var target []byte
	for i := range (in.Size + BlockSize - 1) / BlockSize {
		b, err := im.block(in, i)
		if err != nil {
			return "", err
		}
		target = append(target, b...)
	}
	return string(target), nil
}

// dirBlock is one block of a directory: a table of entries, and their names.
type dirBlock struct {
	im  *Image
	b   []byte
	n   int // entries
	dir NID
}

func (im *Image) dirBlock(in *Inode, i int64) (dirBlock, error) {
	b, err := im.block(in, i)
	if err != nil {
		return dirBlock{}, err
	}
	d := dirBlock{im: im, b: b, dir: in.NID}
	if len(b) >= direntSize {
		// The first name begins where the table ends.
		d.n = int(le.Uint16(b[8:])) / direntSize
	}
	if d.n == 0 || d.n*direntSize > len(b) {
		return dirBlock{}, fmt.Errorf("directory %d, block %d: %w: %d entries", in.NID, i, ErrCorrupt, d.n)
	}
	return d, nil
}

func (d *dirBlock) entry(i int) (Dirent, error) {
	b := d.b[i*direntSize:]
	from, to := int(le.Uint16(b[8:])), len(d.b)
	if i+1 < d.n {
		to = int(le.Uint16(b[direntSize+8:]))
	}
	if from < d.n*direntSize || from >= to || to > len(d.b) {
		return Dirent{}, fmt.Errorf("directory %d: %w: a name from %d to %d", d.dir, ErrCorrupt, from, to)
	}
	name := d.b[from:to:to]
	if i+1 == d.n {
		if z := bytes.IndexByte(name, 0); z >= 0 {
			name = name[:z:z]
		}
	}
	ft := b[10]
	if len(name) == 0 || len(name) > MaxName || bytes.IndexByte(name, '/') >= 0 || ft == 0 || int(ft) >= len(direntTypes) {
		return Dirent{}, fmt.Errorf("directory %d: %w: name %q of type %d", d.dir, ErrCorrupt, name, ft)
	}
	return Dirent{Name: name, NID: NID(le.Uint64(b)), Type: direntTypes[ft]}, nil
}

// IsDot reports whether a name of an entry is "." or "..".
func IsDot(name []byte) bool { return string(name) == "." || string(name) == ".." }

var direntTypes = [...]uint8{
	ftRegular: unix.DT_REG, ftDir: unix.DT_DIR, ftChar: unix.DT_CHR, ftBlock: unix.DT_BLK,
	ftFifo: unix.DT_FIFO, ftSocket: unix.DT_SOCK, ftSymlink: unix.DT_LNK,
}

// Lookup finds an entry of a directory; "." and ".." are entries too. The
// error is [ErrNotExist] if there is none of that name.
func (im *Image) Lookup(dir *Inode, name string) (Dirent, error) {
	if !dir.IsDir() {
		return Dirent{}, fmt.Errorf("inode %d: %w", dir.NID, unix.ENOTDIR)
	}
	var failed error
	// The block is the last whose first name is not behind the one looked for.
	blocks := int((dir.Size + BlockSize - 1) / BlockSize)
	i := sort.Search(blocks, func(i int) bool {
		d, err := im.dirBlock(dir, int64(i))
		if err == nil {
			var e Dirent
			if e, err = d.entry(0); err == nil {
				return string(e.Name) > name
			}
		}
		failed = errors.Join(failed, err)
		return true
	}) - 1
	if failed != nil {
		return Dirent{}, failed
	}
	if i < 0 {
		return Dirent{}, ErrNotExist
	}
	d, err := im.dirBlock(dir, int64(i))
	if err != nil {
		return Dirent{}, err
	}
	for lo, hi := 0, d.n; lo < hi; {
		mid := (lo + hi) / 2
		e, err := d.entry(mid)
		switch {
		case err != nil:
			return Dirent{}, err
		case string(e.Name) == name:
			return e, nil
		case string(e.Name) < name:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return Dirent{}, ErrNotExist
}

// ReadDir calls yield for each entry of a directory, sorted by the bytes of
// their names, without "." and "..", until it returns false.
func (im *Image) ReadDir(dir *Inode, yield func(Dirent) bool) error {
	return im.ReadDirAt(dir, 0, func(e Dirent, _ DirPos) bool {
		return IsDot(e.Name) || yield(e)
	})
}

// xattrBody returns the serialised entries of an inode's extended attributes.
func (im *Image) xattrBody(in *Inode) ([]byte, error) {
	if in.xattrCount == 0 {
		return nil, nil
	}
	b, err := im.bytes(in.xattrOff, xattrHdrSize+4*int64(in.xattrCount-1))
	if err != nil {
		return nil, fmt.Errorf("extended attributes of inode %d: %w", in.NID, err)
	}
	if b[4] != 0 {
		return nil, fmt.Errorf("extended attributes of inode %d: %w: shared ones", in.NID, ErrCorrupt)
	}
	return b[xattrHdrSize:], nil
}

// Xattrs returns the extended attributes of an inode with their full names.
func (im *Image) Xattrs(in *Inode) ([]Xattr, error) {
	var xs []Xattr
	err := im.EachXattr(in, func(prefix string, suffix, value []byte) {
		xs = append(xs, Xattr{Name: prefix + string(suffix), Value: bytes.Clone(value)})
	})
	return xs, err
}

// EachXattr calls yield for each extended attribute of an inode, whose name comes in
// two parts. The bytes are valid until the image is closed.
func (im *Image) EachXattr(in *Inode, yield func(prefix string, suffix, value []byte)) error {
	body, err := im.xattrBody(in)
	if err != nil {
		return err
	}
	return forXattr(body, func(index byte, suffix, value, _ []byte) {
		for i := range xattrPrefixes {
			if p := &xattrPrefixes[i]; p.index == index {
				yield(p.prefix, suffix, value)
			}
		}
	})
}

// checkExtent verifies that an extent lies inside its device.
func (im *Image) checkExtent(e Extent) error {
	size := int64(len(im.b))
	if e.Device > len(im.devices) {
		return fmt.Errorf("%w: device %d of %d", ErrCorrupt, e.Device, len(im.devices))
	}
	if e.Device > 0 {
		size = int64(im.devices[e.Device-1].Blocks) * BlockSize
	}
	if e.Phys > size || e.Len > size-e.Phys {
		return fmt.Errorf("%w: %d bytes at %d of device %d of %d bytes", ErrCorrupt, e.Len, e.Phys, e.Device, size)
	}
	return nil
}
