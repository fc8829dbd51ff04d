package cas

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/ihucos/plash/cas/erofs"
	"github.com/opencontainers/go-digest"
)

// Blobs lists the blobs of the store with their sizes in bytes.
func (s *Store) Blobs() (map[digest.Digest]int64, error) {
	blobs := map[digest.Digest]int64{}
	err := s.each("blobs/sha256", "", func(d digest.Digest, fi fs.FileInfo) { blobs[d] = fi.Size() })
	return blobs, err
}

// Indexes lists the layers whose index is in the store, and the stacks of layers ([MergedID])
// whose merged index is.
func (s *Store) Indexes() (layers, chains map[digest.Digest]bool, err error) {
	layers, chains = map[digest.Digest]bool{}, map[digest.Digest]bool{}
	err = s.each("index/sha256", ".erofs", func(d digest.Digest, _ fs.FileInfo) { layers[d] = true })
	if err == nil {
		err = s.each("index/chain", ".erofs", func(d digest.Digest, _ fs.FileInfo) { chains[d] = true })
	}
	return layers, chains, err
}

// each calls fn for each file of a directory that is called after a digest. What else is in
// there, and what goes away meanwhile, is passed over.
func (s *Store) each(dir, suffix string, fn func(digest.Digest, fs.FileInfo)) error {
	entries, err := os.ReadDir(s.path(dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	for _, e := range entries {
		hex, ok := strings.CutSuffix(e.Name(), suffix)
		d := digest.NewDigestFromEncoded(digest.SHA256, hex)
		if !ok || d.Validate() != nil {
			continue
		}
		if fi, err := e.Info(); err == nil {
			fn(d, fi)
		}
	}
	return nil
}

// CheckBlob reads a blob and holds it against its digest. The error wraps [ErrDigest] if it has another
// one, and [ErrNotExist] if it is not there. Count is told of the bytes that are read.
func (s *Store) CheckBlob(ctx context.Context, d digest.Digest, count func(int64)) error {
	f, err := s.OpenBlob(d)
	if err != nil {
		return err
	}
	sum := sha256.New()
	buf := make([]byte, chunkSize)
	for err == nil {
		var n int
		if n, err = f.Read(buf); n > 0 {
			sum.Write(buf[:n])
			count(int64(n))
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}
	if err = errors.Join(err, f.Close()); !errors.Is(err, io.EOF) {
		return fmt.Errorf("read: %w", WithoutPath(err))
	}
	if found := digest.NewDigest(digest.SHA256, sum); found != d {
		return fmt.Errorf("%w: expected %s, found %s", ErrDigest, d, found)
	}
	return nil
}

// WithoutPath is an error without the path that package os puts before it, for messages that say
// in other words what it is about.
func WithoutPath(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// CheckIndex builds the index of a layer from its blob and holds the one that is in the store
// against that. The error wraps [erofs.ErrCorrupt] if that is another one; that there is none is no
// error, as it is built when it is wanted. A blob is not held against its digest.
func (s *Store) CheckIndex(ctx context.Context, layer digest.Digest) error {
	return s.compareIndex(s.indexPath(layer), func() (*erofs.Tree, error) { return s.buildLayer(ctx, layer) })
}

// CheckMerged is CheckIndex for the merged index of a stack of layers, bottom first. It is built from the
// indexes of the layers, which are taken for good.
func (s *Store) CheckMerged(ctx context.Context, layers []digest.Digest) error {
	return s.compareIndex(s.mergedPath(layers), func() (*erofs.Tree, error) { return s.mergeAll(ctx, layers) })
}

// RebuildIndex puts the index of a layer in the place of the one that is in the store.
func (s *Store) RebuildIndex(ctx context.Context, layer digest.Digest) error {
	tree, err := s.buildLayer(ctx, layer)
	if err != nil {
		return err
	}
	return s.writeIndex(s.indexPath(layer), tree)
}

// RebuildMerged is RebuildIndex for the merged index of a stack of layers.
func (s *Store) RebuildMerged(ctx context.Context, layers []digest.Digest) error {
	tree, err := s.mergeAll(ctx, layers)
	if err != nil {
		return err
	}
	return s.writeIndex(s.mergedPath(layers), tree)
}

// mergeAll merges the indexes of all layers, whatever merged indexes there are.
func (s *Store) mergeAll(ctx context.Context, layers []digest.Digest) (*erofs.Tree, error) {
	tree := erofs.NewTree()
	return tree, s.applyLayers(ctx, tree, layers)
}

// compareIndex holds an index file against what it must be. An index is replaced as a whole, so
// the file that was opened does not change.
func (s *Store) compareIndex(path string, build func() (*erofs.Tree, error)) (err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open index: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	tree, err := build()
	if err != nil {
		return err
	}
	c := &comparer{f: f}
	size, err := tree.WriteTo(c)
	switch {
	case err != nil:
		return err
	case fi.Size() != size:
		return fmt.Errorf("%w: expected %d bytes, found %d", erofs.ErrCorrupt, size, fi.Size())
	case c.differs:
		return fmt.Errorf("%w: not what its layers say, from byte %d on", erofs.ErrCorrupt, c.at)
	}
	return nil
}

// A comparer is a file that takes what is written to it only if it is there already.
type comparer struct {
	f       *os.File
	buf     []byte
	differs bool
	at      int64 // where
}

func (c *comparer) WriteAt(p []byte, off int64) (int, error) {
	if len(c.buf) < len(p) {
		c.buf = make([]byte, len(p))
	}
	n, err := c.f.ReadAt(c.buf[:len(p)], off)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if n < len(p) || !bytes.Equal(c.buf[:n], p) {
		at := off
		for i := 0; i < n && c.buf[i] == p[i]; i++ {
			at++
		}
		if !c.differs || at < c.at {
			c.differs, c.at = true, at
		}
	}
	return len(p), nil
}
