// Package erofs writes and reads the index of a layer: an EROFS image that
// holds all metadata of a filesystem tree and no file data. Where a regular
// file's bytes lie is told by chunk indexes that point into other devices, the
// layers' tar blobs.
//
// The format is the kernel's: Documentation/filesystems/erofs.rst and
// fs/erofs/erofs_fs.h of Linux. Blocks are 512 bytes, so that a tar member's
// data (which begins at a multiple of 512) can be addressed; every inode is
// the extended one (64 bytes), for nanosecond times and 32-bit owners.
//
// A [Tree] is built in memory, from tar entries or from other images, and
// written with [Tree.WriteTo]; the same tree gives the same bytes. An [Image] is
// read in place, usually from a memory-mapped file, and does not trust it:
// every offset is checked before use, so a damaged image gives errors and
// never a panic.
package erofs

import (
	"errors"

	"golang.org/x/sys/unix"
)

// BlockSize is the size of a block in bytes, and the unit of tar.
const BlockSize = 512

// MaxName is the longest name of a directory entry, in bytes.
const MaxName = 255

var (
	// ErrCorrupt is wrapped by every error about an image that is no valid
	// index: the index has to be built again.
	ErrCorrupt = errors.New("damaged index")
	// ErrNotExist is returned by Lookup where a directory has no such entry.
	ErrNotExist = errors.New("no such entry")
)

// NID is the number of an inode: its place in the image, in units of 32 bytes.
// The kernel shows it as st_ino.
type NID uint64

// Attr is what an inode says of itself, apart from its content.
type Attr struct {
	Mode      uint32 // type and permission bits, as st_mode
	UID, GID  uint32
	MtimeSec  int64  // seconds since the epoch, may be negative
	MtimeNsec uint32 // 0 to 999,999,999
	Rdev      uint64 // of a device: as unix.Mkdev makes it
	Size      int64  // of a regular file or symbolic link, in bytes
}

// IsDir reports whether the inode is a directory.
func (a *Attr) IsDir() bool { return a.Mode&unix.S_IFMT == unix.S_IFDIR }

// IsRegular reports whether the inode is a regular file.
func (a *Attr) IsRegular() bool { return a.Mode&unix.S_IFMT == unix.S_IFREG }

// IsSymlink reports whether the inode is a symbolic link.
func (a *Attr) IsSymlink() bool { return a.Mode&unix.S_IFMT == unix.S_IFLNK }

// IsWhiteout reports whether the inode is overlayfs' mark for a name that is
// deleted: a character device 0:0.
func (a *Attr) IsWhiteout() bool {
	return a.Mode&unix.S_IFMT == unix.S_IFCHR && a.Rdev == 0
}

// Inode is an inode of an [Image].
type Inode struct {
	Attr
	NID   NID
	Nlink uint32

	layout     uint8
	start      uint32 // first block of plain data
	tail       int64  // offset in the image of what follows inode and xattrs
	chunkBits  uint8
	xattrOff   int64
	xattrCount uint16
}

// Xattr is an extended attribute. Name is in full, as "user.mime_type".
type Xattr struct {
	Name  string
	Value []byte
}

// Extent says where a stretch of a regular file lies. What no extent covers is
// a hole and reads as zeros.
type Extent struct {
	Off    int64 // in the file, in bytes
	Len    int64 // in bytes
	Device int   // 0: the image itself; n: the nth of [Image.Devices], counted from 1
	Phys   int64 // offset in that device, in bytes
}

// Dirent is an entry of a directory.
type Dirent struct {
	Name []byte // valid until the image is closed; not to be changed
	NID  NID
	Type uint8 // a DT_ value of getdents(2): unix.DT_REG, unix.DT_DIR, …
}

// Device is a slot of the device table: a blob that the index points into.
type Device struct {
	Tag    string // for plash: the hex digest of the blob
	Blocks uint64 // its size in blocks of 512 bytes
}
