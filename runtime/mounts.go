package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A bind is a path of the host that a container shares, at the same place.
type bind struct {
	Path     string // absolute and clean
	Optional bool   // left out where the host does not have it
	From     string `json:",omitempty"` // what is bound there, if it is not the same path of the host
}

// source is the path on the host.
func (b bind) source() string {
	if b.From != "" {
		return b.From
	}
	return b.Path
}

// MountGroups are the names that a list of shared paths may contain, with what
// they stand for; "~" is the home directory of the calling user. What the host
// lacks of a group is left out.
var MountGroups = map[string][]string{
	"default": {"/proc", "/sys", "/dev", "/tmp", "/home", "~", "/etc/resolv.conf"},
	"host":    {"/tmp", "/home"},
	"home":    {"/home", "~"},
	"proc":    {"/proc"},
	"sys":     {"/sys"},
	"dev":     {"/dev"},
	"tmp":     {"/tmp"},
	"cgroup":  {"/sys/fs/cgroup"},
	"resolv":  {"/etc/resolv.conf"},
}

// parseMounts turns a list of paths and names of groups into what is to be
// bound, parents first. Empty elements are ignored; home may be "".
func parseMounts(list []string, home string) ([]bind, error) {
	var binds []bind
	for _, item := range list {
		switch {
		case item == "":
		case strings.Contains(item, "/"):
			path, err := filepath.Abs(item)
			if err != nil {
				return nil, fmt.Errorf("mount %s: %w", item, err)
			}
			if path == "/" {
				return nil, errors.New("mount /: the root itself cannot be shared")
			}
			if _, err := os.Stat(path); err != nil {
				return nil, fmt.Errorf("mount %s: %w", item, underlying(err))
			}
			binds = append(binds, bind{Path: path})
		case MountGroups[item] != nil:
			for _, path := range MountGroups[item] {
				if path == "~" {
					path = home
				}
				if path = filepath.Clean(path); filepath.IsAbs(path) && path != "/" {
					binds = append(binds, bind{Path: path, Optional: true})
				}
			}
		default:
			return nil, &hintedError{
				fmt.Errorf("mount %s: neither a path nor a known group", item),
				"the groups are " + strings.Join(groupNames(), ", "),
			}
		}
	}
	return withoutNested(binds), nil
}

func groupNames() []string {
	var names []string
	for name := range MountGroups {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// withoutNested drops what is shared already because something above it is, and
// sorts parents first.
func withoutNested(binds []bind) []bind {
	slices.SortStableFunc(binds, func(a, b bind) int { return strings.Compare(a.Path, b.Path) })
	var kept []bind
	for _, b := range binds {
		nested := slices.ContainsFunc(kept, func(above bind) bool {
			return within(b.Path, above.Path) && (b.Path == above.Path || within(resolved(b.Path), resolved(above.Path)))
		})
		if !nested {
			kept = append(kept, b)
		}
	}
	return kept
}

// within says whether path is dir or lies below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// resolved is path without symbolic links: a home below /home that is a link to
// elsewhere is not shared with /home.
func resolved(path string) string {
	if r, err := filepath.EvalSymlinks(path); err == nil {
		return r
	}
	return path
}

// underlying is the error without the path that package os repeats in it.
func underlying(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// A source is a shared path, opened on the host's side.
type source struct {
	bind
	fd     int
	dir    bool
	cloned bool // fd is a detached copy of the mounts at the path
	found  bool // mounted at a place that the image has
}

// openSources opens what is to be shared. This comes before the container's
// root is attached anywhere, so that the root does not show in what it shares.
func openSources(binds []bind) ([]source, error) {
	sources := make([]source, 0, len(binds))
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

func closeSources(sources []source) {
	for _, s := range sources {
		unix.Close(s.fd)
	}
}

// open opens the path, as a detached copy of its mounts where the kernel can
// make one.
func (b bind) open() (source, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, b.source(), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	cloned := err == nil
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		// Before Linux 5.2, or a seccomp filter that does not know it.
		fd, err = unix.Open(b.source(), unix.O_PATH|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return source{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return source{}, err
	}
	return source{bind: b, fd: fd, dir: st.Mode&unix.S_IFMT == unix.S_IFDIR, cloned: cloned}, nil
}

// mountSources puts the sources at their places in the container whose root is
// the directory root, with everything that is mounted below them. Mount points
// are made where they are missing. The sources are closed.
func mountSources(root int, sources []source) error {
	defer closeSources(sources)
	for i := range sources {
		s := &sources[i]
		err := s.mount(root)
		if s.Optional && imageLacksPlace(err) {
			s.leaveOut(err)
			continue
		}
		if err != nil {
			return fmt.Errorf("mount %s in the container: %w", s.Path, err)
		}
	}
	return nil
}

// leaveOut tells the user that the container does without.
func (b bind) leaveOut(err error) {
	fmt.Fprintf(os.Stderr, "plash: warning: %s is not shared with the container: %v\n", b.Path, err)
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

func (s *source) mount(root int) error {
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
func (s *source) fits(root, dst int) error {
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

// fdPath names an open file for system calls that know only paths.
func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
