package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/ihucos/plash/importexport/output"
	"github.com/ihucos/plash/importexport/progress"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// A part is one of the files that an image is written as, a blob named by its digest.
type part struct {
	digest digest.Digest
	size   int64
	open   func(context.Context) (io.ReadCloser, error)
}

// contents are an image as an OCI layout holds it.
type contents struct {
	manifest v1.Descriptor
	config   digest.Digest
	layers   []digest.Digest // bottom first; some may be the same
	parts    []part          // the manifest, the configuration and the layers, each once
}

// contentsOf writes the manifest of an image whose layers are as they are, without
// packing anything.
func contentsOf(im *Image) (*contents, error) {
	c := &contents{config: digest.FromBytes(im.Config)}
	m := v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest,
		Config:    v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: c.config, Size: int64(len(im.Config))},
	}
	seen := map[digest.Digest]bool{}
	var layers []part
	for i, l := range im.Layers {
		if l.Digest == "" || l.Size < 0 || l.MediaType == "" {
			return nil, fmt.Errorf("layer %d: its digest or its size is not known", i+1)
		}
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size})
		c.layers = append(c.layers, l.Digest)
		if !seen[l.Digest] {
			seen[l.Digest] = true
			layers = append(layers, part{l.Digest, l.Size, l.Open})
		}
	}
	manifest, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	c.manifest = v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromBytes(manifest), Size: int64(len(manifest))}
	c.parts = append([]part{partOf(manifest), partOf(im.Config)}, layers...)
	return c, nil
}

func partOf(b []byte) part {
	return part{digest.FromBytes(b), int64(len(b)), func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b)), nil
	}}
}

// sizeOf is how many bytes parts have together.
func sizeOf(parts []part) (size int64) {
	for _, p := range parts {
		size += p.size
	}
	return size
}

// copyTo writes the bytes of a part to w, all or an error. The meter counts them.
func (b *part) copyTo(ctx context.Context, w io.Writer, m *progress.Meter) (err error) {
	r, err := b.open(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := r.Close(); err == nil {
			err = closeErr
		}
	}()
	if f, ok := r.(interface{ File() *os.File }); ok {
		return output.Copy(ctx, w, f.File(), 0, b.size, m.Add)
	}
	n, err := io.Copy(w, progress.Count(r, m))
	if err == nil && n != b.size {
		err = fmt.Errorf("blob %s: expected %d bytes, found %d", b.digest, b.size, n)
	}
	return err
}
