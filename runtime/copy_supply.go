package runtime

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

// canSupply tells whether there is something to put in the place of a path.
func (b bind) canSupply() bool { return b.Path == devDir || b.Path == resolvConf }

// A supplied is what was put into a copy.
type supplied struct {
	// paths are all that a host with mounts would have shared, as they lie in the
	// container: relative to its root, without symbolic links.
	paths []string
	// parents are the directories that they lie in.
	parents []string
}

// supply puts into a copy what can be there in the place of mounts: the common devices,
// and the host's resolv.conf. Of the rest there are empty directories, if nothing else.
func supply(root int, binds []bind) (*supplied, error) {
	s := &supplied{}
	return s, s.all(root, binds, s.stead)
}

// supplyPlaces makes the places in a copy at which others will show something.
func supplyPlaces(root int, binds []bind) (*supplied, error) {
	s := &supplied{}
	return s, s.all(root, binds, func(root int, b bind, _ string, dir bool) error {
		fd, _, err := mountPoint(root, b.Path, dir)
		if err == nil {
			unix.Close(fd)
		}
		return err
	})
}

// all calls put for all paths that the host has, with where each lies in the copy.
func (s *supplied) all(root int, binds []bind, put func(root int, b bind, to string, dir bool) error) error {
	for _, b := range binds {
		fi, err := os.Stat(b.source())
		if err != nil {
			continue // the host does not have it
		}
		to, err := canonical(root, b.Path)
		if err == nil {
			s.note(to)
			err = put(root, b, to, fi.IsDir())
		}
		if err != nil {
			if !imageLacksPlace(err) {
				return fmt.Errorf("supply %s in the container: %w", b.Path, err)
			}
			b.leaveOut(err)
		}
	}
	return nil
}

// makeFile makes an empty file at a canonical path, besides.
func (s *supplied) makeFile(root int, name string) error {
	s.note(name)
	return makePath(root, name, false)
}

// stead puts something in the place of a path that cannot be shared.
func (s *supplied) stead(root int, b bind, to string, dir bool) error {
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

// note notes a canonical path, and all above it.
func (s *supplied) note(to string) {
	s.paths = append(s.paths, to)
	for to != "" {
		to = strings.TrimPrefix(path.Dir("/"+to), "/")
		s.parents = append(s.parents, to)
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
