package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/importexport/fetch"
	"github.com/ihucos/plash/importexport/image"
	"github.com/ihucos/plash/importexport/progress"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// PullOptions are which image to pull.
type PullOptions struct {
	// Platform is the one wanted of an image for several; zero: this machine's.
	Platform image.Platform
	// Progress is told about the download in place of that of the client; nil: that is.
	Progress progress.Display
}

// Pull reads an image's manifest and configuration. Its layers are downloaded when they are
// opened, any number of them at once; what is cut off goes on where it was. Close the
// image before the client. The error wraps [image.ErrNotFound] if there is no such image.
func (c *Client) Pull(ctx context.Context, ref image.Ref, o PullOptions) (*image.Image, error) {
	sources, err := c.settings.sources(repositoryOf(ref), ref.Digest != "")
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", ref.Name(), err)
	}
	var lacking []string // mirrors that do not have it
	for i, from := range sources {
		im, err := c.pullFrom(ctx, ref, sources[i:], o)
		if err == nil {
			return im, nil
		}
		missing := errors.Is(err, image.ErrNotFound)
		switch {
		case ctx.Err() != nil || i == len(sources)-1 && (missing || len(lacking) == 0):
			return nil, fmt.Errorf("pull %s: %w", ref.Name(), err)
		case i == len(sources)-1:
			return nil, fmt.Errorf("pull %s: not at the mirror %s; %w", ref.Name(), strings.Join(lacking, ", "), err)
		case missing:
			lacking = append(lacking, from.host)
		default:
			c.o.Warn(fmt.Errorf("mirror %s: %w", from.host, err))
		}
	}
	return nil, nil // there is always a source
}

// pullFrom pulls from the first of sources; layers that it lacks come from the next ones.
func (c *Client) pullFrom(ctx context.Context, ref image.Ref, sources []endpoint, o PullOptions) (*image.Image, error) {
	s, err := c.open(ctx, sources[0], toPull)
	if err != nil {
		return nil, err
	}
	doc, m, err := c.resolve(ctx, s, manifestName(ref), o.Platform)
	if err != nil {
		return nil, err
	}
	config, err := c.small(ctx, s, m.Config)
	if err != nil {
		return nil, fmt.Errorf("configuration %s: %w", m.Config.Digest, err)
	}
	im, err := image.New(doc.bytes, m.MediaType, config)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", doc.digest, err)
	}
	d := &download{c: c, sources: sources, show: c.o.Progress}
	if o.Progress != nil {
		d.show = o.Progress
	}
	im.Release = d.close
	for i, l := range m.Layers {
		d.left += l.Size
		im.Layers[i].From = repositoryOf(ref).String()
		im.Layers[i].Open = d.opener(m.Layers, i)
	}
	return im, nil
}

// maxNesting is how many indexes may lie in one another.
const maxNesting = 3

// resolve returns the manifest of a name, out of indexes the one for the platform.
func (c *Client) resolve(ctx context.Context, s *session, name string, platform image.Platform) (document, *image.Manifest, error) {
	for range maxNesting {
		doc, err := c.manifest(ctx, s, name)
		if err != nil {
			return document{}, nil, err
		}
		m, err := image.ParseManifest(doc.bytes, doc.mediaType)
		if err != nil {
			return document{}, nil, fmt.Errorf("manifest %s: %w", doc.digest, err)
		}
		if !m.IsIndex() {
			return doc, m, nil
		}
		chosen, err := image.Choose(m.Manifests, platform)
		if err != nil {
			return document{}, nil, err
		}
		name = chosen.Digest.String()
	}
	return document{}, nil, fmt.Errorf("%d indexes in one another: %w", maxNesting, ErrUnsupported)
}

// small returns a blob that fits into memory.
func (c *Client) small(ctx context.Context, s *session, d v1.Descriptor) ([]byte, error) {
	if d.Size > maxManifest {
		return nil, fmt.Errorf("%d bytes are more than %d: %w", d.Size, maxManifest, ErrUnsupported)
	}
	b := newBlob(ctx, s, d, progress.Quiet{})
	defer b.Close()
	return io.ReadAll(b)
}

// A download is the layers of one image on their way.
type download struct {
	c       *Client
	sources []endpoint
	show    progress.Display

	mu   sync.Mutex
	left int64 // bytes of the layers above the first one that was opened, and of that
	sum  *progress.Sum
}

// opener returns what opens layer i. The first layer to be opened says how much is
// to come, as those below it are there.
func (d *download) opener(layers []v1.Descriptor, i int) func(context.Context) (io.ReadCloser, error) {
	return func(ctx context.Context) (io.ReadCloser, error) {
		d.mu.Lock()
		if d.sum == nil {
			for _, l := range layers[:i] {
				d.left -= l.Size
			}
			d.sum = progress.NewSum(d.show, d.left)
		}
		sum := d.sum
		d.mu.Unlock()
		l := layers[i]
		b, err := d.open(ctx, 0, l, sum.Part())
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", l.Digest, err)
		}
		return b, nil
	}
}

// open opens a blob at the first of the sources from number i on that can be spoken with.
func (d *download) open(ctx context.Context, i int, l v1.Descriptor, p progress.Display) (*blob, error) {
	s, err := d.c.open(ctx, d.sources[i], toPull)
	last := i == len(d.sources)-1
	if err != nil && !last && ctx.Err() == nil {
		return d.open(ctx, i+1, l, p)
	}
	if err != nil {
		return nil, err
	}
	b := newBlob(ctx, s, l, p)
	if !last {
		b.next = func() (*blob, error) { return d.open(ctx, i+1, l, p) }
	}
	return b, nil
}

// close ends the display.
func (d *download) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sum != nil {
		d.sum.Close()
	}
	return nil
}

// A blob is the content of a digest on its way, verified when its end is there.
type blob struct {
	stream *fetch.Stream
	want   v1.Descriptor
	other  digest.Verifier // nil where the stream's own sum will do
	next   func() (*blob, error)
	begun  bool
	err    error
}

func newBlob(ctx context.Context, s *session, d v1.Descriptor, p progress.Display) *blob {
	b := &blob{want: d, stream: s.fetch.OpenFixed(ctx, s.url("blobs/"+d.Digest.String()), d.Size, p)}
	if d.Digest.Algorithm() != digest.SHA256 {
		b.other = d.Digest.Verifier()
	}
	return b
}

func (b *blob) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.stream.Read(p)
	if b.other != nil {
		_, _ = b.other.Write(p[:n]) // a hash
	}
	if n == 0 && err != nil && !b.begun && b.next != nil && status(err) == http.StatusNotFound {
		return b.elsewhere(p)
	}
	b.begun = b.begun || n > 0
	if err == io.EOF {
		err = b.verify()
	} else if err != nil {
		err = blobError(b.want.Digest, err)
	}
	b.err = err
	return n, err
}

// elsewhere goes on with the next source, as this one does not have the blob.
func (b *blob) elsewhere(p []byte) (int, error) {
	b.stream.Close()
	next, err := b.next()
	if err != nil {
		b.err = err
		return 0, err
	}
	*b = *next
	return b.Read(p)
}

// verify returns io.EOF if the bytes are those of the digest.
func (b *blob) verify() error {
	got := digest.NewDigestFromEncoded(digest.SHA256, b.stream.SHA256())
	switch {
	case b.other == nil && got != b.want.Digest:
		return fmt.Errorf("%w: %w: expected %s, found %s", b.stream.Wrap(fetch.ErrChecksum), cas.ErrDigest, b.want.Digest, got)
	case b.other != nil && !b.other.Verified():
		return fmt.Errorf("%w: %w: expected %s", b.stream.Wrap(fetch.ErrChecksum), cas.ErrDigest, b.want.Digest)
	}
	return io.EOF
}

func (b *blob) Close() error {
	b.stream.Close()
	return nil
}

// blobError says what it means that a registry answers so.
func blobError(d digest.Digest, err error) error {
	if status(err) == http.StatusNotFound {
		return fmt.Errorf("blob %s: %w: %w", d, image.ErrNotFound, err)
	}
	return err
}

// requestError is why a request got no answer, without what net/http puts around it.
func requestError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		return fmt.Errorf("%s %s: %w", strings.ToLower(ue.Op), ue.URL, ue.Err)
	}
	return err
}
