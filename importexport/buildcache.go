package importexport

import (
	"context"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/registry"
)

// A BuildCache shares built layers with other machines, by way of registries: see
// [registry.LayerCache], and package build for who uses it.
type BuildCache struct {
	client *registry.Client
	layers *registry.LayerCache
}

// NewBuildCache returns the cache for the layers of a store. Registries are told userAgent:
// plash/VERSION. The caller closes it.
func NewBuildCache(st *container.Store, o registry.LayerCacheOptions, userAgent string) (*BuildCache, error) {
	// That a request is made again is not worth a word: a build can do without.
	client := registry.New(registry.Options{UserAgent: userAgent, Warn: o.Warn})
	layers, err := registry.NewLayerCache(client, st.CAS(), o)
	if err != nil {
		return nil, err
	}
	return &BuildCache{client, layers}, nil
}

// Fetch returns the layer of a key, nil if the cache does not have it.
func (b *BuildCache) Fetch(ctx context.Context, key string) *cas.Staged {
	return b.layers.Fetch(ctx, key)
}

// Offer begins to upload the layer of a container under a key.
func (b *BuildCache) Offer(ctx context.Context, key string, layer container.Record) {
	b.layers.Offer(ctx, key, layer.Layer, layer.Size)
}

// Close waits until what was offered is uploaded.
func (b *BuildCache) Close() {
	b.layers.Wait()
	b.client.Close()
}
