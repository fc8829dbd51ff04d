package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/importexport/image"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// accepted are the kinds of manifests that are asked for. Those of schema 1 are, so that the
// error can say what is wrong.
var accepted = strings.Join([]string{
	v1.MediaTypeImageManifest, v1.MediaTypeImageIndex, image.DockerManifest, image.DockerManifestList, dockerSchema1,
}, ", ")

const dockerSchema1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"

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
		// What brought no answer has been tried again by the session already.
		var lost *lostError
		if attempt == maxAttempts || ctx.Err() != nil || !errors.As(err, &lost) {
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

// A lostError says that the connection was lost before an answer's end was seen.
type lostError struct{ error }

func (e *lostError) Unwrap() error { return e.error }

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
		return document{}, &lostError{fmt.Errorf("read manifest: %w", err)}
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
