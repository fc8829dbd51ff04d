package share

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links a path may lead through, as in the kernel.
const maxLinks = 40

// OpenInside opens a path of a container, whose root is the open directory root, with flags as for
// open(2). Absolute symbolic links and ".." stay inside root (openat2 since Linux 5.6).
func OpenInside(root int, path string, flags uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_CLOEXEC | flags,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(root, path, &how)
		// EAGAIN: something was renamed meanwhile, and ".." could not be trusted.
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// mountPoint opens a path of a container to mount something on it, and makes it
// where it is missing: a directory, or an empty file.
func mountPoint(root int, path string, dir bool) (fd int, made bool, err error) {
	fd, err = OpenInside(root, path, unix.O_PATH)
	if !errors.Is(err, unix.ENOENT) {
		return fd, false, err
	}
	to, err := canonical(root, path)
	if err != nil {
		return -1, false, err
	}
	if err := makePath(root, to, dir); err != nil {
		return -1, false, err
	}
	fd, err = OpenInside(root, path, unix.O_PATH)
	return fd, true, err
}

// canonical is where a path of a container leads: without symbolic links, "."
// and "..", relative to root. What it leads to, and directories on the way to
// it, need not exist; dangling links are followed.
func canonical(root int, name string) (string, error) {
	at, rest, links := "", name, 0
	for rest != "" {
		var elem string
		elem, rest, _ = strings.Cut(rest, "/")
		switch elem {
		case "", ".":
			continue
		case "..":
			at = strings.TrimPrefix(path.Dir("/"+at), "/")
			continue
		}
		next := path.Join(at, elem)
		target, err := readlinkInside(root, next)
		switch {
		case err == nil:
			if links++; links > maxLinks {
				return "", unix.ELOOP
			}
			if strings.HasPrefix(target, "/") {
				at = ""
			}
			rest = target + "/" + rest
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT): // no link, or nothing
			at = next
		default:
			return "", err
		}
	}
	return at, nil
}

// readlinkInside reads a symbolic link; EINVAL if it is something else.
func readlinkInside(root int, name string) (string, error) {
	fd, err := OpenInside(root, name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var buf [unix.PathMax]byte
	n, err := unix.Readlinkat(fd, "", buf[:])
	if errors.Is(err, unix.ENOENT) {
		err = unix.EINVAL // what the kernel says of an O_PATH descriptor that is no link
	}
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// makePath makes the canonical path name below root, with its parents: a
// directory, or an empty file. It enters no other mount than root's, so that
// nothing is ever made in a directory that the host shares.
func makePath(root int, name string, dir bool) error {
	at, err := unix.Openat(root, ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { unix.Close(at) }()
	for name != "" {
		var elem string
		elem, name, _ = strings.Cut(name, "/")
		if name == "" && !dir {
			return makeFile(at, elem)
		}
		next, err := makeDir(at, elem)
		if err != nil {
			return err
		}
		unix.Close(at)
		at = next
	}
	return nil
}

func makeDir(parent int, name string) (int, error) {
	err := unix.Mkdirat(parent, name, 0o755)
	if err == nil {
		// The caller's umask is not meant for this.
		err = unix.Fchmodat(parent, name, 0o755, 0)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, fmt.Errorf("make directory %s: %w", name, err)
	}
	return unix.Openat2(parent, name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH,
	})
}

func makeFile(parent int, name string) error {
	fd, err := unix.Openat(parent, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		if errors.Is(err, unix.EEXIST) {
			return nil
		}
		return fmt.Errorf("make file %s: %w", name, err)
	}
	return errors.Join(unix.Fchmod(fd, 0o644), unix.Close(fd))
}

// Skeleton makes the mount points for binds that the container with the given root lacks, in an
// empty directory that dir makes if there are any. It returns the directory, or "".
func Skeleton(root int, binds []Bind, dir func() (string, error)) (made string, err error) {
	for _, b := range binds {
		fi, err := os.Stat(b.HostPath())
		if err != nil {
			continue // mounting it will tell, if it matters
		}
		fd, err := OpenInside(root, b.Path, unix.O_PATH)
		if err == nil {
			unix.Close(fd)
			continue
		}
		var to string
		if errors.Is(err, unix.ENOENT) {
			to, err = canonical(root, b.Path)
		}
		if b.Optional && imageLacksPlace(err) {
			continue // mounting it will tell
		}
		if err != nil {
			return "", fmt.Errorf("look for %s in the container: %w", b.Path, err)
		}
		if made == "" {
			if made, err = dir(); err != nil {
				return "", err
			}
		}
		if err := makeIn(made, to, fi.IsDir()); err != nil {
			return "", fmt.Errorf("make mount point for %s: %w", b.Path, err)
		}
	}
	return made, nil
}

func makeIn(dir, name string, isDir bool) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return makePath(fd, name, isDir)
}
