package cas

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/ihucos/plash/cas/erofs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// BlobPath is where the blob of a digest is, if the store has it.
func (s *Store) BlobPath(d digest.Digest) string {
	return s.path("blobs", d.Algorithm().String(), d.Encoded())
}

// OpenBlob opens a blob for reading. The error wraps [ErrNotExist] if the
// store does not have it.
func (s *Store) OpenBlob(d digest.Digest) (*os.File, error) {
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("open blob %q: %w", d, err)
	}
	f, err := os.Open(s.BlobPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open blob %s: %w", d, ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("open blob: %w", err)
	}
	return f, nil
}

func (s *Store) indexPath(layer digest.Digest) string {
	return s.path("index", layer.Algorithm().String(), layer.Encoded()+".erofs")
}

func (s *Store) chainPath(chain digest.Digest) string {
	return s.path("index", "chain", chain.Encoded()+".erofs")
}

// MergedID is what the merged index of a stack of layers is called after: its [ChainID], and for no
// layers the digest of nothing.
func MergedID(layers []digest.Digest) digest.Digest {
	if len(layers) == 0 {
		return digest.SHA256.FromBytes(nil) // container 0
	}
	return ChainID(layers)
}

func (s *Store) mergedPath(layers []digest.Digest) string { return s.chainPath(MergedID(layers)) }

// Index is an index file that is mapped into memory and verified.
type Index struct {
	*erofs.Image
	path string
	mem  []byte
}

// Path is the index file.
func (ix *Index) Path() string { return ix.path }

// Blobs are the layers that the index points into: extents on device n are in
// element n-1.
func (ix *Index) Blobs() []digest.Digest {
	blobs := make([]digest.Digest, len(ix.Devices()))
	for i, d := range ix.Devices() {
		blobs[i] = digest.NewDigestFromEncoded(digest.SHA256, d.Tag)
	}
	return blobs
}

// Close unmaps the index. Nothing that came from it may be used afterwards.
func (ix *Index) Close() error {
	mem := ix.mem
	ix.mem, ix.Image = nil, nil
	if mem == nil {
		return nil
	}
	if err := unix.Munmap(mem); err != nil {
		return fmt.Errorf("unmap index %s: %w", ix.path, err)
	}
	return nil
}

// Unload takes the index out of the memory of the process. Where it is used again,
// it is mapped again, mostly from the kernel's cache.
func (ix *Index) Unload() {
	// It cannot fail for such a mapping, and would change nothing.
	_ = unix.Madvise(ix.mem, unix.MADV_DONTNEED)
}

// openIndex maps an index file and verifies it, once after each boot. The error
// wraps fs.ErrNotExist or [erofs.ErrCorrupt] if it has to be built.
func openIndex(path string) (_ *Index, err error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open index", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &fs.PathError{Op: "open index", Path: path, Err: err}
	}
	if st.Size == 0 {
		return nil, fmt.Errorf("open index %s: %w: it is empty", path, erofs.ErrCorrupt)
	}
	open, flags := erofs.OpenVerified, unix.MAP_SHARED
	known := isVerified(fd, &st)
	if !known {
		// All of it will be read at once.
		open, flags = erofs.Open, unix.MAP_SHARED|unix.MAP_POPULATE
	}
	// An index is never written to once it has its name, only replaced, so the
	// mapping does not change and cannot fault behind the end.
	mem, err := unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ, flags)
	if err != nil {
		return nil, fmt.Errorf("map index %s: %w", path, err)
	}
	im, err := open(mem)
	if err == nil {
		err = checkTags(im)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open index %s: %w", path, err), unix.Munmap(mem))
	}
	if !known {
		setVerified(fd, &st)
	}
	return &Index{Image: im, path: path, mem: mem}, nil
}

// verifiedAttr marks an index whose checksum was found right since the machine
// booted, so that opening it need not read all of it: it holds the boot, and the
// size and modification time that the file had. An index is not synced when it is
// written, so only a crash of the machine can take its content away unseen.
const verifiedAttr = "user.plash.verified"

func verifiedMark(st *unix.Stat_t) string {
	return fmt.Sprintf("%s %d %d.%09d", bootID(), st.Size, st.Mtim.Sec, st.Mtim.Nsec)
}

func isVerified(fd int, st *unix.Stat_t) bool {
	var buf [128]byte
	n, err := unix.Fgetxattr(fd, verifiedAttr, buf[:])
	return err == nil && bootID() != "0" && string(buf[:n]) == verifiedMark(st)
}

// setVerified leaves the mark where it can; without it, the next one to open the
// index verifies it again.
func setVerified(fd int, st *unix.Stat_t) {
	_ = unix.Fsetxattr(fd, verifiedAttr, []byte(verifiedMark(st)), 0)
}

func checkTags(im *erofs.Image) error {
	for _, d := range im.Devices() {
		if err := digest.SHA256.Validate(d.Tag); err != nil {
			return fmt.Errorf("%w: blob %q: %w", erofs.ErrCorrupt, d.Tag, err)
		}
	}
	return nil
}

// openOrBuild opens an index, which is built if it is lost or damaged.
func (s *Store) openOrBuild(path string, build func() (*erofs.Tree, error)) (*Index, error) {
	ix, err := openIndex(path)
	if err == nil || (!errors.Is(err, fs.ErrNotExist) && !errors.Is(err, erofs.ErrCorrupt)) {
		return ix, err
	}
	tree, err := build()
	if err != nil {
		return nil, err
	}
	if err := s.writeIndex(path, tree); err != nil {
		return nil, err
	}
	return openIndex(path)
}

// writeIndex puts a tree's index at path, in the place of what is there. It is not
// synced: what a crash may leave of it is told by its checksum and built again.
func (s *Store) writeIndex(path string, tree *erofs.Tree) error {
	tmp := s.path(scratchDir, s.scratchName("index"))
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	_, err = tree.WriteTo(f)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		// Indexes are derived data: someone may have deleted all of them.
		if err = s.makeDirs(); err == nil {
			err = os.Rename(tmp, path)
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write index: %w", err), os.Remove(tmp))
	}
	return nil
}

// Index opens the index of one layer: its entries alone, with what it deletes of the
// layers below in the form that overlayfs knows. It is built from the blob if it is
// lost or damaged.
func (s *Store) Index(ctx context.Context, layer digest.Digest) (*Index, error) {
	if err := layer.Validate(); err != nil {
		return nil, fmt.Errorf("open index of %q: %w", layer, err)
	}
	return s.openOrBuild(s.indexPath(layer), func() (*erofs.Tree, error) {
		tree, err := s.buildLayer(ctx, layer)
		if err != nil {
			return nil, fmt.Errorf("index blob %s: %w", layer, err)
		}
		return tree, nil
	})
}

func (s *Store) buildLayer(ctx context.Context, layer digest.Digest) (*erofs.Tree, error) {
	f, err := s.OpenBlob(layer)
	if err != nil {
		return nil, err
	}
	src, err := newFileSource(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	tree, err := parseLayer(src, true)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = tree.SetDevice(1, layer.Encoded(), src.size)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	// Only sparse files that are not aligned need the blob again.
	tree.ReadDevice = func(_ int, p []byte, off int64) error {
		_, err := io.ReadFull(io.NewSectionReader(f, off, int64(len(p))), p)
		return err
	}
	if err := tree.Align(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return tree.Tree, f.Close()
}

// Merged opens the index of a whole stack of layers, bottom first: what a container
// of these layers looks like. It is kept under the stack's [ChainID] and built if
// it is not there or damaged, from the longest part of the stack that is. A single
// layer that deletes nothing is its own merged index.
func (s *Store) Merged(ctx context.Context, layers []digest.Digest) (*Index, error) {
	if len(layers) == 1 {
		ix, err := s.Index(ctx, layers[0])
		if err != nil || !ix.HasWhiteouts() {
			return ix, err
		}
		if err := ix.Close(); err != nil {
			return nil, err
		}
	}
	return s.openOrBuild(s.mergedPath(layers), func() (*erofs.Tree, error) {
		tree, err := s.buildMerged(ctx, layers)
		if err != nil {
			return nil, fmt.Errorf("merge %d layers: %w", len(layers), err)
		}
		return tree, nil
	})
}

func (s *Store) buildMerged(ctx context.Context, layers []digest.Digest) (*erofs.Tree, error) {
	tree := erofs.NewTree()
	from := 0
	for n := len(layers) - 1; n > 0; n-- {
		if s.HasMerged(layers[:n]) {
			ix, err := s.Merged(ctx, layers[:n])
			if err == nil {
				err = ix.applyTo(tree)
			}
			if err != nil {
				return nil, err
			}
			from = n
			break
		}
	}
	return tree, s.applyLayers(ctx, tree, layers[from:])
}

// applyLayers puts layers on a tree.
func (s *Store) applyLayers(ctx context.Context, tree *erofs.Tree, layers []digest.Digest) error {
	for _, l := range layers {
		if err := ctx.Err(); err != nil {
			return err
		}
		ix, err := s.Index(ctx, l)
		if err == nil {
			err = ix.applyTo(tree)
		}
		if err != nil {
			return fmt.Errorf("layer %s: %w", l, err)
		}
	}
	return nil
}

// applyTo puts an index on a tree, and closes it.
func (ix *Index) applyTo(tree *erofs.Tree) error {
	return errors.Join(tree.Apply(ix.Image), ix.Close())
}

// HasMerged reports whether the merged index of a stack of layers is there, so that
// [Store.Merged] need not build it.
func (s *Store) HasMerged(layers []digest.Digest) bool {
	if len(layers) == 1 {
		if plain, err := erofs.Plain(s.indexPath(layers[0])); err == nil && plain {
			return true
		}
	}
	chain := ChainID(layers)
	if chain == "" {
		return false
	}
	_, err := os.Stat(s.chainPath(chain))
	return err == nil
}
