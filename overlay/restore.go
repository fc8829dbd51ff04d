package overlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/cas/erofs"
)

// A restorer makes a tree right where a scanner has found it different.
type restorer struct {
	t   *Tree
	u   *unpacker
	s   *scanner
	bin func() (*os.File, error)
	buf []byte

	moved int                   // into bin
	made  []difference          // entries that were made
	fix   map[erofs.NID]scanJob // directories that need their own attributes again
}

func (t *Tree) restore(ctx context.Context, s *scanner, bin func() (*os.File, error)) (err error) {
	r := &restorer{t: t, u: t.unpacker(ctx), s: s, bin: bin, buf: make([]byte, 1<<20), fix: map[erofs.NID]scanJob{}}
	defer func() { err = errors.Join(err, r.u.blobs.close()) }()
	if err := r.addLinked(); err != nil {
		return err
	}
	// Directories first lose what forbids to change them, then what is in the way
	// goes, so that nothing is made in what is to go.
	for _, step := range []func(*difference) error{r.open, r.clear, r.make} {
		for i := range s.diffs {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := step(&s.diffs[i]); err != nil {
				return fmt.Errorf("%q: %w", "/"+s.diffs[i].path, err)
			}
		}
	}
	if err := r.u.run(r.u.worker); err != nil {
		return err
	}
	for _, job := range r.fix {
		if err := r.fixDir(job); err != nil {
			return fmt.Errorf("directory %q: %w", "/"+job.path, err)
		}
	}
	return r.restamp(ctx)
}

// open lets a changed directory be changed.
func (r *restorer) open(d *difference) error {
	if d.kind != changed || !d.dir {
		return nil
	}
	r.fix[d.nid] = scanJob{spot: d.spot, path: d.path, nid: d.nid}
	fd, err := openDirBelow(r.s.root, d.path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	cas.ClearImmutable(fd, ".")
	if r.t.user {
		return unix.Fchmod(fd, 0o700)
	}
	return nil
}

// at opens the directory that a difference is in, and notes that it will need its
// attributes again.
func (r *restorer) at(d *difference) (fd int, dir, name string, err error) {
	dir, name = splitName(d.path)
	r.fix[d.spot.dir] = r.s.dirs[d.spot.dir]
	fd, err = openDirBelow(r.s.root, dir)
	return fd, dir, name, err
}

// clear moves away what is not to stay.
func (r *restorer) clear(d *difference) error {
	if d.kind == gone || d.kind == changed && d.dir {
		return nil
	}
	fd, _, name, err := r.at(d)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	bin, err := r.bin()
	if err != nil {
		return err
	}
	r.moved++
	to := strconv.Itoa(r.moved)
	err = unix.Renameat(fd, name, int(bin.Fd()), to)
	if errors.Is(err, unix.EPERM) && cas.ClearImmutable(fd, name) {
		err = unix.Renameat(fd, name, int(bin.Fd()), to)
	}
	if errors.Is(err, unix.EACCES) && r.t.user && unix.Fchmodat(fd, name, 0o700, 0) == nil {
		err = unix.Renameat(fd, name, int(bin.Fd()), to) // a directory's ".." changes
	}
	if err != nil {
		return fmt.Errorf("move out of the way: %w", err)
	}
	return nil
}

// make makes what the index has there; of a directory what is in it comes later.
func (r *restorer) make(d *difference) error {
	if d.kind == added || d.kind == changed && d.dir {
		return nil
	}
	fd, dir, name, err := r.at(d)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// It would spread to what is made; fixDir gives it back where it belongs.
	if err := removeDefaultACL(fd); err != nil {
		return err
	}
	r.made = append(r.made, *d)
	return r.u.unpackEntry(fd, dir, name, d.nid, r.buf)
}

// fixDir gives a directory that was there its attributes again.
func (r *restorer) fixDir(job scanJob) error {
	fd, err := openDirBelow(r.s.root, job.path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	in, err := r.t.ix.Inode(job.nid)
	if err != nil {
		return err
	}
	xattrs, err := r.t.ix.Xattrs(&in)
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, x := range xattrs {
		keep[x.Name] = true
	}
	if err := dropXattrs(fd, keep); err != nil {
		return err
	}
	return r.u.setAttrs(fd, &in, ".", fd)
}

// restamp takes the stamps of what was made or changed.
func (r *restorer) restamp(ctx context.Context) error {
	sub := newScanner(ctx, r.s.root, r.s.ix, r.t.m)
	sub.trust, sub.dev = true, r.s.dev
	for i := range r.made {
		d := &r.made[i]
		if err := r.stamp(d.spot, d.path, d.nid); err != nil {
			return fmt.Errorf("%q: %w", "/"+d.path, err)
		}
		if d.dir {
			sub.push(scanJob{spot: d.spot, path: d.path, nid: d.nid})
		}
	}
	for _, job := range r.fix {
		if err := r.stamp(job.spot, job.path, job.nid); err != nil {
			return fmt.Errorf("%q: %w", "/"+job.path, err)
		}
	}
	if err := sub.run(sub.worker); err != nil {
		return err
	}
	for _, d := range sub.diffs {
		if d.kind != gone { // a device that could not be made
			return fmt.Errorf("%q: %w", "/"+d.path, ErrChanged)
		}
	}
	return nil
}

// stamp takes the stamp of one entry.
func (r *restorer) stamp(at spot, path string, nid erofs.NID) error {
	dir, name := splitName(path)
	fd, err := openDirBelow(r.s.root, dir)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	flags := unix.AT_SYMLINK_NOFOLLOW
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	err = unix.Statx(fd, name, flags, unix.STATX_BASIC_STATS, &st)
	is := stampOf(&st)
	if errors.Is(err, unix.ENOENT) {
		is, err = stamp{}, nil // a device that could not be made
	}
	if err != nil {
		return err
	}
	in, err := r.t.ix.Inode(nid)
	if err != nil {
		return err
	}
	if is != (stamp{}) && !in.IsDir() && st.Nlink != in.Nlink {
		return fmt.Errorf("%w: expected %d names of the file, found %d", ErrChanged, in.Nlink, st.Nlink)
	}
	if at == rootSpot {
		r.t.m.root = is
	} else {
		r.t.m.dirs[at.dir][at.pos] = is
	}
	return nil
}
