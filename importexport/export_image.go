package importexport

import (
	"context"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/filesystem"
	"github.com/ihucos/plash/importexport/output"
	"github.com/ihucos/plash/importexport/progress"
)

// ExportEROFS writes a container's tree as an EROFS image to the file path.
func ExportEROFS(ctx context.Context, st *container.Store, id container.ID, path string, o ExportOptions) error {
	return exportImageFile(ctx, st, id, path, o, filesystem.WriteEROFS)
}

// ExportExt4 writes a container's tree as an ext4 image to the file path, as small as it can be.
func ExportExt4(ctx context.Context, st *container.Store, id container.ID, path string, o ExportOptions) error {
	return exportImageFile(ctx, st, id, path, o, filesystem.WriteExt4)
}

// SquashfsCompressions are the ways in which [ExportSquashfs] can compress, the best one first.
var SquashfsCompressions = filesystem.Compressions

// ExportSquashfs writes a container's tree as a squashfs image to the file path, compressed in one of
// [SquashfsCompressions]. The format cannot hold all that a tree may have: see [ExportOptions].
func ExportSquashfs(ctx context.Context, st *container.Store, id container.ID, path, compression string, o ExportOptions) error {
	lost := false
	err := exportImageFile(ctx, st, id, path, o, func(ctx context.Context, v *cas.View, im *output.Image, m *progress.Meter) (err error) {
		lost, err = filesystem.WriteSquashfs(ctx, v, im, compression, m)
		return err
	})
	if err == nil && lost {
		o.warn("squashfs has no access control lists: they are left out")
	}
	return err
}

func exportImageFile(ctx context.Context, st *container.Store, id container.ID, path string, o ExportOptions,
	write func(context.Context, *cas.View, *output.Image, *progress.Meter) error,
) error {
	return exportView(ctx, st, id, o, func(view *cas.View, m *progress.Meter) error {
		return output.WriteImage(path, func(im *output.Image) error { return write(ctx, view, im, m) })
	})
}
