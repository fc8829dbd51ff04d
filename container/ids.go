package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/ihucos/plash/cas"
	"golang.org/x/sys/unix"
)

// nextSize is the length of next-id: the next id in decimal, padded with zeros,
// and a newline. As it never changes its length, one write replaces it.
const nextSize = 20 + 1

// allocate takes the next id. The file that it returns, open, has to be synced
// before anything durable has that id, so that the id is not given again after
// a power cut; an id that is never used is lost, and no harm done.
func (s *Store) allocate(ctx context.Context) (ID, *os.File, error) {
	f, err := s.lockFile(ctx, nextFile)
	if err != nil {
		return 0, nil, fmt.Errorf("allocate id: %w", err)
	}
	id, err := s.next(f)
	// Others need not wait for the sync: they sync the same file after they
	// have written a higher number to it.
	err = errors.Join(err, unix.Flock(int(f.Fd()), unix.LOCK_UN))
	if err != nil {
		return 0, nil, errors.Join(fmt.Errorf("allocate id: %w", err), f.Close())
	}
	return id, f, nil
}

// next counts up in the locked file f.
func (s *Store) next(f *os.File) (ID, error) {
	id, ok := readNext(f)
	for {
		if !ok {
			last, err := s.highest()
			if err != nil {
				return 0, err
			}
			id, ok = last+1, true
			if err := cas.SyncDir(s.dir); err != nil {
				return 0, err
			}
		}
		// After a power cut the counter may be older than what was written
		// beside it.
		_, err := os.Lstat(s.idFile(id))
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return 0, err
		}
		ok = false
	}
	_, err := f.WriteAt(fmt.Appendf(nil, "%0*d\n", nextSize-1, id+1), 0)
	return id, err
}

// readNext reads the counter, and whether it makes sense.
func readNext(f *os.File) (ID, bool) {
	b := make([]byte, nextSize+1)
	n, _ := f.ReadAt(b, 0)
	if n != nextSize || b[nextSize-1] != '\n' {
		return 0, false
	}
	digits := bytes.TrimLeft(b[:nextSize-1], "0")
	id, ok := parseID(string(digits))
	return id, ok && id > 0
}

// highest returns the highest id that the store tells of: in ids/, in the tree, and
// as what a name or a cache key points to, which must not come to mean another.
func (s *Store) highest() (ID, error) {
	var high ID
	names, err := readNames(s.path(idsDir))
	if err != nil {
		return 0, err
	}
	for _, n := range names {
		if id, ok := parseID(n); ok {
			high = max(high, id)
		}
	}
	for _, kind := range []string{namesDir, cacheDir} {
		err := s.eachKey(kind, func(_ string, k keyFile) error {
			high = max(high, k.id)
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	err = s.walk(func(p place) error {
		if id, ok := parseID(p.base()); ok {
			high = max(high, id)
		}
		return nil
	})
	return high, err
}

// walk calls fn with the place of every container in the tree, parents first.
func (s *Store) walk(fn func(place) error) error {
	todo := []place{"0"}
	for len(todo) > 0 {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		children, err := s.children(p)
		if err != nil {
			return err
		}
		for _, c := range children {
			if err := fn(c); err != nil {
				return err
			}
		}
		todo = append(todo, children...)
	}
	return nil
}

// children lists the places right below p.
func (s *Store) children(p place) ([]place, error) {
	dir, err := openDir(unix.AT_FDCWD, s.path(treeDir)+"/"+string(p))
	if err != nil {
		return nil, err
	}
	names, err := dir.Readdirnames(-1)
	if err = errors.Join(err, dir.Close()); err != nil {
		return nil, fmt.Errorf("list container %s: %w", p.base(), err)
	}
	var children []place
	for _, n := range names {
		if id, ok := parseID(n); ok && id > 0 {
			children = append(children, place(p.file(n)))
		}
	}
	return children, nil
}

func readNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	return names, errors.Join(err, d.Close())
}

// lockFile opens the file at rel below the store's directory, makes it if need
// be, and waits until it has it locked alone. It makes sure that it is still
// that file when the lock is there: it might have been removed while waiting.
func (s *Store) lockFile(ctx context.Context, rel string) (*os.File, error) {
	path := s.path(rel)
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, err
		}
		if err := cas.Flock(ctx, f, unix.LOCK_EX); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		same, err := sameFile(f, path)
		if same {
			return f, nil
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
}

// sameFile reports whether path still leads to the open file f.
func sameFile(f *os.File, path string) (bool, error) {
	open, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(open, named), err
}
