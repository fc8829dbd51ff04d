package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func ofStore(t *testing.T) *container.Store {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	if err := cas.Init(dir); err != nil {
		t.Fatal(err)
	}
	cs, err := cas.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	st, err := container.Open(cs)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// layerTar is a layer with one file.
func layerTar(t *testing.T, name, content string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg})
	if err == nil {
		_, err = io.WriteString(w, content)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// on makes a container of a layer on parent.
func on(t *testing.T, st *container.Store, parent container.ID, layer []byte, o container.CreateOptions) container.ID {
	t.Helper()
	staged, err := st.CAS().Ingest(t.Context(), bytes.NewReader(layer), cas.IngestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer staged.Close()
	r, err := st.Create(t.Context(), parent, staged, o)
	if err != nil {
		t.Fatal(err)
	}
	return r.ID
}

const prologue = "set -ex\n"

func built(script string) container.CreateOptions {
	return container.CreateOptions{Origin: container.Origin{Kind: "build", From: prologue + script + "\n"}}
}

func imageOf(t *testing.T, st *container.Store, id container.ID, o OfOptions) *Image {
	t.Helper()
	o.Prologue = prologue
	im, err := Of(t.Context(), st, id, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := im.Close(); err != nil {
			t.Error(err)
		}
	})
	return im
}

func configIn(t *testing.T, im *Image) v1.Image {
	t.Helper()
	var c v1.Image
	if err := json.Unmarshal(im.Config, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// baseConfig is a configuration of one layer with two steps, in a form that no one would
// write twice the same.
func baseConfig(layer []byte) []byte {
	return []byte(`{ "os":"linux",  "architecture":"arm64","variant":"v8","made_up":[1, 2],
 "created":"2020-01-02T03:04:05.678Z","config":{"Env":["A=b"],"Cmd":["sh"],"X":1},"container":"4711","history":[
 {"created_by":"COPY x","created":"2020-01-01T00:00:00Z"},{"created_by":"CMD sh","empty_layer":true,"odd":"x"}],
 "rootfs":{"type":"layers","diff_ids":["` + digest.FromBytes(layer).String() + `"]}}`)
}

// TestOfUnchanged: an image comes back as it went in, byte for byte.
func TestOfUnchanged(t *testing.T) {
	st, layer := ofStore(t), layerTar(t, "a", "content")
	config := baseConfig(layer)
	id := on(t, st, 0, layer, container.CreateOptions{Config: config, Attached: map[string][]byte{
		ConfigFile: config, ManifestFile: []byte("{ }"), TypeFile: []byte("application/x"),
	}})
	epoch := time.Unix(5, 0)
	im := imageOf(t, st, id, OfOptions{Epoch: &epoch})
	if !bytes.Equal(im.Config, config) || string(im.Manifest) != "{ }" || im.MediaType != "application/x" {
		t.Errorf("config %s, manifest %s of type %s", im.Config, im.Manifest, im.MediaType)
	}
	if len(im.Layers) != 1 || im.Layers[0].DiffID != digest.FromBytes(layer) || im.Layers[0].Size != int64(len(layer)) {
		t.Errorf("layers %+v", im.Layers)
	}
	// It says what it is: not of these layers.
	other := on(t, st, id, layerTar(t, "b", ""), container.CreateOptions{Attached: map[string][]byte{ConfigFile: config}})
	if _, err := Of(t.Context(), st, other, OfOptions{}); !errors.Is(err, container.ErrDamaged) {
		t.Errorf("a configuration of other layers: %v", err)
	}
}

// TestOfBuilt: layers on an image keep its configuration, with what plash does not know of,
// and its history.
func TestOfBuilt(t *testing.T) {
	st, layer := ofStore(t), layerTar(t, "a", "content")
	config := baseConfig(layer)
	base := on(t, st, 0, layer, container.CreateOptions{Config: config, Attached: map[string][]byte{ConfigFile: config}})
	mid := on(t, st, base, layerTar(t, "b", "1"), built("touch <b>"))
	top := on(t, st, mid, layerTar(t, "c", "2"), built("touch c"))
	epoch := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	im := imageOf(t, st, top, OfOptions{Epoch: &epoch})
	c := configIn(t, im)
	if c.Architecture != "arm64" || c.Variant != "v8" || len(c.Config.Env) != 1 || len(c.Config.Cmd) != 1 ||
		!strings.Contains(string(im.Config), `"made_up":[1,2]`) || !strings.Contains(string(im.Config), `"X":1`) {
		t.Errorf("the base's configuration is not kept: %s", im.Config)
	}
	if strings.Contains(string(im.Config), "4711") || im.Manifest != nil || !c.Created.Equal(epoch) {
		t.Errorf("what holds for the base alone: %s", im.Config)
	}
	var by []string
	for _, h := range c.History {
		by = append(by, h.CreatedBy)
	}
	if strings.Join(by, "|") != "COPY x|CMD sh|touch <b>|touch c" || !c.History[1].EmptyLayer || !c.History[3].Created.Equal(epoch) {
		t.Errorf("history %s", im.Config)
	}
	if len(c.RootFS.DiffIDs) != 3 || c.RootFS.DiffIDs[2] != im.Layers[2].DiffID || c.RootFS.DiffIDs[0] != digest.FromBytes(layer) {
		t.Errorf("layers %v", c.RootFS.DiffIDs)
	}
	if again := imageOf(t, st, top, OfOptions{Epoch: &epoch}); !bytes.Equal(again.Config, im.Config) {
		t.Error("not the same bytes again")
	}
	// The layers below have no configuration of their own, and the time is that of the record.
	r, err := st.Get(mid)
	if err != nil {
		t.Fatal(err)
	}
	if c := configIn(t, imageOf(t, st, mid, OfOptions{})); !c.Created.Equal(r.Created) || c.Architecture != "arm64" {
		t.Errorf("created %v, want %v", c.Created, r.Created)
	}
}

// TestOfPlain: a container that was made of no image, and one whose base tells too little
// or too much of itself.
func TestOfPlain(t *testing.T) {
	st, layer := ofStore(t), layerTar(t, "a", "content")
	id := on(t, st, 0, layer, container.CreateOptions{
		Origin: container.Origin{Kind: "import", From: "/home/someone/secret/root.tar"}, Config: []byte(`{"config":{"Entrypoint":["/x"]}}`),
	})
	c := configIn(t, imageOf(t, st, id, OfOptions{}))
	if c.OS != "linux" || c.Architecture == "" || len(c.Config.Entrypoint) != 1 || c.RootFS.Type != "layers" ||
		len(c.History) != 1 || c.History[0].CreatedBy != "plash-import root.tar" {
		t.Errorf("%+v", c)
	}
	sum := digest.FromBytes(layer).String()
	for _, history := range []string{`null`, `[]`, `[{},{},{}]`, `[{"empty_layer":true}]`} {
		config := []byte(`{"history":` + history + `,"rootfs":{"type":"layers","diff_ids":["` + sum + `"]}}`)
		base := on(t, st, 0, layer, container.CreateOptions{Config: config, Attached: map[string][]byte{ConfigFile: config}})
		c := configIn(t, imageOf(t, st, on(t, st, base, layerTar(t, "b", history), built("x")), OfOptions{}))
		described := 0
		for _, h := range c.History {
			if !h.EmptyLayer {
				described++
			}
		}
		if described != 2 || c.History[len(c.History)-1].CreatedBy != "x" {
			t.Errorf("%s: history %+v", history, c.History)
		}
	}
	for _, config := range []string{`[]`, `{"rootfs":7}`, `{"history":[7],"rootfs":{"type":"layers","diff_ids":["` + sum + `"]}}`} {
		base := on(t, st, 0, layer, container.CreateOptions{Config: []byte(config)})
		if _, err := Of(t.Context(), st, base, OfOptions{}); err == nil || !strings.Contains(err.Error(), "image config") {
			t.Errorf("%s: %v", config, err)
		}
	}
}

func TestOfErrors(t *testing.T) {
	st := ofStore(t)
	if _, err := Of(t.Context(), st, 0, OfOptions{}); !errors.Is(err, ErrNoLayers) {
		t.Errorf("the empty root: %v", err)
	}
	if _, err := Of(t.Context(), st, 7, OfOptions{}); !errors.Is(err, container.ErrNotFound) {
		t.Errorf("no container: %v", err)
	}
	layer := layerTar(t, "a", "content")
	id := on(t, st, 0, layer, container.CreateOptions{})
	im := imageOf(t, st, id, OfOptions{})
	// It is readable when its container is gone.
	if err := st.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(st.CAS().BlobPath(im.Layers[0].DiffID)); !os.IsNotExist(err) {
		t.Errorf("the blob is still there: %v", err)
	}
	for range 2 {
		r, err := im.Layers[0].Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, layer) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	id = on(t, st, 0, layer, container.CreateOptions{})
	if err := os.Truncate(st.CAS().BlobPath(digest.FromBytes(layer)), 512); err != nil {
		t.Fatal(err)
	}
	if _, err := Of(t.Context(), st, id, OfOptions{}); err == nil || !strings.Contains(err.Error(), "found 512") {
		t.Errorf("a shortened blob: %v", err)
	}
}
