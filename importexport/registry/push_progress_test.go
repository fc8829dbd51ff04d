package registry

import (
	"testing"
	"time"

	"github.com/ihucos/plash/importexport/image"
	"github.com/ihucos/plash/importexport/registry/registrytest"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// A recorder is a display that remembers how far it was told things are.
type recorder struct{ total, done int64 }

func (r *recorder) Start(total int64)          { r.total, r.done = total, 0 }
func (r *recorder) Set(done int64)             { r.done = done }
func (r *recorder) Retry(error, time.Duration) {}
func (r *recorder) Complete()                  {}
func (r *recorder) Close()                     {}

// TestPushProgress: the display is told of all layers, sent or not, but those that registries do
// not have.
func TestPushProgress(t *testing.T) {
	r := registrytest.New(t)
	layers := [][]byte{layerTar(t, "a", 300_000), layerTar(t, "b", 10), layerTar(t, "a", 300_000)}
	size := int64(len(layers[0]) + len(layers[1]))
	im := storeImage(t, layers...)
	foreign := storeImage(t, layers...)
	manifest := v1.Manifest{
		Versioned: v2, MediaType: v1.MediaTypeImageManifest,
		Config: v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: digest.FromBytes(foreign.Config), Size: int64(len(foreign.Config))},
	}
	for i, l := range foreign.Layers {
		d := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: l.Digest, Size: l.Size}
		if i == 1 {
			d.URLs = []string{"https://example.org/layer"}
		}
		manifest.Layers = append(manifest.Layers, d)
	}
	foreign.Manifest, foreign.MediaType = jsonOf(t, manifest), v1.MediaTypeImageManifest
	st := newStore(t)
	for _, test := range []struct {
		name, ref string
		im        *image.Image
		how       Compression
		want      int64
	}{
		{"new", "a:1", im, "", size},
		{"again", "a:1", im, "", size},
		{"plain", "a:2", im, None, size},
		{"foreign", "b:1", foreign, "", int64(len(layers[0]))},
	} {
		d := &recorder{}
		c := newClient(t)
		c.o.Progress = d
		push(t, c, r.Host+"/"+test.ref, test.im, PushOptions{Store: st, Compression: test.how})
		if d.done != test.want || d.total != test.want {
			t.Errorf("%s: %d bytes of %d, want %d", test.name, d.done, d.total, test.want)
		}
	}
}
