package container

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Beside the record of a container others may keep a file of derived data, which
// goes with it. It is not synced: whoever reads it has to tell a torn one.

// ReadBeside returns the file of that name in the directory of a container.
func (s *Store) ReadBeside(id ID, name string) ([]byte, error) {
	p, err := s.locate(id)
	if err != nil {
		return nil, err
	}
	b, err := s.readTree(p.file(name))
	return b, notFound(id, err)
}

// PathBeside returns the path of the file of that name in the directory of a container.
func (s *Store) PathBeside(id ID, name string) (string, error) {
	p, err := s.locate(id)
	if err != nil {
		return "", err
	}
	return s.path(treeDir) + "/" + p.file(name), nil
}

// WriteBeside replaces the file of that name in the directory of a container.
func (s *Store) WriteBeside(id ID, name string, content []byte) error {
	p, err := s.locate(id)
	if err != nil {
		return err
	}
	return notFound(id, s.writeIn(p, name, content, 0o600, false))
}

// writeIn replaces a file in the directory of the container at a place, durably or not.
func (s *Store) writeIn(p place, name string, content []byte, mode os.FileMode, durable bool) (err error) {
	scratch, err := s.cas.Scratch("file")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, scratch.Remove()) }()
	tmp := filepath.Join(scratch.Path(), name)
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil && durable {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	dir, err := openDir(unix.AT_FDCWD, s.path(treeDir)+"/"+string(p))
	if err != nil {
		return err
	}
	err = unix.Renameat(unix.AT_FDCWD, tmp, int(dir.Fd()), name)
	if err == nil && durable {
		err = syncFile(dir)
	}
	return errors.Join(err, dir.Close())
}
