package rootemu

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/overlay"
)

// errElsewhere is the reason that a file has no record: it is not in the upper directory.
var errElsewhere = errors.New("not a file of the upper directory")

// identify finds the file that fd is of in the upper directory.
func (w *worker) identify(fd int) (overlay.FileID, error) {
	_, id, err := w.find(fd)
	return id, err
}

// find finds the path of the file that fd is of, relative to our root, and the file in the upper
// directory. The path is empty if it has none, or is on another filesystem.
func (w *worker) find(fd int) (string, overlay.FileID, error) {
	self, err := placeOf(fd, "")
	if err != nil {
		return "", overlay.FileID{}, err
	}
	b := make([]byte, unix.PathMax+1)
	for range 16 {
		n, err := unix.Readlink(link(fd), b)
		if err != nil || n == len(b) || n == 0 || b[0] != '/' {
			break // ENAMETOOLONG, or a file that is in no directory
		}
		path := strings.TrimPrefix(string(b[:n]), "/")
		if path == "" {
			path = "."
		}
		id, err := overlay.Identify(w.upper, path)
		// If the path is still the file's, it was in between.
		if w.leadsTo(path, self) {
			if err != nil {
				return path, id, errElsewhere
			}
			return path, id, nil
		}
	}
	id, err := w.identifyNameless(fd, self)
	return "", id, err
}

// leadsTo tells whether a path below our root is that of a file.
func (w *worker) leadsTo(path string, file place) bool {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH,
	}
	fd, err := unix.Openat2(w.root, path, &how)
	if errors.Is(err, unix.ENOSYS) { // openat2(2) came with Linux 5.6
		fd, err = openPath(w.root, path, unix.O_NOFOLLOW)
	}
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	found, err := placeOf(fd, "")
	// Not by the mount: a caller may have a mount namespace of its own.
	return err == nil && found.dev == file.dev && found.ino == file.ino
}

// identifyNameless finds a file that has no name, or not the one that it was opened by:
// overlayfs shows such files with the number and the time of birth that they have in the
// upper directory, if they were made there (Documentation/filesystems/overlayfs.rst, "Inode
// properties").
func (w *worker) identifyNameless(fd int, self place) (overlay.FileID, error) {
	if self.dev != w.rootID.dev {
		return overlay.FileID{}, errElsewhere
	}
	id, err := overlay.Identify(fd, "")
	if err != nil || id.BirthSec == 0 {
		return overlay.FileID{}, errElsewhere
	}
	id.Handle = "" // it is overlayfs' own
	return id, nil
}
