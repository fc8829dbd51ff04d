package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/ihucos/plash/cas"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Remove removes containers with their descendants, and frees the blobs that no
// one needs any more. If one of them is not there, nothing is removed and the
// error wraps [ErrNotFound]. Who has one mounted goes on having it.
func (s *Store) Remove(ctx context.Context, ids ...ID) error {
	for _, id := range ids {
		if id == 0 {
			return fmt.Errorf("remove container 0: %w", ErrEmptyRoot)
		}
	}
	_, err := s.exclusively(ctx, func(bin string) error {
		places := make([]place, 0, len(ids))
		for _, id := range ids {
			if _, err := s.Get(id); errors.Is(err, ErrNotFound) {
				return err
			}
			p, err := s.locate(id)
			if err != nil {
				return err
			}
			places = append(places, p)
		}
		_, err := s.takeOut(places, bin)
		return err
	})
	if err != nil {
		return fmt.Errorf("remove containers: %w", err)
	}
	return nil
}

// takeOut moves the containers there into bin, with their descendants, takes away what
// leads to them, and returns their ids. The caller holds the exclusive lock.
func (s *Store) takeOut(places []place, bin string) (map[ID]bool, error) {
	gone, err := s.unhook(places, bin)
	if err != nil {
		return nil, err
	}
	for id := range gone {
		if err := os.Remove(s.idFile(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return gone, s.sweepKeys(func(id ID) (bool, error) { return !gone[id], nil })
}

// Collect removes what crashes left behind, names and keys that lead nowhere, and
// blobs and indexes that no container needs. It returns how many bytes of disk
// it freed.
func (s *Store) Collect(ctx context.Context) (freed int64, err error) {
	freed, err = s.exclusively(ctx, func(string) error {
		if err := s.sweepIDs(); err != nil {
			return err
		}
		return s.sweepKeys(s.exists)
	})
	if err != nil {
		return freed, fmt.Errorf("collect garbage: %w", err)
	}
	return freed, nil
}

// Purge removes all containers, names and cache keys, and what repairs have put aside. Ids go
// on from where they were.
func (s *Store) Purge(ctx context.Context) error {
	_, err := s.exclusively(ctx, func(bin string) error {
		top, err := s.children("0")
		if err != nil {
			return err
		}
		if _, err := s.unhook(top, bin); err != nil {
			return err
		}
		if err := os.Rename(s.path(asideDir), filepath.Join(bin, asideDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := s.sweepIDs(); err != nil {
			return err
		}
		return s.sweepKeys(func(ID) (bool, error) { return false, nil })
	})
	if err != nil {
		return fmt.Errorf("purge: %w", err)
	}
	return nil
}

// exclusively calls fn with the exclusive lock held and with an empty scratch
// directory, then frees what no container needs. The scratch directory, with
// what fn moved there, is deleted when others can go on.
func (s *Store) exclusively(ctx context.Context, fn func(bin string) error) (freed int64, err error) {
	scratch, err := s.cas.Scratch("remove")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, scratch.Remove()) }()
	unlock, err := s.cas.LockExclusive(ctx)
	if err != nil {
		return 0, err
	}
	defer unlock()
	if err := fn(scratch.Path()); err != nil {
		return 0, err
	}
	layers, chains, err := s.needed(nil)
	if err != nil {
		return 0, fmt.Errorf("blobs are kept: %w", err)
	}
	freed, err = s.cas.Collect(layers, chains)
	for _, collect := range s.also {
		n, cerr := collect(s.cas, layers, chains)
		freed, err = freed+n, errors.Join(err, cerr)
	}
	return freed, err
}

// needed returns the layers and chains of all containers in the tree, but for those at some
// places and what stands on them. That a single record cannot be read is an error: its blobs may
// be good.
func (s *Store) needed(without []place) (layers, chains map[digest.Digest]bool, err error) {
	layers, chains = map[digest.Digest]bool{}, map[digest.Digest]bool{}
	err = s.walk(func(p place) error {
		if p.in(without) {
			return nil
		}
		b, err := s.readTree(p.file(RecordFile))
		if err != nil {
			return fmt.Errorf("container %s: %w", p.base(), err)
		}
		r, err := decodeRecord(b, p)
		if err != nil {
			return err
		}
		layers[r.Layer], chains[r.Chain] = true, true
		return nil
	})
	return layers, chains, err
}

// unhook moves containers out of the tree into the directory bin, durably, and
// returns the ids of all that went with them. They may lie in one another.
func (s *Store) unhook(places []place, bin string) (map[ID]bool, error) {
	places = outermost(places)
	for _, p := range places {
		if err := s.unhookOne(p, bin); err != nil {
			return nil, err
		}
	}
	if err := cas.SyncDir(bin); err != nil {
		return nil, err
	}
	gone := map[ID]bool{}
	todo := make([]string, 0, len(places))
	for _, p := range places {
		todo = append(todo, p.base())
	}
	// The tree is made flat on the way: paths stay short, and no one who
	// deletes it needs as many descriptors as it was deep.
	for len(todo) > 0 {
		name := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		id, ok := parseID(name)
		if !ok {
			continue
		}
		gone[id] = true
		inside, err := readNames(filepath.Join(bin, name))
		if err != nil {
			return nil, err
		}
		for _, n := range inside {
			if _, ok := parseID(n); !ok {
				continue
			}
			if err := os.Rename(filepath.Join(bin, name, n), filepath.Join(bin, n)); err != nil {
				return nil, err
			}
			todo = append(todo, n)
		}
	}
	return gone, nil
}

// unhookOne renames one container's directory into bin. The removal is on disk
// before any blob is freed: else a power cut could bring back a container
// whose layer is gone.
func (s *Store) unhookOne(p place, bin string) error {
	parent, err := openDir(unix.AT_FDCWD, s.path(treeDir)+"/"+string(p.parent()))
	if err != nil {
		return err
	}
	to := filepath.Join(bin, p.base())
	err = unix.Renameat(int(parent.Fd()), p.base(), unix.AT_FDCWD, to)
	if err == nil {
		err = syncFile(parent)
	} else {
		err = &os.LinkError{Op: "rename", Old: p.base(), New: to, Err: err}
	}
	return errors.Join(err, parent.Close())
}

// outermost leaves out the places that lie in another one or are there twice.
func outermost(places []place) []place {
	all := map[place]bool{}
	for _, p := range places {
		all[p] = true
	}
	var outer []place
	for p := range all {
		if above := p.parent().below("0"); !slices.ContainsFunc(above, func(a place) bool { return all[a] }) {
			outer = append(outer, p)
		}
	}
	slices.Sort(outer)
	return outer
}

// sweepIDs removes the files in ids/ whose containers are not there. The caller
// holds the exclusive lock: else such a container might just be appearing.
func (s *Store) sweepIDs() error {
	names, err := readNames(s.path(idsDir))
	if err != nil {
		return err
	}
	for _, n := range names {
		if id, ok := parseID(n); ok && id > 0 {
			if ok, err := s.exists(id); ok || err != nil {
				if err != nil {
					return err
				}
				continue
			}
		}
		if err := os.RemoveAll(s.path(idsDir, n)); err != nil {
			return err
		}
	}
	return nil
}

// sweepKeys removes the names and cache keys whose containers keep rejects.
func (s *Store) sweepKeys(keep func(ID) (bool, error)) error {
	for _, kind := range []string{namesDir, cacheDir} {
		err := s.eachKey(kind, func(rel string, k keyFile) error {
			ok, err := keep(k.id)
			if ok || err != nil {
				return err
			}
			return os.Remove(s.path(rel))
		})
		if err != nil {
			return err
		}
	}
	return nil
}
