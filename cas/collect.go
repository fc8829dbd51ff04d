package cas

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Collect deletes the blobs of layers that are not to be kept, and the indexes of
// layers and chains that are not, and returns how many bytes that gave back.
// The caller holds the store's lock alone. What is mounted or open stays
// usable: the kernel keeps the files until they are closed.
func (s *Store) Collect(keepLayers, keepChains map[digest.Digest]bool) (freed int64, err error) {
	for _, c := range []struct {
		dir, suffix string
		keep        map[digest.Digest]bool
	}{
		{"index/chain", ".erofs", keepChains},
		{"index/sha256", ".erofs", keepLayers},
		{"blobs/sha256", "", keepLayers},
	} {
		n, e := s.collectDir(c.dir, c.suffix, c.keep)
		freed += n
		err = errors.Join(err, e)
	}
	return freed, err
}

func (s *Store) collectDir(dir, suffix string, keep map[digest.Digest]bool) (freed int64, err error) {
	entries, err := os.ReadDir(s.path(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("collect %s: %w", dir, err)
	}
	for _, e := range entries {
		hex, ok := strings.CutSuffix(e.Name(), suffix)
		if ok && keep[digest.NewDigestFromEncoded(digest.SHA256, hex)] {
			continue
		}
		fi, ierr := e.Info()
		rerr := os.Remove(s.path(dir, e.Name()))
		if rerr == nil && ierr == nil {
			freed += fi.Size()
		}
		if rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("collect: %w", rerr))
		}
	}
	return freed, err
}
