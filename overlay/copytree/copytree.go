// Package copytree keeps copies of containers' trees, for hosts on which nothing can be
// mounted: programs work in a copy, and it is set right before the next one does.
//
// A copy is a directory copies/CHAIN.RANDOM of the store, where CHAIN is the ChainID of
// the layers in hex:
//
//	tree/      the tree, that programs have as their root
//	lock       locked with flock(2) while the copy is taken; says by whom
//	manifest   of what the tree is a copy, and the stamps of its entries (package overlay)
//
// Invariants:
//   - Who takes a copy finds in it what the index says, and nothing that another has
//     written. That is told by inode numbers and ctimes; on filesystems that do not
//     set those for every change, all files are read.
//   - A copy is free if nobody has its lock, and no process has its root or working
//     directory in it: a daemon that a run has left keeps its copy. The lock may be
//     inherited by the command, and holds as long as any process has it open.
//   - The manifest tells the truth whoever is killed when: an entry that has the stamp
//     in it is right. While a tree is set right, the manifest of before stays. A copy
//     that is not finished is scratch.
//   - Copies end with the boot: they are not synced.
package copytree

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/overlay"
)

// The directory of the store that holds copies, and the files of a copy.
const (
	copiesDir    = "copies"
	treeDir      = "tree"
	lockFile     = "lock"
	manifestFile = "manifest"
)

// A Copy is a tree that was taken.
type Copy struct {
	store  *cas.Store
	dir    string
	layers []digest.Digest
	ix     *cas.Index
	lock   *os.File
	root   *os.File
	tree   *overlay.Tree
	wary   bool // of files that look unchanged
}

// Take gives a copy of the tree that layers (bottom first) make up, which nobody else
// has and which is as the layers say: one that is there and free, or a new one. The
// caller holds the store's lock, shared.
func Take(ctx context.Context, s *cas.Store, layers []digest.Digest) (_ *Copy, err error) {
	ix, err := s.Merged(ctx, layers)
	if err != nil {
		return nil, err
	}
	t := &taker{ctx: ctx, store: s, layers: layers, ix: ix, chain: chainName(cas.ChainID(layers))}
	c, err := t.take()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("take a copy of the container: %w", err), ix.Close())
	}
	return c, nil
}

// Dir is the directory of the tree.
func (c *Copy) Dir() string { return filepath.Join(c.dir, treeDir) }

// Root is the open directory of the tree. It belongs to the copy.
func (c *Copy) Root() *os.File { return c.root }

// Tree is the tree. What is done to it without its methods is a change.
func (c *Copy) Tree() *overlay.Tree { return c.tree }

// Lock is the file whose lock keeps the copy, as long as any process has it open. It
// belongs to the copy.
func (c *Copy) Lock() *os.File { return c.lock }

// Settle waits until every later change of the tree can be told.
func (c *Copy) Settle(ctx context.Context) error { return c.tree.Settle(ctx, c.lock) }

// Close gives the copy back.
func (c *Copy) Close() error {
	var errs []error
	if c.root != nil {
		errs = append(errs, c.root.Close())
	}
	if c.ix != nil {
		errs = append(errs, c.ix.Close())
	}
	// Last, as it is the lock.
	return errors.Join(append(errs, c.lock.Close())...)
}

// Become makes the copy that of the layers with one more on top, in which all changes of
// the tree are but those at and below the paths in without. It says nothing of whether
// there is such a layer yet. The copy remains taken.
func (c *Copy) Become(layer digest.Digest, without []string) error {
	chain := cas.NextChainID(cas.ChainID(c.layers), layer)
	to, err := newDir(c.store, chainName(chain))
	if err != nil {
		return err
	}
	// If this is killed in between, the manifest does not fit the name, and the
	// copy is removed.
	h := header{Boot: cas.BootID(), Chain: chainName(chain), Adopt: true, Doubtful: without, Wary: c.wary}
	err = writeManifest(c.dir, h, nil)
	if err == nil {
		err = os.Rename(c.dir, to)
	}
	if err != nil {
		return fmt.Errorf("keep the copy for the new layer: %w", err)
	}
	c.dir = to
	return nil
}

// chainName names a chain in the names of its copies.
func chainName(chain digest.Digest) string {
	if chain == "" {
		return strings.Repeat("0", 64)
	}
	return chain.Encoded()
}

// newDir is the name of a copy that is not there yet.
func newDir(s *cas.Store, chain string) (string, error) {
	dir := filepath.Join(s.Dir(), copiesDir)
	// Only the owner gets in: there are setuid programs inside.
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("make directory for copies: %w", err)
	}
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails, by its documentation
	return filepath.Join(dir, chain+"."+hex.EncodeToString(random[:])), nil
}

// list gives the directories of copies: of one chain, or of all if that is "".
func list(s *cas.Store, chain string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.Dir(), copiesDir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list copies: %w", err)
	}
	var dirs []string
	for _, e := range entries {
		of, _, ok := strings.Cut(e.Name(), ".")
		if ok && e.IsDir() && (chain == "" || of == chain) {
			dirs = append(dirs, filepath.Join(s.Dir(), copiesDir, e.Name()))
		}
	}
	return dirs, nil
}

// lockCopy takes the lock of a copy, without waiting; nil if somebody has it, or the copy
// is gone.
func lockCopy(dir string) (*os.File, error) {
	name := filepath.Join(dir, lockFile)
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("lock copy: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		// It may have been renamed or removed before the lock was ours.
		var mine, there unix.Stat_t
		if err = unix.Fstat(int(f.Fd()), &mine); err == nil {
			err = unix.Lstat(name, &there)
		}
		if err == nil && mine.Ino == there.Ino {
			return f, nil
		}
	}
	return nil, f.Close()
}
