package treetest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Change does n random things to a tree: entries of all kinds are made, removed,
// replaced by others (files by directories too, and the other way around), moved,
// linked, written to, and get other owners, modes, times and attributes.
func Change(tb testing.TB, dir string, seed uint64, n int) {
	tb.Helper()
	g := newGenerator(tb, seed, Options{})
	var all []string
	for i := range n {
		if i%10 == 0 {
			all = paths(tb, dir)
		}
		g.left = 5
		g.change(dir, all)
	}
}

func paths(tb testing.TB, dir string) (all []string) {
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if path != dir && len(path) < 3000 {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		tb.Fatalf("change random tree: %v", err)
	}
	return all
}

func (g *generator) change(root string, all []string) {
	path, other := root, root
	if len(all) > 0 {
		path, other = pick(g, all...), pick(g, all...)
	}
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return // removed by an earlier change
	}
	kind := st.Mode & unix.S_IFMT
	dir := path
	if kind != unix.S_IFDIR {
		dir = filepath.Dir(path)
	}
	g.files = all
	switch g.r.IntN(12) {
	case 0, 1:
		g.fill(dir, 8)
	case 2:
		g.remove(root, path)
	case 3: // by something else; a directory made anew hides what it had
		if g.remove(root, path) {
			g.check(os.Mkdir(path, 0o755))
			g.fill(path, 8)
		}
	case 4:
		if g.remove(root, path) {
			g.leaf(path)
		}
	case 5: // EXDEV: overlayfs does not move directories of lower layers
		err := os.Rename(path, filepath.Join(filepath.Dir(other), g.name()))
		if err != nil && !errors.Is(err, unix.EXDEV) && !errors.Is(err, fs.ErrExist) &&
			!errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.EISDIR) && !errors.Is(err, fs.ErrNotExist) {
			g.check(err)
		}
	case 6, 7:
		g.dirs = nil
		g.attrs(path, kind)
		g.times()
	case 8:
		if kind == unix.S_IFREG {
			g.check(os.Truncate(path, int64(g.r.IntN(10000))))
		}
	case 9, 10:
		if kind == unix.S_IFREG {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			g.check(err)
			_, err = f.WriteAt([]byte("changed"), int64(g.r.IntN(20000)))
			g.check(errors.Join(err, f.Close()))
		}
	case 11:
		g.time(path)
	}
}

func (g *generator) remove(root, path string) bool {
	if path == root {
		return false
	}
	g.check(os.RemoveAll(path))
	return true
}
