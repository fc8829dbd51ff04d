// Package cas is plash's store: layers as tar blobs under the sha256 of their
// uncompressed bytes, and for each an index that says where every file lies
// in it.
//
// Invariants:
//   - A blob is published whole or not at all: it is written to a file without
//     a name, synced, and linked to its digest. It is never changed afterwards.
//   - A digest is computed from the very bytes that are written, while they
//     stream; nothing is read a second time to be verified.
//   - An index is derived data. It carries a checksum that is verified each time
//     it is opened, and is built again from its blob when it is lost or damaged.
//
// What refers to a blob (containers) is not known here: garbage collection is
// told what to keep. Locks order the two, see [Store.LockShared].
package cas

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// formatVersion is the content of the file "version" of a store. A store of
// another version is refused.
const formatVersion = "plash-store 1\n"

var (
	// ErrNoStore says that there is no store at a path.
	ErrNoStore = errors.New("no plash store")
	// ErrNotEmpty says that a directory which is to become a store has something else
	// in it.
	ErrNotEmpty = errors.New("not a plash store, and not empty")
	// ErrFormat says that a store was made by an incompatible version of plash.
	ErrFormat = errors.New("unknown store format")
	// ErrNotExist says that the store does not hold a blob.
	ErrNotExist = errors.New("not in the store")
	// ErrDigest says that content is not what its digest promises.
	ErrDigest = errors.New("digest mismatch")
)

// Store is an open store. Its methods may be used by any number of goroutines,
// and any number of processes may have the same store open.
type Store struct {
	dir string
}

// storeDirs are the directories that a store always has.
var storeDirs = []string{"blobs/sha256", "index/sha256", "index/chain", "mnt", "scratch"}

// Init makes a store at dir, with missing parent directories. It is safe to
// repeat, and safe if two processes do it at once. The error wraps [ErrNotEmpty]
// if dir holds what is not plash's.
func Init(dir string) error {
	if s, err := Open(dir); err == nil {
		return s.makeDirs()
	} else if !errors.Is(err, ErrNoStore) {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make store: %w", err)
	}
	s := &Store{dir: dir}
	if err := s.checkEmpty(); err != nil {
		return fmt.Errorf("make store %s: %w", dir, err)
	}
	if err := s.makeDirs(); err != nil {
		return err
	}
	return s.WriteFile("version", []byte(formatVersion))
}

// checkEmpty makes sure that there is nothing in the directory but what an Init leaves
// that was killed, or that is at work at the same time.
func (s *Store) checkEmpty() error {
	return filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || path == s.dir {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(s.dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			for _, own := range storeDirs {
				if own == rel || strings.HasPrefix(own, rel+"/") {
					return nil
				}
			}
		} else if _, ok := parseScratchName(d.Name()); rel == "version" || ok && filepath.Dir(rel) == scratchDir {
			return nil
		}
		return fmt.Errorf("%w: %s is in it", ErrNotEmpty, rel)
	})
}

func (s *Store) makeDirs() error {
	for _, d := range storeDirs {
		if err := os.MkdirAll(filepath.Join(s.dir, d), 0o755); err != nil {
			return fmt.Errorf("make store: %w", err)
		}
	}
	return nil
}

// Open opens the store at dir. The error wraps [ErrNoStore] where nothing is
// there, [ErrFormat] where it is of another version.
func Open(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "version"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("open store %s: %w", dir, ErrNoStore)
	case err != nil:
		return nil, fmt.Errorf("open store: %w", err)
	case string(b) != formatVersion:
		return nil, fmt.Errorf("open store %s: %w: expected %q, found %q", dir, ErrFormat,
			strings.TrimSpace(formatVersion), strings.TrimSpace(string(b)))
	}
	return &Store{dir: dir}, nil
}

// Dir returns the absolute path of the store.
func (s *Store) Dir() string { return s.dir }

// MountPoint returns an empty directory of the store for mounts in private mount
// namespaces. Nothing is ever mounted there where others see it.
func (s *Store) MountPoint() (string, error) {
	dir := s.path("mnt")
	if err := unix.Access(dir, unix.F_OK); err == nil {
		return dir, nil
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("make mount point: %w", err)
	}
	return dir, nil
}

// path joins elements to the store's directory.
func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// WriteFile durably replaces the file at rel, a path below the store's
// directory: readers see the old content or the new one, also after a crash.
func (s *Store) WriteFile(rel string, content []byte) error {
	if err := s.write(rel, content, (*os.File).Sync); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(s.path(rel)))
}

// WriteHint replaces a file as WriteFile does, for what can be found out again: after a crash of
// the machine it may be gone, or torn.
func (s *Store) WriteHint(rel string, content []byte) error {
	return s.write(rel, content, func(*os.File) error { return nil })
}

func (s *Store) write(rel string, content []byte, sync func(*os.File) error) error {
	tmp := s.path("scratch", s.scratchName("file"))
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return fmt.Errorf("write %s: %w", rel, err)
	}
	_, err = f.Write(content)
	if err == nil {
		err = sync(f)
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(tmp, s.path(rel))
	}
	if err != nil {
		os.Remove(tmp)
		return fmt.Errorf("write %s: %w", rel, err)
	}
	return nil
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	err = d.Sync()
	// Some network filesystems cannot sync a directory and say so.
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		err = nil
	}
	if err = errors.Join(err, d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

// LockShared takes the store's lock together with other users of it. It is
// held from publishing a blob until something refers to it, and while a
// container is looked up and mounted, so that garbage collection does not take
// away what is about to be used. Hold it shortly: collection waits for it.
func (s *Store) LockShared(ctx context.Context) (unlock func(), err error) {
	return s.lock(ctx, unix.LOCK_SH)
}

// LockExclusive takes the store's lock alone, for garbage collection.
func (s *Store) LockExclusive(ctx context.Context) (unlock func(), err error) {
	return s.lock(ctx, unix.LOCK_EX)
}

// lock takes the file "lock" by way of the file "lock.gate", which is held only
// while waiting. Whoever wants the lock alone closes the gate to all who come
// later: without it, users that overlap would keep it waiting for ever. So a
// process that has the lock must not ask for it again.
func (s *Store) lock(ctx context.Context, how int) (func(), error) {
	gate, err := s.lockFile(ctx, "lock.gate", how)
	if err != nil {
		return nil, err
	}
	f, err := s.lockFile(ctx, "lock", how)
	if err = errors.Join(err, gate.Close()); err != nil {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
		return nil, err
	}
	// Closing the only descriptor of an open file gives its lock back.
	return func() { f.Close() }, nil
}

func (s *Store) lockFile(ctx context.Context, name string, how int) (*os.File, error) {
	// Reading is enough to lock, so that a store can be read that cannot be written.
	f, err := os.OpenFile(s.path(name), os.O_RDONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.OpenFile(s.path(name), os.O_RDONLY|os.O_CREATE|unix.O_CLOEXEC, 0o644)
	}
	if err != nil {
		return nil, fmt.Errorf("lock store: %w", err)
	}
	if err := Flock(ctx, f, how); err != nil {
		return nil, errors.Join(fmt.Errorf("lock store: %w", err), f.Close())
	}
	return f, nil
}

// Flock locks an open file, as flock(2) with how LOCK_SH or LOCK_EX, and waits
// for it until ctx is done. The lock goes with the descriptor.
func Flock(ctx context.Context, f *os.File, how int) error {
	for wait := 500 * time.Microsecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("flock %s: %w", f.Name(), err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// ChainID is the digest that stands for a stack of layers, bottom first, as in
// the OCI image specification, config.md, "Layer ChainID". It is empty for
// no layers.
func ChainID(layers []digest.Digest) digest.Digest {
	var chain digest.Digest
	for _, l := range layers {
		chain = NextChainID(chain, l)
	}
	return chain
}

// NextChainID is the ChainID of layer on top of a stack whose ChainID is parent.
func NextChainID(parent, layer digest.Digest) digest.Digest {
	if parent == "" {
		return layer
	}
	return digest.SHA256.FromString(string(parent) + " " + string(layer))
}
