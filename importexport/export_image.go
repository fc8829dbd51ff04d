package importexport

import (
	"context"
	"errors"
	"fmt"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/filesystem"
	"github.com/ihucos/plash/importexport/output"
)

// ExportEROFS writes a container's tree as an EROFS image to the file path.
func ExportEROFS(ctx context.Context, st *container.Store, id container.ID, path string) error {
	return exportImageFile(ctx, st, id, path, filesystem.WriteEROFS)
}

// ExportExt4 writes a container's tree as an ext4 image to the file path, as small as it can be.
func ExportExt4(ctx context.Context, st *container.Store, id container.ID, path string) error {
	return exportImageFile(ctx, st, id, path, filesystem.WriteExt4)
}

// SquashfsCompressions are the ways in which [ExportSquashfs] can compress, the best one first.
var SquashfsCompressions = filesystem.Compressions

// ExportSquashfs writes a container's tree as a squashfs image to the file path, compressed in one of
// [SquashfsCompressions]. warn is told if the format cannot hold all of it.
func ExportSquashfs(ctx context.Context, st *container.Store, id container.ID, path, compression string, warn func(string)) error {
	lost := false
	err := exportImageFile(ctx, st, id, path, func(ctx context.Context, v *cas.View, im *output.Image) (err error) {
		lost, err = filesystem.WriteSquashfs(ctx, v, im, compression)
		return err
	})
	if err == nil && lost {
		warn("squashfs has no access control lists: they are left out")
	}
	return err
}

func exportImageFile(ctx context.Context, st *container.Store, id container.ID, path string,
	write func(context.Context, *cas.View, *output.Image) error,
) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("export container %d: %w", id, err)
		}
	}()
	view, err := openView(ctx, st, id)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, view.Close()) }()
	return output.WriteImage(path, func(im *output.Image) error { return write(ctx, view, im) })
}
