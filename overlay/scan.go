package overlay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas/erofs"
)

// ErrMounted is wrapped where something is mounted in a tree.
var ErrMounted = errors.New("something is mounted in it")

// A differenceKind says how an entry of a tree is not as it should be.
type differenceKind int

const (
	gone     differenceKind = iota // the index has it, the tree has not
	changed                        // the same inode, with another ctime
	replaced                       // another inode, or another type
	added                          // the tree has it, the index has not
)

// A spot is where an entry's stamp is in a manifest: the directory, and which of its
// entries in the index' order. The root's is -1 in no directory.
type spot struct {
	dir erofs.NID
	pos int
}

var rootSpot = spot{pos: -1}

// A difference is an entry of a tree that is not as it should be. What is below a
// directory that was replaced or added is none of its own.
type difference struct {
	spot // of what was added, only dir means anything
	kind differenceKind
	path string // "" for the root, else "a/b"
	nid  erofs.NID
	dir  bool // the index has a directory there
}

// A scanner compares a tree with its index. It changes nothing.
type scanner struct {
	crew[scanJob]
	ctx  context.Context
	root int
	dev  [2]uint32 // device of the root
	// looseDirs says that directories' inode numbers may change by themselves, as on an
	// overlayfs over several filesystems (Documentation/filesystems/overlayfs.rst, "Inode
	// properties"). The ctime has to do.
	looseDirs bool
	ix        *erofs.Image
	// stamps are those that entries should have. Without trust, an entry with another
	// one is not as it was; with trust, all that has the right type is taken for
	// right, and its stamp is put there.
	stamps *Manifest
	trust  bool
	// read makes files with the right stamp be read all the same.
	read func() *comparer
	// doubtful are paths at and below which trust does not hold.
	doubtful []string

	// The rest is guarded by mu.
	diffs []difference
	// dirs are the directories in which there are differences.
	dirs map[erofs.NID]scanJob
}

type scanJob struct {
	spot
	path   string
	nid    erofs.NID
	list   bool // there may be other names than those of the index
	doubts bool
}

func newScanner(ctx context.Context, root int, ix *erofs.Image, m *Manifest) *scanner {
	return &scanner{ctx: ctx, root: root, ix: ix, stamps: m, dirs: map[erofs.NID]scanJob{}}
}

// all scans the whole tree. The differences are sorted by path.
func (s *scanner) all() ([]difference, error) {
	var st unix.Statx_t
	if err := unix.Statx(s.root, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st); err != nil {
		return nil, fmt.Errorf("look at tree: %w", err)
	}
	s.dev = [2]uint32{st.Dev_major, st.Dev_minor}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(s.root, &fs); err != nil {
		return nil, fmt.Errorf("look at tree: %w", err)
	}
	s.looseDirs = uint32(fs.Type) == unix.OVERLAYFS_SUPER_MAGIC
	job := scanJob{spot: rootSpot, nid: s.ix.Root(), list: true}
	is := stampOf(&st)
	if s.looseDirs && !s.trust {
		is.ino = s.stamps.root.ino
	}
	if s.trust {
		s.stamps.root = is
	} else if job.list = is != s.stamps.root; job.list {
		s.note(job, difference{spot: rootSpot, kind: changed, nid: s.ix.Root(), dir: true})
	}
	s.push(job)
	if err := s.run(s.worker); err != nil {
		return nil, err
	}
	slices.SortFunc(s.diffs, func(a, b difference) int { return strings.Compare(a.path, b.path) })
	return s.diffs, nil
}

func (s *scanner) note(in scanJob, d difference) {
	s.mu.Lock()
	s.dirs[in.nid] = in
	s.diffs = append(s.diffs, d)
	s.mu.Unlock()
}

func (s *scanner) worker() func(scanJob) error {
	r := &dentReader{}
	var c *comparer
	if s.read != nil {
		c = s.read()
	}
	return func(job scanJob) error {
		if err := s.dir(job, r, c); err != nil {
			return fmt.Errorf("look at directory %q of tree: %w", "/"+job.path, err)
		}
		return nil
	}
}

// dir looks at the entries of one directory.
func (s *scanner) dir(job scanJob, r *dentReader, c *comparer) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	in, err := s.ix.Inode(job.nid)
	if err != nil {
		return err
	}
	fd, err := openDirBelow(s.root, job.path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	stamps, err := s.stampsOf(job.nid, &in)
	if err != nil {
		return err
	}
	var names map[string]bool
	if job.list {
		names = map[string]bool{}
	}
	pos := 0
	var failed error
	err = s.ix.ReadDir(&in, func(e erofs.Dirent) bool {
		if job.list {
			names[string(e.Name)] = true
		}
		if pos == len(stamps) {
			failed = fmt.Errorf("%w: %d entries", errManifest, pos)
			return false
		}
		failed = s.entry(job, fd, e, &stamps[pos], pos, c)
		pos++
		return failed == nil
	})
	if err = errors.Join(err, failed); err != nil || !job.list {
		return err
	}
	entries, err := r.read(fd)
	for _, e := range entries {
		if !names[e.name] {
			s.note(job, difference{spot: spot{job.nid, -1}, kind: added, path: join(job.path, e.name)})
		}
	}
	return err
}

// stampsOf gives the stamps of a directory's entries, which are all the job's that
// works on it.
func (s *scanner) stampsOf(nid erofs.NID, in *erofs.Inode) ([]stamp, error) {
	if !s.trust {
		return s.stamps.dirs[nid], nil
	}
	n := 0
	if err := s.ix.ReadDir(in, func(erofs.Dirent) bool { n++; return true }); err != nil {
		return nil, err
	}
	stamps := make([]stamp, n)
	s.mu.Lock()
	s.stamps.dirs[nid] = stamps
	s.mu.Unlock()
	return stamps, nil
}

// entry compares one entry of a directory.
func (s *scanner) entry(in scanJob, fd int, e erofs.Dirent, want *stamp, pos int, c *comparer) error {
	name := string(e.Name)
	d := difference{spot: spot{in.nid, pos}, path: join(in.path, name), nid: e.NID, dir: e.Type == unix.DT_DIR}
	var st unix.Statx_t
	err := unix.Statx(fd, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE|unix.STATX_INO|unix.STATX_CTIME|unix.STATX_BTIME, &st)
	if errors.Is(err, unix.ENOENT) {
		if s.trust || *want != (stamp{}) {
			d.kind = gone
			s.note(in, d)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	if s.mounted(&st) {
		return fmt.Errorf("%q: %w", name, ErrMounted)
	}
	is := stampOf(&st)
	if s.looseDirs && d.dir && !s.trust {
		is.ino = want.ino
	}
	sameType := uint8(st.Mode&unix.S_IFMT>>12) == e.Type
	doubts := s.trust && (in.doubts || slices.Contains(s.doubtful, d.path) || st.Attributes&forbidding != 0)
	switch {
	case !sameType || !s.trust && (is.ino != want.ino || bornSince(&st, want)):
		d.kind = replaced
		s.note(in, d)
		return nil
	case s.trust && !doubts:
		*want = is
	case doubts || is != *want:
		d.kind = changed
		s.note(in, d)
	case c != nil && e.Type == unix.DT_REG:
		return s.compare(in, fd, d, name, c)
	}
	if d.dir {
		s.push(scanJob{spot: d.spot, path: d.path, nid: e.NID, list: s.trust || is != *want, doubts: doubts})
	}
	return nil
}

// forbidding are the attributes of chattr(1) that no layer has, and that would keep who
// gets the tree from changing it.
const forbidding = unix.STATX_ATTR_IMMUTABLE | unix.STATX_ATTR_APPEND

// compare reads a file that has the right stamp.
func (s *scanner) compare(in scanJob, fd int, d difference, name string, c *comparer) error {
	file, err := s.ix.Inode(d.nid)
	if err != nil {
		return err
	}
	same, err := c.content(fd, name, &file)
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	if !same {
		d.kind = changed
		s.note(in, d)
	}
	return nil
}

// bornSince tells whether an inode was made after a stamp was taken: numbers are used
// again. Where the filesystem does not say, it was not.
func bornSince(st *unix.Statx_t, then *stamp) bool {
	return st.Mask&unix.STATX_BTIME != 0 && st.Btime.Sec*1e9+int64(st.Btime.Nsec) > then.ctime
}

// mounted tells whether an entry is what is mounted there. Before Linux 5.8 the kernel
// does not say; of files the device tells nothing then, as overlayfs gives some another
// one than their directories.
func (s *scanner) mounted(st *unix.Statx_t) bool {
	if st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
	}
	return st.Mode&unix.S_IFMT == unix.S_IFDIR && s.dev != [2]uint32{st.Dev_major, st.Dev_minor}
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// splitName splits a path into its directory, "" for the root, and its last name.
func splitName(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}
