package container

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A keyFile says which container a name or a cache key stands for. As those
// may be any bytes, of any number, the file is called after their hash, and
// holds the id on a line and then the key itself, to its end.
type keyFile struct {
	id  ID
	key string
}

// noID is the id of no container.
const noID ID = -1

func (k keyFile) encode() []byte { return []byte(k.id.String() + "\n" + k.key) }

func decodeKey(b []byte) (keyFile, bool) {
	num, key, ok := strings.Cut(string(b), "\n")
	if !ok {
		return keyFile{}, false
	}
	id, ok := parseID(num)
	return keyFile{id, key}, ok
}

// hashName is the name of the file for a key of any bytes.
func hashName(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// keyPath is where the container of a key is written down, below the store's directory.
func keyPath(kind, key string) string { return kind + "/" + hashName(key) }

// Lookup returns the container that a cache key stands for. It reports false if
// there is none, or it was removed since.
func (s *Store) Lookup(key string) (ID, bool, error) { return s.lookup(cacheDir, key) }

// SetKey makes a cache key stand for a container.
func (s *Store) SetKey(key string, id ID) error {
	if err := s.set(cacheDir, key, id); err != nil {
		return fmt.Errorf("set cache key %.40q: %w", key, err)
	}
	return nil
}

// Name returns the container that a name stands for. It reports false if there
// is none, or it was removed since.
func (s *Store) Name(name string) (ID, bool, error) { return s.lookup(namesDir, name) }

// SetName makes a name, of any bytes, stand for a container.
func (s *Store) SetName(name string, id ID) error {
	if err := s.set(namesDir, name, id); err != nil {
		return fmt.Errorf("set name %q: %w", name, err)
	}
	return nil
}

// DeleteName makes a name stand for nothing. It may do so already.
func (s *Store) DeleteName(name string) error {
	err := os.Remove(s.path(keyPath(namesDir, name)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete name %q: %w", name, err)
	}
	return nil
}

// Named is a name and what it stands for.
type Named struct {
	Name string
	ID   ID
}

// Names returns all names of containers that are there, sorted.
func (s *Store) Names() ([]Named, error) {
	var names []Named
	err := s.eachKey(namesDir, func(_ string, k keyFile) error {
		ok, err := s.exists(k.id)
		if ok {
			names = append(names, Named{k.key, k.id})
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list names: %w", err)
	}
	slices.SortFunc(names, func(a, b Named) int { return cmp.Compare(a.Name, b.Name) })
	return names, nil
}

// Resolve returns the container that a command's argument stands for: a number,
// or @ and a name. The error wraps [ErrNotFound] if there is no such container,
// and [ErrBadID] if the argument is neither.
func (s *Store) Resolve(arg string) (ID, error) {
	if name, ok := strings.CutPrefix(arg, "@"); ok && name != "" {
		id, ok, err := s.Name(name)
		if err == nil && !ok {
			err = ErrNotFound
		}
		if err != nil {
			return 0, fmt.Errorf("container %s: %w", arg, err)
		}
		return id, nil
	}
	if arg == "" || strings.Trim(arg, "0123456789") != "" {
		return 0, fmt.Errorf("%q: %w", arg, ErrBadID)
	}
	// A number that is too long for an id is one all the same, that nothing has.
	id, ok := parseID(cmp.Or(strings.TrimLeft(arg, "0"), "0"))
	if ok {
		var err error
		if ok, err = s.exists(id); err != nil {
			return 0, err
		}
	}
	if !ok {
		return 0, fmt.Errorf("container %s: %w", arg, ErrNotFound)
	}
	return id, nil
}

func (s *Store) lookup(kind, key string) (ID, bool, error) {
	b, err := readPath(unix.AT_FDCWD, s.path(keyPath(kind, key)))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("look up %.40q: %w", key, err)
	}
	k, ok := decodeKey(b)
	if !ok || k.key != key {
		// Torn by a power cut.
		return 0, false, nil
	}
	if ok, err = s.exists(k.id); !ok || err != nil {
		return 0, false, err
	}
	return k.id, true, nil
}

func (s *Store) set(kind, key string, id ID) error {
	ok, err := s.exists(id)
	if err != nil {
		return err
	}
	if !ok {
		return notFound(id, fs.ErrNotExist)
	}
	return s.cas.WriteFile(keyPath(kind, key), keyFile{id, key}.encode())
}

// eachKey calls fn with each name (or cache key), and its file's path below the
// store's directory. Files that make no sense, as those torn by a power cut, have the id noID.
func (s *Store) eachKey(kind string, fn func(rel string, k keyFile) error) error {
	files, err := readNames(s.path(kind))
	if err != nil {
		return err
	}
	for _, name := range files {
		rel := kind + "/" + name
		b, err := readPath(unix.AT_FDCWD, s.path(rel))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		k, ok := decodeKey(b)
		if !ok || name != hashName(k.key) {
			k = keyFile{id: noID}
		}
		if err := fn(rel, k); err != nil {
			return err
		}
	}
	return nil
}

// LockKey waits until no one else has a key locked, and locks it: who is about
// to build what a cache key stands for looks it up once more afterwards. The
// lock ends with unlock, or with the process.
func (s *Store) LockKey(ctx context.Context, key string) (unlock func(), err error) {
	rel := locksDir + "/" + hashName(key)
	f, err := s.lockFile(ctx, rel)
	if err != nil {
		return nil, fmt.Errorf("lock cache key %.40q: %w", key, err)
	}
	return sync.OnceFunc(func() {
		// The file is removed while it is locked: whoever waits for it sees
		// that it is not the one of that name any more. What cannot be removed
		// does no harm.
		os.Remove(s.path(rel))
		// A child that was just forked may have the descriptor for a moment.
		unix.Flock(int(f.Fd()), unix.LOCK_UN)
		f.Close()
	}), nil
}
