package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newStore makes a store, which is checked at the end: nothing is left in scratch.
func newStore(t testing.TB) *container.Store {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	must(t, cas.Init(dir))
	cs, err := cas.Open(dir)
	must(t, err)
	st, err := container.Open(cs, CollectCompressed)
	must(t, err)
	t.Cleanup(func() {
		left, err := os.ReadDir(filepath.Join(dir, "scratch"))
		if err != nil || len(left) > 0 {
			t.Errorf("scratch space: %v, %v", left, err)
		}
	})
	return st
}

// listing is all that is in a store, but for the locks that were used.
func listing(t testing.TB, st *container.Store) string {
	t.Helper()
	var b strings.Builder
	dir := st.CAS().Dir()
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, dir)
		if err != nil || strings.HasPrefix(name, "/lock") {
			return err
		}
		info, err := d.Info()
		if err == nil && !d.IsDir() {
			fmt.Fprintln(&b, name, info.Size())
		}
		return err
	}))
	return b.String()
}

// makeTar makes a tar of names and contents: a directory if the name ends in a slash, links where the
// content begins with "-> " or "=> ".
func makeTar(t testing.TB, pairs ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(pairs); i += 2 {
		name, content := pairs[i], pairs[i+1]
		h := &tar.Header{Name: name, Mode: 0o755, Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		symlink, isSymlink := strings.CutPrefix(content, "-> ")
		link, isLink := strings.CutPrefix(content, "=> ")
		switch {
		case strings.HasSuffix(name, "/"):
			h.Typeflag = tar.TypeDir
		case isSymlink:
			h.Typeflag, h.Linkname, content = tar.TypeSymlink, symlink, ""
		case isLink:
			h.Typeflag, h.Linkname, content = tar.TypeLink, link, ""
		}
		h.Size = int64(len(content))
		must(t, w.WriteHeader(h))
		_, err := io.WriteString(w, content)
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

func gzipped(t testing.TB, parts ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, p := range parts {
		w := gzip.NewWriter(&b)
		_, err := w.Write(p)
		must(t, err)
		must(t, w.Close())
	}
	return b.Bytes()
}

func zstded(t testing.TB, p []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	must(t, err)
	return w.EncodeAll(p, nil)
}

// made is an image to be put into archives and layouts. Tests change what it says.
type made struct {
	t        testing.TB
	tars     [][]byte // of the layers
	blobs    [][]byte // the layers as they are stored
	config   []byte
	manifest []byte
	name     string
	index    []byte // "": of this manifest alone
	more     map[string]string
}

// makeImage makes an image of layers' tars, stored with a compression each: "", "gzip", "members", "zstd".
func makeImage(t testing.TB, name string, compressions []string, tars ...[]byte) *made {
	t.Helper()
	m := &made{t: t, tars: tars, name: name, more: map[string]string{}}
	var diffs, layers []string
	for i, l := range tars {
		kind := v1.MediaTypeImageLayer
		blob := l
		switch compressions[i%len(compressions)] {
		case "gzip":
			kind, blob = v1.MediaTypeImageLayerGzip, gzipped(t, l)
		case "members":
			kind, blob = v1.MediaTypeImageLayerGzip, gzipped(t, l[:len(l)/2], nil, l[len(l)/2:])
		case "zstd":
			kind, blob = v1.MediaTypeImageLayerZstd, zstded(t, l)
		}
		m.blobs = append(m.blobs, blob)
		diffs = append(diffs, fmt.Sprintf("%q", digest.FromBytes(l)))
		layers = append(layers, descriptor(kind, blob))
	}
	// Not as encoding/json would write it: the bytes have to be kept.
	m.config = []byte(fmt.Sprintf(`{ "architecture":"%s", "os":"linux",
  "config": {"Env":["A=<b>"], "Labels":{"name":%q}}, "rootfs":{"type":"layers","diff_ids":[%s]} }`, Platform{}.filled().Architecture, name, strings.Join(diffs, ",")))
	m.seal(layers...)
	return m
}

func descriptor(mediaType string, blob []byte) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, digest.FromBytes(blob), len(blob))
}

// seal makes the manifest, of the config as it is now.
func (m *made) seal(layers ...string) {
	m.manifest = []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,  "config":%s,"layers":[%s]}`,
		v1.MediaTypeImageManifest, descriptor(v1.MediaTypeImageConfig, m.config), strings.Join(layers, ",")))
}

// members are the files of a layout.
func (m *made) members() map[string]string {
	index := m.index
	if index == nil {
		d := v1.Descriptor{
			MediaType: v1.MediaTypeImageManifest, Digest: digest.FromBytes(m.manifest), Size: int64(len(m.manifest)),
			Annotations: map[string]string{v1.AnnotationRefName: m.name},
		}
		var err error
		index, err = json.Marshal(v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []v1.Descriptor{d}})
		must(m.t, err)
	}
	all := map[string]string{v1.ImageIndexFile: string(index), v1.ImageLayoutFile: `{"imageLayoutVersion":"1.0.0"}`}
	for _, b := range append([][]byte{m.manifest, m.config}, m.blobs...) {
		all[blobName(digest.FromBytes(b))] = string(b)
	}
	for name, content := range m.more {
		all[name] = content
	}
	return all
}

// dockerMembers are those of an old archive of docker save, with uncompressed layers.
func (m *made) dockerMembers() map[string]string {
	config := digest.FromBytes(m.config).Encoded() + ".json"
	all := map[string]string{config: string(m.config), "repositories": "{}"}
	var layers []string
	for i, l := range m.tars {
		dir := fmt.Sprintf("%064d", i)
		all[dir+"/layer.tar"], all[dir+"/VERSION"], all[dir+"/json"] = string(l), "1.0", "{}"
		layers = append(layers, dir+"/layer.tar")
	}
	list, err := json.Marshal([]map[string]any{{"Config": config, "RepoTags": []string{m.name}, "Layers": layers}})
	must(m.t, err)
	all["manifest.json"] = string(list)
	for name, content := range m.more {
		all[name] = content
	}
	return all
}

// archiveOf makes a tar of members, whose list of images comes last.
func archiveOf(t testing.TB, members map[string]string) []byte {
	t.Helper()
	var names, pairs []string
	for name := range members {
		names = append(names, name)
	}
	slices.Sort(names)
	slices.SortStableFunc(names, func(a, b string) int { return strings.Count(b, "/") - strings.Count(a, "/") })
	for _, n := range names {
		pairs = append(pairs, n, members[n])
	}
	return makeTar(t, pairs...)
}

func writeFile(t testing.TB, content []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file.tar")
	must(t, os.WriteFile(name, content, 0o644))
	return name
}

// writeLayout writes members to a directory.
func writeLayout(t testing.TB, members map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range members {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			must(t, os.Symlink(target, path))
			continue
		}
		must(t, os.WriteFile(path, []byte(content), 0o644))
	}
	return dir
}

// importRef opens an image and keeps it.
func importRef(t testing.TB, st *container.Store, ref string, o OpenOptions) (container.ID, error) {
	t.Helper()
	r, err := ParseRef(ref)
	must(t, err)
	im, err := Open(t.Context(), st.CAS(), r, o)
	if err != nil {
		return 0, err
	}
	id, err := Keep(t.Context(), st, im, KeepOptions{From: ref, MaxSize: o.MaxSize})
	if closeErr := im.Close(); closeErr != nil {
		t.Error(closeErr)
	}
	return id, err
}
