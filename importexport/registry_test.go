package importexport

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/image"
	"github.com/ihucos/plash/importexport/registry/registrytest"
	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// randomLayer is a tar with one file that cannot be compressed.
func randomLayer(t *testing.T, name string, size int) []byte {
	t.Helper()
	content := make([]byte, size)
	random := rand.NewChaCha8([32]byte{byte(size), name[0]})
	_, _ = random.Read(content) // never fails
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(size)})
	if err == nil {
		_, err = w.Write(content)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// putImage puts an image of gzipped layers into a registry. Lie changes its configuration.
func putImage(t *testing.T, r *registrytest.Registry, name string, lie func(*v1.Image), layers ...[]byte) {
	t.Helper()
	config := v1.Image{Platform: v1.Platform{OS: "linux", Architecture: "amd64"}, RootFS: v1.RootFS{Type: "layers"}}
	var m v1.Manifest
	m.SchemaVersion, m.MediaType = 2, v1.MediaTypeImageManifest
	for _, l := range layers {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		if _, err := w.Write(l); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(l))
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: v1.MediaTypeImageLayerGzip, Digest: r.PutBlob(name, z.Bytes()), Size: int64(z.Len())})
	}
	lie(&config)
	c, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	m.Config = v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: r.PutBlob(name, c), Size: int64(len(c))}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	r.PutManifest(name, "latest", v1.MediaTypeImageManifest, b)
}

func honest(*v1.Image) {}

// TestPullFaults has registries and networks that fail: it ends with the right container, or with
// none and a store as before.
func TestPullFaults(t *testing.T) {
	layers := [][]byte{randomLayer(t, "a", 17_000_000), randomLayer(t, "b", 6_000_000), randomLayer(t, "c", 100)}
	for name, c := range map[string]struct {
		faults registrytest.Faults
		lie    func(*v1.Image)
		want   error // nil: it is imported
	}{
		"cut every 5 MB":                      {registrytest.Faults{CutEvery: 5_000_000}, honest, nil},
		"busy":                                {registrytest.Faults{CutEvery: 5_000_000, BusyEvery: 3, FailEvery: 5}, honest, nil},
		"wrong bytes":                         {registrytest.Faults{Spoil: true}, honest, cas.ErrDigest},
		"wrong bytes of layers, after others": {registrytest.Faults{SpoilOver: 5_000_000}, honest, cas.ErrDigest},
		"wrong digests":                       {registrytest.Faults{WrongManifestDigest: true}, honest, cas.ErrDigest},
		"lost layers":                         {registrytest.Faults{LoseLayers: true}, honest, image.ErrNotFound},
		"a lie about a layer": {registrytest.Faults{}, func(c *v1.Image) {
			c.RootFS.DiffIDs[2] = digest.FromString("another")
		}, cas.ErrDigest},
		"layers in another order": {registrytest.Faults{}, func(c *v1.Image) {
			ids := c.RootFS.DiffIDs
			ids[0], ids[1] = ids[1], ids[0]
		}, cas.ErrDigest},
		"a layer less": {registrytest.Faults{}, func(c *v1.Image) { c.RootFS.DiffIDs = c.RootFS.DiffIDs[:2] }, image.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.New(t)
			putImage(t, r, "some/image", c.lie, layers...)
			r.Faults = c.faults
			st := newStore(t)
			before := storeFiles(t, st)
			id, err := ImportDocker(t.Context(), st, "docker://"+r.Host+"/some/image", Options{})
			if c.want != nil {
				if !errors.Is(err, c.want) || !strings.Contains(err.Error(), r.Host) {
					t.Errorf("%v", err)
				}
				if after := storeFiles(t, st); after != before {
					t.Errorf("the store has\n%s\nbefore it had\n%s", after, before)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			chain, err := st.Chain(id)
			if err != nil || len(chain) != len(layers) {
				t.Fatalf("%d layers, %v", len(chain), err)
			}
			for i, l := range layers {
				f, err := st.CAS().OpenBlob(chain[i].Layer)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, l) {
					t.Errorf("layer %d is another: %v", i, err)
				}
				f.Close()
				if forms := image.Compressed(st.CAS(), chain[i].Layer); len(forms) != 1 || forms[0].From != r.Host+"/some/image" {
					t.Errorf("layer %d: remembered %+v", i, forms)
				}
			}
		})
	}
}

// storeFiles lists what a store holds, locks left out.
func storeFiles(t *testing.T, st *container.Store) string {
	t.Helper()
	var all []string
	dir := st.CAS().Dir()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !strings.HasPrefix(d.Name(), "lock") && path != filepath.Join(dir, "next-id") {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, "\n")
}

// TestPullShares has two images on one base: what the store has is not downloaded.
func TestPullShares(t *testing.T) {
	r := registrytest.New(t)
	base := randomLayer(t, "a", 500_000)
	putImage(t, r, "one", honest, base, randomLayer(t, "b", 10_000))
	putImage(t, r, "two", honest, base, randomLayer(t, "c", 10_000))
	st := newStore(t)
	one, err := ImportDocker(t.Context(), st, "docker://"+r.Host+"/one", Options{})
	if err != nil {
		t.Fatal(err)
	}
	r.ClearLog()
	two, err := ImportDocker(t.Context(), st, "docker://"+r.Host+"/two", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if n := r.Requests("GET", "/blobs/"); n != 2 { // configuration and upper layer
		t.Errorf("%d blobs downloaded: %q", n, r.Log())
	}
	a, err := st.Get(one)
	if err != nil {
		t.Fatal(err)
	}
	b, err := st.Get(two)
	if err != nil || a.Parent != b.Parent || one == two {
		t.Errorf("%+v, %+v, %v", a, b, err)
	}
}
