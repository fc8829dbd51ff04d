package overlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/cas/erofs"
	"github.com/ihucos/plash/cas/tarstream"
)

// A selection says what of a directory tree is packed: not all that is there, and
// marks for what is not there.
type selection interface {
	// entries are those of a directory, sorted by name; of type DT_WHT is what is
	// deleted. Path is "" or ends in a slash.
	entries(fd int, path string) ([]dent, error)
	// opaque tells whether a directory hides what is below it.
	opaque(path string) bool
	// settle completes what an entry says of a path.
	settle(e *tarstream.Entry, path string, st *unix.Stat_t) error
}

// Pack packs what was changed in the tree, and takes it into the store, as a layer that
// is not published yet. It is the layer that [PackUpper] would make of an upper
// directory of overlayfs after the same changes, but for what only overlayfs does: a file that
// was opened for writing and not written to is not in the layer, and of a file with
// several names that was changed all are.
//
// What lies at and below the paths in without, and they themselves, are not looked at,
// but their parents' times count. A plain user's files belong to root in the layer,
// where they are not those that the container had.
func (t *Tree) Pack(ctx context.Context, without []string) (*cas.Staged, error) {
	c, err := t.changes(ctx, without)
	if err != nil {
		return nil, fmt.Errorf("find what changed in %s: %w", t.root.Name(), err)
	}
	for path := range c.merged {
		slices.SortFunc(c.merged[path], func(a, b dent) int { return strings.Compare(a.name, b.name) })
	}
	// A second descriptor, as packing moves the position of the one it reads.
	dir, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", t.root.Fd()))
	if err != nil {
		return nil, fmt.Errorf("pack layer: %w", err)
	}
	staged, err := ingestPacked(ctx, t.store, dir, PackOptions{only: c})
	if err = errors.Join(err, dir.Close()); err != nil && staged != nil {
		return nil, errors.Join(err, staged.Close())
	}
	return staged, err
}

// changes is the selection of what differs from a manifest.
type changes struct {
	t *Tree
	// merged are the directories that the container had and that there is something
	// to say of, themselves or what is in them, with what is to be said.
	merged  map[string][]dent
	same    map[string]erofs.NID // what has the inode that the container had at its path
	without []string
}

func (t *Tree) changes(ctx context.Context, without []string) (_ *changes, err error) {
	_, diffs, err := t.scan(ctx)
	if err != nil {
		return nil, err
	}
	c := &changes{t: t, merged: map[string][]dent{"": nil}, same: map[string]erofs.NID{}, without: without}
	blobs := newBlobFiles(t.store, t.ix)
	defer func() { err = errors.Join(err, blobs.close()) }()
	compare := t.comparer(ctx, blobs)
	for i := range diffs {
		d := &diffs[i]
		if c.leftOut(d.path) {
			continue
		}
		as, err := c.asBefore(compare, d)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", "/"+d.path, err)
		}
		if !as {
			c.add(d)
		}
	}
	return c, nil
}

// asBefore tells whether only another name of a file was changed.
func (c *changes) asBefore(compare *comparer, d *difference) (bool, error) {
	if d.kind != changed || d.dir {
		return false, nil
	}
	in, err := c.t.ix.Inode(d.nid)
	if err != nil || in.Nlink < 2 {
		return false, err
	}
	dir, name := splitName(d.path)
	fd, err := openDirBelow(compare.root, dir)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || uint64(st.Nlink) >= uint64(in.Nlink) {
		return false, err
	}
	return compare.file(fd, name, d.nid)
}

func (c *changes) add(d *difference) {
	dir, name := splitName(d.path)
	switch {
	case d.kind == changed && d.dir:
		c.merge(d.path)
		c.same[d.path] = d.nid
		return
	case d.kind == changed:
		c.same[d.path] = d.nid
	}
	typ := uint8(unix.DT_UNKNOWN)
	if d.kind == gone {
		typ = unix.DT_WHT
	}
	c.merge(dir)
	c.merged[dir] = append(c.merged[dir], dent{name: name, typ: typ})
}

// merge makes a directory one that something is to be said of, and so its parents.
func (c *changes) merge(path string) {
	if _, ok := c.merged[path]; ok {
		return
	}
	c.merged[path] = nil
	dir, name := splitName(path)
	c.merge(dir)
	c.merged[dir] = append(c.merged[dir], dent{name: name, typ: unix.DT_DIR})
}

func (c *changes) leftOut(path string) bool {
	return slices.ContainsFunc(c.without, func(w string) bool {
		return path == w || strings.HasPrefix(path, w) && path[len(w)] == '/'
	})
}

func (c *changes) entries(fd int, path string) ([]dent, error) {
	if list, ok := c.merged[strings.TrimSuffix(path, "/")]; ok {
		return list, nil
	}
	var r dentReader
	all, err := r.read(fd)
	return slices.DeleteFunc(all, func(d dent) bool { return c.leftOut(path + d.name) }), err
}

// opaque: overlayfs marks a new directory in one that has a lower part (with xino=on:
// ovl_create_upper in fs/overlayfs/dir.c), and what is made in that one needs no mark.
func (c *changes) opaque(path string) bool {
	path = strings.TrimSuffix(path, "/")
	if _, ok := c.merged[path]; ok {
		return false
	}
	dir, _ := splitName(path)
	_, ok := c.merged[dir]
	return ok
}

// settle gives what a plain user cannot have the owner and mode that it would have.
func (c *changes) settle(e *tarstream.Entry, path string, st *unix.Stat_t) error {
	if !c.t.user {
		return nil
	}
	e.UID, e.GID = 0, 0
	nid, err := c.before(strings.TrimSuffix(path, "/"))
	if nid == 0 || err != nil {
		return err
	}
	in, err := c.t.ix.Inode(nid)
	if err != nil {
		return err
	}
	e.UID, e.GID = in.UID, in.GID
	if st.Mode&0o7777 == treeMode(&in, true) {
		e.Mode = in.Mode & 0o7777
	}
	return nil
}

// before is what the container had at a path, if that is still there; else 0.
func (c *changes) before(path string) (erofs.NID, error) {
	if path == "" {
		return c.t.ix.Root(), nil
	}
	if nid, ok := c.same[path]; ok {
		return nid, nil
	}
	if _, ok := c.merged[path]; !ok {
		return 0, nil
	}
	return lookup(c.t.ix.Image, path)
}

// lookup finds a path that an index has.
func lookup(ix *erofs.Image, path string) (erofs.NID, error) {
	nid := ix.Root()
	for name := range strings.SplitSeq(path, "/") {
		in, err := ix.Inode(nid)
		if err != nil {
			return 0, err
		}
		e, err := ix.Lookup(&in, name)
		if err != nil {
			return 0, fmt.Errorf("%q: %w", path, err)
		}
		nid = e.NID
	}
	return nid, nil
}
