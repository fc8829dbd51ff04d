package fusefs

import (
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas/erofs"
)

// ReadDirPlus lists a directory, and with each entry tells what a lookup of it
// would. The kernel keeps both. The offset of an entry is the place in the index of
// the next one.
func (fs *filesystem) ReadDirPlus(_ <-chan struct{}, input *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return fs.list(input, func(e *erofs.Dirent, d fuse.DirEntry) bool {
		entry := out.AddDirLookupEntry(d)
		if entry == nil {
			return false
		}
		// Of "." and "..", the kernel wants to know nothing. A damaged inode is listed
		// too; to look it up gives the error.
		if !erofs.IsDot(e.Name) {
			if err := fs.entry(entry, e.NID, e.Type); err != nil {
				*entry = fuse.EntryOut{}
			}
		}
		return true
	})
}

// ReadDir lists a directory without more.
func (fs *filesystem) ReadDir(_ <-chan struct{}, input *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return fs.list(input, func(_ *erofs.Dirent, d fuse.DirEntry) bool { return out.AddDirEntry(d) })
}

func (fs *filesystem) list(input *fuse.ReadIn, add func(e *erofs.Dirent, d fuse.DirEntry) bool) fuse.Status {
	dir, err := fs.inode(input.NodeId)
	if err != nil {
		return fs.failed(input.NodeId, err)
	}
	listed := 0
	err = fs.image.ReadDirAt(&dir, erofs.DirPos(input.Offset), func(e erofs.Dirent, next erofs.DirPos) bool {
		node, err := fs.nodeID(e.NID)
		if err != nil {
			node = fuse.FUSE_UNKNOWN_INO
		}
		// The name is copied before the index can go away, and so needs no copy here.
		name := unsafe.String(unsafe.SliceData(e.Name), len(e.Name))
		ok := add(&e, fuse.DirEntry{Ino: node, Mode: uint32(e.Type) << 12, Name: name, Off: uint64(next)})
		if ok {
			listed++
		}
		return ok
	})
	if err == nil {
		return fuse.OK
	}
	status := fs.failed(input.NodeId, err)
	if listed > 0 {
		return fuse.OK // and an error for the next one, which begins where it failed
	}
	return status
}

// Lseek finds data and holes (SEEK_DATA, SEEK_HOLE of lseek(2)).
func (fs *filesystem) Lseek(_ <-chan struct{}, input *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	in, err := fs.inode(input.NodeId)
	if err != nil {
		return fs.failed(input.NodeId, err)
	}
	off := int64(input.Offset)
	if off < 0 || off >= in.Size {
		return fuse.Status(unix.ENXIO)
	}
	hole, data := off, int64(-1) // the first ones from off on
	err = fs.image.ExtentsIn(&in, off, in.Size-off, func(e erofs.Extent) bool {
		if data < 0 {
			data = e.Off
		}
		if e.Off > hole {
			return false
		}
		hole = e.Off + e.Len
		return input.Whence == unix.SEEK_HOLE
	})
	switch {
	case err != nil:
		return fs.failed(input.NodeId, err)
	case input.Whence == unix.SEEK_HOLE:
		out.Offset = uint64(hole)
	case input.Whence != unix.SEEK_DATA:
		return fuse.EINVAL
	case data < 0:
		return fuse.Status(unix.ENXIO)
	default:
		out.Offset = uint64(data)
	}
	return fuse.OK
}
