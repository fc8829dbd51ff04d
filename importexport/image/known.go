package image

import (
	"errors"
	"os"

	"github.com/ihucos/plash/container"
	"github.com/opencontainers/go-digest"
)

// imageKey is the cache key of the container that has an image's config.
func imageKey(config []byte) string {
	return "image:config:" + digest.SHA256.FromBytes(config).String()
}

// chainKey is the cache key of the container of a stack of layers without a config. That of a
// single layer is the one which the import of its tar has.
func chainKey(chain digest.Digest, depth int) string {
	if depth == 1 {
		return "import:" + chain.String()
	}
	return "chain:" + chain.String()
}

// Known returns the container of the image with that config, if it is there with all its layers.
func Known(st *container.Store, config []byte) (container.ID, bool, error) {
	return known(st, imageKey(config))
}

// KnownConfig is Known of a config by its digest.
func KnownConfig(st *container.Store, config digest.Digest) (container.ID, bool, error) {
	return known(st, "image:config:"+config.String())
}

func known(st *container.Store, key string) (container.ID, bool, error) {
	id, ok, err := st.Lookup(key)
	if !ok || err != nil {
		return 0, false, err
	}
	records, err := st.Chain(id)
	if errors.Is(err, container.ErrNotFound) || errors.Is(err, container.ErrDamaged) {
		return 0, false, nil
	}
	for _, r := range records {
		if !intact(st, r) {
			return 0, false, nil
		}
	}
	return id, err == nil, err
}

// intact reports whether the blob of a container's layer is there with the size it must have.
func intact(st *container.Store, r container.Record) bool {
	info, err := os.Stat(st.CAS().BlobPath(r.Layer))
	return err == nil && info.Size() == r.Size
}
