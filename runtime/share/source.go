package share

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Source is a shared path, opened on the host's side.
type Source struct {
	Bind
	fd     int
	dir    bool
	cloned bool // fd is a detached copy of the mounts at the path
	found  bool // mounted at a place that the image has
}

// Repeatable tells whether what mounted the source would do so again: a copy of its mounts, moved
// to a place that the image has.
func (s Source) Repeatable() bool { return s.cloned && s.found }

// Open opens what is to be shared. This comes before the container's
// root is attached anywhere, so that the root does not show in what it shares. [Mount]
// closes the sources.
func Open(binds []Bind) ([]Source, error) {
	sources := make([]Source, 0, len(binds))
	for _, b := range binds {
		s, err := b.open()
		if b.Optional && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)) {
			continue
		}
		if err != nil {
			closeSources(sources)
			return nil, fmt.Errorf("share %s: %w", b.Path, err)
		}
		sources = append(sources, s)
	}
	return sources, nil
}

func closeSources(sources []Source) {
	for _, s := range sources {
		unix.Close(s.fd)
	}
}

// open opens the path, as a detached copy of its mounts where the kernel can
// make one.
func (b Bind) open() (Source, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, b.HostPath(), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	cloned := err == nil
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		// Before Linux 5.2, or a seccomp filter that does not know it.
		fd, err = unix.Open(b.HostPath(), unix.O_PATH|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return Source{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return Source{}, err
	}
	return Source{Bind: b, fd: fd, dir: st.Mode&unix.S_IFMT == unix.S_IFDIR, cloned: cloned}, nil
}

// Mount puts the sources at their places in the container whose root is
// the open directory root, with everything that is mounted below them. Mount points
// are made where they are missing. The sources are closed.
func Mount(root int, sources []Source) error {
	defer closeSources(sources)
	for i := range sources {
		s := &sources[i]
		err := s.mount(root)
		if s.Optional && imageLacksPlace(err) {
			s.LeaveOut(err)
			continue
		}
		if err != nil {
			return fmt.Errorf("mount %s in the container: %w", s.Path, err)
		}
	}
	return nil
}

// errOtherFile says that a place for /etc/resolv.conf is something else.
var errOtherFile = errors.New("it is a link to another file there")

// imageLacksPlace says whether the reason that something could not be mounted is
// what the image has, or has not, at its place.
func imageLacksPlace(err error) bool {
	for _, e := range []error{unix.ENOTDIR, unix.EISDIR, unix.ELOOP, unix.EXDEV, unix.ENAMETOOLONG, unix.ENOENT, errOtherFile} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (s *Source) mount(root int) error {
	dst, made, err := mountPoint(root, s.Path, s.dir)
	if err != nil {
		return err
	}
	s.found = !made
	defer unix.Close(dst)
	if err := s.fits(root, dst); err != nil {
		return err
	}
	if s.cloned {
		return unix.MoveMount(s.fd, "", dst, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	}
	return unix.Mount(fdPath(s.fd), fdPath(dst), "", unix.MS_BIND|unix.MS_REC, "")
}

// fits says why a file of a container is no place for the source.
func (s *Source) fits(root, dst int) error {
	var st unix.Stat_t
	if err := unix.Fstat(dst, &st); err != nil {
		return err
	}
	switch dir := st.Mode&unix.S_IFMT == unix.S_IFDIR; {
	case s.dir && !dir:
		return unix.ENOTDIR
	case !s.dir && dir:
		return unix.EISDIR
	case dir || !s.Optional:
		return nil
	}
	// What is mounted on a file hides it. An image's /etc/resolv.conf may be a link,
	// to /run/systemd/resolve/stub-resolv.conf for one, but not to any file.
	to, err := canonical(root, s.Path)
	if err != nil {
		return err
	}
	if !strings.Contains(path.Base(to), "resolv") {
		return fmt.Errorf("%w: /%s", errOtherFile, to)
	}
	return nil
}

// MountProc puts a procfs of our pid namespace at the place of b, which is /proc, in the container
// whose root is the open directory root; where that is refused (in some containers), the host's
// serves.
func MountProc(root int, b Bind) error {
	err := b.mountProc(root)
	switch {
	case b.Optional && imageLacksPlace(err):
		b.LeaveOut(err)
	case err != nil:
		return fmt.Errorf("mount %s in the container: %w", b.Path, err)
	}
	return nil
}

func (b Bind) mountProc(root int) error {
	dst, _, err := mountPoint(root, b.Path, true)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	if unix.Mount("proc", fdPath(dst), "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "") == nil {
		return nil
	}
	s, err := b.open()
	if err != nil {
		return err
	}
	defer unix.Close(s.fd)
	return s.mount(root)
}

// FindPlace looks whether the host has something to share and the container, whose root is the open
// directory root, a place for it. It is not ok if mounting it would have anything to say, or to make.
func (b Bind) FindPlace(root int) (found, ok bool) {
	fi, err := os.Stat(b.HostPath())
	if err != nil {
		return false, b.Optional
	}
	dst, err := OpenInside(root, b.Path, unix.O_PATH)
	if err != nil {
		return false, false
	}
	defer unix.Close(dst)
	s := Source{Bind: b, dir: fi.IsDir()}
	return true, s.fits(root, dst) == nil
}

// fdPath names an open file for system calls that know only paths.
func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
