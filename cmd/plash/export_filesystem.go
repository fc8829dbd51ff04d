package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport"
)

func newExportSquashfs() *command {
	var compression string
	c := exportCommand("export-squashfs", "FILE", `
Writes the root filesystem of CONTAINER as a compressed, read-only squashfs
image to FILE. It needs neither a mount nor root. The same container gives the
same bytes. Times are of whole seconds there, and access control lists are left
out. A FILE that is there is replaced when the image is complete.`, "plash-export-squashfs 2 root.sqfs\nmount -o loop root.sqfs /mnt", func(ctx context.Context, st *container.Store, id container.ID, path string, o importexport.ExportOptions) error {
		return importexport.ExportSquashfs(ctx, st, id, path, compression, o)
	})
	c.usage = "[--compression NAME] CONTAINER FILE"
	known := importexport.SquashfsCompressions
	c.options().StringVar(&compression, "compression", "", strings.Join(known, ", ")+"; the first if none is named")
	run := c.run
	c.run = func(ctx context.Context, a arguments, s streams) error {
		if compression != "" && !slices.Contains(known, compression) {
			return &usageError{what: fmt.Sprintf("--compression %s: not one of %s", compression, strings.Join(known, ", "))}
		}
		return run(ctx, a, s)
	}
	return c
}

func newExportImg() *command {
	return exportCommand("export-img", "FILE", `
Writes the root filesystem of CONTAINER as an ext4 image to FILE, with no block
to spare: "truncate -s +1G FILE" and resize2fs(8) give it room, "tune2fs -j" a
journal. It needs neither a mount nor root. The same container gives the same
bytes. A FILE that is there is replaced when the image is complete.`,
		"plash-export-img 2 root.img\ntruncate -s 4G root.img && resize2fs root.img",
		importexport.ExportExt4)
}

func newExportEROFS() *command {
	return exportCommand("export-erofs", "FILE", `
Writes the root filesystem of CONTAINER as a read-only EROFS image, which is not
compressed, to FILE. It needs neither a mount nor root. The same container gives
the same bytes. A FILE that is there is replaced when the image is complete.`,
		"plash-export-erofs 2 root.erofs\nmount -o loop root.erofs /mnt",
		importexport.ExportEROFS)
}

func newExportDir() *command {
	return exportCommand("export-dir", "DIR", `
Makes the root filesystem of CONTAINER in DIR, which is empty or not there yet.
For a plain user all files become his own and devices are left out, and a
warning says so; programs then do not run as their owner (setuid).`,
		"plash-export-dir 2 ./root",
		importexport.ExportDir)
}
