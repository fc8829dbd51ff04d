package importexport

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
// and nothing beside it. A pipe or a device at path is written to as it is; a
// symbolic link is followed.
func WriteFile(path string, write func(io.Writer) error) error {
	target, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		target, err = path, nil
	}
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	info, err := os.Stat(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return replaceFile(target, 0, write)
	case err != nil:
		return fmt.Errorf("write: %w", err)
	case info.IsDir():
		return fmt.Errorf("write %s: %w", path, unix.EISDIR)
	case info.Mode().IsRegular():
		return replaceFile(target, info.Mode().Perm(), write)
	}
	f, err := os.OpenFile(target, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return errors.Join(write(f), f.Close())
}

// replaceFile writes a new file and renames it to path. mode is that of the
// file it replaces, 0 where there is none.
func replaceFile(path string, mode os.FileMode, write func(io.Writer) error) (err error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	name := ".plash-" + rand.Text() // not of path's name, which may be as long as names get
	f, named, err := createUnnamed(dir, name)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil && named {
			_ = unix.Unlinkat(int(dir.Fd()), name, 0) // it may be renamed already
		}
	}()
	if mode != 0 {
		if err := f.Chmod(mode); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	if err := write(f); err != nil {
		return err // says itself what it is about
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if !named {
		if err := linkUnnamed(f, dir, name); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
		named = true
	}
	if err := unix.Renameat(int(dir.Fd()), name, int(dir.Fd()), filepath.Base(path)); err != nil {
		return fmt.Errorf("write %s: rename: %w", path, err)
	}
	if err := dir.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// createUnnamed makes a new file in dir, without a name if possible, so that a
// kill leaves nothing behind. named says that it has the name all the same:
// O_TMPFILE is not known to every filesystem (overlayfs since Linux 6.1, NFS
// not), and giving such a file a name needs /proc.
func createUnnamed(dir *os.File, name string) (f *os.File, named bool, err error) {
	flags := unix.O_WRONLY | unix.O_CLOEXEC
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
