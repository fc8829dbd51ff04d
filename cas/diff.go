package cas

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/ihucos/plash/cas/erofs"
	"github.com/opencontainers/go-digest"
)

// A ChangeKind says how a path differs between two trees. The letters are those
// that docker diff and svn status have.
type ChangeKind byte

// What may have become of a path.
const (
	Added   ChangeKind = 'A'
	Changed ChangeKind = 'C'
	Deleted ChangeKind = 'D'
)

// A Change is a path that differs between two trees.
type Change struct {
	Kind ChangeKind
	Path string // absolute: "/etc/passwd"; "/" for the root
}

// Diff compares two trees, each made of the given layers, bottom first, and
// yields the paths of the second that are not as in the first: a directory before
// what is in it, and that by name. All below a directory that was added or deleted
// is yielded too, and where a directory and something else took each other's
// place the path counts as changed. A directory of which only the time differs is
// changed, as some entry of it was added or deleted; the root is not. An error of
// yield ends the comparison and is returned.
//
// It takes the shared lock until both trees are open, so the caller must not have
// it; from then on the layers may be removed.
func (s *Store) Diff(ctx context.Context, from, to []digest.Digest, yield func(Change) error) (err error) {
	old, new, err := s.openViews(ctx, from, to)
	if err != nil {
		return fmt.Errorf("compare trees: %w", err)
	}
	defer func() { err = errors.Join(err, old.Close(), new.Close()) }()
	d := &differ{ctx: ctx, old: old, new: new, yield: yield}
	return d.trees()
}

func (s *Store) openViews(ctx context.Context, from, to []digest.Digest) (a, b *View, err error) {
	unlock, err := s.LockShared(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	if a, err = s.View(ctx, from); err != nil {
		return nil, nil, err
	}
	if b, err = s.View(ctx, to); err != nil {
		return nil, nil, errors.Join(err, a.Close())
	}
	return a, b, nil
}

// differ compares two trees by their indexes. Content is read only where it is
// not told by the indexes that it is the same: a file that was copied up without
// being written to.
type differ struct {
	ctx      context.Context
	old, new *View
	yield    func(Change) error
}

func (d *differ) trees() error {
	a, err := d.old.Inode(d.old.Root())
	if err != nil {
		return err
	}
	b, err := d.new.Inode(d.new.Root())
	if err != nil {
		return err
	}
	timeless := a
	timeless.MtimeSec, timeless.MtimeNsec = b.MtimeSec, b.MtimeNsec
	same, err := d.same(&timeless, &b)
	if err != nil {
		return err
	}
	if !same {
		if err := d.yield(Change{Changed, "/"}); err != nil {
			return err
		}
	}
	return d.directories("", &a, &b)
}

// directories compares the entries of two directories at path, which are sorted
// by name in both.
func (d *differ) directories(path string, a, b *erofs.Inode) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	before, err := entries(d.old.Image, a)
	if err != nil {
		return err
	}
	after, err := entries(d.new.Image, b)
	if err != nil {
		return err
	}
	for len(before) > 0 || len(after) > 0 {
		order := 0
		switch {
		case len(before) == 0:
			order = 1
		case len(after) == 0:
			order = -1
		default:
			order = bytes.Compare(before[0].Name, after[0].Name)
		}
		switch {
		case order < 0:
			err = d.all(d.old.Image, Deleted, path+"/"+string(before[0].Name), before[0].NID)
		case order > 0:
			err = d.all(d.new.Image, Added, path+"/"+string(after[0].Name), after[0].NID)
		default:
			err = d.entry(path+"/"+string(after[0].Name), before[0].NID, after[0].NID)
		}
		if err != nil {
			return err
		}
		if order <= 0 {
			before = before[1:]
		}
		if order >= 0 {
			after = after[1:]
		}
	}
	return nil
}

// entry compares what is at a path that both trees have.
func (d *differ) entry(path string, before, after erofs.NID) error {
	a, err := d.old.Inode(before)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	b, err := d.new.Inode(after)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	same, err := d.same(&a, &b)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if !same {
		if err := d.yield(Change{Changed, path}); err != nil {
			return err
		}
	}
	switch {
	case a.IsDir() && b.IsDir():
		return d.directories(path, &a, &b)
	case a.IsDir():
		return d.below(d.old.Image, Deleted, path, &a)
	case b.IsDir():
		return d.below(d.new.Image, Added, path, &b)
	}
	return nil
}

// all adds the path and everything below it.
func (d *differ) all(im *erofs.Image, kind ChangeKind, path string, nid erofs.NID) error {
	if err := d.yield(Change{kind, path}); err != nil {
		return err
	}
	in, err := im.Inode(nid)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if !in.IsDir() {
		return nil
	}
	return d.below(im, kind, path, &in)
}

func (d *differ) below(im *erofs.Image, kind ChangeKind, path string, dir *erofs.Inode) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	list, err := entries(im, dir)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, e := range list {
		if err := d.all(im, kind, path+"/"+string(e.Name), e.NID); err != nil {
			return err
		}
	}
	return nil
}

func entries(im *erofs.Image, dir *erofs.Inode) ([]erofs.Dirent, error) {
	var list []erofs.Dirent
	err := im.ReadDir(dir, func(e erofs.Dirent) bool {
		list = append(list, e)
		return true
	})
	return list, err
}

// same reports whether two inodes are equal in all that a tree says of them, but
// the number of their links. Of directories the entries are not looked at.
func (d *differ) same(a, b *erofs.Inode) (bool, error) {
	if a.Attr != b.Attr && !(a.IsDir() && b.IsDir() && sameButSize(a.Attr, b.Attr)) {
		return false, nil
	}
	x, err := d.old.Xattrs(a)
	if err != nil {
		return false, err
	}
	y, err := d.new.Xattrs(b)
	if err != nil {
		return false, err
	}
	if !sameXattrs(x, y) {
		return false, nil
	}
	switch {
	case a.IsSymlink():
		x, err := d.old.Readlink(a)
		if err != nil {
			return false, err
		}
		y, err := d.new.Readlink(b)
		return x == y, err
	case a.IsRegular():
		return d.sameContent(a, b)
	}
	return true, nil
}

func sameButSize(a, b erofs.Attr) bool {
	a.Size = b.Size
	return a == b
}

func sameXattrs(a, b []erofs.Xattr) bool {
	if len(a) != len(b) {
		return false
	}
	byName := func(x, y erofs.Xattr) int { return strings.Compare(x.Name, y.Name) }
	slices.SortFunc(a, byName)
	slices.SortFunc(b, byName)
	return slices.EqualFunc(a, b, func(x, y erofs.Xattr) bool {
		return x.Name == y.Name && bytes.Equal(x.Value, y.Value)
	})
}

// sameContent compares two files of the same size: where their bytes lie, and
// if that differs the bytes.
func (d *differ) sameContent(a, b *erofs.Inode) (bool, error) {
	x, err := blobExtents(d.old, a)
	if err != nil {
		return false, err
	}
	y, err := blobExtents(d.new, b)
	if err != nil {
		return false, err
	}
	if slices.Equal(x, y) {
		return true, nil
	}
	const chunk = 1 << 20
	p, q := make([]byte, min(chunk, a.Size)), make([]byte, min(chunk, a.Size))
	for off := int64(0); off < a.Size; off += chunk {
		if err := d.ctx.Err(); err != nil {
			return false, err
		}
		n := min(chunk, a.Size-off)
		if err := readFull(d.old, a, p[:n], off); err != nil {
			return false, err
		}
		if err := readFull(d.new, b, q[:n], off); err != nil {
			return false, err
		}
		if !bytes.Equal(p[:n], q[:n]) {
			return false, nil
		}
	}
	return true, nil
}

func readFull(v *View, in *erofs.Inode, p []byte, off int64) error {
	n, err := v.ReadAt(in, p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// blobExtent is an extent whose device is named by its content.
type blobExtent struct {
	off, len, phys int64
	blob           string
}

func blobExtents(v *View, in *erofs.Inode) ([]blobExtent, error) {
	blobs := v.Blobs()
	var list []blobExtent
	err := v.Extents(in, func(e erofs.Extent) bool {
		x := blobExtent{off: e.Off, len: e.Len, phys: e.Phys}
		if e.Device > 0 && e.Device <= len(blobs) {
			x.blob = blobs[e.Device-1].String()
		} else {
			x.blob = v.Path()
		}
		list = append(list, x)
		return true
	})
	return list, err
}
