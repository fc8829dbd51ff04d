package build

import (
	"context"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
)

// A Cache has layers that were built elsewhere, by their keys, see [Key]. What goes wrong with
// it is its own to tell: a build goes on without.
type Cache interface {
	// Fetch returns the layer of a key, nil if it is not there, or what is there is not what it
	// should be. The caller closes it.
	Fetch(ctx context.Context, key string) *cas.Staged
	// Offer says that the layer of a key is there to be taken by others. It does not wait until
	// it is.
	Offer(ctx context.Context, key string, layer container.Record)
}

// fetch returns the layer from the cache, and the keys that it is to be found under; nil if it
// is to be built.
func (s *step) fetch(ctx context.Context, below container.Record) (*cas.Staged, []string) {
	if s.Cache == nil || s.Layer.NoCache || s.Builder.NoCache {
		return nil, nil
	}
	for _, key := range s.keys(below) {
		if staged := s.Cache.Fetch(ctx, key); staged != nil {
			return staged, []string{key}
		}
	}
	return nil, nil
}

// offer lets others have what was built, or was built before.
func (s *step) offer(ctx context.Context, keys []string, layer container.Record) {
	if s.Cache == nil {
		return
	}
	for _, key := range keys {
		s.Cache.Offer(ctx, key, layer)
	}
}

// offerFound offers a layer that was found in the store.
func (s *step) offerFound(ctx context.Context, key string, id container.ID) error {
	if s.Cache == nil {
		return nil
	}
	layer, err := s.Containers.Get(id)
	if err != nil {
		return s.wrap(err)
	}
	s.offer(ctx, []string{key}, layer)
	return nil
}
