package main

import (
	"context"
	"errors"

	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport"
)

type importOptions struct {
	name    string // of the image, the file or the URL
	refresh bool
}

func (o *importOptions) addTo(c *command) *command {
	return o.addRefresh(c, "ask again where an image of this name is in the store already")
}

func (o *importOptions) addRefresh(c *command, help string) *command {
	c.options().BoolVar(&o.refresh, "refresh", false, help)
	return c
}

// importSettings says how importexport shall work for the command of that name.
func importSettings(name string, refresh bool, d display, s streams) importexport.Options {
	return importexport.Options{
		Refresh:   refresh,
		Progress:  d.progress(s),
		Warn:      func(err error) { s.warn(name, err) },
		UserAgent: userAgent(),
	}
}

// userAgent is what servers are told.
func userAgent() string { return binary + "/" + versionText() }

func newImport() *command {
	var o importOptions
	return o.addTo(&command{
		operands: grammar{"NAME"},
		usage:    "[--refresh] NAME",
		long: `
Imports what the build action --image NAME stands for and prints the id: a URL
of a tar, a path that begins with /, ./ or ../, a container, an image of Docker
or OCI with its transport (see plash-import-docker), else an image of the LXC
image server. The same content gives the same id.`,
		example: "plash-import alpine\nplash-import docker-archive:./image.tar\nplash-import debian:bookworm\nplash-import ./rootfs.tar.gz",
		run: func(ctx context.Context, a arguments, s streams) error {
			o.name = a.operand(0)
			return runImport(ctx, "import", o, s, importexport.Resolve)
		},
	})
}

func newImportTar() *command {
	var o importOptions
	return o.addRefresh(&command{
		operands: grammar{"FILE|-"},
		usage:    "[--refresh] FILE|-",
		long: `
Imports a root filesystem from a tar file, or from standard input with "-", and
prints the id. Whether it is compressed (gzip, zstd, xz, bzip2) is told by its
content. The same content gives the same id.`,
		example: "plash-import-tar rootfs.tar.xz\ntar -C /srv/root -c . | plash-import-tar -",
		run: func(ctx context.Context, a arguments, s streams) error {
			o.name = a.operand(0)
			return runImport(ctx, "import-tar", o, s, importTar(s))
		},
	}, "read FILE also where it is unchanged since it was last imported; standard input always is read")
}

func newImportURL() *command {
	var o importOptions
	return o.addTo(&command{
		operands: grammar{"URL"},
		usage:    "[--refresh] URL",
		long: `
Imports a root filesystem from a tar at an http or https URL and prints the id.
A download that is cut off is resumed. The same content gives the same id.`,
		example: "plash-import-url https://example.org/rootfs.tar.xz",
		run: func(ctx context.Context, a arguments, s streams) error {
			o.name = a.operand(0)
			return runImport(ctx, "import-url", o, s, importexport.ImportURL)
		},
	})
}

func newImportLXC() *command {
	var o importOptions
	return o.addTo(&command{
		operands: grammar{"NAME"},
		usage:    "[--refresh] NAME",
		long: `
Imports the newest root filesystem that the LXC image server has under NAME for
this machine's architecture, and prints the id. NAME is a distribution, a
release, or both: debian, bookworm, debian:bookworm. PLASH_LXC_SERVER names
another server.`,
		example: "plash-import-lxc alpine:edge",
		run: func(ctx context.Context, a arguments, s streams) error {
			o.name = a.operand(0)
			return runImport(ctx, "import-lxc", o, s, importexport.ImportLXC)
		},
	})
}

// importer is a way to import what has a name.
type importer func(ctx context.Context, st *container.Store, name string, o importexport.Options) (container.ID, error)

func runImport(ctx context.Context, command string, o importOptions, s streams, do importer) error {
	st, err := openStore(command, s)
	if err != nil {
		return err
	}
	d, err := displayFor(s)
	if err != nil {
		return err
	}
	id, err := do(ctx, st, o.name, importSettings(command, o.refresh, d, s))
	if err != nil {
		return err
	}
	return s.result(id)
}

func importTar(s streams) importer {
	return func(ctx context.Context, st *container.Store, name string, o importexport.Options) (container.ID, error) {
		if name != "-" {
			return importexport.ImportTarFile(ctx, st, name, o)
		}
		if isTerminal(s.in) {
			return 0, withHint(errors.New("standard input is a terminal, not a tar"), "plash-import-tar FILE, or pipe a tar into it")
		}
		in, err := interruptible(ctx, s.in)
		if err != nil {
			return 0, err
		}
		return importexport.ImportTar(ctx, st, in, "standard input", o)
	}
}
