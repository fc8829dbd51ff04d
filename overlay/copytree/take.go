package copytree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/overlay"
)

// A taker takes one copy.
type taker struct {
	ctx    context.Context
	store  *cas.Store
	layers []digest.Digest
	chain  string
	ix     *cas.Index
}

func (t *taker) take() (*Copy, error) {
	dirs, err := list(t.store, t.chain)
	if err != nil {
		return nil, err
	}
	in := &inhabitants{}
	for _, dir := range dirs {
		c, err := t.tryFree(dir, in)
		if c != nil || err != nil {
			return c, err
		}
	}
	c, err := t.make(dirs)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		// Copies that wait for another run are worth less than this one.
		freed, freeErr := RemoveIdle(t.store)
		if freed > 0 && freeErr == nil {
			return t.make(nil)
		}
		err = errors.Join(err, freeErr)
	}
	return c, err
}

// tryFree takes a copy if it is free and can be set right; else it gives nil. One that
// cannot is removed.
func (t *taker) tryFree(dir string, in *inhabitants) (*Copy, error) {
	lock, err := lockCopy(dir)
	if lock == nil {
		return nil, err
	}
	c := &Copy{store: t.store, dir: dir, layers: t.layers, lock: lock}
	if in.of(c) {
		return nil, c.lock.Close()
	}
	if err = t.ready(c); err == nil {
		return c, nil
	}
	if t.ctx.Err() != nil || errors.Is(err, overlay.ErrMounted) {
		return nil, errors.Join(t.ctx.Err(), c.closeFiles())
	}
	_, err = c.remove()
	return nil, errors.Join(err, c.closeFiles())
}

// ready opens a copy that is free and sets it right.
func (t *taker) ready(c *Copy) error {
	h, m, err := readManifest(c.dir)
	if err != nil {
		return err
	}
	if !h.fits(t.chain) {
		return fmt.Errorf("%s: %w: another boot or chain", c.dir, errManifest)
	}
	if c.root, err = os.Open(c.Dir()); err != nil {
		return fmt.Errorf("open copy: %w", err)
	}
	c.tree = overlay.OpenTree(t.store, t.ix, c.root, m)
	if c.wary = h.Wary; c.wary {
		c.tree.BeWary()
	}
	changed, err := t.setRight(c, h)
	if err == nil && changed {
		err = c.keep(t.ctx)
	}
	if err == nil {
		err = c.sign()
	}
	if err != nil {
		return err
	}
	c.ix = t.ix
	return nil
}

func (t *taker) setRight(c *Copy, h header) (changed bool, err error) {
	var sc *cas.Scratch
	var dir *os.File
	bin := func() (*os.File, error) {
		if dir != nil {
			return dir, nil
		}
		var err error
		if sc, err = t.store.Scratch("bin"); err == nil {
			dir, err = os.Open(sc.Path())
		}
		return dir, err
	}
	if h.Adopt {
		changed, err = true, c.tree.Adopt(t.ctx, h.Doubtful, bin)
	} else {
		changed, err = c.tree.SetRight(t.ctx, bin)
	}
	if dir != nil {
		err = errors.Join(err, dir.Close())
	}
	if sc != nil {
		err = errors.Join(err, sc.Remove())
	}
	return changed, err
}

// keep writes the manifest of a tree that was made or set right just now.
func (c *Copy) keep(ctx context.Context) error {
	if err := c.Settle(ctx); err != nil {
		return err
	}
	h := header{Boot: cas.BootID(), Chain: chainName(cas.ChainID(c.layers)), Wary: c.wary}
	return writeManifest(c.dir, h, c.tree.Manifest())
}

// make makes a new copy. Dirs are other ones of the same chain.
func (t *taker) make(dirs []string) (_ *Copy, err error) {
	sc, err := t.store.Scratch("copy")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, sc.Remove()) }()
	c := &Copy{store: t.store, dir: filepath.Join(sc.Path(), "copy"), layers: t.layers}
	if err := t.fill(c, dirs); err != nil {
		return nil, errors.Join(err, c.closeFiles())
	}
	dir, err := newDir(t.store, t.chain)
	if err == nil {
		err = os.Rename(c.dir, dir)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make copy: %w", err), c.closeFiles())
	}
	c.dir, c.ix = dir, t.ix
	return c, nil
}

func (t *taker) fill(c *Copy, dirs []string) (err error) {
	for _, dir := range []string{c.dir, c.Dir()} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return fmt.Errorf("make copy: %w", err)
		}
	}
	c.lock, err = os.OpenFile(filepath.Join(c.dir, lockFile), os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err == nil {
		err = cas.Flock(t.ctx, c.lock, unix.LOCK_EX)
	}
	if err == nil {
		c.root, err = os.Open(c.Dir())
	}
	if err != nil {
		return fmt.Errorf("make copy: %w", err)
	}
	c.tree = overlay.OpenTree(t.store, t.ix, c.root, nil)
	if err := t.copyTree(c, dirs); err != nil {
		return err
	}
	tells, err := overlay.TellsChanges(t.ctx, c.dir)
	if err != nil {
		return err
	}
	if c.wary = !tells; c.wary {
		c.tree.BeWary()
	}
	if err := c.keep(t.ctx); err != nil {
		return err
	}
	return c.sign()
}

// copyTree makes the tree, with its files sharing the blocks of another copy of it where
// there is one and the filesystem can.
func (t *taker) copyTree(c *Copy, dirs []string) error {
	for _, dir := range dirs {
		h, m, err := readManifest(dir)
		if err != nil || !h.fits(t.chain) || h.Wary || m == nil {
			continue
		}
		root, err := os.Open(filepath.Join(dir, treeDir))
		if err != nil {
			continue // removed meanwhile
		}
		return errors.Join(c.tree.Make(t.ctx, &overlay.Donor{Dir: root, Manifest: m}), root.Close())
	}
	if root, err := os.Open(overlay.UnpackedChain(t.store, cas.ChainID(t.layers))); err == nil {
		return errors.Join(c.tree.Make(t.ctx, &overlay.Donor{Dir: root}), root.Close())
	}
	return c.tree.Make(t.ctx, nil)
}

// closeFiles closes what a copy has opened that nobody got.
func (c *Copy) closeFiles() error {
	var errs []error
	for _, f := range []*os.File{c.root, c.lock} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
