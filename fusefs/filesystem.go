package fusefs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/cas/erofs"
)

// forever is how long the kernel may keep what it was told. Nothing ever changes.
const forever = 24 * time.Hour

// blockSize is what programs are told to read at once (st_blksize).
const blockSize = 4096

// A filesystem answers the kernel's questions from the index of a view and the
// blobs. It has no state but what it counts: node ids are inode numbers, and nothing is
// ever opened. Its methods may be called by any number of goroutines.
type filesystem struct {
	fuse.RawFileSystem // answers ENOSYS to what does not concern a read-only filesystem

	image    *erofs.Image
	noXattrs bool     // there are no extended attributes in it
	devices  []device // what extents are on: the index itself, and the blobs
	damage   damageLog
	memory   memoryLimit
	pusher   pusher
}

// A device is an open file that the image points into.
type device struct {
	name string
	file *os.File
	fd   int   // of file, which is kept open as long as there is someone who has it
	size int64 // in bytes

	recent *recentReads
}

// newFilesystem makes the filesystem of a view, which has to stay open. What is damaged
// gets a line in the log, once for an inode.
func newFilesystem(view *cas.View, log io.Writer) (*filesystem, error) {
	fs := &filesystem{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		image:         view.Image,
		damage:        damageLog{out: log},
		memory:        memoryLimit{unload: view.Unload},
	}
	some, _ := view.MayHaveXattrs()
	fs.noXattrs = !some
	for i := range len(view.Devices()) + 1 {
		f := view.Device(i)
		fi, err := f.Stat()
		if err != nil {
			return nil, fmt.Errorf("look at blob: %w", err)
		}
		d := device{name: "the index", file: f, fd: int(f.Fd()), size: fi.Size(), recent: &recentReads{}}
		if i > 0 {
			entry := view.Devices()[i-1]
			d.name = "blob sha256:" + entry.Tag
			if d.size <= int64(entry.Blocks-1)*erofs.BlockSize {
				fs.damage.line(fmt.Errorf("%s: expected %d blocks of %d bytes, found %d bytes: what lies behind them cannot be read",
					d.name, entry.Blocks, erofs.BlockSize, d.size))
			}
		}
		fs.devices = append(fs.devices, d)
	}
	return fs, nil
}

func (fs *filesystem) String() string { return "plash" }

// nodeID is the number under which the kernel knows an inode: its own, which is also
// what st_ino says. The root is 1 for FUSE; in our indexes it is inode 0, so 1 is
// the middle of it and never another one.
func (fs *filesystem) nodeID(n erofs.NID) (uint64, error) {
	switch {
	case n == fs.image.Root():
		return fuse.FUSE_ROOT_ID, nil
	case n <= fuse.FUSE_ROOT_ID:
		return 0, fmt.Errorf("%w: an entry is inode %d", erofs.ErrCorrupt, n)
	}
	return uint64(n), nil
}

// inode reads the inode of a node id.
func (fs *filesystem) inode(node uint64) (erofs.Inode, error) {
	fs.memory.count()
	if node == fuse.FUSE_ROOT_ID {
		return fs.image.Inode(fs.image.Root())
	}
	return fs.image.Inode(erofs.NID(node))
}

// failed is the answer where something went wrong: the index or a blob is damaged,
// unless err says what else.
func (fs *filesystem) failed(node uint64, err error) fuse.Status {
	if errors.Is(err, unix.ENOTDIR) {
		return fuse.ENOTDIR
	}
	fs.damage.inode(node, err)
	return fuse.EIO
}

// Lookup finds a name in a directory. That there is none is an answer too, which the
// kernel keeps.
func (fs *filesystem) Lookup(_ <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if len(name) > erofs.MaxName {
		return fuse.Status(unix.ENAMETOOLONG)
	}
	dir, err := fs.inode(header.NodeId)
	if err != nil {
		return fs.failed(header.NodeId, err)
	}
	e, err := fs.image.Lookup(&dir, name)
	switch {
	case errors.Is(err, erofs.ErrNotExist):
		out.NodeId = 0
		out.SetEntryTimeout(forever)
		return fuse.OK
	case err != nil:
		return fs.failed(header.NodeId, err)
	}
	if err := fs.entry(out, e.NID, e.Type); err != nil {
		return fs.failed(uint64(e.NID), err)
	}
	return fuse.OK
}

// entry fills in what the kernel wants to know of an entry that is inode n. The
// entry's type is compared with the inode's.
func (fs *filesystem) entry(out *fuse.EntryOut, n erofs.NID, dt uint8) error {
	node, err := fs.nodeID(n)
	if err != nil {
		return err
	}
	in, err := fs.image.Inode(n)
	if err != nil {
		return err
	}
	if in.Mode&unix.S_IFMT != uint32(dt)<<12 {
		return fmt.Errorf("inode %d: %w: an entry of type %d for mode %#o", n, erofs.ErrCorrupt, dt, in.Mode)
	}
	out.NodeId = node
	out.SetEntryTimeout(forever)
	out.SetAttrTimeout(forever)
	fillAttr(&out.Attr, node, &in)
	return nil
}

// GetAttr is asked once for an inode, if at all: entries come with attributes.
func (fs *filesystem) GetAttr(_ <-chan struct{}, input *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	in, err := fs.inode(input.NodeId)
	if err != nil {
		return fs.failed(input.NodeId, err)
	}
	out.SetTimeout(forever)
	fillAttr(&out.Attr, input.NodeId, &in)
	return fuse.OK
}

// fillAttr says of an inode what the kernel's EROFS says: all times are the
// modification time, and files have the blocks that their size would take.
func fillAttr(a *fuse.Attr, node uint64, in *erofs.Inode) {
	*a = fuse.Attr{
		Ino: node, Size: uint64(in.Size), Blocks: uint64(in.Size+erofs.BlockSize-1) / 512,
		Atime: uint64(in.MtimeSec), Mtime: uint64(in.MtimeSec), Ctime: uint64(in.MtimeSec),
		Atimensec: in.MtimeNsec, Mtimensec: in.MtimeNsec, Ctimensec: in.MtimeNsec,
		Mode: in.Mode, Nlink: in.Nlink, Owner: fuse.Owner{Uid: in.UID, Gid: in.GID},
		Rdev: encodeDev(in.Rdev), Blksize: blockSize,
	}
}

// encodeDev packs a device number as FUSE wants it: as new_encode_dev of Linux,
// which has 12 bits for the major and 20 for the minor number.
func encodeDev(dev uint64) uint32 {
	major, minor := unix.Major(dev), unix.Minor(dev)
	return minor&0xff | major<<8 | minor&^0xff<<12
}

// Readlink returns a link's target, which the kernel keeps.
func (fs *filesystem) Readlink(_ <-chan struct{}, header *fuse.InHeader) ([]byte, fuse.Status) {
	in, err := fs.inode(header.NodeId)
	if err != nil {
		return nil, fs.failed(header.NodeId, err)
	}
	target, err := fs.image.Readlink(&in)
	if err != nil {
		return nil, fs.failed(header.NodeId, err)
	}
	return []byte(target), fuse.OK
}

// StatFs says what the kernel's EROFS says: all is in use, and there is no count of
// inodes but of those that are left.
func (fs *filesystem) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	blocks, inodes := fs.image.Totals()
	*out = fuse.StatfsOut{
		Blocks: blocks, Bsize: erofs.BlockSize, Frsize: erofs.BlockSize,
		Files: ^uint64(0), Ffree: ^uint64(0) - inodes, NameLen: erofs.MaxName,
	}
	return fuse.OK
}

// Open is answered with ENOSYS, as OpenDir, Flush and Access are: the kernel then never
// asks again, and keeps pages, listings and all over closes (no-open since Linux 3.13,
// no-opendir since 5.1).
func (fs *filesystem) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.ENOSYS
}

// OpenDir is not wanted: see [filesystem.Open].
func (fs *filesystem) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.ENOSYS
}

// Flush is not wanted: see [filesystem.Open].
func (fs *filesystem) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Access is not wanted: the kernel checks permissions (default_permissions).
func (fs *filesystem) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.ENOSYS }
