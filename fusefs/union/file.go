package union

import (
	"errors"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/ihucos/plash/cas/erofs"
	"golang.org/x/sys/unix"
)

// An openFile is a file of the upper directory that is open here, once for all who have
// it open: descriptors are few, and the kernel takes data of an inode from one file only.
type openFile struct {
	fd       int
	writable bool
	backing  int32 // the kernel's number for it; 0: it has not been handed over

	refs int // under node.io
}

// A handle is what a program has opened.
type handle struct {
	id     uint64 // of the node
	in     erofs.Inode
	n      *node // nil: a file of the layers, when it was opened
	file   atomic.Pointer[openFile]
	passed bool
}

func (u *FS) handle(fh uint64) *handle {
	u.tab.Lock()
	defer u.tab.Unlock()
	return u.handles[fh]
}

func (u *FS) addHandle(h *handle) uint64 {
	u.tab.Lock()
	defer u.tab.Unlock()
	u.nextFH++
	u.handles[u.nextFH] = h
	return u.nextFH
}

func wantsWrite(flags uint32) bool {
	return flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_TRUNC != 0
}

// Open opens a regular file. It is copied up if it is opened for writing.
func (u *FS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if !wantsWrite(in.Flags) && u.openLower(in.NodeId, out) {
		return fuse.OK
	}
	limit := int64(whole)
	if in.Flags&unix.O_TRUNC != 0 {
		limit = 0
	}
	n, err := u.copyUp(in.NodeId, limit)
	if err != nil {
		return status(err)
	}
	u.mu.RLock()
	defer u.mu.RUnlock()
	return status(u.openUpper(n, in, out))
}

// openLower opens a file that is only in the layers for reading.
func (u *FS) openLower(id uint64, out *fuse.OpenOut) bool {
	if id >= upperBit {
		return false
	}
	in, err := u.view.Inode(erofs.NID(id))
	if err != nil || !in.IsRegular() {
		return false
	}
	u.tab.Lock()
	defer u.tab.Unlock()
	if u.byID[id] != nil {
		return false
	}
	u.lowerOpen[id]++
	u.nextFH++
	u.handles[u.nextFH] = &handle{id: id, in: in}
	out.Fh = u.nextFH
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return true
}

func (u *FS) openUpper(n *node, in *fuse.OpenIn, out *fuse.OpenOut) error {
	n.io.Lock()
	defer n.io.Unlock()
	f, err := u.fileOf(n, wantsWrite(in.Flags))
	if err != nil {
		return err
	}
	if in.Flags&unix.O_TRUNC != 0 {
		err := retry(func() error { return unix.Ftruncate(f.fd, 0) })
		if err == nil && in.Mode&fuse.OPEN_KILL_SUIDGID != 0 {
			err = killPrivileges(f.fd)
		}
		if err != nil {
			u.putFile(n, f)
			return err
		}
	}
	u.attach(n, f, in.NodeId, wantsWrite(in.Flags), out)
	return nil
}

// openNew opens a file that has just been made.
func (u *FS) openNew(f *made, out *fuse.OpenOut) {
	f.n.io.Lock()
	defer f.n.io.Unlock()
	file := &openFile{fd: f.fd, writable: true, refs: 1}
	f.n.file = file
	u.attach(f.n, file, f.n.id, true, out)
}

// attach makes a handle of a file, and decides who moves its data. The kernel does not
// have it both ways for one inode at a time (fs/fuse/iomode.c).
func (u *FS) attach(n *node, f *openFile, id uint64, write bool, out *fuse.OpenOut) {
	h := &handle{id: id, n: n}
	h.file.Store(f)
	h.passed = n.passed > 0 || n.cached == 0 && u.pass.Load() && f.writable && !(write && hasPrivileges(f.fd)) && u.handOver(f)
	if h.passed {
		n.passed++
		n.stale = n.stale || write
		out.OpenFlags, out.BackingID = fuse.FOPEN_PASSTHROUGH, f.backing
	} else {
		n.cached++
		if !n.stale {
			out.OpenFlags = fuse.FOPEN_KEEP_CACHE
		}
		n.stale = false
	}
	out.Fh = u.addHandle(h)
}

// handOver gives a file to the kernel. That does not go where the upper directory is
// on a filesystem that is itself stacked.
func (u *FS) handOver(f *openFile) bool {
	if f.backing != 0 {
		return true
	}
	id, errno := u.server.RegisterBackingFd(&fuse.BackingMap{Fd: int32(f.fd)})
	if errno != 0 || id <= 0 {
		if errno != unix.EMFILE && errno != unix.ENFILE && errno != unix.ENOMEM {
			u.pass.Store(false)
		}
		return false
	}
	f.backing = id
	return true
}

// fileOf opens a node, or takes what is open already. The caller holds io, and mu
// for reading.
func (u *FS) fileOf(n *node, write bool) (*openFile, error) {
	if f := n.file; f != nil && (f.writable || !write) {
		f.refs++
		return f, nil
	}
	p, err := u.place(n)
	if err != nil {
		return nil, err
	}
	defer p.done(u)
	// For reading too: who opens it for writing later may share it, and the kernel
	// reads what it completes to whole pages.
	f := &openFile{writable: true, refs: 1}
	f.fd, err = p.open(unix.O_RDWR)
	if errors.Is(err, unix.EMFILE) {
		u.dirs.shrink()
		f.fd, err = p.open(unix.O_RDWR)
	}
	if err != nil && !write {
		f.writable = false
		f.fd, err = p.open(unix.O_RDONLY)
	}
	if err != nil {
		return nil, err
	}
	if n.file == nil || n.passed == 0 {
		n.file = f
	}
	return f, nil
}

// putFile gives back what fileOf gave. The caller holds io.
func (u *FS) putFile(n *node, f *openFile) {
	if f.refs--; f.refs > 0 {
		return
	}
	if f.backing != 0 {
		u.server.UnregisterBackingFd(f.backing)
	}
	unix.Close(f.fd)
	if n.file == f {
		n.file = nil
	}
}

// Release is called when a handle's last user is gone.
func (u *FS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	u.tab.Lock()
	h := u.handles[in.Fh]
	delete(u.handles, in.Fh)
	u.tab.Unlock()
	if h != nil {
		u.release(h)
	}
}

func (u *FS) release(h *handle) {
	n := h.n
	if n == nil {
		u.tab.Lock()
		if n = u.byID[h.id]; n == nil {
			if u.lowerOpen[h.id]--; u.lowerOpen[h.id] <= 0 {
				delete(u.lowerOpen, h.id)
			}
			u.tab.Unlock()
			return
		}
		u.tab.Unlock()
	}
	n.io.Lock()
	defer n.io.Unlock()
	if h.passed {
		n.passed--
	} else {
		n.cached--
	}
	if f := h.file.Swap(nil); f != nil {
		u.putFile(n, f)
	}
}

// upper is the file of the upper directory that a handle stands for now, or nil if it is
// still one of the layers.
func (u *FS) upper(h *handle) (*openFile, error) {
	if f := h.file.Load(); f != nil {
		return f, nil
	}
	n := u.node(h.id)
	if n == nil {
		return nil, nil
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
	var direct fuse.ReadResult
	err := u.view.Extents(&h.in, func(e erofs.Extent) bool {
		if e.Off <= off && off+n <= e.Off+e.Len {
			direct = fuse.ReadResultFd(u.view.Device(e.Device).Fd(), e.Phys+off-e.Off, int(n))
		}
		return e.Off+e.Len <= off
	})
	if err == nil && direct != nil {
		return direct, fuse.OK
	}
	if err == nil {
		_, err = u.view.ReadAt(&h.in, buf[:n], off)
	}
	return fuse.ReadResultData(buf[:n]), status(err)
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
		err = killPrivileges(f.fd)
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
		err = killPrivileges(f.fd)
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
	data, at := int64(-1), off // where data begins, and where a hole does
	err := u.view.Extents(in, func(e erofs.Extent) bool {
		if e.Off+e.Len > off && data < 0 {
			data = max(e.Off, off)
		}
		if e.Off <= at {
			at = max(at, e.Off+e.Len)
		}
		return e.Off <= at || data < 0
	})
	switch {
	case err != nil:
		return 0, err
	case whence == unix.SEEK_HOLE:
		return min(at, in.Size), nil
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
		err = killPrivileges(dst.fd)
	}
	return uint32(max(n, 0)), status(err)
}

// Ioctl offers none.
func (u *FS) Ioctl(<-chan struct{}, *fuse.IoctlIn, []byte, *fuse.IoctlOut, []byte) fuse.Status {
	return fuse.Status(unix.ENOTTY)
}
