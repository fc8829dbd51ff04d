// Package union is a writable filesystem over a container, for hosts without
// overlayfs: what is written goes to an upper directory, in the form that
// overlayfs gives it on disk, and all else is read from the container's index
// and blobs.
//
// What can be relied on:
//
//   - The upper directory alone says what was changed: it never refers to the
//     layers below (a directory of a layer is not renamed but gives EXDEV, as in
//     overlayfs with redirect_dir=nofollow), so it can be packed as a layer.
//   - What appears in it is complete: it is made in the work directory, with owner,
//     mode, attributes and content, and moved from there. Copied files are synced
//     before that, unless the mount is volatile.
//   - A file keeps its inode number when it is copied up, and all its names.
//   - Whoever has a file open sees what is written to it, also if it was opened
//     before it was copied up; in overlayfs it is not so.
//   - Only the union changes what it shows. So the kernel may keep all of it.
//
// What is synced is on the disk: files and directories by fsync(2), everything when the union
// is closed, as overlayfs does it. sync(2) and syncfs(2) have the kernel hand over what it has
// collected, but it tells no FUSE server of them that is not a device (fs/fuse/inode.c of
// Linux, fuse_sync_fs).
//
// It serves requests and does no more: mounting is its caller's, with what
// [FS.Configure] asks for. It needs /proc, and that nobody else writes to the
// upper directory.
package union

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/cas/erofs"
	"golang.org/x/sys/unix"
)

// Options say where what is written goes, and how.
type Options struct {
	// Upper and Work are directories on one filesystem, neither in the other.
	// Upper's root has the owner, mode and attributes that the union's root shows.
	// What an earlier union left unfinished in Work is cleared away.
	Upper, Work string
	// Volatile leaves out all syncing, where the upper directory ends with the
	// mount or is packed right after it.
	Volatile bool
	// XattrMarks makes whiteouts and opaque marks of the attributes user.overlay.*
	// even where devices and attributes trusted.overlay.* could be made.
	XattrMarks bool
	// Writeback has the kernel collect what is written, even where it could pass
	// reading and writing to the upper directory's files on by itself.
	Writeback bool
}

// FS is the union. Locks are taken in this order, each only if needed:
//
//  1. mu: for writing by whatever takes a name away, moves it, or gives a file of
//     the layers its place in the upper directory, or forgets a node; for reading by
//     all else that works with names. So a name or node that was found under it stays.
//  2. node.io: what of one file is open, and how.
//  3. tab: the tables of nodes and handles. No lock but dirCache.mu is taken under it.
//
// dirCache.mu is taken under any of them and takes none. Reading and writing file data needs only
// tab, to find the handle.
type FS struct {
	fuse.RawFileSystem
	view            *cas.View
	volatile        bool
	marks           marks
	root            *node
	work            int
	dirs            dirCache
	names           nameMap
	lists           listCache
	origin          string // what marks a copy of one of view's files
	uid, gid, umask uint32
	origins         atomic.Bool // there may be copies in the upper directory that have no node
	server          *fuse.Server
	pass            atomic.Bool // files of the upper directory are handed to the kernel
	writeback       bool
	tmp             atomic.Uint64
	maxKept         int

	mu sync.RWMutex

	tab       sync.Mutex
	byID      map[uint64]*node
	byIno     map[uint64]*node // by inode number of the upper directory
	nextID    uint64
	lowerOpen map[uint64]int // by node id: how often a file without a node is open
	lowerGone map[uint64]struct{}
	left      numberSet // what was copied up and has no node any more
	copying   map[uint64]chan struct{}
	handles   map[uint64]*handle
	nextFH    uint64
	doubtful  []*node // that may have been forgotten
	closed    bool
	kept      int // how many nodes keep a descriptor
}

// New makes the union of a container and an upper directory. The view must stay open
// until Close.
func New(view *cas.View, o Options) (_ *FS, err error) {
	u := &FS{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		view:          view, volatile: o.Volatile, work: -1,
		uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()), umask: processUmask(),
		byID: map[uint64]*node{}, byIno: map[uint64]*node{}, nextID: upperBit,
		lowerOpen: map[uint64]int{}, lowerGone: map[uint64]struct{}{}, left: numberSet{}, copying: map[uint64]chan struct{}{},
		handles: map[uint64]*handle{},
	}
	u.maxKept = maxKept()
	u.dirs.init()
	u.lists.init()
	u.names.view = view
	u.origin = originOf(view)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("union over %s: %w", o.Upper, err), u.Close())
		}
	}()
	if err := u.openRoot(o.Upper); err != nil {
		return nil, err
	}
	u.writeback = o.Writeback || !canPass() && !quotas(u.root.keep)
	if u.work, err = unix.Open(o.Work, openDir, 0); err != nil {
		return nil, fmt.Errorf("open work directory %s: %w", o.Work, err)
	}
	if err := u.marks.probe(u, o.XattrMarks); err != nil {
		return nil, fmt.Errorf("work directory %s: %w", o.Work, err)
	}
	if err := u.marks.of(u.root, u.root.at(u)); err != nil {
		return nil, err
	}
	return u, u.recover()
}

// openRoot makes the node of the root, which is always in the upper directory.
func (u *FS) openRoot(upper string) error {
	fd, err := unix.Open(upper, openDir, 0)
	if err != nil {
		return fmt.Errorf("open upper directory: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	u.root = &node{
		id: fuse.FUSE_ROOT_ID, lower: u.view.Root(), merged: true, origin: true, typ: unix.S_IFDIR, ino: st.Ino,
		keep: fd, pinned: true,
	}
	u.byID[u.root.id], u.byIno[st.Ino] = u.root, u.root
	dents, err := readDents(fd)
	u.origins.Store(len(dents) > 0)
	return err
}

// Close gives back what the union holds, and syncs what was written. It must not be mounted
// any more.
func (u *FS) Close() error {
	u.dirs.close()
	for _, h := range u.handles {
		u.release(h)
	}
	// Nodes that were to be looked at a moment later are not any more.
	u.mu.Lock()
	u.tab.Lock()
	u.closed = true
	for _, n := range u.byID {
		u.drop(n)
	}
	u.tab.Unlock()
	u.mu.Unlock()
	var err error
	if u.work >= 0 {
		err = u.marks.close(u)
		if !u.volatile {
			err = errors.Join(err, retry(func() error { return unix.Syncfs(u.work) }))
		}
		err = errors.Join(err, unix.Close(u.work))
		u.work = -1
	}
	u.handles, u.byID, u.byIno = nil, nil, nil
	return err
}

// Configure sets what the union needs of a mount. The rest is the caller's: where,
// AllowOther, names, and whether set-user-ID bits and devices count.
func (u *FS) Configure(o *fuse.MountOptions) {
	o.EnableAcl = true // the kernel checks permissions, access control lists too
	o.EnableSymlinkCaching = true
	o.ExplicitDataCacheControl = true
	// A splice ends where its pipe is full, as data in a blob begins anywhere in a page; go-fuse takes
	// that for the end of the file.
	o.DisableSplice = true
	o.MaxWrite = 1 << 20
	o.MaxBackground = 64
	o.ExtraCapabilities |= fuse.CAP_DONT_MASK | fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_SETXATTR_EXT |
		fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_PARALLEL_DIROPS | fuse.CAP_NO_OPENDIR_SUPPORT
	// The kernel has either of both (fs/fuse/inode.c, process_init_reply).
	if u.writeback {
		o.ExtraCapabilities |= fuse.CAP_WRITEBACK_CACHE
		o.DisabledCapabilities |= fuse.CAP_PASSTHROUGH
		// Where it keeps sizes by itself, it forgets what somebody else makes of a file
		// between its opening and truncating one (fs/fuse/dir.c, fuse_do_setattr with
		// ATTR_OPEN): it has to ask for that in a request of its own.
		o.DisabledCapabilities |= fuse.CAP_ATOMIC_O_TRUNC
	} else {
		o.ExtraCapabilities |= fuse.CAP_ATOMIC_O_TRUNC
	}
	if o.Name == "" {
		o.Name = u.String()
	}
	if !slices.Contains(o.Options, "default_permissions") {
		o.Options = append(o.Options, "default_permissions")
	}
}

// String is the filesystem's name in the mount table.
func (u *FS) String() string { return "plash" }

// Init is called when the kernel has said what it can.
func (u *FS) Init(s *fuse.Server) {
	u.server = s
	u.pass.Store(!u.writeback && s.KernelSettings().Flags64()&fuse.CAP_PASSTHROUGH != 0)
}

// processUmask is what the kernel takes off the mode of files that this process makes.
func processUmask() uint32 {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		var mask uint32
		if _, err := fmt.Sscanf(line, "Umask:\t%o", &mask); err == nil {
			return mask
		}
	}
	return 0o7777
}

// status is what the kernel is told of an error.
func status(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		return fuse.Status(errno)
	}
	if errors.Is(err, erofs.ErrNotExist) {
		return fuse.ENOENT
	}
	return fuse.EIO
}

// again is for system calls that a signal can cut off: Go's runtime sends itself some.
func again[T any](call func() (T, error)) (T, error) {
	for {
		r, err := call()
		if err != unix.EINTR {
			return r, err
		}
	}
}

func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
