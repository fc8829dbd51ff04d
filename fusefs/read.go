package fusefs

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas/erofs"
)

// Read reads from a regular file, into the buffer that it is given.
//
// To splice pages from the blob instead is 12 % faster for streams whose blob is in the
// cache, and the same for all else. But go-fuse takes what a blob gives short, after an
// error on the disk or if the pipe has too few places for data that is not aligned to
// pages, for the end of the file: the reader would not get EIO, but a file cut off.
func (fs *filesystem) Read(_ <-chan struct{}, input *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	in, err := fs.inode(input.NodeId)
	if err != nil {
		return nil, fs.failed(input.NodeId, err)
	}
	off := int64(input.Offset)
	if off < 0 || !in.IsRegular() {
		return nil, fuse.EINVAL
	}
	n := min(int64(len(buf)), in.Size-off)
	if n <= 0 {
		return fuse.ReadResultData(nil), fuse.OK
	}
	if err := fs.readAt(&in, buf[:n], off); err != nil {
		return nil, fs.failed(input.NodeId, err)
	}
	if off == 0 {
		fs.push(input.NodeId, in, buf[:n])
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

// readAt fills p with what a file has at an offset. All of it is within the file.
func (fs *filesystem) readAt(in *erofs.Inode, p []byte, off int64) error {
	end := int64(0) // of what is filled
	var failed error
	err := fs.image.ExtentsIn(in, off, int64(len(p)), func(e erofs.Extent) bool {
		clear(p[end : e.Off-off])
		end = e.Off - off + e.Len
		failed = fs.readDevice(e, p[e.Off-off:end])
		return failed == nil
	})
	if failed != nil {
		return failed
	}
	clear(p[end:])
	return err
}

// readDevice fills p with all of an extent.
func (fs *filesystem) readDevice(e erofs.Extent, p []byte) error {
	d := &fs.devices[e.Device]
	if e.Phys+e.Len > d.size {
		return d.short(&e, d.size)
	}
	done := d.readCached(p, e.Phys)
	for done < len(p) {
		n, err := unix.Pread(d.fd, p[done:], e.Phys+int64(done))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("read %d bytes at %d of %s: %w", e.Len, e.Phys, d.name, err)
		case n == 0:
			return d.short(&e, e.Phys+int64(done))
		}
		done += max(n, 0)
	}
	return nil
}

func (d *device) short(e *erofs.Extent, size int64) error {
	return fmt.Errorf("read %d bytes at %d of %s: it ends at %d: %w", e.Len, e.Phys, d.name, size, io.ErrUnexpectedEOF)
}

const (
	// readAhead is what the kernel is asked to read at once of a blob, in bytes, where one
	// file after the other is small and none of them a stream: as much as of a large file.
	readAhead = maxRequest
	// nearby is how far from the end of what was read before that is done, in bytes: a blob has
	// the files of a directory together. Who reads at random would have the whole blob read.
	nearby = readAhead
)

// recentReads are where the last reads of a blob from disk ended, of as many readers as
// may be there at once.
type recentReads struct {
	ends [8]atomic.Int64 // in bytes, and one; 0: none
	next atomic.Uint32
}

// near gives the one that a place is near to, or the oldest one, and false.
func (r *recentReads) near(off int64) (*atomic.Int64, bool) {
	for i := range r.ends {
		if end := r.ends[i].Load(); end > 0 && off > end-nearby && off < end+nearby {
			return &r.ends[i], true
		}
	}
	return &r.ends[r.next.Add(1)%uint32(len(r.ends))], false
}

// readCached reads what of a blob is in the kernel's cache (RWF_NOWAIT, since Linux
// 4.14, not on all filesystems). If that is not all, the kernel has begun to read it
// (filemap_get_pages of mm/filemap.c), and after a read nearby is asked to read the
// surroundings too, as they are mostly files of the same directory.
func (d *device) readCached(p []byte, off int64) int {
	n, err := unix.Preadv2(d.fd, [][]byte{p}, off, unix.RWF_NOWAIT)
	if n < len(p) && (err == nil || errors.Is(err, unix.EAGAIN)) {
		d.readAround(off, off+int64(len(p)))
	}
	return max(n, 0)
}

func (d *device) readAround(from, to int64) {
	end, near := d.recent.near(from)
	if near {
		from = from / readAhead * readAhead
		to = (to + readAhead - 1) / readAhead * readAhead
		// If it does not, or where it is done already, nothing is lost.
		_ = unix.Fadvise(d.fd, from, to-from, unix.FADV_WILLNEED)
	}
	end.Store(to + 1)
}
