package output

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// WriteFile makes path hold what write writes. An existing file is replaced
// only when all of it is written and on the disk; an error leaves it as it was
// and nothing beside it. Where there was no file, nothing is lost if the machine
// loses power, and it is as with cp: no one waits for the disk. A pipe or a device at path is written to as it is; a
// symbolic link is followed, also to where no file is yet. What goes wrong with
// the file is a [WriteError].
func WriteFile(path string, write func(io.Writer) error) error {
	mode := os.FileMode(0)
	// Following the link here lets the kernel refuse one that is another user's
	// trap (proc_sys_fs(5), protected_symlinks).
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return writeError(path, err)
	case info.IsDir():
		return writeError(path, unix.EISDIR)
	case info.Mode().IsRegular():
		mode = info.Mode().Perm()
	default:
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return writeError(path, err)
		}
		return errors.Join(write(NewWriter(f, path)), writeError(path, f.Close()))
	}
	return replaceFile(path, mode, func(f *os.File) error { return write(NewWriter(f, path)) })
}

// WriteImage is WriteFile for what is not written from its beginning to its end: path
// must be a regular file, or one that is to be made.
func WriteImage(path string, write func(*Image) error) error {
	mode := os.FileMode(0)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return writeError(path, err)
	case info.IsDir():
		return writeError(path, unix.EISDIR)
	case !info.Mode().IsRegular():
		return writeError(path, errNotRegular)
	default:
		mode = info.Mode().Perm()
	}
	return replaceFile(path, mode, func(f *os.File) error { return write(&Image{f, path}) })
}

// errNotRegular says that a file is one that can only be written from its beginning
// to its end, or has a size of its own.
var errNotRegular = errors.New("not a regular file")

// maxLinks is how many symbolic links the kernel follows in a path, too.
const maxLinks = 40

// followLinks returns where a file is, or would be made, that is opened as path:
// the directory without links, and a name that is none. The paths are not cleaned,
// as a/../b is another place where a is a link.
func followLinks(path string) (string, error) {
	for range maxLinks {
		dir, name := filepath.Split(path)
		if dir == "" {
			dir = "."
		}
		dir, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return "", err
		}
		path = filepath.Join(dir, name)
		link, err := os.Readlink(path)
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, fs.ErrNotExist):
			return path, nil
		case err != nil:
			return "", err
		case filepath.IsAbs(link):
			path = link
		default:
			path = dir + "/" + link
		}
	}
	return "", unix.ELOOP
}

// replaceFile writes a new file and renames it to what the user calls path. mode is
// that of the file it replaces, 0 where there is none.
func replaceFile(path string, mode os.FileMode, write func(*os.File) error) (err error) {
	target, err := followLinks(path)
	if err != nil {
		return writeError(path, err)
	}
	dir, err := os.Open(filepath.Dir(target))
	if err != nil {
		return writeError(path, err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	name := ".plash-" + rand.Text() // not of path's name, which may be as long as names get
	f, named, err := createUnnamed(dir, name)
	if err != nil {
		return writeError(path, err)
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil && named {
			_ = unix.Unlinkat(int(dir.Fd()), name, 0) // it may be renamed already
		}
	}()
	if mode != 0 {
		if err := f.Chmod(mode); err != nil {
			return writeError(path, err)
		}
	}
	if err := write(f); err != nil {
		return err // says itself what it is about
	}
	replaces := mode != 0
	if replaces {
		if err := f.Sync(); err != nil {
			return writeError(path, err)
		}
	}
	if !named {
		if err := linkUnnamed(f, dir, name); err != nil {
			return writeError(path, err)
		}
		named = true
	}
	if err := unix.Renameat(int(dir.Fd()), name, int(dir.Fd()), filepath.Base(target)); err != nil {
		return writeError(path, fmt.Errorf("rename: %w", err))
	}
	if replaces {
		if err := dir.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
			return writeError(path, err)
		}
	}
	return nil
}

// createUnnamed makes a new file in dir, without a name if possible, so that a
// kill leaves nothing behind. named says that it has the name all the same:
// O_TMPFILE is not known to every filesystem (overlayfs since Linux 6.1, NFS
// not), and giving such a file a name needs /proc.
func createUnnamed(dir *os.File, name string) (f *os.File, named bool, err error) {
	flags := unix.O_RDWR | unix.O_CLOEXEC // WriteImage's users read, too
	fd, err := unix.Openat(int(dir.Fd()), ".", flags|unix.O_TMPFILE, 0o666)
	if err == nil {
		f = os.NewFile(uintptr(fd), name)
		if _, err := os.Stat(procPath(f)); err == nil {
			return f, false, nil
		}
		if err := f.Close(); err != nil {
			return nil, false, err
		}
	}
	fd, err = unix.Openat(int(dir.Fd()), name, flags|unix.O_CREAT|unix.O_EXCL, 0o666)
	if err != nil {
		return nil, false, err
	}
	return os.NewFile(uintptr(fd), name), true, nil
}

func linkUnnamed(f, dir *os.File, name string) error {
	err := unix.Linkat(unix.AT_FDCWD, procPath(f), int(dir.Fd()), name, unix.AT_SYMLINK_FOLLOW)
	if err != nil {
		return fmt.Errorf("link: %w", err)
	}
	return nil
}

func procPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }
