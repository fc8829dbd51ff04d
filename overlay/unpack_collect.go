package overlay

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
)

// CollectUnpacked removes the unpacked trees of layers and chains that are not to
// be kept, and returns how many bytes that gave back. The caller holds the
// store's lock alone. A tree that is mounted somewhere stays, for a later
// call: unlike an index that is deleted, a directory that is emptied does not
// stay usable.
func CollectUnpacked(s *cas.Store, keepLayers, keepChains map[digest.Digest]bool) (freed int64, err error) {
	dead, err := deadTrees(s, unpackedLayers, keepLayers)
	if err != nil {
		return 0, err
	}
	chains, err := deadTrees(s, unpackedChains, keepChains)
	if err != nil {
		return 0, err
	}
	dead = notMounted(append(dead, chains...))
	if len(dead) == 0 {
		return 0, nil
	}
	sc, err := s.Scratch("collect")
	if err != nil {
		return 0, err
	}
	var errs []error
	for i, dir := range dead {
		// First out of the way at once, so that nobody finds half of it.
		tmp := filepath.Join(sc.Path(), strconv.Itoa(i))
		if err := os.Rename(dir, tmp); err != nil {
			errs = append(errs, fmt.Errorf("collect unpacked tree: %w", err))
			continue
		}
		n, err := DiskUsage(tmp)
		if err != nil {
			errs = append(errs, fmt.Errorf("measure unpacked tree %s: %w", dir, err))
		}
		freed += n
	}
	return freed, errors.Join(append(errs, sc.Remove())...)
}

// deadTrees lists the trees of one kind that are not to be kept.
func deadTrees(s *cas.Store, kind string, keep map[digest.Digest]bool) ([]string, error) {
	dir := filepath.Join(s.Dir(), kind)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("collect unpacked trees: %w", err)
	}
	var dead []string
	for _, e := range entries {
		if !keep[digest.NewDigestFromEncoded(digest.SHA256, e.Name())] {
			dead = append(dead, filepath.Join(dir, e.Name()))
		}
	}
	return dead, nil
}

// notMounted leaves out the trees that are in use. Mount tables show a tree's
// full name, or on some kernels only its beginning.
func notMounted(trees []string) []string {
	if len(trees) == 0 {
		return nil
	}
	names := make([]string, len(trees))
	for i, t := range trees {
		names[i] = shortName(t)
	}
	unused := map[string]bool{}
	for _, n := range cas.Unmounted(names) {
		unused[n] = true
	}
	var out []string
	for _, t := range trees {
		if unused[shortName(t)] {
			out = append(out, t)
		}
	}
	return out
}

// DiskUsage is what removing a tree gives back, in bytes.
func DiskUsage(dir string) (int64, error) {
	root, err := unix.Open(dir, openDirFlags, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(root)
	var r dentReader
	var total int64
	for todo := []string{""}; len(todo) > 0; {
		path := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		fd, err := openDirBelow(root, path)
		if err != nil {
			return total, &os.PathError{Op: "open", Path: path, Err: err}
		}
		entries, err := r.read(fd)
		for _, e := range entries {
			var st unix.Stat_t
			if err = unix.Fstatat(fd, e.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				break
			}
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				todo = append(todo, filepath.Join(path, e.name))
				st.Nlink = 1
			}
			total += st.Blocks * 512 / int64(max(st.Nlink, 1))
		}
		unix.Close(fd)
		if err != nil {
			return total, &os.PathError{Op: "read", Path: path, Err: err}
		}
	}
	return total, nil
}
