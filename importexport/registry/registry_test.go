package registry

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ihucos/plash/importexport/image"
	"github.com/ihucos/plash/importexport/registry/registrytest"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// newClient returns a client that has no patience, and no settings of this machine.
func newClient(t *testing.T) *Client {
	t.Helper()
	home := t.TempDir()
	for _, v := range []string{"HOME", "DOCKER_CONFIG", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"} {
		t.Setenv(v, home)
	}
	t.Setenv("REGISTRY_AUTH_FILE", "")
	t.Setenv("CONTAINERS_REGISTRIES_CONF", "/dev/null")
	return sameClient(t)
}

// sameClient is another one in the environment as it is.
func sameClient(t *testing.T) *Client {
	c := New(Options{Warn: func(err error) { t.Logf("warning: %v", err) }})
	c.backoff = time.Millisecond
	t.Cleanup(c.Close)
	return c
}

// layerTar is a layer with one file of so many random bytes.
func layerTar(t testing.TB, name string, size int) []byte {
	t.Helper()
	content := make([]byte, size)
	random := rand.New(rand.NewPCG(uint64(size), uint64(len(name))))
	for i := range content {
		content[i] = byte(random.Uint32())
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(size)}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func jsonOf(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// putImage stores an image of gzipped layers in a registry, and returns its manifest's digest.
func putImage(t testing.TB, r *registrytest.Registry, repo, tag string, layers ...[]byte) digest.Digest {
	t.Helper()
	config := v1.Image{Platform: v1.Platform{OS: "linux", Architecture: "amd64"}, RootFS: v1.RootFS{Type: "layers"}}
	m := v1.Manifest{Versioned: v2, MediaType: v1.MediaTypeImageManifest}
	for _, l := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(l))
		z := gzipped(t, l)
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: v1.MediaTypeImageLayerGzip, Digest: r.PutBlob(repo, z), Size: int64(len(z))})
	}
	c := jsonOf(t, config)
	m.Config = v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: r.PutBlob(repo, c), Size: int64(len(c))}
	return r.PutManifest(repo, tag, v1.MediaTypeImageManifest, jsonOf(t, m))
}

func parse(t testing.TB, format string, a ...any) image.Ref {
	t.Helper()
	ref, err := image.ParseRef("docker://" + fmt.Sprintf(format, a...))
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// v2 is how every manifest begins.
var v2 = specs.Versioned{SchemaVersion: 2}

// configOf returns the configuration of an image in a registry.
func configOf(t testing.TB, r *registrytest.Registry, repo, name string) []byte {
	t.Helper()
	var m v1.Manifest
	b, _ := r.Manifest(repo, name)
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return r.Blob(repo, m.Config.Digest)
}

// readLayer returns a layer's bytes, as they come and as a tar.
func readLayer(ctx context.Context, l image.Layer) (stored, plain []byte, err error) {
	r, err := l.Open(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	if stored, err = io.ReadAll(r); err != nil {
		return nil, nil, err
	}
	z, err := gzip.NewReader(bytes.NewReader(stored))
	if err != nil {
		return nil, nil, err
	}
	plain, err = io.ReadAll(z)
	return stored, plain, err
}
