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
func (s *Store) WriteBeside(id ID, name string, content []byte) (err error) {
	p, err := s.locate(id)
	if err != nil {
		return err
	}
	scratch, err := s.cas.Scratch("file")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, scratch.Remove()) }()
	tmp := filepath.Join(scratch.Path(), name)
	if err := os.WriteFile(tmp, content, 0o600); err != nil {
		return err
	}
	return notFound(id, s.withDir(p, unix.O_PATH, func(dir int) error {
		return unix.Renameat(unix.AT_FDCWD, tmp, dir, name)
	}))
}
