package share

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Paths of which a copy can have something else.
const (
	devDir     = "/dev"
	resolvConf = "/etc/resolv.conf"
)

// CanSupply tells whether [Supply] has something to put in the place of the path.
func (b Bind) CanSupply() bool { return b.Path == devDir || b.Path == resolvConf }

// A Supplied is what was put into a copy.
type Supplied struct {
	// Paths are all that a host with mounts would have shared, as they lie in the
	// container: relative to its root, without symbolic links.
	Paths []string
	// Parents are the directories that they lie in.
	Parents []string
}

// Supply puts into a copy of a container's tree, the open directory root, what can be there in the place of mounts: the common devices,
// and the host's resolv.conf. Of the rest there are empty directories, if nothing else.
func Supply(root int, binds []Bind) (*Supplied, error) {
	s := &Supplied{}
	return s, s.all(root, binds, s.stead)
}

// SupplyPlaces makes the places in a copy at which others will show something.
func SupplyPlaces(root int, binds []Bind) (*Supplied, error) {
	s := &Supplied{}
	return s, s.all(root, binds, func(root int, b Bind, _ string, dir bool) error {
		fd, _, err := mountPoint(root, b.Path, dir)
		if err == nil {
			unix.Close(fd)
		}
		return err
	})
}

// all calls put for all paths that the host has, with where each lies in the copy.
func (s *Supplied) all(root int, binds []Bind, put func(root int, b Bind, to string, dir bool) error) error {
	for _, b := range binds {
		fi, err := os.Stat(b.HostPath())
		if err != nil {
			continue // the host does not have it
		}
		to, err := canonical(root, b.Path)
		if err == nil {
			s.Note(to)
			err = put(root, b, to, fi.IsDir())
		}
		if err != nil {
			if !imageLacksPlace(err) {
				return fmt.Errorf("supply %s in the container: %w", b.Path, err)
			}
			b.LeaveOut(err)
		}
	}
	return nil
}

// MakeFile makes an empty file at a canonical path, besides.
func (s *Supplied) MakeFile(root int, name string) error {
	s.Note(name)
	return makePath(root, name, false)
}

// stead puts something in the place of a path that cannot be shared.
func (s *Supplied) stead(root int, b Bind, to string, dir bool) error {
	switch {
	case b.Path == resolvConf:
		return supplyFile(root, to)
	case !dir:
		return nil
	}
	fd, _, err := mountPoint(root, b.Path, true)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if b.Path == devDir {
		return supplyDevices(fd)
	}
	return nil
}

// Note notes a canonical path, and all above it.
func (s *Supplied) Note(to string) {
	s.Paths = append(s.Paths, to)
	for to != "" {
		to = strings.TrimPrefix(path.Dir("/"+to), "/")
		s.Parents = append(s.Parents, to)
	}
}

// supplyFile puts the host's resolv.conf at a canonical path, where another one may be.
func supplyFile(root int, to string) error {
	if !strings.Contains(path.Base(to), "resolv") {
		return fmt.Errorf("%w: /%s", errOtherFile, to)
	}
	src, err := os.Open(resolvConf)
	if err != nil {
		return err
	}
	defer src.Close()
	dir, _, err := mountPoint(root, path.Dir("/"+to), true)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	// Not into the file that is there: it may have other names.
	name := path.Base(to)
	if err := unix.Unlinkat(dir, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = io.Copy(f, src)
	return errors.Join(err, f.Chmod(0o644), f.Close())
}

// devices are the nodes that programs expect to be there.
var devices = []struct {
	name         string
	major, minor uint32
}{
	{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
}

// supplyDevices makes what is missing of the common devices, as far as it is allowed.
// There are no terminals: /dev/pts would have to be mounted.
func supplyDevices(dev int) error {
	for _, d := range devices {
		err := unix.Mknodat(dev, d.name, unix.S_IFCHR|0o666, int(unix.Mkdev(d.major, d.minor)))
		if err == nil {
			err = unix.Fchmodat(dev, d.name, 0o666, 0) // whatever the umask
		}
		if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("make %s: %w", d.name, err)
		}
	}
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := unix.Symlinkat(target, dev, name); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make %s: %w", name, err)
		}
	}
	err := unix.Mkdirat(dev, "shm", 0o1777)
	if err == nil {
		err = unix.Fchmodat(dev, "shm", 0o1777, 0)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make shm: %w", err)
	}
	return nil
}
