package container

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// attachable reports whether a file beside a record may have this name: lower-case letters,
// dots and dashes, beginning with a letter, and not one of the store's own.
func attachable(name string) bool {
	if name == RecordFile || name == chainFile || name == "" || name[0] == '.' || name[0] == '-' {
		return false
	}
	return strings.Trim(name, "abcdefghijklmnopqrstuvwxyz.-") == ""
}

// Attached returns a file that a container got in [CreateOptions] when it was made, byte for
// byte. The error wraps [fs.ErrNotExist] if it has no such file, and
// [ErrNotFound] if there is no such container.
func (s *Store) Attached(id ID, name string) ([]byte, error) {
	if !attachable(name) {
		return nil, fmt.Errorf("container %d: attached %q: not a name for it", id, name)
	}
	if id == 0 {
		return nil, fmt.Errorf("container 0: attached %s: %w", name, fs.ErrNotExist)
	}
	place, err := s.locate(id)
	if err != nil {
		return nil, err
	}
	b, err := s.readTree(place.file(name))
	if !errors.Is(err, fs.ErrNotExist) {
		return b, err
	}
	if there, existsErr := s.exists(id); existsErr != nil {
		return nil, existsErr
	} else if !there {
		return nil, notFound(id, err)
	}
	return nil, fmt.Errorf("container %d: attached %s: %w", id, name, fs.ErrNotExist)
}
