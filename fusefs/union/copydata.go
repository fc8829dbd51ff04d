package union

import (
	"errors"
	"fmt"

	"github.com/ihucos/plash/cas/erofs"
	"golang.org/x/sys/unix"
)

// copyFile makes a copy of a file of the layers, which is no directory, in the work
// directory, complete and synced. A regular file is open for reading and writing, for
// others the descriptor is -1.
func (u *FS) copyFile(tmp string, in *erofs.Inode, limit int64) (fd int, err error) {
	p := place{fd: u.work, name: tmp}
	switch in.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return u.copyRegular(tmp, in, limit)
	case unix.S_IFLNK:
		target, err := u.view.Readlink(in)
		if err == nil {
			err = unix.Symlinkat(target, u.work, tmp)
		}
		if err != nil {
			return -1, err
		}
	default:
		if err := unix.Mknodat(u.work, tmp, in.Mode&unix.S_IFMT|0o600, int(in.Rdev)); err != nil {
			return -1, err
		}
	}
	return -1, u.copyAttrs(p, in, true)
}

func (u *FS) copyRegular(tmp string, in *erofs.Inode, limit int64) (fd int, err error) {
	if fd, err = mkFile(u.work, tmp, 0o600); err != nil {
		return -1, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, unix.Close(fd))
			fd = -1
		}
	}()
	size := in.Size
	if limit != whole {
		size = min(size, limit)
	}
	if err := u.copyData(fd, in, size); err != nil {
		return fd, err
	}
	if err := u.copyAttrs(place{fd: u.work, name: tmp}, in, true); err != nil {
		return fd, err
	}
	if u.volatile || size == 0 {
		return fd, nil
	}
	return fd, retry(func() error { return unix.Fsync(fd) })
}

// copyData copies the first size bytes of a file, and leaves its holes out.
func (u *FS) copyData(fd int, in *erofs.Inode, size int64) error {
	if size == 0 {
		return nil
	}
	if err := retry(func() error { return unix.Ftruncate(fd, size) }); err != nil {
		return err
	}
	var failed error
	err := u.view.Extents(in, func(e erofs.Extent) bool {
		if e.Off >= size {
			return false
		}
		e.Len = min(e.Len, size-e.Off)
		failed = u.copyExtent(fd, e)
		return failed == nil
	})
	return errors.Join(err, failed)
}

func (u *FS) copyExtent(fd int, e erofs.Extent) error {
	dev := u.view.Device(e.Device)
	from, to := e.Phys, e.Off
	for n := e.Len; n > 0; {
		k, err := again(func() (int, error) {
			return unix.CopyFileRange(int(dev.Fd()), &from, fd, &to, int(n), 0)
		})
		if k == 0 || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
			return u.copySlowly(fd, e.Device, from, to, n)
		}
		if err != nil {
			return err
		}
		n -= int64(k)
	}
	return nil
}

// copySlowly is for filesystems between which the kernel does not copy.
func (u *FS) copySlowly(fd, device int, from, to, n int64) error {
	dev := u.view.Device(device)
	buf := make([]byte, min(n, 1<<20))
	for n > 0 {
		k, err := dev.ReadAt(buf[:min(n, int64(len(buf)))], from)
		if k == 0 {
			return fmt.Errorf("read blob at %d: %w", from, errors.Join(err, unix.EIO))
		}
		if err := writeAll(fd, buf[:k], to); err != nil {
			return err
		}
		from, to, n = from+int64(k), to+int64(k), n-int64(k)
	}
	return nil
}

func writeAll(fd int, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := again(func() (int, error) { return unix.Pwrite(fd, b, off) })
		if err != nil {
			return err
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}
