package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrNoLayers says that a container has no layer to make an image of.
var ErrNoLayers = errors.New("it has no layers, and so is no image to other tools")

// OfOptions say how a container becomes an image.
type OfOptions struct {
	// Epoch is the time that all that plash made gets, as the environment variable
	// SOURCE_DATE_EPOCH wants it; nil: the times when the layers were made.
	Epoch *time.Time
	// Prologue is what the scripts of builds begin with and no one wants to read.
	Prologue string
}

// Of returns a container as an image: the one it was made of, byte for byte, or what was
// built on that. The layers are the blobs of the store, uncompressed, and stay readable
// until the image is closed, also if the container is removed.
//
// It takes the store's shared lock, so the caller must not have it.
func Of(ctx context.Context, st *container.Store, id container.ID, o OfOptions) (_ *Image, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("container %d as an image: %w", id, err)
		}
	}()
	unlock, err := st.CAS().LockShared(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	chain, err := st.Chain(id)
	if err != nil {
		return nil, err
	}
	if len(chain) == 0 {
		return nil, ErrNoLayers
	}
	im := &Image{}
	if err := im.describe(st, id, chain, o); err != nil {
		return nil, err
	}
	blobs := &openBlobs{}
	if im.Layers, err = blobs.layers(st.CAS(), chain); err != nil {
		return nil, errors.Join(err, blobs.close())
	}
	im.Release = blobs.close
	return im, nil
}

// describe fills in what the image says of itself.
func (im *Image) describe(st *container.Store, id container.ID, chain []container.Record, o OfOptions) error {
	var err error
	im.Config, err = attached(st, id, ConfigFile)
	switch {
	case err != nil:
		return err
	case im.Config == nil:
		im.Config, err = configOf(chain, o)
		return err
	}
	var config v1.Image
	if err := json.Unmarshal(im.Config, &config); err != nil {
		return fmt.Errorf("%s: %w", ConfigFile, err)
	}
	if n := len(config.RootFS.DiffIDs); n != len(chain) || !stands(config.RootFS.DiffIDs, chain) {
		return fmt.Errorf("%s: %w: it is not of these %d layers", ConfigFile, container.ErrDamaged, len(chain))
	}
	if im.Manifest, err = attached(st, id, ManifestFile); err != nil || im.Manifest == nil {
		return err
	}
	mediaType, err := attached(st, id, TypeFile)
	im.MediaType = string(mediaType)
	return err
}

// attached returns a file beside a record, nil if it has none.
func attached(st *container.Store, id container.ID, name string) ([]byte, error) {
	b, err := st.Attached(id, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// stands reports whether the lowest layers of chain are these.
func stands(diffIDs []digest.Digest, chain []container.Record) bool {
	if len(diffIDs) > len(chain) {
		return false
	}
	for i, d := range diffIDs {
		if chain[i].Layer != d {
			return false
		}
	}
	return true
}

// openBlobs are the blobs of an image.
type openBlobs struct {
	files []*os.File
}

// layers opens the layers of a chain, each blob once.
func (b *openBlobs) layers(st *cas.Store, chain []container.Record) ([]Layer, error) {
	known := map[digest.Digest]*os.File{}
	layers := make([]Layer, len(chain))
	for i, r := range chain {
		f := known[r.Layer]
		if f == nil {
			var err error
			if f, err = st.OpenBlob(r.Layer); err != nil {
				return nil, err
			}
			b.files = append(b.files, f)
			known[r.Layer] = f
			switch info, err := f.Stat(); {
			case err != nil:
				return nil, err
			case info.Size() != r.Size:
				return nil, fmt.Errorf("blob %s is damaged: expected %d bytes, found %d", r.Layer, r.Size, info.Size())
			}
		}
		layers[i] = Layer{
			DiffID: r.Layer, MediaType: v1.MediaTypeImageLayer, Digest: r.Layer, Size: r.Size,
			Open: func(context.Context) (io.ReadCloser, error) { return newBlobReader(f, r.Size), nil },
		}
	}
	return layers, nil
}

func (b *openBlobs) close() error {
	var errs []error
	for _, f := range b.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// A blobReader reads a blob of the store, whose digest was verified when it was written.
// Whoever can copy from one file to another asks it for its own.
type blobReader struct {
	io.SectionReader
	file *os.File
}

func newBlobReader(f *os.File, size int64) *blobReader {
	return &blobReader{*io.NewSectionReader(f, 0, size), f}
}

// File is the blob. Its offset means nothing.
func (r *blobReader) File() *os.File { return r.file }

// Close leaves the blob open for the other readers of the image.
func (r *blobReader) Close() error { return nil }
