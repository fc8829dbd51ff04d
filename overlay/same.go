package overlay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/cas/erofs"
	"github.com/ihucos/plash/cas/tarstream"
)

// A comparer compares files of a tree with what the index says of them.
type comparer struct {
	ctx    context.Context
	root   int
	ix     *cas.Index
	blobs  *blobFiles // may be those of others that compare at the same time
	user   bool
	xattrs *xattrReader
	p, q   []byte
}

func (t *Tree) comparer(ctx context.Context, blobs *blobFiles) *comparer {
	return &comparer{
		ctx: ctx, root: int(t.root.Fd()), ix: t.ix, blobs: blobs, user: t.user,
		xattrs: newXattrReader(), p: make([]byte, 256<<10), q: make([]byte, 256<<10),
	}
}

// file tells whether a file is as the index has it, apart from the number of its links.
func (c *comparer) file(dirfd int, name string, nid erofs.NID) (bool, error) {
	in, err := c.ix.Inode(nid)
	if err != nil {
		return false, err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, err
	}
	if st.Mode != in.Mode&unix.S_IFMT|treeMode(&in, c.user) || st.Mtim.Sec != in.MtimeSec || st.Mtim.Nsec != int64(in.MtimeNsec) ||
		!c.user && (st.Uid != in.UID || st.Gid != in.GID) {
		return false, nil
	}
	xs, _, err := c.xattrs.ofPath("/proc/self/fd/" + strconv.Itoa(dirfd) + "/" + name)
	if err != nil {
		return false, err
	}
	want, err := c.ix.Xattrs(&in)
	if err != nil || !sameXattrs(xs, want) {
		return false, err
	}
	if !in.IsRegular() {
		return true, nil // nothing changes what a link or device is
	}
	return c.content(dirfd, name, &in)
}

func sameXattrs(a []tarstream.Xattr, b []erofs.Xattr) bool {
	slices.SortFunc(b, func(x, y erofs.Xattr) int { return strings.Compare(x.Name, y.Name) })
	return slices.EqualFunc(a, b, func(x tarstream.Xattr, y erofs.Xattr) bool {
		return x.Name == y.Name && bytes.Equal(x.Value, y.Value)
	})
}

// content tells whether a regular file has the content that the index gives it.
func (c *comparer) content(dirfd int, name string, in *erofs.Inode) (bool, error) {
	fd, err := openFile(dirfd, name)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Size != in.Size {
		return false, err
	}
	end, same := int64(0), true
	var failed error
	err = c.ix.Extents(in, func(e erofs.Extent) bool {
		if same, failed = c.stretch(fd, end, e.Off-end, nil, 0); same && failed == nil {
			same, failed = c.extent(fd, e)
		}
		end = e.Off + e.Len
		return same && failed == nil
	})
	if err = errors.Join(err, failed); err != nil || !same {
		return false, err
	}
	return c.stretch(fd, end, in.Size-end, nil, 0)
}

func (c *comparer) extent(fd int, e erofs.Extent) (bool, error) {
	src, err := c.blobs.open(e.Device)
	if err != nil {
		return false, err
	}
	return c.stretch(fd, e.Off, e.Len, func(b []byte, off int64) error {
		if n, err := src.ReadAt(b, off); n < len(b) {
			return fmt.Errorf("read %s at %d: %w", src.Name(), off, err)
		}
		return nil
	}, e.Phys)
}

// stretch compares n bytes of a file from off on with those that read gives from
// another offset on; without read they are to be zeros.
func (c *comparer) stretch(fd int, off, n int64, read func(b []byte, off int64) error, from int64) (bool, error) {
	for n > 0 {
		if err := c.ctx.Err(); err != nil {
			return false, err
		}
		p := c.p[:min(n, int64(len(c.p)))]
		got, err := unix.Pread(fd, p, off)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return false, fmt.Errorf("read: %w", err)
		case got == 0:
			return false, nil // it has become shorter
		}
		p, q := p[:got], c.q[:got]
		if read == nil {
			clear(q)
		} else if err := read(q, from); err != nil {
			return false, err
		}
		if !bytes.Equal(p, q) {
			return false, nil
		}
		off, from, n = off+int64(got), from+int64(got), n-int64(got)
	}
	return true, nil
}
