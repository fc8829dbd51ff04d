package rootemu

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/overlay"
)

// errElsewhere is the reason that a file has no record: it is not in the upper directory.
var errElsewhere = errors.New("not a file of the upper directory")

// identify finds the file that fd is of in the upper directory, where it is, unless it is on another
// filesystem.
func (w *worker) identify(fd int) (overlay.FileID, error) {
	_, id, err := w.find(fd, true)
	return id, err
}

// find finds the path of the file that fd is of, relative to our root, and the file in the upper
// directory; it must be there, or may be in the layers below. The path is empty if it has none, or
// is on another filesystem.
func (w *worker) find(fd int, must bool) (string, overlay.FileID, error) {
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
		if !w.leadsTo(path, self) {
			continue
		}
		if err == nil && (self.born == birth{} || self.born == born(id)) {
			return path, id, nil
		}
		if err != nil && !must {
			return path, id, errElsewhere
		}
		w.settle(path)
	}
	id, err := w.identifyNameless(fd, self)
	return "", id, err
}

// settle waits for a rename in the directory of path that is going on: overlayfs has the file
// at its new place in the upper directory some moments before it has it there itself. Looking up a name that
// nobody has looked up before waits for the directory's lock (fs/namei.c, lookup_slow).
func (w *worker) settle(path string) {
	var st unix.Stat_t
	name := fmt.Sprintf("%s/.plash-%d", filepath.Dir(path), w.lookups.Add(1))
	_ = unix.Fstatat(w.root, name, &st, unix.AT_SYMLINK_NOFOLLOW)
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
	if self.dev != w.rootID.dev || self.born == (birth{}) {
		return overlay.FileID{}, errElsewhere
	}
	id, err := overlay.Identify(fd, "")
	if err != nil {
		return overlay.FileID{}, errElsewhere
	}
	id.Handle = "" // it is overlayfs' own
	return id, nil
}
