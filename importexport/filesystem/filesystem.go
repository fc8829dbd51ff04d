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
	"io"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/cas/erofs"
	"github.com/ihucos/plash/importexport/output"
	"github.com/ihucos/plash/importexport/progress"
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

// A job is a tree that is written to an image.
type job struct {
	ctx   context.Context
	view  *cas.View
	im    *output.Image
	meter *progress.Meter // counts the data of files
}

// copyRange writes the bytes of a file between two offsets to the image. What holes have
// is left out: the image is zeros where nothing was written.
func (j *job) copyRange(in *erofs.Inode, from, to, at int64) error {
	if to <= from {
		return nil
	}
	var failed error
	err := j.view.ExtentsIn(in, from, to-from, func(e erofs.Extent) bool {
		failed = j.im.Copy(j.ctx, at+e.Off-from, j.view.Device(e.Device), e.Phys, e.Len, j.meter.Add)
		return failed == nil
	})
	return errors.Join(err, failed)
}

// readRange reads the bytes of a file from an offset on, all that b has room for.
func (j *job) readRange(in *erofs.Inode, b []byte, off int64) error {
	k, err := j.view.ReadAt(in, b, off)
	if k == len(b) {
		k, err := dataIn(j.view, in, off, int64(k))
		j.meter.Add(k)
		return err
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %d bytes at %d: %w", len(b), off, err)
}

// dataIn is how many of n bytes of a file from an offset on are not in holes.
func dataIn(v *cas.View, in *erofs.Inode, off, n int64) (data int64, err error) {
	err = v.ExtentsIn(in, off, n, func(e erofs.Extent) bool {
		data += e.Len
		return true
	})
	return data, err
}

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
