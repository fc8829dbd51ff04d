package overlay

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// maxPath is how much of a path is given to the kernel at once (PATH_MAX is
// 4096, with the final NUL).
const maxPath = 4000

// openDirBelow opens a directory below root by its clean relative path, of any
// length; "" is the root itself. No component may be a symbolic link.
func openDirBelow(root int, path string) (int, error) {
	fd, owned := root, false
	for {
		part := path
		if len(part) > maxPath {
			part = part[:strings.LastIndexByte(part[:maxPath], '/')]
		}
		next, err := openDirNoLinks(fd, part)
		if owned {
			unix.Close(fd)
		}
		if err != nil {
			return -1, err
		}
		if len(part) == len(path) {
			return next, nil
		}
		fd, owned, path = next, true, path[len(part)+1:]
	}
}

const openDirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

func openDirNoLinks(fd int, path string) (int, error) {
	if path == "" {
		path = "."
	}
	if !strings.Contains(path, "/") {
		return openRetry(fd, path, openDirFlags)
	}
	how := unix.OpenHow{Flags: openDirFlags, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH}
	for {
		next, err := unix.Openat2(fd, path, &how)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN): // EAGAIN: a rename went on meanwhile
			continue
		case errors.Is(err, unix.ENOSYS): // openat2(2) came with Linux 5.6
			return openStepwise(fd, path)
		}
		return next, err
	}
}

func openStepwise(fd int, path string) (int, error) {
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	for name := range strings.SplitSeq(path, "/") {
		if err != nil {
			return -1, err
		}
		var next int
		next, err = openRetry(fd, name, openDirFlags)
		unix.Close(fd)
		fd = next
	}
	return fd, err
}

// openRetry is openat(2), again where a signal came in between: Go's runtime
// sends itself some.
func openRetry(dirfd int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dirfd, name, flags, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}
