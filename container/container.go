// Package container keeps what plash knows about containers: which layer lies
// on which parent, under which id, and which names and cache keys lead to it.
//
// A container is a directory inside its parent's, containers/0/1/2, with a
// record of what it is. So an image with all that was built on it is removed by
// one rename. How the files look is told in ARCHITECTURE.md, "Containers".
//
// Invariants:
//   - Ids are counted up from 1 and never used twice, whatever was removed and
//     whoever crashed. Container 0 is the empty root and is always there.
//   - A container appears whole, by one rename of its finished directory, and
//     after its layer's blob is durable. What a crash leaves behind is never
//     taken for a container.
//   - A record never changes once it is there; only the time of its file does,
//     which says when the container was last used.
//   - Names and cache keys may point to what is gone: they are then as good as
//     not there, and are swept with the next removal.
//
// It does not know how a layer is made, mounted or exported; blobs and indexes
// belong to package cas, which is told from here what is still needed.
//
// Creating takes the store's shared lock, removing the exclusive one, so nothing
// is created on what is being removed. Callers must not hold either of them
// when they call [Store.Create], [Store.Remove], [Store.Collect] or [Store.Purge].
package container

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/ihucos/plash/cas"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

var (
	// ErrNotFound is wrapped by the error about a container that is not there.
	ErrNotFound = errors.New("no such container")
	// ErrBadID says that an argument is neither a number nor @KEY.
	ErrBadID = errors.New("not a container: neither a number nor @KEY")
	// ErrEmptyRoot says that container 0 was to be removed.
	ErrEmptyRoot = errors.New("the empty root cannot be removed")
	// ErrDamaged is wrapped by the error about a record that cannot be true.
	ErrDamaged = errors.New("damaged record")
)

// ID numbers a container. 0 is the empty root.
type ID int64

func (id ID) String() string { return strconv.FormatInt(int64(id), 10) }

// parseID reads an id in the one form in which ids are written.
func parseID(s string) (ID, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != s {
		return 0, false
	}
	return ID(n), true
}

// Store is the containers of a store. Its methods may be used by any number of
// goroutines and processes at once. It holds no descriptor.
type Store struct {
	cas  *cas.Store
	dir  string
	also []Collector
}

// A Collector removes what a package keeps in the store besides blobs and indexes,
// for layers and chains (ChainIDs of whole stacks) that are not in the maps. It
// is called with the store's lock held alone, and says how many bytes it freed.
type Collector func(s *cas.Store, layers, chains map[digest.Digest]bool) (freed int64, err error)

// The directories and files below the store's directory.
const (
	treeDir  = "containers"
	idsDir   = "ids"
	namesDir = "names"
	cacheDir = "cache"
	locksDir = "locks"
	nextFile = "next-id"
)

// Open returns the containers of a store, and makes the directories that they
// need where they are missing. When blobs are collected, collectors are called
// too.
func Open(cs *cas.Store, also ...Collector) (*Store, error) {
	s := &Store{cas: cs, dir: cs.Dir(), also: also}
	// The last of them to be made tells that all are there.
	if err := unix.Access(s.path(treeDir, "0"), unix.F_OK); err == nil {
		return s, nil
	}
	for _, d := range []string{idsDir, namesDir, cacheDir, locksDir, treeDir, treeDir + "/0"} {
		if err := os.Mkdir(s.path(d), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("open containers: %w", err)
		}
	}
	return s, nil
}

// CAS returns the store that holds the containers' layers.
func (s *Store) CAS() *cas.Store { return s.cas }

// path joins elements to the store's directory.
func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// Get returns the record of a container. The error wraps [ErrNotFound] where
// there is no such container.
func (s *Store) Get(id ID) (Record, error) {
	if id == 0 {
		return Record{}, nil
	}
	place, err := s.locate(id)
	if err != nil {
		return Record{}, err
	}
	b, err := s.readTree(place.file(RecordFile))
	if err != nil {
		return Record{}, notFound(id, err)
	}
	return decodeRecord(b, place)
}

// exists reports whether there is such a container, without reading its record.
func (s *Store) exists(id ID) (bool, error) {
	if id == 0 {
		return true, nil
	}
	place, err := s.locate(id)
	if err == nil {
		err = s.withDir(place, unix.O_PATH, func(dir int) error {
			return unix.Faccessat(dir, RecordFile, unix.F_OK, 0)
		})
		err = notFound(id, err)
	}
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Path returns the directory that records a container: its last component is
// the id, and the ids of its parents stand above it. It may be longer than what
// a system call takes.
func (s *Store) Path(id ID) (string, error) {
	place := place("0")
	if id != 0 {
		var err error
		if place, err = s.locate(id); err != nil {
			return "", err
		}
		if ok, err := s.exists(id); err != nil {
			return "", err
		} else if !ok {
			return "", notFound(id, unix.ENOENT)
		}
	}
	return s.path(treeDir, string(place)), nil
}

// List returns all containers but the empty root, sorted by id. Where records
// cannot be read it returns the others, and an error for each of those.
func (s *Store) List() ([]Record, error) {
	entries, err := os.ReadDir(s.path(idsDir))
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	records := make([]Record, 0, len(entries))
	var damaged []error
	for _, e := range entries {
		id, ok := parseID(e.Name())
		if !ok || id == 0 {
			continue
		}
		r, err := s.Get(id)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			damaged = append(damaged, err)
			continue
		}
		records = append(records, r)
	}
	slices.SortFunc(records, func(a, b Record) int { return cmp.Compare(a.ID, b.ID) })
	return records, errors.Join(damaged...)
}

// Intact reports whether the blob of a container's layer is there, with the size
// that it must have. The content is not looked at.
func (s *Store) Intact(id ID) (bool, error) {
	if id == 0 {
		return true, nil
	}
	r, err := s.Get(id)
	if err != nil {
		return false, err
	}
	fi, err := os.Stat(s.cas.BlobPath(r.Layer))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && fi.Size() == r.Size, err
}

// notFound turns an error about a file that is missing into [ErrNotFound], and
// says in any other which container it is about.
func notFound(id ID, err error) error {
	if err == nil || errors.Is(err, ErrDamaged) { // the latter says which
		return err
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNotFound
	}
	return fmt.Errorf("container %d: %w", id, err)
}
