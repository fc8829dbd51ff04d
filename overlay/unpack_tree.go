package overlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/cas/erofs"
)

// An unpacker writes the tree of an index into a directory. Each directory is
// a job of its own: it is opened below the root by its path (no symbolic links
// followed), its entries are made, and last it gets its own attributes, which
// nothing disturbs any more because making something in a subdirectory does
// not touch it.
type unpacker struct {
	crew[unpackJob]
	ctx   context.Context
	ix    *cas.Index
	root  int
	flat  bool // see Options
	blobs *blobFiles
	links map[erofs.NID]*linkSource // guarded by mu
	// lenient leaves out what the host does not allow: owners, devices, attributes.
	lenient bool
	user    bool          // our own owner must get everywhere
	left    *leftOut      // what was left out, and is to be told; may be nil
	donor   *donor        // where to clone files from; may be nil
	copied  func(n int64) // is told of data
}

type unpackJob struct {
	path string // "" for the root, else "a/b"
	nid  erofs.NID
}

// A linkSource is an inode with several names: the first of them that a worker
// gets to, once it is made.
type linkSource struct {
	dir, name string
	made      chan struct{}
	ok        bool
}

// unpackTree makes the tree of ix in dir, an empty directory of our own.
func unpackTree(ctx context.Context, s *cas.Store, ix *cas.Index, dir string, flat bool) (err error) {
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(root)
	if err := removeDefaultACL(root); err != nil {
		return fmt.Errorf("unpack into %s: %w", dir, err)
	}
	u := newUnpacker(ctx, s, ix, root)
	u.flat = flat
	u.push(unpackJob{nid: ix.Root()})
	return errors.Join(u.run(u.worker), u.blobs.close())
}

// removeDefaultACL keeps a default ACL that the store's directory has from spreading
// to all that is made in a tree.
func removeDefaultACL(root int) error {
	err := unix.Fremovexattr(root, xattrACLDefault)
	if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("remove default ACL: %w", err)
	}
	return nil
}

func newUnpacker(ctx context.Context, s *cas.Store, ix *cas.Index, root int) *unpacker {
	return &unpacker{
		ctx: ctx, ix: ix, root: root,
		blobs:  newBlobFiles(s, ix),
		links:  map[erofs.NID]*linkSource{},
		copied: func(int64) {},
	}
}

// tell has a meter, which may be nil, told of the data that is copied.
func (u *unpacker) tell(m Meter) {
	if m == nil {
		return
	}
	// What is wrong with the index, unpacking finds, too, and says where.
	if size, err := u.ix.DataSize(u.ctx); err == nil {
		m.Expect(size)
	}
	u.copied = m.Add
}

func (u *unpacker) worker() func(unpackJob) error {
	buf := make([]byte, 1<<20)
	return func(job unpackJob) error { return u.unpackDir(job, buf) }
}

func (u *unpacker) unpackDir(job unpackJob, buf []byte) error {
	in, err := u.ix.Inode(job.nid)
	if err != nil {
		return err
	}
	fd, err := openDirBelow(u.root, job.path)
	if err != nil {
		return &os.PathError{Op: "open", Path: job.path, Err: err}
	}
	defer unix.Close(fd)
	var entryErr error
	err = u.ix.ReadDir(&in, func(e erofs.Dirent) bool {
		if entryErr = u.ctx.Err(); entryErr == nil && !u.failed() {
			entryErr = u.unpackEntry(fd, job.path, string(e.Name), e.NID, buf)
		}
		return entryErr == nil
	})
	if err = errors.Join(err, entryErr); err != nil {
		return err
	}
	closed := in.Mode & 0o7777
	open := u.left.open(job.path, closed)
	in.Mode = in.Mode&^0o7777 | open
	err = u.setAttrs(fd, &in, ".", fd)
	if err == nil && open != closed {
		err = unix.Fchmod(fd, open) // an ACL may have closed it
	}
	if err != nil {
		return fmt.Errorf("directory %q: %w", job.path, err)
	}
	return nil
}

func (u *unpacker) unpackEntry(dirfd int, dir, name string, nid erofs.NID, buf []byte) error {
	if !plainName(name) {
		return fmt.Errorf("directory %q: %w: entry named %q", dir, erofs.ErrCorrupt, name)
	}
	path := name
	if dir != "" {
		path = dir + "/" + name
	}
	in, err := u.ix.Inode(nid)
	if err == nil {
		if in.Nlink > 1 && !in.IsDir() {
			err = u.unpackLinked(dirfd, dir, name, path, &in, buf)
		} else {
			err = u.leaveOut(u.makeEntry(dirfd, name, path, &in, buf))
		}
	}
	if err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	return nil
}

// plainName guards against an index that was not written by us: such a name
// would lead elsewhere.
func plainName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}

// unpackLinked makes an inode with several names at the first of them, and
// links the others to that.
func (u *unpacker) unpackLinked(dirfd int, dir, name, path string, in *erofs.Inode, buf []byte) error {
	u.mu.Lock()
	src, found := u.links[in.NID]
	if !found {
		src = &linkSource{dir: dir, name: name, made: make(chan struct{})}
		u.links[in.NID] = src
	}
	u.mu.Unlock()
	if !found {
		defer close(src.made)
		err := u.makeEntry(dirfd, name, path, in, buf)
		src.ok = err == nil
		return u.leaveOut(err)
	}
	<-src.made
	if !src.ok && u.lenient && !u.failed() {
		return nil // it is left out
	}
	if !src.ok {
		return errors.New("the file it is a hard link to could not be made")
	}
	from, err := openDirBelow(u.root, src.dir)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	if err := unix.Linkat(from, src.name, dirfd, name, 0); err != nil {
		return fmt.Errorf("hard link to %q: %w", src.dir+"/"+src.name, err)
	}
	return nil
}

// makeEntry makes one entry, complete but for what is in a directory.
func (u *unpacker) makeEntry(dirfd int, name, path string, in *erofs.Inode, buf []byte) error {
	switch in.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err := unix.Mkdirat(dirfd, name, 0o700); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
		u.push(unpackJob{path: path, nid: in.NID})
		return nil
	case unix.S_IFREG:
		fd, err := unix.Openat(dirfd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return fmt.Errorf("make file: %w", err)
		}
		cloned, err := u.donor.clone(path, fd, in)
		if err == nil && !cloned {
			err = u.copyData(fd, in, buf)
		}
		if err == nil {
			err = u.setAttrs(dirfd, in, name, fd)
		}
		return errors.Join(err, unix.Close(fd))
	case unix.S_IFLNK:
		target, err := u.ix.Readlink(in)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(target, dirfd, name); err != nil {
			return fmt.Errorf("make symbolic link: %w", err)
		}
	case unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO, unix.S_IFSOCK:
		if t := in.Mode & unix.S_IFMT; u.flat && in.Rdev != 0 && (t == unix.S_IFCHR || t == unix.S_IFBLK) {
			return nil
		}
		if err := unix.Mknodat(dirfd, name, in.Mode&unix.S_IFMT|0o600, int(in.Rdev)); err != nil {
			if in.Rdev != 0 && mayLack(err) {
				u.left.device()
				return nil // only the first user namespace has devices
			}
			return fmt.Errorf("make device or fifo: %w", &specialError{err})
		}
	default:
		return fmt.Errorf("%w: type %o", erofs.ErrCorrupt, in.Mode)
	}
	return u.setAttrs(dirfd, in, name, -1)
}

// setAttrs gives an entry its owner, mode, attributes and time, in the order in
// which none undoes another: changing the owner drops setuid bits and
// capabilities, an ACL is part of the mode, and everything changes times. Fd is
// the entry itself if it is a file or directory, else -1.
func (u *unpacker) setAttrs(dirfd int, in *erofs.Inode, name string, fd int) error {
	mode := u.mode(in)
	if !u.flat {
		err := unix.Fchownat(dirfd, name, int(in.UID), int(in.GID), unix.AT_SYMLINK_NOFOLLOW)
		if u.denies(err) {
			return fmt.Errorf("set owner: %w", err)
		}
		if err != nil && u.left != nil {
			mode = u.left.owner(in, mode)
		}
	}
	if !in.IsSymlink() {
		if err := unix.Fchmodat(dirfd, name, mode, 0); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	xattrs, err := u.ix.Xattrs(in)
	if err != nil {
		return err
	}
	for _, x := range xattrs {
		if mark, ok := overlayMark(x.Name); ok {
			x.Name = markName(mark)
		}
		if u.flat && !flatXattr(x.Name) {
			continue
		}
		if fd >= 0 {
			err = unix.Fsetxattr(fd, x.Name, x.Value, 0)
		} else {
			err = unix.Lsetxattr("/proc/self/fd/"+strconv.Itoa(dirfd)+"/"+name, x.Name, x.Value, 0)
		}
		if u.denies(err) {
			return fmt.Errorf("set attribute %s: %w", x.Name, err)
		}
		if err != nil {
			u.left.attribute()
		}
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: in.MtimeSec, Nsec: int64(in.MtimeNsec)}}
	if err := unix.UtimesNanoAt(dirfd, name, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}
