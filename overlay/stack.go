package overlay

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/mountfd"
)

// A lower is a layer of an overlayfs.
type lower struct {
	fd int
	// dir tells a directory that is mounted somewhere, open with O_PATH, from a
	// detached mount. Mount tables show the path of the former, which tells
	// that it is in use.
	dir  bool
	name string // for mount tables that cannot show the path
	// origin is nil where the layer cannot be made again by recorded calls.
	origin *origin
}

// lowers are the layers of an overlayfs, top first. The overlayfs takes private
// clones of their mounts, so that they can be closed afterwards.
type lowers []lower

// add takes over the result of making a detached mount.
func (l *lowers) add(lw lower, err error) error {
	if err == nil {
		*l = append(*l, lw)
	}
	return err
}

func (l *lowers) addDir(path, name string) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open layer", Path: path, Err: err}
	}
	*l = append(*l, lower{fd: fd, dir: true, name: name, origin: dirOrigin(path)})
	return nil
}

func (l *lowers) close() {
	for _, lw := range *l {
		unix.Close(lw.fd)
	}
	*l = nil
}

// xino says how inode numbers are made where layers lie on several filesystems.
type xino string

const (
	// xinoOn puts the layer's number into the high bits of st_ino. So all files
	// have the same st_dev (without it each layer's files have another, and
	// tools that stay on one filesystem, as tar --one-file-system, leave
	// nearly everything out), and a file keeps its number when it is copied
	// up. Walking and reading take the same time with it as without.
	xinoOn xino = "on"
	// xinoAuto is for layers on one filesystem, where nothing is to be done: the
	// kernel says so in its log for each mount that asks for more.
	xinoAuto xino = "auto"
)

// xinoOf looks whether directories and the upper directory are on one filesystem.
func xinoOf(dirs []string, o *Options) xino {
	var first unix.Stat_t
	for i, dir := range append(append(dirs[:len(dirs):len(dirs)], o.Below...), o.Upper) {
		var st unix.Stat_t
		switch err := unix.Stat(dir, &st); {
		case dir == "" || err != nil: // the mount will say what is wrong
		case i == 0:
			first = st
		case st.Dev != first.Dev:
			return xinoOn
		}
	}
	return xinoAuto
}

// openOverlay mounts an overlayfs over lower and the directories of o.Below,
// with o's upper directory if it has one.
func openOverlay(l *lowers, o *Options, x xino) (*Mount, error) {
	for _, dir := range o.Below {
		if err := l.addDir(dir, "below"); err != nil {
			return nil, err
		}
	}
	if o.Upper == "" && len(*l) == 1 {
		// Overlayfs without an upper directory wants two layers.
		if err := l.add(mountEmpty()); err != nil {
			return nil, err
		}
	}
	fd, detached, err := mountOverlay(*l, o, x)
	switch {
	case err == nil && detached:
		return &Mount{Mount: mountfd.Of(fd), recipe: l.recipe(o, x), detached: true}, nil
	case err == nil:
		return mountOf(fd), nil
	case o.Upper == "":
		return nil, fmt.Errorf("mount overlayfs of %d layers, read-only: %w", len(*l), noOverlay(err))
	case overlaysWithout(l, x):
		if fault := UpperFault(o.Upper, o.Work); fault != nil {
			return nil, fault
		}
		err = fmt.Errorf("%w: %w", ErrUpper, err)
	default:
		err = noOverlay(err)
	}
	return nil, fmt.Errorf("mount overlayfs of %d layers with upper directory %s: %w", len(*l), o.Upper, err)
}

// noOverlay is classify for errors of mounting an overlayfs.
func noOverlay(err error) error {
	if errors.Is(classify(err), ErrUnsupported) {
		return fmt.Errorf("%w: %w", ErrNoOverlay, err)
	}
	return err
}

// ProbeOverlay mounts an overlayfs of two empty directories, to find out whether that
// works before anything is done that only it could use.
func ProbeOverlay() error {
	var l lowers
	defer l.close()
	for range 2 {
		if err := l.add(mountEmpty()); err != nil {
			return err
		}
	}
	fd, _, err := mountOverlay(l, &Options{}, xinoAuto)
	if err != nil {
		return fmt.Errorf("mount overlayfs: %w", noOverlay(err))
	}
	return unix.Close(fd)
}

// overlaysWithout tells whether the layers can be mounted without the upper
// directory that they could not be mounted with: then that is what does not do
// (its filesystem cannot be written to by overlayfs), and another backend would be
// of no use.
func overlaysWithout(l *lowers, x xino) bool {
	if l.add(mountEmpty()) != nil {
		return false
	}
	fd, _, err := mountOverlay(*l, &Options{}, x)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// mountOverlay also says whether the layers were handed over detached, as they are.
func mountOverlay(l lowers, o *Options, x xino) (fd int, detached bool, err error) {
	if !force.attach {
		detached, err = overlaysDetached(l[0])
		if err != nil {
			return -1, false, err
		}
		if detached {
			fd, err = overlayByFD(l, o, x)
			return fd, true, err
		}
	}
	for i := range l {
		if err := l[i].detach(); err != nil {
			return -1, false, err
		}
	}
	err = inPrivateNamespace(func() (err error) {
		fd, err = overlayAttached(l, o, x)
		return err
	})
	return fd, false, err
}

// detach takes a detached mount of a directory in the directory's place.
func (l *lower) detach() error {
	if !l.dir {
		return nil
	}
	fd, err := cloneMount(l.fd)
	if err != nil {
		return fmt.Errorf("clone mount of layer %s: %w", l.name, err)
	}
	unix.Close(l.fd)
	l.fd, l.dir = fd, false
	return nil
}

// overlaysDetached tells whether overlayfs takes detached mounts as layers:
// since Linux 6.15, and it takes descriptors since 6.13. The same release began
// to clone detached mounts, which can be tried without a trace.
func overlaysDetached(l lower) (bool, error) {
	mount := l.fd
	if l.dir {
		fd, err := cloneMount(mount)
		if err != nil {
			return false, fmt.Errorf("clone mount of layer %s: %w", l.name, err)
		}
		defer unix.Close(fd)
		mount = fd
	}
	fd, err := cloneMount(mount)
	if err != nil {
		return false, nil
	}
	return true, unix.Close(fd)
}

// cloneMount gives a detached mount of the directory that fd stands for.
func cloneMount(fd int) (int, error) {
	return unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
}

// overlayByFD hands all directories over by descriptor.
func overlayByFD(l lowers, o *Options, x xino) (int, error) {
	c := newFSContext("overlay")
	defer c.close()
	for _, lw := range l {
		c.setFD("lowerdir+", lw.fd)
	}
	for _, d := range []struct{ key, path string }{{"upperdir", o.Upper}, {"workdir", o.Work}} {
		if d.path == "" {
			continue
		}
		fd, err := unix.Open(d.path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, &os.PathError{Op: "open " + d.key, Path: d.path, Err: err}
		}
		defer unix.Close(fd)
		c.setFD(d.key, fd)
	}
	setOverlayOptions(c, o, x, o.Volatile)
	return c.mount(overlayAttrs(o))
}

// overlayAttached attaches the layers to directories with short names, which is
// what overlayfs before Linux 6.15 can use. It runs in a mount namespace of its
// own, and the calling thread's working directory changes.
func overlayAttached(l lowers, o *Options, x xino) (int, error) {
	names, err := attachNamed(l)
	if err != nil {
		return -1, err
	}
	mount := func(volatile bool) (int, error) {
		var paths pathNames
		defer paths.close()
		c := newFSContext("overlay")
		defer c.close()
		c.setString("lowerdir", strings.Join(names, ":"))
		if o.Upper != "" {
			// The directories must be opened in this mount namespace.
			upper, err := paths.name(o.Upper, specialInOptions)
			if err != nil {
				return -1, err
			}
			work, err := paths.name(o.Work, specialInOptions)
			if err != nil {
				return -1, err
			}
			c.setString("upperdir", upper)
			c.setString("workdir", work)
		}
		setOverlayOptions(c, o, x, volatile)
		return c.mount(overlayAttrs(o))
	}
	fd, err := mount(o.Volatile)
	if o.Volatile && errors.Is(err, unix.EINVAL) {
		// "volatile" came with Linux 5.10. An unknown option fails before
		// anything is written to the work directory.
		fd, err = mount(false)
	}
	return fd, err
}

// specialInOptions are the bytes that mean something in overlayfs' options.
const specialInOptions = ",:\\"

// attachNamed attaches the layers to directories in the working directory,
// which becomes a new tmpfs. Names are short: all together are one option of at
// most 255 bytes.
func attachNamed(l lowers) ([]string, error) {
	c := newFSContext("tmpfs")
	c.setString("mode", "0700")
	base, err := c.mount(0)
	if err != nil {
		return nil, fmt.Errorf("make a place for layers: %w", err)
	}
	defer unix.Close(base)
	// On top of the root: absolute paths still begin below it.
	if err := unix.MoveMount(base, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return nil, fmt.Errorf("attach a place for layers: %w", err)
	}
	if err := unix.Fchdir(base); err != nil {
		return nil, fmt.Errorf("enter the place for layers: %w", err)
	}
	names := make([]string, len(l))
	for i, lw := range l {
		names[i] = lw.name
		if lw.name == "" || slices.Contains(names[:i], lw.name) {
			names[i] = strconv.Itoa(i + 1)
		}
		if err := unix.Mkdirat(base, names[i], 0o700); err != nil {
			return nil, fmt.Errorf("make a place for layer %s: %w", names[i], err)
		}
		if err := unix.MoveMount(lw.fd, "", base, names[i], unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return nil, fmt.Errorf("attach layer %s: %w", names[i], err)
		}
	}
	return names, nil
}

func setOverlayOptions(c *fsContext, o *Options, x xino, volatile bool) {
	for _, kv := range overlayOptions(o, x) {
		if kv[1] == "" {
			c.setFlag(kv[0])
		} else {
			c.setString(kv[0], kv[1])
		}
	}
	if volatile && o.Upper != "" {
		c.setFlag("volatile")
	}
}

// overlayOptions are the options that keep an upper directory self-contained
// (Documentation/filesystems/overlayfs.rst): no redirects, so that renaming a
// directory of a lower layer gives EXDEV and the program copies it, and none
// followed that a layer brings along; no copied-up metadata without data; no
// index of hard links, which would tie the upper directory to these very mounts.
func overlayOptions(o *Options, x xino) [][2]string {
	source := o.Source
	if source == "" {
		source = "plash"
	}
	if inUserNamespace() {
		// Marks are user.overlay.* (Linux 5.11), and neither redirects nor metacopy
		// may be spoken of.
		return [][2]string{{"source", source}, {"userxattr", ""}, {"index", "off"}, {"xino", string(x)}}
	}
	return [][2]string{
		{"source", source},
		{"redirect_dir", "nofollow"},
		{"metacopy", "off"},
		{"index", "off"},
		{"xino", string(x)},
	}
}

func overlayAttrs(o *Options) int {
	if o.Upper == "" {
		return unix.MOUNT_ATTR_RDONLY
	}
	return 0
}

// mountEmpty gives a detached read-only mount of an empty directory: what a
// container without layers is.
func mountEmpty() (lower, error) {
	c := newFSContext("tmpfs")
	c.setString("source", "plash")
	c.setString("mode", "0755")
	fd, err := c.mount(unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return lower{}, classify(fmt.Errorf("mount an empty directory: %w", err))
	}
	return lower{fd: fd}, nil
}

// openEmpty mounts a container without layers.
func openEmpty(o *Options) (*Mount, error) {
	empty, err := mountEmpty()
	if err != nil {
		return nil, err
	}
	if o.Upper == "" && len(o.Below) == 0 {
		return mountOf(empty.fd), nil
	}
	l := lowers{empty}
	defer l.close()
	return openOverlay(&l, o, xinoOn)
}
