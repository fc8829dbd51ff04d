package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// place is where a container lies below containers/: the ids from the empty
// root down to it, as in 0/1/2. A deep one is longer than PATH_MAX (4,096 bytes
// with the final NUL, in every system call), so places are only ever opened
// through openPath.
type place string

func (p place) base() string  { return string(p[strings.LastIndexByte(string(p), '/')+1:]) }
func (p place) parent() place { return p[:max(0, strings.LastIndexByte(string(p), '/'))] }

// depth is the number of layers of the container there.
func (p place) depth() int { return strings.Count(string(p), "/") }

// file names a file in the container's directory, relative to containers/.
func (p place) file(name string) string { return string(p) + "/" + name }

// to is the path from p to a place below it.
func (p place) to(q place) string { return string(q[len(p)+1:]) }

// below lists the places under top on the way down to p, and p itself.
func (p place) below(top place) []place {
	var places []place
	for i := len(top) + 1; i <= len(p); i++ {
		if i == len(p) || p[i] == '/' {
			places = append(places, p[:i])
		}
	}
	return places
}

// in reports whether p is one of some places, or lies below one.
func (p place) in(places []place) bool {
	return len(places) > 0 && slices.ContainsFunc(p.below("0"), func(q place) bool { return slices.Contains(places, q) })
}

// stops are the places on the way down to p that have a chainFile, and p itself.
func (p place) stops() []place {
	var stops []place
	for i, q := range p.below("0") {
		if (i+1)%stretch == 0 || len(q) == len(p) {
			stops = append(stops, q)
		}
	}
	return stops
}

// valid reports whether p could be the place of container id.
func (p place) valid(id ID) bool {
	if id <= 0 || p.base() != id.String() || !strings.HasPrefix(string(p), "0/") {
		return false
	}
	// Ids below the empty root: digits, the first of them not 0.
	prev := byte('/')
	for _, c := range []byte(p[2:]) {
		if c != '/' && (c < '0' || c > '9') || prev == '/' && (c == '/' || c == '0') {
			return false
		}
		prev = c
	}
	return true
}

// idFile is the file that says where a container lies: its place and a newline.
func (s *Store) idFile(id ID) string { return s.path(idsDir, id.String()) }

// locate reads where container id lies. What it says may be gone: a creation that
// did not come to its end, or a removal.
func (s *Store) locate(id ID) (place, error) {
	if id < 0 {
		return "", notFound(id, fs.ErrNotExist)
	}
	b, err := readPath(unix.AT_FDCWD, s.idFile(id))
	if err != nil {
		return "", notFound(id, err)
	}
	p, whole := strings.CutSuffix(string(b), "\n")
	if !whole {
		// Torn by a crash, before the container was published.
		return "", notFound(id, fs.ErrNotExist)
	}
	if !place(p).valid(id) {
		return "", fmt.Errorf("container %d: %w: expected a path that ends in %d, found %.40q", id, ErrDamaged, id, p)
	}
	return place(p), nil
}

// readTree reads the file at rel, relative to containers/.
func (s *Store) readTree(rel string) ([]byte, error) {
	return readPath(unix.AT_FDCWD, s.path(treeDir)+"/"+rel)
}

// withDir calls fn with a descriptor of the directory at p.
func (s *Store) withDir(p place, flags int, fn func(dir int) error) error {
	dir, err := openPath(unix.AT_FDCWD, s.path(treeDir)+"/"+string(p), flags|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	return errors.Join(fn(dir), unix.Close(dir))
}

// readPath reads the whole file at path, relative to dir.
func readPath(dir int, path string) ([]byte, error) {
	fd, err := openPath(dir, path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	b, err := readAll(fd)
	if err != nil {
		err = &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return b, errors.Join(err, unix.Close(fd))
}

// readAll is io.ReadAll without the set-up of an os.File, which would take
// longer than reading a file of this package.
func readAll(fd int) ([]byte, error) {
	b := make([]byte, 0, 1024)
	for {
		n, err := retry(func() (int, error) { return unix.Read(fd, b[len(b):cap(b)]) })
		if n <= 0 || err != nil {
			return b, err
		}
		if b = b[:len(b)+n]; len(b) == cap(b) {
			b = append(b, make([]byte, cap(b))...)[:len(b)]
		}
	}
}

// maxPiece is how much of a path is given to the kernel at once, in bytes.
const maxPiece = unix.PathMax - 1

// openPath opens path, relative to dir (or absolute, with dir AT_FDCWD). It may
// be longer than PATH_MAX: then it is walked in pieces.
func openPath(dir int, path string, flags int) (int, error) {
	at, rest := dir, path
	leave := func() error {
		if at == dir {
			return nil
		}
		return unix.Close(at)
	}
	for {
		piece, how := rest, flags
		if len(rest) > maxPiece {
			cut := strings.LastIndexByte(rest[:maxPiece+1], '/')
			if cut <= 0 {
				return -1, errors.Join(&fs.PathError{Op: "open", Path: path, Err: unix.ENAMETOOLONG}, leave())
			}
			piece, how = rest[:cut], unix.O_PATH|unix.O_DIRECTORY
		}
		fd, err := retry(func() (int, error) { return unix.Openat(at, piece, how|unix.O_CLOEXEC, 0) })
		if err != nil {
			return -1, errors.Join(&fs.PathError{Op: "open", Path: path, Err: err}, leave())
		}
		if err := leave(); err != nil {
			return -1, errors.Join(&fs.PathError{Op: "close", Path: path, Err: err}, unix.Close(fd))
		}
		if len(piece) == len(rest) {
			return fd, nil
		}
		at, rest = fd, strings.TrimLeft(rest[len(piece):], "/")
	}
}

// openDir is openPath for a directory that is to be listed or synced.
func openDir(dir int, path string) (*os.File, error) {
	fd, err := openPath(dir, path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// retry calls fn until no signal interrupts it.
func retry(fn func() (int, error)) (int, error) {
	for {
		n, err := fn()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
