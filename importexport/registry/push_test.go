package registry

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/importexport/image"
	"github.com/ihucos/plash/importexport/registry/registrytest"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func newStore(t testing.TB) *cas.Store {
	t.Helper()
	dir := t.TempDir() + "/store"
	if err := cas.Init(dir); err != nil {
		t.Fatal(err)
	}
	st, err := cas.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// storeImage is an image as one of a store: its layers are not compressed.
func storeImage(t testing.TB, layers ...[]byte) *image.Image {
	t.Helper()
	config := v1.Image{Platform: v1.Platform{OS: "linux", Architecture: "amd64"}, RootFS: v1.RootFS{Type: "layers"}}
	im := &image.Image{}
	for _, l := range layers {
		d := digest.FromBytes(l)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, d)
		im.Layers = append(im.Layers, image.Layer{
			DiffID: d, Digest: d, Size: int64(len(l)), MediaType: v1.MediaTypeImageLayer,
			Open: func(context.Context) (io.ReadCloser, error) { return plainLayer{bytes.NewReader(l)}, nil },
		})
	}
	im.Config = jsonOf(t, config)
	return im
}

// plainLayer is a layer that can be read from anywhere, as those of a store.
type plainLayer struct{ *bytes.Reader }

func (plainLayer) Close() error { return nil }

func push(t *testing.T, c *Client, ref string, im *image.Image, o PushOptions) digest.Digest {
	t.Helper()
	d, err := c.Push(t.Context(), parse(t, "%s", ref), im, o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// pulled holds an image of a registry against the layers that it must have.
func pulled(t *testing.T, c *Client, ref string, want ...[]byte) *image.Image {
	t.Helper()
	im, err := c.Pull(t.Context(), parse(t, "%s", ref), PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(im.Layers) != len(want) {
		t.Fatalf("%d layers", len(im.Layers))
	}
	for i, l := range im.Layers {
		r, err := l.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		plain, done, err := cas.Decompress(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(plain)
		if err != nil || !bytes.Equal(got, want[i]) {
			t.Errorf("layer %d is another: %v", i, err)
		}
		done()
		r.Close()
	}
	return im
}

func TestPush(t *testing.T) {
	layers := [][]byte{layerTar(t, "a", 300_000), layerTar(t, "b", 10), layerTar(t, "a", 300_000), layerTar(t, "c", 70_000)}
	for name, prepare := range map[string]func(r *registrytest.Registry){
		"well":      func(*registrytest.Registry) {},
		"cut":       func(r *registrytest.Registry) { r.Faults.CutEvery = 80_000 },
		"forgetful": func(r *registrytest.Registry) { r.Faults.CutUploads, r.Faults.Forget = 2, true },
		"busy":      func(r *registrytest.Registry) { r.Faults.BusyEvery = 5; r.Faults.FailEvery = 7 },
		"basic":     func(r *registrytest.Registry) { r.User, r.Password = "me", "secret" },
		"tokens":    func(r *registrytest.Registry) { r.User, r.Password, r.Tokens = "me", "secret", true },
		"short-lived tokens": func(r *registrytest.Registry) {
			r.User, r.Password, r.Tokens, r.Faults.ExpireEvery = "me", "secret", true, 40
		},
		"lost answers": func(r *registrytest.Registry) { r.Faults.LoseCommits = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.New(t)
			prepare(r)
			c := newClient(t)
			writeCredentials(t, r.Host, "me", "secret")
			ref := r.Host + "/some/image:1"
			for _, how := range []Compression{"", Zstd, None} {
				d := push(t, c, ref, storeImage(t, layers...), PushOptions{Store: newStore(t), Compression: how})
				im := pulled(t, c, ref, layers...)
				if digest.FromBytes(im.Manifest) != d || im.MediaType != v1.MediaTypeImageManifest {
					t.Errorf("%q: %s of type %s", how, d, im.MediaType)
				}
				want := how
				if how == "" {
					want = Gzip
				}
				if got := im.Layers[0].MediaType; got != want.layerType(false) {
					t.Errorf("%q: %s", how, got)
				}
			}
		})
	}
}

// TestPushStalled gives up a connection on which nothing moves.
func TestPushStalled(t *testing.T) {
	r := registrytest.New(t)
	r.Faults.StallUploads = 1
	c := newClient(t)
	c.idle = 500 * time.Millisecond
	layer := layerTar(t, "a", 20_000_000) // more than the kernel keeps
	push(t, c, r.Host+"/x:1", storeImage(t, layer), PushOptions{Store: newStore(t), Compression: None})
	pulled(t, c, r.Host+"/x:1", layer)
}

// TestPushAgain pushes what the registry has.
func TestPushAgain(t *testing.T) {
	r, other := registrytest.New(t), registrytest.New(t)
	c, st := newClient(t), newStore(t)
	layers := [][]byte{layerTar(t, "a", 300_000), layerTar(t, "b", 10)}
	first := push(t, c, r.Host+"/x:1", storeImage(t, layers...), PushOptions{Store: st})
	r.ClearLog()
	if d := push(t, c, r.Host+"/x:2", storeImage(t, layers...), PushOptions{Store: st}); d != first {
		t.Error("another manifest")
	}
	if r.Requests("PATCH", "")+r.Requests("POST", "") != 0 {
		t.Errorf("uploads: %q", r.Log())
	}
	push(t, c, r.Host+"/x:zstd", storeImage(t, layers...), PushOptions{Store: st, Compression: Zstd})
	if d := push(t, c, r.Host+"/x:3", storeImage(t, layers...), PushOptions{Store: st}); d != first {
		t.Error("another manifest after one with zstd")
	}
	// Who remembers nothing makes the same.
	r.ClearLog()
	if d := push(t, c, r.Host+"/x:2", storeImage(t, layers...), PushOptions{Store: newStore(t)}); d != first {
		t.Error("another manifest from another store")
	}
	if r.Requests("PATCH", "")+r.Requests("POST", "") != 0 {
		t.Errorf("uploads from another store: %q", r.Log())
	}
	// Another repository is given what it lacks by the registry itself.
	r.ClearLog()
	if d := push(t, c, r.Host+"/y:1", storeImage(t, layers...), PushOptions{Store: st}); d != first {
		t.Error("another manifest in another repository")
	}
	if r.Requests("POST", "mount=") != 2 || r.Requests("PATCH", "") != 1 { // the configuration
		t.Errorf("not mounted: %q", r.Log())
	}
	pulled(t, c, r.Host+"/y:1", layers...)
	// And without mounts by us.
	r.Faults.NoMounts = true
	if d := push(t, c, r.Host+"/z:1", storeImage(t, layers...), PushOptions{Store: st}); d != first {
		t.Error("another manifest without mounts")
	}
	// Another registry too.
	if d := push(t, c, other.Host+"/y:1", storeImage(t, layers...), PushOptions{Store: st}); d != first {
		t.Error("another manifest in another registry")
	}
	pulled(t, c, other.Host+"/y:1", layers...)
}

// TestPullPush has an image of layers that we would compress otherwise keep its digests.
func TestPullPush(t *testing.T) {
	origin, to := registrytest.New(t), registrytest.New(t)
	layers := [][]byte{layerTar(t, "a", 300_000), layerTar(t, "b", 10)}
	want := putImage(t, origin, "x", "1", layers...)
	c, st := newClient(t), newStore(t)
	from := pulled(t, c, origin.Host+"/x:1", layers...)
	for _, l := range from.Layers { // as image.Keep does
		if err := image.RememberCompressed(st, l.DiffID, image.CompressedForm{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size, From: l.From}); err != nil {
			t.Fatal(err)
		}
	}
	im := storeImage(t, layers...)
	im.Manifest, im.MediaType, im.Config = from.Manifest, from.MediaType, from.Config
	origin.Faults.CutEvery, to.Faults.CutEvery = 100_000, 70_000
	if d := push(t, c, to.Host+"/a/b:1", im, PushOptions{Store: st}); d != want {
		t.Errorf("%s", d)
	}
	if b, _ := to.Manifest("a/b", "1"); !bytes.Equal(b, from.Manifest) {
		t.Errorf("another manifest: %s", b)
	}
	pulled(t, c, to.Host+"/a/b:1", layers...)
	if d := push(t, c, to.Host+"/a/b:2", im, PushOptions{Store: st, Compression: Gzip}); d != want {
		t.Errorf("gzip as it is: %s", d)
	}
	if d := push(t, c, to.Host+"/a/b:3", im, PushOptions{Store: st, Compression: Zstd}); d == want {
		t.Error("nothing was compressed anew")
	}
	pulled(t, c, to.Host+"/a/b:3", layers...)
	// The layers are nowhere any more but in the store.
	origin.Stop()
	alone := registrytest.New(t)
	to.Stop()
	push(t, c, alone.Host+"/c:1", im, PushOptions{Store: st})
	pulled(t, c, alone.Host+"/c:1", layers...)
}

// TestPushDocker keeps to Docker's format where the image came in it.
func TestPushDocker(t *testing.T) {
	r := registrytest.New(t)
	c := newClient(t)
	layer := layerTar(t, "a", 1000)
	im := storeImage(t, layer)
	im.MediaType = image.DockerManifest
	im.Manifest = jsonOf(t, v1.Manifest{
		Versioned: v2, MediaType: image.DockerManifest,
		Config: v1.Descriptor{MediaType: image.DockerConfig, Digest: digest.FromBytes(im.Config), Size: int64(len(im.Config))},
		Layers: []v1.Descriptor{{MediaType: image.DockerLayer, Digest: digest.FromString("lost"), Size: 4}},
	})
	push(t, c, r.Host+"/x:1", im, PushOptions{Store: newStore(t)})
	got := pulled(t, c, r.Host+"/x:1", layer)
	if got.MediaType != image.DockerManifest || got.Layers[0].MediaType != image.DockerLayer {
		t.Errorf("%s, %s", got.MediaType, got.Layers[0].MediaType)
	}
	push(t, c, r.Host+"/x:1", im, PushOptions{Store: newStore(t), Compression: Zstd})
	if got := pulled(t, c, r.Host+"/x:1", layer); got.MediaType != v1.MediaTypeImageManifest || got.Layers[0].MediaType != v1.MediaTypeImageLayerZstd {
		t.Errorf("%s, %s", got.MediaType, got.Layers[0].MediaType)
	}
}

func TestPushRefused(t *testing.T) {
	layer := layerTar(t, "a", 100_000)
	for name, c := range map[string]struct {
		prepare func(r *registrytest.Registry, im *image.Image)
		want    string
	}{
		"no password": {func(r *registrytest.Registry, _ *image.Image) { r.User = "u" }, "401"},
		"dead":        {func(r *registrytest.Registry, _ *image.Image) { r.Faults.Dead = 500 }, "500"},
		"cut off":     {func(r *registrytest.Registry, _ *image.Image) { r.Faults.CutUploads = 1000 }, "upload sha256:"},
		"read-only":   {func(r *registrytest.Registry, _ *image.Image) { r.Faults.ReadOnly = true }, "405"},
		"mangled":     {func(r *registrytest.Registry, _ *image.Image) { r.Faults.Mangle = true }, "expected sha256:"},
		"other bytes": {func(_ *registrytest.Registry, im *image.Image) {
			im.Layers[0].Open = func(context.Context) (io.ReadCloser, error) {
				return plainLayer{bytes.NewReader(layer[:len(layer)-1])}, nil
			}
		}, "digest mismatch"},
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.New(t)
			im := storeImage(t, layer)
			c.prepare(r, im)
			client, st := newClient(t), newStore(t)
			_, err := client.Push(t.Context(), parse(t, "%s/x:1", r.Host), im, PushOptions{Store: st})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
			if m, _ := r.Manifest("x", "1"); m != nil {
				t.Error("there is an image")
			}
			if left, err := os.ReadDir(st.Dir() + "/scratch"); err != nil || len(left) > 0 {
				t.Errorf("left over: %v, %v", left, err)
			}
		})
	}
}

// TestCompressedTheSame makes sure that compressing does not depend on how the bytes come, and
// that others read what comes out.
func TestCompressedTheSame(t *testing.T) {
	mixed := append(bytes.Repeat([]byte("some text that goes on and on\n"), 100_000), layerTar(t, "a", 2_500_000)...)
	for _, b := range [][]byte{mixed, mixed[:gzipBlock], mixed[:gzipBlock+1], mixed[:3*gzipBlock], {}, {1}} {
		for _, how := range []Compression{Gzip, Zstd} {
			var sums []digest.Digest
			var out bytes.Buffer
			for _, piece := range []int{len(b), 1 << 20, 4096, 1000} {
				out.Reset()
				compressInPieces(t, &out, how, b, piece)
				sums = append(sums, digest.FromBytes(out.Bytes()))
			}
			cores := runtime.GOMAXPROCS(1)
			out.Reset()
			compressInPieces(t, &out, how, b, 1<<20)
			runtime.GOMAXPROCS(cores)
			for _, d := range sums {
				if d != digest.FromBytes(out.Bytes()) {
					t.Errorf("%s: %v", how, sums)
				}
			}
			plain := &out
			if how == Gzip { // by the standard library
				z, err := gzip.NewReader(&out)
				if err != nil {
					t.Fatal(err)
				}
				plain = &bytes.Buffer{}
				if _, err := io.Copy(plain, z); err != nil {
					t.Fatal(err)
				}
			} else {
				z, done, err := cas.Decompress(&out)
				if err != nil {
					t.Fatal(err)
				}
				plain = &bytes.Buffer{}
				if _, err := io.Copy(plain, z); err != nil {
					t.Fatal(err)
				}
				done()
			}
			if !bytes.Equal(plain.Bytes(), b) {
				t.Errorf("%s of %d bytes gives others", how, len(b))
			}
		}
	}
}

func compressInPieces(t *testing.T, out io.Writer, how Compression, b []byte, piece int) {
	t.Helper()
	w, err := how.writer(out)
	if err != nil {
		t.Fatal(err)
	}
	for rest := b; len(rest) > 0; {
		n := min(piece, len(rest))
		if _, err := w.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// fullDisk takes so many bytes.
type fullDisk int

func (d *fullDisk) Write(p []byte) (int, error) {
	if *d -= fullDisk(len(p)); *d < 0 {
		return 0, syscall.ENOSPC
	}
	return len(p), nil
}

func TestGzipFails(t *testing.T) {
	for _, room := range []fullDisk{0, 10, 1_000_000} {
		z := newGzipWriter(&room)
		if _, err := z.Write(layerTar(t, "a", 5_000_000)); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%v", err)
		}
	}
}
