// Package filesystem writes the tree of a container as a filesystem: as an EROFS or an
// ext4 image, which it makes itself, as a squashfs image with the help of a program, and
// as a directory.
//
// Images are written straight from the layers' blobs, without a mount, a directory or
// privileges: first it is decided where everything goes, from the index alone, then it
// is written, and the kernel copies the data. The same tree gives the same bytes: there
// is no time and no random number in an image that the tree does not have.
//
// The formats are those of the kernel: Documentation/filesystems/erofs.rst and
// fs/erofs/erofs_fs.h, Documentation/filesystems/ext4 and fs/ext4/ext4.h.
package filesystem

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/cas/erofs"
	"github.com/ihucos/plash/importexport/output"
	"golang.org/x/sys/unix"
)

// ErrLimit says that a tree has something that the filesystem cannot hold.
var ErrLimit = errors.New("more than the filesystem can hold")

// blockSize of the images in bytes: what every kernel with pages of 4 KiB can mount.
const (
	blockBits = 12
	blockSize = 1 << blockBits
)

var le = binary.LittleEndian

// A UUID is what tells filesystems apart.
type UUID [16]byte

// uuidOf makes a UUID (RFC 9562, version 8) of what a filesystem is made of.
func uuidOf(format string, v *cas.View) UUID {
	h := sha256.New()
	fmt.Fprintln(h, format)
	for _, b := range v.Blobs() {
		fmt.Fprintln(h, b)
	}
	var u UUID
	copy(u[:], h.Sum(nil))
	u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80
	return u
}

// blocksOf is how many blocks n bytes take.
func blocksOf(n int64) int64 { return (n + blockSize - 1) >> blockBits }

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }

// deviceNumber packs a device number as new_encode_dev of Linux.
func deviceNumber(rdev uint64) uint32 {
	major, minor := unix.Major(rdev), unix.Minor(rdev)
	return minor&0xff | major<<8 | (minor&^0xff)<<12
}

// copyRange writes the bytes of a file between two offsets to the image. What holes have
// is left out: the image is zeros where nothing was written.
func copyRange(ctx context.Context, im *output.Image, v *cas.View, in *erofs.Inode, from, to, at int64) error {
	if to <= from {
		return nil
	}
	var failed error
	err := v.ExtentsIn(in, from, to-from, func(e erofs.Extent) bool {
		e.Len = min(e.Len, to-e.Off)
		for e.Len > 0 && failed == nil {
			n := min(e.Len, copyPiece)
			if failed = context.Cause(ctx); failed == nil {
				failed = im.Copy(at+e.Off-from, v.Device(e.Device), e.Phys, n)
			}
			e.Off, e.Phys, e.Len = e.Off+n, e.Phys+n, e.Len-n
		}
		return failed == nil
	})
	return errors.Join(err, failed)
}

// copyPiece is what is copied before it is looked whether that is still wanted.
const copyPiece = 64 << 20

// A run is a stretch of blocks of a file that have data; between runs are holes.
type run struct {
	first, n int64 // in blocks
}

// runsOf returns where a file has data, in whole blocks.
func runsOf(v *cas.View, in *erofs.Inode) ([]run, error) {
	var runs []run
	err := v.Extents(in, func(e erofs.Extent) bool {
		first, end := e.Off>>blockBits, blocksOf(min(e.Off+e.Len, in.Size))
		if n := len(runs); n > 0 && runs[n-1].first+runs[n-1].n >= first {
			runs[n-1].n = max(runs[n-1].n, end-runs[n-1].first)
		} else if end > first {
			runs = append(runs, run{first, end - first})
		}
		return true
	})
	return runs, err
}
