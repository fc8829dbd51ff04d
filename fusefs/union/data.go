package union

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/ihucos/plash/cas/erofs"
	"golang.org/x/sys/unix"
)

// upper is the file of the upper directory that a handle stands for now, or nil if it is
// still one of the layers.
func (u *FS) upper(h *handle) (*openFile, error) {
	if f := h.file.Load(); f != nil {
		return f, nil
	}
	n, err := u.known(h.id)
	if n == nil {
		return nil, err
	}
	// It was copied up after it was opened.
	u.mu.RLock()
	defer u.mu.RUnlock()
	n.io.Lock()
	defer n.io.Unlock()
	if f := h.file.Load(); f != nil {
		return f, nil
	}
	f, err := u.fileOf(n, false)
	if err == nil {
		h.file.Store(f)
	}
	return f, err
}

// Read reads data; the kernel takes it from the file by itself.
func (u *FS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	h := u.handle(in.Fh)
	if h == nil {
		return nil, fuse.EBADF
	}
	f, err := u.upper(h)
	if err != nil {
		return nil, status(err)
	}
	if f != nil {
		return fuse.ReadResultFd(uintptr(f.fd), int64(in.Offset), int(in.Size)), fuse.OK
	}
	return u.readLower(h, int64(in.Offset), buf)
}

func (u *FS) readLower(h *handle, off int64, buf []byte) (fuse.ReadResult, fuse.Status) {
	if off >= h.in.Size {
		return fuse.ReadResultData(nil), fuse.OK
	}
	n := min(int64(len(buf)), h.in.Size-off)
	// Not by ReadResultFd: of a blob that ends too early, go-fuse makes a file that does. Where there is a
	// result, it does not look at the status.
	if _, err := u.view.ReadAt(&h.in, buf[:n], off); err != nil {
		return nil, status(err)
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

// Write writes data.
func (u *FS) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	return u.write(in, func(fd int) (int, error) { return unix.Pwrite(fd, data, int64(in.Offset)) })
}

// Writev writes data that lies in pieces.
func (u *FS) Writev(_ <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	return u.write(in, func(fd int) (int, error) { return unix.Pwritev(fd, data, int64(in.Offset)) })
}

func (u *FS) write(in *fuse.WriteIn, write func(fd int) (int, error)) (uint32, fuse.Status) {
	h := u.handle(in.Fh)
	if h == nil {
		return 0, fuse.EBADF
	}
	f, err := u.upper(h)
	if err != nil {
		return 0, status(err)
	}
	if f == nil {
		return 0, fuse.EBADF
	}
	var n int
	if u.writeback && in.WriteFlags&fuse.WRITE_CACHE != 0 {
		n, err = u.writeTimeless(h.id, f.fd, write)
	} else {
		n, err = again(func() (int, error) { return write(f.fd) })
	}
	if err == nil && in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 {
		err = u.killPrivileges(h.id, place{fd: f.fd})
	}
	return uint32(max(n, 0)), status(err)
}

// writeTimeless writes what the kernel had collected, and leaves the file its modification
// time: the kernel has its own opinion of that, and tells it unless it is the one that
// the file had.
func (u *FS) writeTimeless(id uint64, fd int, write func(fd int) (int, error)) (int, error) {
	if n := u.node(id); n != nil {
		n.io.Lock()
		defer n.io.Unlock()
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	n, err := again(func() (int, error) { return write(fd) })
	if err != nil {
		return n, err
	}
	return n, place{fd: fd}.utimes(unix.Timespec{Nsec: unix.UTIME_OMIT}, st.Mtim)
}

// Flush has nothing to do: the kernel itself writes out what it has.
func (u *FS) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Fsync waits until a file is on the disk.
func (u *FS) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h := u.handle(in.Fh)
	if h == nil {
		return fuse.EBADF
	}
	f, err := u.upper(h)
	if err != nil || f == nil || u.volatile {
		return status(err)
	}
	return status(retry(func() error {
		if in.FsyncFlags&1 != 0 {
			return unix.Fdatasync(f.fd)
		}
		return unix.Fsync(f.fd)
	}))
}

// Fallocate reserves or frees room.
func (u *FS) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	h := u.handle(in.Fh)
	if h == nil {
		return fuse.EBADF
	}
	f, err := u.upper(h)
	if err != nil || f == nil {
		return status(errors.Join(err, unix.EBADF))
	}
	err = retry(func() error { return unix.Fallocate(f.fd, in.Mode, int64(in.Offset), int64(in.Length)) })
	if err == nil && in.Uid != 0 {
		err = u.killPrivileges(h.id, place{fd: f.fd})
	}
	return status(err)
}

// Lseek finds data and holes.
func (u *FS) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	h := u.handle(in.Fh)
	if h == nil {
		return fuse.EBADF
	}
	f, err := u.upper(h)
	if err != nil {
		return status(err)
	}
	var off int64
	if f != nil {
		off, err = unix.Seek(f.fd, int64(in.Offset), int(in.Whence))
	} else {
		off, err = u.seekLower(&h.in, int64(in.Offset), in.Whence)
	}
	out.Offset = uint64(off)
	return status(err)
}

func (u *FS) seekLower(in *erofs.Inode, off int64, whence uint32) (int64, error) {
	if off < 0 || off >= in.Size {
		return 0, unix.ENXIO
	}
	hole, data := off, int64(-1) // the first ones from off on
	err := u.view.ExtentsIn(in, off, in.Size-off, func(e erofs.Extent) bool {
		if data < 0 {
			data = e.Off
		}
		if e.Off > hole {
			return false
		}
		hole = e.Off + e.Len
		return whence == unix.SEEK_HOLE
	})
	switch {
	case err != nil:
		return 0, err
	case whence == unix.SEEK_HOLE:
		return hole, nil
	case whence != unix.SEEK_DATA:
		return 0, unix.EINVAL
	case data < 0:
		return 0, unix.ENXIO
	}
	return data, nil
}

// CopyFileRange copies inside the upper directory's filesystem. From the layers,
// the kernel copies by itself when it is told that this goes not (EXDEV).
func (u *FS) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	from, to := u.handle(in.FhIn), u.handle(in.FhOut)
	if from == nil || to == nil {
		return 0, fuse.EBADF
	}
	src, err := u.upper(from)
	if err != nil {
		return 0, status(err)
	}
	dst, err := u.upper(to)
	if err != nil {
		return 0, status(err)
	}
	if src == nil || dst == nil {
		return 0, fuse.EXDEV
	}
	offIn, offOut := int64(in.OffIn), int64(in.OffOut)
	n, err := again(func() (int, error) {
		return unix.CopyFileRange(src.fd, &offIn, dst.fd, &offOut, int(min(in.Len, 1<<30)), int(in.Flags))
	})
	if err == nil && in.Uid != 0 {
		err = u.killPrivileges(to.id, place{fd: dst.fd})
	}
	return uint32(max(n, 0)), status(err)
}

// Ioctl offers none.
func (u *FS) Ioctl(<-chan struct{}, *fuse.IoctlIn, []byte, *fuse.IoctlOut, []byte) fuse.Status {
	return fuse.Status(unix.ENOTTY)
}
