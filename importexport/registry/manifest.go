package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/importexport/fetch"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of Docker's image format (Docker Image Manifest V2, Schema 2), besides those
// of OCI.
const (
	dockerManifest   = "application/vnd.docker.distribution.manifest.v2+json"
	dockerIndex      = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig     = "application/vnd.docker.container.image.v1+json"
	dockerLayer      = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	dockerForeign    = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
	dockerLayerPlain = "application/vnd.docker.image.rootfs.diff.tar"
	dockerSchema1    = "application/vnd.docker.distribution.manifest.v1+json"
	dockerSchema1Sig = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// accepted are the kinds of manifests that are asked for. Those of schema 1 are, so that the
// error can say what is wrong.
var accepted = strings.Join([]string{
	v1.MediaTypeImageManifest, v1.MediaTypeImageIndex, dockerManifest, dockerIndex, dockerSchema1Sig,
}, ", ")

// maxManifest is how long a manifest or a configuration may be: what registries accept
// (OCI distribution specification, "Pushing Manifests").
const maxManifest = 4 << 20

// document is a manifest as a registry has it.
type document struct {
	bytes     []byte
	mediaType string
	digest    digest.Digest
}

// manifest asks a registry for a manifest by tag or digest, and verifies what can be
// verified.
func (c *Client) manifest(ctx context.Context, s *session, name string) (document, error) {
	for attempt := 1; ; attempt++ {
		d, err := s.getManifest(ctx, name)
		// Its end was not seen: the connection was lost.
		if err == nil || attempt == maxAttempts || ctx.Err() != nil || !errors.Is(err, io.ErrUnexpectedEOF) && !fetch.Transient(err, 0) {
			return d, err
		}
		c.o.Progress.Retry(err, c.backoff)
		select {
		case <-ctx.Done():
			return document{}, context.Cause(ctx)
		case <-time.After(c.backoff << (attempt - 1)):
		}
	}
}

// maxAttempts is how often something small is asked for whose end does not arrive.
const maxAttempts = 5

func (s *session) getManifest(ctx context.Context, name string) (document, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url("manifests/"+name).String(), nil)
	if err != nil {
		return document{}, err
	}
	req.Header.Set("Accept", accepted)
	resp, err := s.http.Do(req)
	if err != nil {
		return document{}, requestError(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return document{}, answerError(s.repo.host, resp)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	if err != nil {
		return document{}, fmt.Errorf("read manifest: %w", err)
	}
	if len(b) > maxManifest {
		return document{}, fmt.Errorf("a manifest of more than %d bytes: %w", maxManifest, ErrUnsupported)
	}
	d := document{bytes: b, digest: digest.FromBytes(b)}
	d.mediaType, _, _ = mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return d, d.check(name, resp.Header.Get("Docker-Content-Digest"))
}

// check compares a document with the digest that it was asked for by, or else with the one that the
// registry says it has.
func (d *document) check(name, said string) error {
	want := digest.Digest(name)
	if want.Validate() != nil {
		want = digest.Digest(said)
	}
	if want.Validate() != nil {
		return nil
	}
	if got := want.Algorithm().FromBytes(d.bytes); got != want {
		return fmt.Errorf("manifest: %w: expected %s, found %s", cas.ErrDigest, want, got)
	}
	d.digest = want
	return nil
}

// parsed is what manifests and indexes may have.
type parsed struct {
	SchemaVersion int             `json:"schemaVersion"`
	MediaType     string          `json:"mediaType"`
	ArtifactType  string          `json:"artifactType"`
	Config        v1.Descriptor   `json:"config"`
	Layers        []v1.Descriptor `json:"layers"`
	Manifests     []v1.Descriptor `json:"manifests"`
}

// parse reads a document, and settles of which kind it is: some registries do not say so in
// the header.
func (d *document) parse() (*parsed, error) {
	var p parsed
	if err := json.Unmarshal(d.bytes, &p); err != nil {
		return nil, fmt.Errorf("manifest %s: %w", d.digest, err)
	}
	switch d.mediaType {
	case v1.MediaTypeImageManifest, v1.MediaTypeImageIndex, dockerManifest, dockerIndex, dockerSchema1, dockerSchema1Sig:
	default:
		d.mediaType = p.MediaType
	}
	switch {
	case d.mediaType == dockerSchema1, d.mediaType == dockerSchema1Sig, p.SchemaVersion == 1:
		return nil, fmt.Errorf("the image is stored in Docker's image format of before 2016 (schema 1): %w", &hinted{
			ErrUnsupported, "pull and push it with a Docker of before version 26, which stores it anew",
		})
	case p.SchemaVersion != 2:
		return nil, fmt.Errorf("manifest %s: schema version %d: %w", d.digest, p.SchemaVersion, ErrUnsupported)
	case d.mediaType == "" && len(p.Manifests) > 0:
		d.mediaType = v1.MediaTypeImageIndex
	case d.mediaType == "":
		d.mediaType = v1.MediaTypeImageManifest
	}
	for _, desc := range append(append([]v1.Descriptor{}, p.Layers...), p.Manifests...) {
		if err := valid(desc); err != nil {
			return nil, fmt.Errorf("manifest %s: %w", d.digest, err)
		}
	}
	return &p, nil
}

// index reports whether the document lists images for several platforms.
func (d *document) index() bool {
	return d.mediaType == v1.MediaTypeImageIndex || d.mediaType == dockerIndex
}

func valid(d v1.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", d.Digest, err)
	}
	if d.Size < 0 {
		return fmt.Errorf("%s: a size of %d bytes", d.Digest, d.Size)
	}
	return nil
}
