package copytree

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/overlay"
)

// Collect removes the copies of chains that are not to be kept, and returns how many
// bytes that gave back. One that is in use stays, for a later call.
func Collect(s *cas.Store, _, keepChains map[digest.Digest]bool) (freed int64, err error) {
	return removeFree(s, func(chain string) bool {
		return keepChains[digest.NewDigestFromEncoded(digest.SHA256, chain)]
	})
}

// RemoveIdle removes all copies that nobody uses, and returns how many bytes that gave
// back.
func RemoveIdle(s *cas.Store) (freed int64, err error) {
	return removeFree(s, func(string) bool { return false })
}

func removeFree(s *cas.Store, keep func(chain string) bool) (freed int64, err error) {
	dirs, err := list(s, "")
	if err != nil {
		return 0, err
	}
	in := &inhabitants{}
	var errs []error
	for _, dir := range dirs {
		chain, _, _ := strings.Cut(filepath.Base(dir), ".")
		if h, _, err := readManifest(dir); keep(chain) && err == nil && h.Boot == cas.BootID() {
			continue
		}
		lock, err := lockCopy(dir)
		if lock == nil {
			errs = append(errs, err)
			continue
		}
		c := &Copy{store: s, dir: dir, lock: lock}
		if !in.of(c) {
			n, err := c.remove()
			freed += n
			errs = append(errs, err)
		}
		errs = append(errs, lock.Close())
	}
	return freed, errors.Join(errs...)
}

// remove deletes a copy that is free and whose lock the caller has.
func (c *Copy) remove() (freed int64, err error) {
	sc, err := c.store.Scratch("collect")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, sc.Remove()) }()
	// First out of the way at once, so that nobody finds half of it.
	tmp := filepath.Join(sc.Path(), "copy")
	if err := os.Rename(c.dir, tmp); err != nil {
		return 0, fmt.Errorf("remove copy: %w", err)
	}
	// A plain user may not see all of what programs have made in it.
	freed, _ = overlay.DiskUsage(tmp)
	return freed, nil
}
