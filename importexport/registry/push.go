package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/importexport/image"
	"github.com/ihucos/plash/importexport/progress"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// PushOptions are how to push an image.
type PushOptions struct {
	// Store remembers in which forms layers are known (see [image.Compressed]), and has room for
	// what is compressed.
	Store *cas.Store
	// Compression of the layers; "": any form that is known of a layer, else Gzip.
	Compression Compression

	// aside shows nothing, and does not remember the forms that layers get: those are not
	// the ones in which images are wanted.
	aside bool
}

// maxUploads is how many layers are on their way at once.
const maxUploads = 4

// Push sends an image to a registry and returns the digest of its manifest. Layers that the
// registry has, in a form that is remembered, are not sent; those that were pulled from a
// repository that can be read still are taken from there as they are. So an image that was pulled and is
// pushed again keeps its manifest, byte for byte. Others get a new one, of Docker's format where the
// image came with such, else of OCI's.
func (c *Client) Push(ctx context.Context, ref image.Ref, im *image.Image, o PushOptions) (digest.Digest, error) {
	d, err := c.push(ctx, ref, im, o)
	if err != nil {
		return "", fmt.Errorf("push %s: %w", ref.Name(), err)
	}
	return d, nil
}

func (c *Client) push(ctx context.Context, ref image.Ref, im *image.Image, o PushOptions) (_ digest.Digest, err error) {
	p := &pusher{c: c, im: im, o: o}
	if err := p.known(); err != nil {
		return "", err
	}
	repo, err := c.settings.direct(repositoryOf(ref))
	if err != nil {
		return "", err
	}
	if p.session, err = c.openFrom(ctx, repo, p.neighbours(repo.repository)); err != nil {
		return "", err
	}
	if p.spool, err = newSpool(o.Store); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, p.spool.close()) }()
	layers, kept, err := p.layers(ctx)
	if err != nil {
		return "", err
	}
	config := bytesSource(im.Config)
	if there, err := p.session.has(ctx, config.digest); err != nil {
		return "", err
	} else if !there {
		if err := c.upload(ctx, p.session, config, nil, progress.Quiet{}); err != nil {
			return "", err
		}
	}
	manifest, mediaType := im.Manifest, im.MediaType
	if !kept {
		if manifest, mediaType, err = p.manifest(config, layers); err != nil {
			return "", err
		}
	}
	d := digest.FromBytes(manifest)
	if ref.Digest != "" && ref.Digest != d {
		return "", fmt.Errorf("%w: the image has the digest %s", cas.ErrDigest, d)
	}
	return d, p.session.putManifest(ctx, manifestName(ref), mediaType, manifest)
}

// A pusher pushes one image.
type pusher struct {
	c       *Client
	im      *image.Image
	o       PushOptions
	session *session
	spool   *spool
	wanted  []v1.Descriptor                          // the layers as the image's own manifest has them; nil: none
	forms   map[digest.Digest][]image.CompressedForm // by diff id, the preferred ones first
	sum     *progress.Sum
}

// known finds out in which forms the layers are wanted, and where those are.
func (p *pusher) known() error {
	p.forms = map[digest.Digest][]image.CompressedForm{}
	if p.im.Manifest != nil {
		m, err := image.ParseManifest(p.im.Manifest, p.im.MediaType)
		if err != nil {
			return err
		}
		if !m.IsIndex() && len(m.Layers) == len(p.im.Layers) && m.Config.Digest == digest.FromBytes(p.im.Config) {
			p.wanted = m.Layers
		}
	}
	for i, l := range p.im.Layers {
		var forms []image.CompressedForm
		remembered := image.Compressed(p.o.Store, l.DiffID)
		if p.wanted != nil && p.fits(p.wanted[i].MediaType) {
			w := p.wanted[i]
			for _, f := range remembered {
				if f.Digest == w.Digest {
					forms = append(forms, f)
				}
			}
			forms = append(forms, image.CompressedForm{MediaType: w.MediaType, Digest: w.Digest, Size: w.Size})
		}
		if p.o.Compression == "" {
			slices.SortStableFunc(remembered, gzipFirst)
		}
		for _, f := range remembered {
			if p.fits(f.MediaType) && (p.wanted == nil || f.Digest != p.wanted[i].Digest) {
				forms = append(forms, f)
			}
		}
		p.forms[l.DiffID] = forms
	}
	return nil
}

// gzipFirst orders forms: gzip is what everyone reads.
func gzipFirst(a, b image.CompressedForm) int {
	rank := func(f image.CompressedForm) int {
		if compressionOf(f.MediaType) == Gzip {
			return 0
		}
		return 1
	}
	return rank(a) - rank(b)
}

// fits reports whether layers of a media type are compressed as the user wants it.
func (p *pusher) fits(mediaType string) bool {
	return p.o.Compression == "" || p.o.Compression == compressionOf(mediaType)
}

// neighbours are the other repositories of the same registry that layers are known to be in.
func (p *pusher) neighbours(repo repository) []string {
	seen := map[string]bool{repo.path: true}
	var paths []string
	for _, forms := range p.forms {
		for _, f := range forms {
			if from, err := parseRepository(f.From); err == nil && from.host == repo.host && !seen[from.path] {
				seen[from.path] = true
				paths = append(paths, from.path)
			}
		}
	}
	slices.Sort(paths)
	return paths
}

// layers sees to it that the registry has all layers, and returns how it has them. Kept
// says that they are all as the image's own manifest wants them.
func (p *pusher) layers(ctx context.Context) (layers []v1.Descriptor, kept bool, err error) {
	var total int64
	first := map[digest.Digest]int{}
	for i, l := range p.im.Layers {
		if _, twice := first[l.DiffID]; !twice {
			first[l.DiffID] = i
			if !p.elsewhere(i) {
				total += max(l.Size, 0)
			}
		}
	}
	show := p.c.o.Progress
	if p.o.aside {
		show = progress.Quiet{}
	}
	p.sum = progress.NewSum(show, total)
	defer p.sum.Close()
	layers = make([]v1.Descriptor, len(p.im.Layers))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxUploads)
	for i, l := range p.im.Layers {
		if first[l.DiffID] != i {
			continue
		}
		g.Go(func() (err error) {
			if p.elsewhere(i) {
				layers[i] = p.wanted[i]
				return nil
			}
			layers[i], err = p.layer(ctx, l)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, false, err
	}
	kept = p.wanted != nil
	for i, l := range p.im.Layers {
		layers[i] = layers[first[l.DiffID]]
		kept = kept && layers[i].Digest == p.wanted[i].Digest
	}
	p.sum.Done()
	return layers, kept, nil
}

// elsewhere reports whether layer i is one that is not sent.
func (p *pusher) elsewhere(i int) bool { return p.wanted != nil && elsewhere(p.wanted[i]) }

// elsewhere reports whether a layer is one that registries do not have ("foreign"), but the
// addresses that its descriptor names.
func elsewhere(d v1.Descriptor) bool { return len(d.URLs) > 0 }

// manifest makes a new manifest.
func (p *pusher) manifest(config source, layers []v1.Descriptor) (b []byte, mediaType string, err error) {
	docker := p.im.MediaType == image.DockerManifest
	for _, l := range layers {
		docker = docker && compressionOf(l.MediaType) != Zstd
	}
	m := v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest,
		Config:    v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: config.digest, Size: config.size},
		Layers:    make([]v1.Descriptor, len(layers)), // an empty list, not null
	}
	if docker {
		m.MediaType, m.Config.MediaType = image.DockerManifest, image.DockerConfig
	}
	for i, l := range layers {
		if !elsewhere(l) {
			l = v1.Descriptor{MediaType: compressionOf(l.MediaType).layerType(docker), Digest: l.Digest, Size: l.Size}
		}
		m.Layers[i] = l
	}
	b, err = json.Marshal(m)
	return b, m.MediaType, err
}

// putManifest stores a manifest under a tag or its digest.
func (s *session) putManifest(ctx context.Context, name, mediaType string, b []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, s.url("manifests/"+name).String(), bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", mediaType)
	resp, err := s.http.Do(req)
	if err != nil {
		return requestError(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusOK {
		return answerError(s.repo.host, resp)
	}
	return nil
}
