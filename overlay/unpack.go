package overlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
)

// Where unpacked trees lie below the store's directory: one layer, with its
// whiteouts as overlayfs wants them, under the layer's digest; and the whole tree
// of a chain of layers under its ChainID. A tree is published by one rename
// and never changed, as the files in the directories are what containers see.
const (
	unpackedDir    = "unpacked"
	unpackedLayers = "unpacked/sha256"
	unpackedChains = "unpacked/chain"
	unpackedEmpty  = "unpacked/empty"
)

// maxStackedDirs is how many single layers' directories are put on a merged
// one. A directory costs nothing to mount, and a merged one is a full copy.
const maxStackedDirs = 30

// openUnpacked mounts containers from directories that layers are unpacked to.
func openUnpacked(ctx context.Context, s *cas.Store, layers []Layer, o *Options) (*Mount, error) {
	if err := makeUnpackedDirs(s); err != nil {
		return nil, err
	}
	detached := !force.mount2 && hasDetachedMounts()
	if detached {
		if err := probeClone(s.Dir()); err != nil {
			return nil, err
		}
	}
	if detached && (o.Upper != "" || len(o.Below) > 0) {
		if err := ProbeOverlay(); err != nil {
			return nil, err
		}
	}
	dirs, err := unpackLayers(ctx, s, layers, o.Flat)
	if err != nil {
		return nil, err
	}
	readOnly := o.Upper == "" && len(dirs) == 1 && len(o.Below) == 0
	if !detached {
		if readOnly {
			return bindLater(dirs[0]), nil
		}
		return overlayLater(dirs, o), nil
	}
	if readOnly {
		return openReadOnly(dirs[0])
	}
	var l lowers
	defer l.close()
	for _, d := range dirs {
		if err := l.addDir(d, shortName(d)); err != nil {
			return nil, err
		}
	}
	return openOverlay(&l, o, xinoOf(dirs, o))
}

// shortName is what stands for an unpacked directory in mount tables where 255
// bytes have to do for all of them.
func shortName(dir string) string {
	return filepath.Base(dir)[:min(shortNameLen, len(filepath.Base(dir)))]
}

const shortNameLen = 6

// hasDetachedMounts tells whether the kernel has open_tree(2) and fsopen(2), both
// since Linux 5.2.
func hasDetachedMounts() bool {
	_, err := unix.OpenTree(-1, "", 0)
	return !errors.Is(err, unix.ENOSYS)
}

// probeClone finds out whether directories can be mounted, before anything is unpacked that
// could only be looked at so.
func probeClone(dir string) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return classify(fmt.Errorf("clone mount of %s: %w", dir, err))
	}
	return unix.Close(fd)
}

// openReadOnly gives a detached read-only view of a directory.
func openReadOnly(dir string) (*Mount, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, classify(fmt.Errorf("clone mount of %s: %w", dir, err))
	}
	// A clone is in the peer group of the mount that it is a clone of: what is
	// mounted inside would show in the store.
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY, Propagation: unix.MS_PRIVATE}
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr)
	if force.noClone || errors.Is(err, unix.ENOSYS) {
		unix.Close(fd)
		return bindLater(dir), nil // mount_setattr(2) came with Linux 5.12
	}
	if err != nil {
		unix.Close(fd)
		return nil, classify(fmt.Errorf("make clone of %s read-only: %w", dir, err))
	}
	return mountOf(fd), nil
}

// unpackLayers gives the directories that make up a container, top first, and
// unpacks what is not there yet.
func unpackLayers(ctx context.Context, s *cas.Store, layers []Layer, flat bool) ([]string, error) {
	if len(layers) == 0 {
		return []string{filepath.Join(s.Dir(), unpackedEmpty)}, nil
	}
	merged := planLayers(layers, maxStackedDirs, func(chain []digest.Digest) bool {
		_, err := os.Lstat(filepath.Join(s.Dir(), unpackedChains, cas.ChainID(chain).Encoded()))
		return err == nil
	})
	if merged < len(layers) && !canWhiteout(s) {
		merged = len(layers)
	}
	var dirs []string
	for i := len(layers) - 1; i >= merged; i-- {
		d := layers[i].Digest
		dir, err := unpackOnce(ctx, s, unpackedLayers, d, flat, func() (*cas.Index, error) {
			return s.Index(ctx, d)
		})
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, dir)
	}
	chain := digests(layers[:merged])
	dir, err := unpackOnce(ctx, s, unpackedChains, cas.ChainID(chain), flat, func() (*cas.Index, error) {
		return s.Merged(ctx, chain)
	})
	if err != nil {
		return nil, err
	}
	return append(dirs, dir), nil
}

// makeUnpackedDirs makes the directories of this backend. Only their owner gets
// in: there are setuid programs inside.
func makeUnpackedDirs(s *cas.Store) error {
	empty := filepath.Join(s.Dir(), unpackedEmpty)
	if _, err := os.Lstat(empty); err == nil {
		return nil
	}
	for _, d := range []string{unpackedDir, unpackedLayers, unpackedChains} {
		if err := os.Mkdir(filepath.Join(s.Dir(), d), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("make directory for unpacked layers: %w", err)
		}
	}
	err := os.Mkdir(empty, 0o755)
	if err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make directory for unpacked layers: %w", err)
	}
	return nil
}

// unpackOnce gives the directory of an unpacked tree and makes it if it is not
// there. Where two processes do that at once, one's work is thrown away.
func unpackOnce(ctx context.Context, s *cas.Store, kind string, id digest.Digest, flat bool, open func() (*cas.Index, error)) (dir string, err error) {
	dir = filepath.Join(s.Dir(), kind, id.Encoded())
	if _, err := os.Lstat(dir); err == nil {
		return dir, nil
	}
	ix, err := open()
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, ix.Close()) }()
	sc, err := s.Scratch("unpack")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, sc.Remove()) }()
	tree := filepath.Join(sc.Path(), "tree")
	if err := os.Mkdir(tree, 0o700); err != nil {
		return "", fmt.Errorf("unpack %s: %w", id, err)
	}
	if err := unpackTree(ctx, s, ix, tree, flat); err != nil {
		return "", fmt.Errorf("unpack %s into %s: %w", id, kind, err)
	}
	if err := publishTree(tree, dir); err != nil {
		return "", fmt.Errorf("publish unpacked %s: %w", id, err)
	}
	return dir, nil
}

// publishTree renames a finished tree to its place, after all of it has reached
// the disk.
func publishTree(tree, dir string) error {
	parent, err := os.Open(filepath.Dir(dir))
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := unix.Syncfs(int(parent.Fd())); err != nil {
		return fmt.Errorf("sync filesystem: %w", err)
	}
	err = unix.Renameat2(unix.AT_FDCWD, tree, unix.AT_FDCWD, dir, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.EEXIST):
		return nil // another process was first
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		// Not every filesystem knows RENAME_NOREPLACE. A plain rename replaces a
		// directory only if that is empty, and so the same as this one.
		err = unix.Rename(tree, dir)
		if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("rename %s to %s: %w", tree, dir, err)
	}
	return cas.SyncDir(parent.Name())
}

// UnpackedChain is where the unpacked tree of a chain of layers is, if it is there.
func UnpackedChain(s *cas.Store, chain digest.Digest) string {
	if chain == "" {
		return filepath.Join(s.Dir(), unpackedEmpty)
	}
	return filepath.Join(s.Dir(), unpackedChains, chain.Encoded())
}
