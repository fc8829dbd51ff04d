package cas

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/ihucos/plash/cas/erofs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// View is a merged index with its blobs open, for reading content.
type View struct {
	*Index
	devices []*os.File
}

// View opens the merged index of a stack of layers and its blobs.
func (s *Store) View(ctx context.Context, layers []digest.Digest) (*View, error) {
	ix, err := s.Merged(ctx, layers)
	if err != nil {
		return nil, err
	}
	v := &View{Index: ix}
	f, err := os.Open(ix.Path())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open index: %w", err), v.Close())
	}
	v.devices = append(v.devices, f)
	if err := s.openBlobs(v); err != nil {
		return nil, err
	}
	return v, nil
}

// openBlobs opens what an index points into. If that fails, the view is closed.
func (s *Store) openBlobs(v *View) error {
	for _, d := range v.Blobs() {
		f, err := s.OpenBlob(d)
		if err != nil {
			return errors.Join(err, v.Close())
		}
		v.devices = append(v.devices, f)
	}
	return nil
}

// A Place is a directory, or an empty file, that belongs to root.
type Place struct {
	Path string // relative to the root, without symbolic links
	Dir  bool
}

// ViewOver is View of a stack of layers with places below them: they show where no
// layer has anything. Its index is in memory alone.
func (s *Store) ViewOver(ctx context.Context, places []Place, layers []digest.Digest) (*View, error) {
	tree := erofs.NewTree()
	for _, p := range places {
		attr := erofs.Attr{Mode: unix.S_IFREG | 0o644}
		if p.Dir {
			attr.Mode = unix.S_IFDIR | 0o755
		}
		if err := tree.Put(p.Path, attr, nil, erofs.Content{}); err != nil {
			return nil, fmt.Errorf("place %s below the layers: %w", p.Path, err)
		}
	}
	ix, err := s.Merged(ctx, layers)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(tree.Apply(ix.Image), ix.Close()); err != nil {
		return nil, fmt.Errorf("put layers on %d places: %w", len(places), err)
	}
	v, err := memoryView(tree)
	if err != nil {
		return nil, fmt.Errorf("put layers on %d places: %w", len(places), err)
	}
	if err := s.openBlobs(v); err != nil {
		return nil, err
	}
	return v, nil
}

// memoryView writes an index to memory.
func memoryView(tree *erofs.Tree) (*View, error) {
	fd, err := unix.MemfdCreate("plash-index", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "index in memory")
	size, err := tree.WriteTo(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	mem, err := unix.Mmap(fd, 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	im, err := erofs.OpenVerified(mem)
	if err != nil {
		return nil, errors.Join(err, unix.Munmap(mem), f.Close())
	}
	return &View{Index: &Index{Image: im, path: f.Name(), mem: mem}, devices: []*os.File{f}}, nil
}

// Device is the open file behind [erofs.Extent.Device] n.
func (v *View) Device(n int) *os.File { return v.devices[n] }

// ReadAt reads the content of a regular file, as [io.ReaderAt] does. Holes are zeros.
func (v *View) ReadAt(in *erofs.Inode, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read at %d: %w", off, unix.EINVAL)
	}
	if off >= in.Size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), in.Size-off))
	clear(p[:n])
	var failed error
	err := v.ExtentsIn(in, off, int64(n), func(e erofs.Extent) bool {
		at := e.Off - off
		_, failed = io.ReadFull(io.NewSectionReader(v.devices[e.Device], e.Phys, e.Len), p[at:at+e.Len])
		return failed == nil
	})
	if err = errors.Join(err, failed); err != nil {
		return 0, fmt.Errorf("read inode %d: %w", in.NID, err)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Close closes the blobs and the index.
func (v *View) Close() error {
	var err error
	for _, f := range slices.Backward(v.devices) {
		err = errors.Join(err, f.Close())
	}
	v.devices = nil
	return errors.Join(err, v.Index.Close())
}
