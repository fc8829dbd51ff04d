package importexport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/image"
	"github.com/ihucos/plash/importexport/output"
	"github.com/ihucos/plash/importexport/progress"
)

// DockerOptions are how to export an image. The zero value is fine.
type DockerOptions struct {
	// Epoch is the time that what plash made of the image gets; nil: when it was made.
	Epoch *time.Time
	// Prologue is what the scripts of builds begin with: the history of the image leaves it out.
	Prologue string
	// Compression of layers that are sent to a registry: gzip, zstd or none; "": gzip.
	Compression string
	// Progress is told of what is sent, and of what is written if it is large or slow; nil: nobody is.
	Progress progress.Display
	// UserAgent is what servers are told: plash/VERSION.
	UserAgent string
}

// ErrBadExport says that a reference is not one that an image can be written to.
var ErrBadExport = errors.New("not a place for an image")

// ExportDocker writes a container as an image to where name, see [image.ParseRef],
// says: an archive, a layout, the engine of this machine, a registry. Layers stay what they
// are. The error wraps [image.ErrBadRef] or [ErrBadExport] if name is wrong.
func ExportDocker(ctx context.Context, st *container.Store, id container.ID, name string, o DockerOptions) (err error) {
	ref, err := image.ParseRef(name)
	if err != nil {
		return err
	}
	if err := exportable(ref, o); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	_ = st.Touch(id) // who may only read the store does not count
	im, err := image.Of(ctx, st, id, image.OfOptions{Epoch: o.Epoch, Prologue: o.Prologue})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, im.Close()) }()
	if err := exportImage(ctx, st, im, ref, o); err != nil {
		return fmt.Errorf("export container %d: %w", id, err)
	}
	return nil
}

// exportable refuses references that name an image which is there already.
func exportable(ref image.Ref, o DockerOptions) error {
	switch {
	case ref.Index >= 0:
		return fmt.Errorf("%w: a new image has no number yet", ErrBadExport)
	case ref.Digest != "":
		return fmt.Errorf("%w: a new image is given a tag, not a digest", ErrBadExport)
	case o.Compression != "" && ref.Transport != image.Registry:
		return fmt.Errorf("%w that compresses: archives, layouts and engines get the layers as they are", ErrBadExport)
	}
	return nil
}

func exportImage(ctx context.Context, st *container.Store, im *image.Image, ref image.Ref, o DockerOptions) error {
	if ref.Transport == image.Registry {
		return push(ctx, st.CAS(), im, ref, o)
	}
	return progress.Show(o.Progress, func(m *progress.Meter) error { return writeImage(ctx, im, ref, m) })
}

// writeImage writes an image to where it is not compressed.
func writeImage(ctx context.Context, im *image.Image, ref image.Ref, m *progress.Meter) error {
	switch ref.Transport {
	case image.DockerArchive:
		return output.WriteFile(ref.Path, func(w io.Writer) error {
			return image.WriteDockerArchive(ctx, w, im, m, ref)
		})
	case image.Archive:
		return output.WriteFile(ref.Path, func(w io.Writer) error {
			return image.WriteOCIArchive(ctx, w, im, ref.Tag, m)
		})
	case image.Layout:
		return image.WriteLayout(ctx, ref.Path, im, ref.Tag, m)
	}
	err := image.Load(ctx, im, m, ref)
	if errors.Is(err, image.ErrNoDaemon) {
		return &hinted{err, "docker-archive:FILE writes what `docker load` and `podman load` take, docker:// sends it to a registry"}
	}
	return err
}
