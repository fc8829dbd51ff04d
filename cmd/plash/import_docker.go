package main

import (
	"context"

	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport"
)

func newImportDocker() *command {
	var (
		o        importOptions
		platform string
	)
	c := o.addTo(&command{
		operands: grammar{"REF"},
		usage:    "[--platform OS/ARCH] [--refresh] REF",
		long: `
Imports an image of Docker or OCI and prints the id. Each layer becomes a
container on the one below it, so images on one base share it. Layers that are
in the store already are neither downloaded nor read. REF is one of

  NAME[:TAG]                     in the local Docker or Podman engine, else in
                                 its registry
  docker://HOST/NAME:TAG         in a registry; @sha256:… may follow
  docker-daemon:NAME:TAG         in the local engine
  docker-archive:FILE[:NAME:TAG] what docker save writes
  oci:DIR[:TAG]                  an OCI layout
  oci-archive:FILE[:TAG]         the same in a tar

An archive may be compressed, or come through a pipe (/dev/stdin). DOCKER_HOST
names another engine. The same image gives the same id.

An image that unpacks to more than 2 GiB and 64 times its size is refused, as is
one of more than 1 TiB: PLASH_MAX_IMAGE_SIZE=SIZE allows SIZE bytes (200G), or
with 0 any number.`,
		example: "plash-import-docker debian:bookworm\nplash-import-docker --platform linux/arm64 oci:./layout:v1\n" +
			"docker save debian | plash-import-docker docker-archive:/dev/stdin",
		run: func(ctx context.Context, a arguments, s streams) error {
			o.name = a.operand(0)
			return runImport(ctx, "import-docker", o, s,
				func(ctx context.Context, st *container.Store, name string, settings importexport.Options) (container.ID, error) {
					settings.Platform = platform
					return importexport.ImportDocker(ctx, st, name, settings)
				})
		},
	})
	c.options().StringVar(&platform, "platform", "", "the image for `OS/ARCH[/VARIANT]`, not for this machine")
	return c
}
