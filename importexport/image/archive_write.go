package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ihucos/plash/importexport/progress"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Files of an OCI layout besides blobs (image-layout.md), and docker's own list of the
// images in an archive.
const (
	layoutFile     = v1.ImageLayoutFile
	indexFile      = v1.ImageIndexFile
	dockerManifest = "manifest.json"
)

// WriteDockerArchive writes an image as docker save does since version 25: a tar that is
// an OCI layout and has docker's manifest.json as well, so that old and new docker
// load, podman load and skopeo take it. It will be known by the names of refs.
//
// Layers are copied as they are. What comes first in the archive says what follows. The meter,
// which may be nil, counts the bytes of the layers, the config and the manifest.
func WriteDockerArchive(ctx context.Context, w io.Writer, im *Image, m *progress.Meter, refs ...Ref) error {
	c, err := contentsOf(im)
	if err != nil {
		return err
	}
	entry := dockerEntry{Config: blobName(c.config), RepoTags: []string{}, Layers: []string{}}
	for _, l := range c.layers {
		entry.Layers = append(entry.Layers, blobName(l))
	}
	manifests := []v1.Descriptor{}
	for _, r := range refs {
		if r.Repository == "" {
			continue
		}
		if r.Tag == "" || r.Digest != "" {
			return fmt.Errorf("name %s: an image is given a tag, it has its digest", r.Name())
		}
		entry.RepoTags = append(entry.RepoTags, r.Familiar())
		d := c.manifest
		d.Annotations = map[string]string{containerdName: r.Name(), v1.AnnotationRefName: r.Tag}
		manifests = append(manifests, d)
	}
	if len(manifests) == 0 {
		manifests = append(manifests, c.manifest)
	}
	list, err := json.Marshal([]dockerEntry{entry})
	if err != nil {
		return fmt.Errorf("encode %s: %w", dockerManifest, err)
	}
	return c.writeArchive(ctx, w, m, manifests, smallFile{dockerManifest, list})
}

// WriteOCIArchive writes an image as a tar of an OCI layout, with a name (in skopeo's
// words: the image) if tag is not "". The meter is as that of [WriteDockerArchive].
func WriteOCIArchive(ctx context.Context, w io.Writer, im *Image, tag string, m *progress.Meter) error {
	c, err := contentsOf(im)
	if err != nil {
		return err
	}
	return c.writeArchive(ctx, w, m, []v1.Descriptor{c.named(tag)})
}

// dockerEntry is an image of a docker archive: Docker Image Specification v1.2,
// "Combined Image JSON + Filesystem Changeset Format".
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// named is the manifest's descriptor under a name.
func (c *contents) named(tag string) v1.Descriptor {
	d := c.manifest
	if tag != "" {
		d.Annotations = map[string]string{v1.AnnotationRefName: tag}
	}
	return d
}

type smallFile struct {
	name    string
	content []byte
}

func (c *contents) writeArchive(ctx context.Context, w io.Writer, m *progress.Meter, manifests []v1.Descriptor, more ...smallFile) error {
	m.Expect(sizeOf(c.parts))
	index, err := encodeIndex(v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: manifests,
	})
	if err != nil {
		return err
	}
	a := tarFile{w: w}
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := a.header(dir, 0); err != nil {
			return err
		}
	}
	for _, f := range append([]smallFile{{layoutFile, layoutContent()}, {indexFile, index}}, more...) {
		b := partOf(f.content)
		if err := a.add(ctx, f.name, &b, nil); err != nil {
			return err
		}
	}
	for i := range c.parts {
		if err := a.add(ctx, blobName(c.parts[i].digest), &c.parts[i], m); err != nil {
			return err
		}
	}
	return a.end()
}

// A tarFile is a tar that is written to w. It is no tar.Writer, as content has to pass that one.
type tarFile struct {
	w  io.Writer
	at int64 // how much of it there is
}

// Content of alignedFrom bytes or more begins at a multiple of alignment, so that copying is
// of whole pages, and on filesystems that can share blocks of files none at all.
const (
	alignedFrom = 64 << 10
	alignment   = 4096
)

func (a *tarFile) header(name string, size int64) error {
	h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0)}
	if strings.HasSuffix(name, "/") {
		h.Typeflag, h.Mode = tar.TypeDir, 0o755
	}
	b, err := headerBytes(h)
	// A record of a comment takes two blocks or more.
	for n := 1; err == nil && size >= alignedFrom && (a.at+int64(len(b)))%alignment != 0; n += 512 {
		h.PAXRecords = map[string]string{"comment": strings.Repeat(" ", n)}
		b, err = headerBytes(h)
	}
	if err != nil {
		return err
	}
	return a.write(b)
}

func headerBytes(h *tar.Header) ([]byte, error) {
	var b bytes.Buffer
	err := tar.NewWriter(&b).WriteHeader(h)
	return b.Bytes(), err
}

func (a *tarFile) write(b []byte) error {
	n, err := a.w.Write(b)
	a.at += int64(n)
	return err
}

func (a *tarFile) add(ctx context.Context, name string, b *part, m *progress.Meter) error {
	if err := a.header(name, b.size); err != nil {
		return err
	}
	if err := b.copyTo(ctx, a.w, m); err != nil {
		return err
	}
	a.at += b.size
	return a.write(make([]byte, -b.size&511))
}

func (a *tarFile) end() error { return a.write(make([]byte, 1024)) }

func layoutContent() []byte {
	return []byte(`{"imageLayoutVersion":"` + v1.ImageLayoutVersion + `"}`)
}

func encodeIndex(index v1.Index) ([]byte, error) {
	b, err := json.Marshal(index)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", indexFile, err)
	}
	return b, nil
}
