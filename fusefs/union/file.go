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
	n, done, err := u.copyUpPart(in.NodeId, limit)
	defer done()
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
	if u.byID[id] != nil || u.left.has(id) {
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
			err = u.killPrivileges(n.id, place{fd: f.fd})
		}
		if err != nil {
			u.putFile(n, f)
			return err
		}
	}
	write := wantsWrite(in.Flags)
	u.attach(n, f, write, write && hasPrivileges(f.fd), out)
	return nil
}

// openNew opens a file that has just been made.
func (u *FS) openNew(f *made, out *fuse.OpenOut) {
	f.n.io.Lock()
	defer f.n.io.Unlock()
	file := &openFile{fd: f.fd, writable: true, refs: 1}
	f.n.file = file
	u.attach(f.n, file, true, privilegeBits(f.st.Mode) != 0, out)
}

// attach makes a handle of a file, and decides who moves its data. The kernel does not
// have it both ways for one inode at a time (fs/fuse/iomode.c). privileged says that
// writing takes something away from the file.
func (u *FS) attach(n *node, f *openFile, write, privileged bool, out *fuse.OpenOut) {
	h := &handle{id: n.id, n: n}
	h.file.Store(f)
	h.passed = n.passed > 0 || n.cached == 0 && u.pass.Load() && f.writable && !privileged && u.handOver(f)
	if h.passed {
		n.passed++
		if privileged {
			n.watched.Store(true)
		}
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
	if u.releaseOf(n, h) {
		u.forget(n)
	}
}

// releaseOf tells whether the node is one that only its handles have kept.
func (u *FS) releaseOf(n *node, h *handle) bool {
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
	if n.cached+n.passed > 0 {
		return false
	}
	u.tab.Lock()
	defer u.tab.Unlock()
	closing := n.closing
	n.closing = false
	return closing
}
