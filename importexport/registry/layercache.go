package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/importexport/image"
	"github.com/ihucos/plash/importexport/progress"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// CacheRepositories says where built layers are shared.
type CacheRepositories struct {
	From []string // repositories that are asked for layers, in this order
	To   string   // a repository that gets the layers, and is asked too; "": none
}

// LayerCacheOptions are what is told about a cache.
type LayerCacheOptions struct {
	CacheRepositories
	Progress progress.Display // is told about downloads; nil: nobody is
	Warn     func(error)      // is told what goes wrong; nil: nobody is
}

// A LayerCache has built layers in repositories of registries: under the tag plash-KEY
// an image of that one layer, whose configuration repeats the key as a label. Each layer
// stands for itself, so any number of machines may write at once.
//
// What can be verified is: that the bytes are those of the layer's digest, and that the layer was
// put there for this key. That it is what the key's script makes cannot: who may write to
// the repository decides what is built.
//
// A repository that cannot be reached is warned of once and not asked again.
type LayerCache struct {
	c    *Client
	st   *cas.Store
	from []repository
	to   *repository
	o    LayerCacheOptions

	mu      sync.Mutex
	down    map[repository]bool
	offered map[string]bool // keys
	uploads sync.WaitGroup
	slots   chan struct{} // has room for as many as may be uploaded at once
}

const (
	// cacheTag is what tags of cached layers begin with.
	cacheTag = "plash-"
	// keyLabel is the label that repeats the key.
	keyLabel = "plash.key"
	// patience is how long a cache may take to say whether it has a layer.
	patience = 20 * time.Second
)

// NewLayerCache returns a cache for layers of the store st.
func NewLayerCache(c *Client, st *cas.Store, o LayerCacheOptions) (*LayerCache, error) {
	if o.Progress == nil {
		o.Progress = progress.Quiet{}
	}
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	l := &LayerCache{
		c: c, st: st, o: o, down: map[repository]bool{}, offered: map[string]bool{},
		slots: make(chan struct{}, runtime.GOMAXPROCS(0)),
	}
	for _, name := range o.From {
		repo, err := parseRepository(name)
		if err != nil {
			return nil, fmt.Errorf("build cache: %w", err)
		}
		l.from = append(l.from, repo)
	}
	if o.To != "" {
		repo, err := parseRepository(o.To)
		if err != nil {
			return nil, fmt.Errorf("build cache: %w", err)
		}
		l.to = &repo
		if !slices.Contains(l.from, repo) {
			l.from = append(l.from, repo)
		}
	}
	return l, nil
}

// failed warns of what went wrong with a repository. It is not asked again, unless it was
// only about one layer.
func (l *LayerCache) failed(ctx context.Context, repo repository, oneLayer bool, err error) {
	if ctx.Err() != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down[repo] {
		return
	}
	l.down[repo] = !oneLayer
	l.o.Warn(fmt.Errorf("build cache %s: %w", repo, err))
}

func (l *LayerCache) isDown(repo repository) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.down[repo]
}

func cacheRef(repo repository, key string) image.Ref {
	return image.Ref{Transport: image.Registry, Host: repo.host, Repository: repo.path, Tag: cacheTag + key, Index: -1}
}

// Fetch returns the layer of a key, nil if no repository has it in good order. The caller closes it.
func (l *LayerCache) Fetch(ctx context.Context, key string) *cas.Staged {
	for _, repo := range l.from {
		if l.isDown(repo) {
			continue
		}
		im, err := l.find(ctx, repo, key)
		if errors.Is(err, image.ErrNotFound) {
			continue
		}
		if err != nil {
			l.failed(ctx, repo, errors.Is(err, cas.ErrDigest) || errors.Is(err, errNotCached) || errors.Is(err, image.ErrMalformed), err)
			continue
		}
		staged, err := l.take(ctx, im)
		if err = errors.Join(err, im.Close()); err == nil {
			return staged
		}
		if staged != nil {
			_ = staged.Close()
		}
		l.failed(ctx, repo, status(err) == 0, err)
	}
	return nil
}

// errNotCached says that what lies under a key's tag was not put there for it.
var errNotCached = errors.New("not a layer of the build cache")

// find looks a key up. The answer must come soon.
func (l *LayerCache) find(ctx context.Context, repo repository, key string) (*image.Image, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no answer in %v", patience))
	defer cancel()
	im, err := l.c.Pull(ctx, cacheRef(repo, key), PullOptions{Progress: l.o.Progress})
	if err != nil {
		return nil, err
	}
	var config v1.Image
	if err := json.Unmarshal(im.Config, &config); err != nil || len(im.Layers) != 1 || config.Config.Labels[keyLabel] != key {
		return nil, fmt.Errorf("%w: tag %s%s", errNotCached, cacheTag, key)
	}
	return im, nil
}

// take brings the layer into the store: from the store itself, if that has it.
func (l *LayerCache) take(ctx context.Context, im *image.Image) (*cas.Staged, error) {
	layer := im.Layers[0]
	if blob, err := l.st.OpenBlob(layer.DiffID); err == nil {
		// Should it be damaged, what is downloaded takes its place.
		staged, err := l.st.Ingest(ctx, blob, cas.IngestOptions{Expect: layer.DiffID})
		if err = errors.Join(err, blob.Close()); err == nil {
			return staged, nil
		}
		if staged != nil {
			_ = staged.Close()
		}
	}
	r, err := layer.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	staged, err := l.st.Ingest(ctx, r, cas.IngestOptions{Expect: layer.DiffID})
	if err != nil {
		return nil, err
	}
	// The digest of what was sent is verified at its end, which Ingest need not have read.
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, errors.Join(err, staged.Close())
	}
	return staged, nil
}

// Offer begins to upload the layer of a key, which the store has, if the repository does not
// have it. It returns at once; see Wait.
func (l *LayerCache) Offer(ctx context.Context, key string, diffID digest.Digest, size int64) {
	if l.to == nil || l.isDown(*l.to) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.offered[key] {
		return
	}
	l.offered[key] = true
	l.uploads.Go(func() {
		select {
		case l.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		defer func() { <-l.slots }()
		if l.isDown(*l.to) {
			return
		}
		if err := l.put(ctx, key, diffID, size); err != nil {
			l.failed(ctx, *l.to, false, err)
		}
	})
}

// Wait returns when all that was offered is uploaded, or was given up.
func (l *LayerCache) Wait() { l.uploads.Wait() }

func (l *LayerCache) put(ctx context.Context, key string, diffID digest.Digest, size int64) error {
	ref := cacheRef(*l.to, key)
	if there, err := l.has(ctx, ref); there || err != nil {
		return err
	}
	blob, err := l.st.OpenBlob(diffID)
	if err != nil {
		return err
	}
	defer blob.Close()
	config, err := json.Marshal(v1.Image{
		Platform: v1.Platform{OS: "linux", Architecture: runtime.GOARCH},
		Config:   v1.ImageConfig{Labels: map[string]string{keyLabel: key}},
		RootFS:   v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}},
	})
	if err != nil {
		return err
	}
	_, err = l.c.Push(ctx, ref, &image.Image{Config: config, Layers: []image.Layer{{
		DiffID: diffID, Digest: diffID, Size: size, MediaType: v1.MediaTypeImageLayer,
		Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(io.NewSectionReader(blob, 0, size)), nil
		},
	}}}, PushOptions{Store: l.st, Compression: Zstd, aside: true})
	return err
}

// has reports whether there is a manifest.
func (l *LayerCache) has(ctx context.Context, ref image.Ref) (bool, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no answer in %v", patience))
	defer cancel()
	repo, err := l.c.settings.direct(repositoryOf(ref))
	if err != nil {
		return false, err
	}
	s, err := l.c.open(ctx, repo, toPush)
	if err != nil {
		return false, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, s.url("manifests/"+ref.Tag).String(), nil)
	if err != nil {
		return false, err
	}
	req.Header.Set("Accept", accepted)
	resp, err := s.http.Do(req)
	if err != nil {
		return false, requestError(ctx, err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return true, nil
	case http.StatusNotFound:
		return false, nil
	}
	return false, answerError(s.repo.host, resp)
}
