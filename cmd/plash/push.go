package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/ihucos/plash/importexport/image"
)

func newPush() *command {
	var o exportDockerOptions
	c := &command{
		operands: grammar{"CONTAINER", "REF"},
		usage:    "[--compression gzip|zstd|none] CONTAINER REF",
		long: `
Sends CONTAINER as an image to a registry: what plash-export-docker does with
docker://REF. REF is HOST[:PORT]/NAME[:TAG].

Layers that the registry has are not sent again. An image that was pulled keeps its
digests, unless --compression asks for something else; other layers are compressed
with gzip. What is cut off goes on where it was.

Credentials are those of docker and podman. A registry on this machine may speak
plain HTTP, others may if PLASH_INSECURE_REGISTRIES=HOST[:PORT],… or registries.conf
says so.`,
		example: "plash-push 2 localhost:5000/app:1.0\nplash-push -i alpine -x 'apk add curl' -- registry.example.org/me/curl",
		run: func(ctx context.Context, a arguments, s streams) error {
			o.container, o.ref = a.container(0), a.operand(1)
			return runPush(ctx, o, s)
		},
	}
	o.addCompression(c)
	return c
}

func runPush(ctx context.Context, o exportDockerOptions, s streams) error {
	if !image.HasTransport(o.ref) {
		o.ref = string(image.Registry) + "://" + o.ref
	}
	if !strings.HasPrefix(strings.ToLower(o.ref), string(image.Registry)+"://") {
		return &usageError{what: fmt.Sprintf("%s: not in a registry", o.ref), hint: "plash-export-docker writes to other places"}
	}
	return runExportDocker(ctx, "push", o, s)
}
