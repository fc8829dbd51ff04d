package registry

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/importexport/image"
	"github.com/ihucos/plash/importexport/registry/registrytest"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// A machine is a store with a cache.
type machine struct {
	*LayerCache
	warnings []string
}

func newMachine(t *testing.T, r CacheRepositories) *machine {
	t.Helper()
	m := &machine{}
	var mu sync.Mutex
	var err error
	m.LayerCache, err = NewLayerCache(newClient(t), newStore(t), LayerCacheOptions{CacheRepositories: r, Warn: func(err error) {
		mu.Lock()
		defer mu.Unlock()
		m.warnings = append(m.warnings, err.Error())
	}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// has publishes a layer, as if it had been built.
func (m *machine) built(t *testing.T, key string, layer []byte) {
	t.Helper()
	st, err := m.st.Ingest(t.Context(), bytes.NewReader(layer), cas.IngestOptions{})
	if err == nil {
		err = st.Publish()
	}
	if err != nil {
		t.Fatal(err)
	}
	m.Offer(t.Context(), key, st.Digest(), st.Size())
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
}

// wants holds what the cache has for a key against the layer it should have, nil for none.
func (m *machine) wants(t *testing.T, key string, layer []byte) {
	t.Helper()
	staged := m.Fetch(t.Context(), key)
	switch {
	case staged == nil && layer != nil:
		t.Errorf("%s is not there: %q", key, m.warnings)
	case staged != nil && layer == nil:
		t.Errorf("%s is there", key)
	case staged != nil && staged.Digest() != digest.FromBytes(layer):
		t.Errorf("%s is another layer", key)
	}
	if staged != nil {
		if err := staged.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestLayerCache(t *testing.T) {
	for name, prepare := range map[string]func(r *registrytest.Registry){
		"well": func(*registrytest.Registry) {},
		"cut":  func(r *registrytest.Registry) { r.Faults.CutEvery = 100_000 },
		"busy": func(r *registrytest.Registry) { r.Faults.BusyEvery = 5; r.Faults.FailEvery = 7 },
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.New(t)
			prepare(r)
			a, b := newMachine(t, CacheRepositories{To: r.Host + "/cache"}), newMachine(t, CacheRepositories{From: []string{r.Host + "/empty", r.Host + "/cache"}})
			layers := map[string][]byte{}
			b.wants(t, "none", nil)
			for i := range 5 {
				key := digest.FromString(fmt.Sprint(i)).Encoded()
				layers[key] = layerTar(t, fmt.Sprint(i), 40_000*i*i+7)
				a.built(t, key, layers[key])
				a.built(t, key, layers[key]) // once more does nothing
			}
			a.Wait()
			for key, layer := range layers {
				b.wants(t, key, layer)
				a.wants(t, key, layer)
				b.Offer(t.Context(), key, digest.FromBytes(layer), int64(len(layer))) // is not asked to write
			}
			b.Wait()
			b.wants(t, "none", nil)
			if len(a.warnings)+len(b.warnings) > 0 {
				t.Errorf("%q, %q", a.warnings, b.warnings)
			}
			if n := len(r.Tags("cache")); n != len(layers) {
				t.Errorf("%d tags", n)
			}
			for _, layer := range layers { // so pushes of images are not of zstd from now on
				if forms := append(image.Compressed(a.st, digest.FromBytes(layer)), image.Compressed(b.st, digest.FromBytes(layer))...); len(forms) > 0 {
					t.Errorf("remembered: %+v", forms)
				}
			}
			// What is there is not sent again, by whomever.
			r.ClearLog()
			c := newMachine(t, CacheRepositories{To: r.Host + "/cache"})
			for key, layer := range layers {
				c.built(t, key, layer)
			}
			c.Wait()
			if n := r.Requests("PUT", "") + r.Requests("PATCH", ""); n > 0 {
				t.Errorf("sent again: %q", r.Log())
			}
		})
	}
}

// TestLayerCacheBroken has caches that do not work: builds go on, and one warning says why.
func TestLayerCacheBroken(t *testing.T) {
	key := digest.FromString("key").Encoded()
	layer := layerTar(t, "a", 100_000)
	for name, c := range map[string]struct {
		want    string
		prepare func(r *registrytest.Registry)
		once    bool // the repository is not asked again
	}{
		"nobody there":    {"connection refused", func(r *registrytest.Registry) { r.Stop() }, true},
		"no password":     {"401", func(r *registrytest.Registry) { r.User = "u" }, true},
		"dead":            {"503", func(r *registrytest.Registry) { r.Faults.Dead = 503 }, true},
		"other bytes":     {"digest mismatch", func(r *registrytest.Registry) { r.Faults.Spoil = true }, false},
		"other manifests": {"digest mismatch", func(r *registrytest.Registry) { r.Faults.WrongManifestDigest = true }, false},
		"another key": {"not a layer of the build cache", func(r *registrytest.Registry) {
			putImage(t, r, "cache", cacheTag+key, layer)
		}, false},
		"another diff id": {"digest mismatch", func(r *registrytest.Registry) {
			config := jsonOf(t, v1.Image{Config: v1.ImageConfig{Labels: map[string]string{keyLabel: key}}, RootFS: v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromString("?")}}})
			r.PutManifest("cache", cacheTag+key, v1.MediaTypeImageManifest, jsonOf(t, v1.Manifest{
				Versioned: v2,
				Config:    v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: r.PutBlob("cache", config), Size: int64(len(config))},
				Layers:    []v1.Descriptor{{MediaType: v1.MediaTypeImageLayer, Digest: r.PutBlob("cache", layer), Size: int64(len(layer))}},
			}))
		}, false},
		"lost layer": {"404", func(r *registrytest.Registry) { r.Faults.LoseLayers = true }, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.New(t)
			a := newMachine(t, CacheRepositories{To: r.Host + "/cache"})
			a.built(t, key, layer)
			a.Wait()
			c.prepare(r)
			b := newMachine(t, CacheRepositories{From: []string{r.Host + "/cache"}, To: r.Host + "/cache"})
			b.wants(t, key, nil)
			if len(b.warnings) != 1 || !strings.Contains(b.warnings[0], c.want) {
				t.Fatalf("warnings: %q", b.warnings)
			}
			r.ClearLog()
			b.wants(t, "other", nil)
			if c.once && len(r.Log())+len(b.warnings) != 1 {
				t.Errorf("asked again: %q, %q", r.Log(), b.warnings)
			}
			b.built(t, "other", layer)
			b.Wait()
			if c.once && (len(r.Log()) > 0 || len(b.warnings) != 1) {
				t.Errorf("asked again: %q, %q", r.Log(), b.warnings)
			}
		})
	}
	if _, err := NewLayerCache(newClient(t), newStore(t), LayerCacheOptions{CacheRepositories: CacheRepositories{From: []string{"x:1"}}}); err == nil {
		t.Error("a tag is no repository")
	}
}

// TestLayerCacheInterrupted does not take the end of a build for a fault of the cache.
func TestLayerCacheInterrupted(t *testing.T) {
	r := registrytest.New(t)
	m := newMachine(t, CacheRepositories{To: r.Host + "/cache"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m.Offer(ctx, "key", digest.FromString("x"), 1)
	if m.Fetch(ctx, "key") != nil {
		t.Error("it is there")
	}
	m.Wait()
	if len(m.warnings) > 0 {
		t.Errorf("%q", m.warnings)
	}
}
