// Package image is images as other tools have them: layers and a configuration, in
// docker archives, OCI layouts and archives, engines and registries. It makes
// containers of them and them of containers.
//
// An [Image] does not say where it is: whoever reads one form fills it in, and
// whoever writes one takes it. Layers stay layers: each becomes a container on the
// one below it, with the very bytes of its tar as blob.
//
// What is known of the formats is in the OCI image specification (manifest.md,
// config.md, layer.md, image-layout.md), and of docker's archive in the Docker Image
// Specification v1.2.
package image

import (
	"context"
	"errors"
	"io"

	"github.com/ihucos/plash/cas"
	"github.com/opencontainers/go-digest"
)

// An Image is one image for one platform.
type Image struct {
	// Manifest is the very bytes of the manifest, MediaType its type; nil and "" where
	// the image comes from a form that has none (docker's archive).
	Manifest  []byte
	MediaType string
	// Config is the very bytes of the image's configuration.
	Config []byte
	// Layers are its layers, the bottom one first, with those that are empty.
	Layers []Layer

	// Release gives back what the layers are read from; nil: nothing. It is called once.
	Release func() error

	// changed says that it is not quite what the config says, see withLayer.
	changed bool
}

// Close gives back what the image is read from.
func (im *Image) Close() error {
	if im.Release == nil {
		return nil
	}
	return im.Release()
}

// A Layer is one layer of an image as it is stored or sent.
type Layer struct {
	// DiffID is the digest of the uncompressed tar, as the configuration has it.
	DiffID digest.Digest
	// MediaType, Digest and Size are of the bytes that Open yields; "" and -1 where
	// they are not known. MediaType does not decide how they are compressed: their content does.
	MediaType string
	Digest    digest.Digest
	Size      int64
	// URLs are where else the layer may be had (OCI image specification, descriptor.md).
	URLs []string
	// From is the registry/repository that the bytes come from, "" for none: what
	// [RememberCompressed] notes of them.
	From string
	// Open returns the bytes. The reader fails at its end if they are not those of
	// Digest. Several layers may be read at once.
	Open func(ctx context.Context) (io.ReadCloser, error)

	// staged is set instead of Open where the layer has been read already, out of a stream.
	staged *cas.Staged
}

// ErrNotFound is wrapped by the error about an image that is not where it was
// looked for.
var ErrNotFound = errors.New("no such image")
