package overlay

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/cas/erofs"
)

// minKernelCopy is from what length on copy_file_range(2) is quicker than
// reading and writing.
const minKernelCopy = 128 << 10

// copyPiece is what is copied before it is looked whether that is still wanted, and told.
const copyPiece = 16 << 20

// copyData writes the content of a regular file; what no extent covers becomes
// a hole.
func (u *unpacker) copyData(fd int, in *erofs.Inode, buf []byte) error {
	end := int64(0)
	var copyErr error
	err := u.ix.Extents(in, func(e erofs.Extent) bool {
		if copyErr = u.ctx.Err(); copyErr == nil {
			copyErr = u.copyExtent(fd, e, buf)
		}
		end = max(end, e.Off+e.Len)
		return copyErr == nil
	})
	if err = errors.Join(err, copyErr); err != nil {
		return err
	}
	if end < in.Size {
		if err := unix.Ftruncate(fd, in.Size); err != nil {
			return fmt.Errorf("set size %d: %w", in.Size, err)
		}
	}
	return nil
}

func (u *unpacker) copyExtent(fd int, e erofs.Extent, buf []byte) error {
	src, err := u.blobs.open(e.Device)
	if err != nil {
		return err
	}
	from, to, left := e.Phys, e.Off, e.Len
	for left >= minKernelCopy {
		n, err := unix.CopyFileRange(int(src.Fd()), &from, fd, &to, int(min(left, copyPiece)), 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		// Some pairs of filesystems cannot (EXDEV, EOPNOTSUPP, EINVAL); a short
		// blob gives 0, and the error below.
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EIO) {
			return fmt.Errorf("copy from %s at %d: %w", src.Name(), from, err)
		}
		if err != nil || n == 0 {
			break
		}
		left -= int64(n)
		u.copied(int64(n))
		if err := u.ctx.Err(); err != nil {
			return err
		}
	}
	for left > 0 {
		n, err := src.ReadAt(buf[:min(left, int64(len(buf)))], from)
		if n == 0 {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read %s at %d: %w", src.Name(), from, err)
		}
		if err := pwriteAll(fd, buf[:n], to); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		u.copied(int64(n))
		from, to, left = from+int64(n), to+int64(n), left-int64(n)
	}
	return nil
}

func pwriteAll(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrShortWrite
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// blobFiles opens an index' devices when they are needed, once each.
type blobFiles struct {
	store *cas.Store
	index string
	blobs []digest.Digest
	view  *cas.View // has them open already; may be nil

	mu    sync.Mutex
	files []*os.File
}

func newBlobFiles(s *cas.Store, ix *cas.Index) *blobFiles {
	blobs := ix.Blobs()
	return &blobFiles{store: s, index: ix.Path(), blobs: blobs, files: make([]*os.File, len(blobs)+1)}
}

// open gives the file behind [erofs.Extent.Device]: 0 is the index itself.
func (b *blobFiles) open(device int) (f *os.File, err error) {
	if device < 0 || device > len(b.blobs) {
		return nil, fmt.Errorf("%w: data in device %d of %d", erofs.ErrCorrupt, device, len(b.blobs))
	}
	if b.view != nil {
		return b.view.Device(device), nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.files[device]; f != nil {
		return f, nil
	}
	if device == 0 {
		f, err = os.Open(b.index)
	} else {
		f, err = b.store.OpenBlob(b.blobs[device-1])
	}
	if err != nil {
		return nil, err
	}
	b.files[device] = f
	return f, nil
}

func (b *blobFiles) close() error {
	var errs []error
	for _, f := range b.files {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
