package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/progress"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// twoLayers is a container whose two upper layers are the same blob.
func twoLayers(t *testing.T, st *container.Store) *Image {
	t.Helper()
	id := on(t, st, 0, layerTar(t, "a", strings.Repeat("content", 1000)), built("a"))
	id = on(t, st, id, layerTar(t, "b", ""), built("b"))
	return imageOf(t, st, on(t, st, id, layerTar(t, "b", ""), built("b")), OfOptions{})
}

func mustRef(t *testing.T, s string) Ref {
	t.Helper()
	r, err := ParseRef(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// members reads a tar.
func members(t *testing.T, r io.Reader) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := all[h.Name]; twice {
			t.Errorf("%s is in the archive twice", h.Name)
		}
		if all[h.Name], err = io.ReadAll(tr); err != nil {
			t.Fatal(err)
		}
	}
}

// checkLayout holds the files of a layout against an image, and returns its manifests.
func checkLayout(t *testing.T, files map[string][]byte, im *Image) []v1.Descriptor {
	t.Helper()
	var index v1.Index
	if err := json.Unmarshal(files[indexFile], &index); err != nil {
		t.Fatal(err)
	}
	if string(files[layoutFile]) != `{"imageLayoutVersion":"1.0.0"}` || len(index.Manifests) == 0 {
		t.Errorf("%s %q, %d manifests", layoutFile, files[layoutFile], len(index.Manifests))
	}
	for name, content := range files {
		if hex, ok := strings.CutPrefix(name, "blobs/sha256/"); ok && hex != "" && digest.FromBytes(content).Encoded() != hex {
			t.Errorf("%s has another digest", name)
		}
	}
	last := index.Manifests[len(index.Manifests)-1]
	var m v1.Manifest
	if err := json.Unmarshal(files[blobName(last.Digest)], &m); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(files[blobName(m.Config.Digest)], im.Config) || len(m.Layers) != len(im.Layers) {
		t.Errorf("manifest %+v", m)
	}
	for i, l := range m.Layers {
		if l.Digest != im.Layers[i].DiffID || l.MediaType != v1.MediaTypeImageLayer || int64(len(files[blobName(l.Digest)])) != l.Size {
			t.Errorf("layer %d: %+v", i, l)
		}
	}
	return index.Manifests
}

func TestWriteDockerArchive(t *testing.T) {
	im := twoLayers(t, ofStore(t))
	var b bytes.Buffer
	if err := WriteDockerArchive(t.Context(), &b, im, nil, mustRef(t, "docker-archive:x:app:1"), mustRef(t, "localhost:5000/a/b")); err != nil {
		t.Fatal(err)
	}
	files := members(t, &b)
	manifests := checkLayout(t, files, im)
	if len(manifests) != 2 || manifests[0].Annotations[containerdName] != "docker.io/library/app:1" || manifests[1].Annotations[v1.AnnotationRefName] != "latest" {
		t.Errorf("manifests %+v", manifests)
	}
	var entries []dockerEntry
	if err := json.Unmarshal(files[dockerManifest], &entries); err != nil || len(entries) != 1 {
		t.Fatalf("%v: %s", err, files[dockerManifest])
	}
	e := entries[0]
	if strings.Join(e.RepoTags, " ") != "app:1 localhost:5000/a/b:latest" || len(e.Layers) != 3 || e.Layers[1] != e.Layers[2] || !bytes.Equal(files[e.Config], im.Config) {
		t.Errorf("%+v", e)
	}
	// Without a name, and to a file, where the kernel copies.
	var plain bytes.Buffer
	if err := WriteDockerArchive(t.Context(), &plain, im, nil, mustRef(t, "docker-archive:x")); err != nil {
		t.Fatal(err)
	}
	if files := members(t, &plain); !strings.Contains(string(files[dockerManifest]), `"RepoTags":[]`) {
		t.Errorf("%s", files[dockerManifest])
	}
	pinned := mustRef(t, "docker://app@"+digest.FromString("x").String())
	if err := WriteDockerArchive(t.Context(), io.Discard, im, nil, pinned); err == nil {
		t.Error("an image was given a digest")
	}
}

// TestWriteAligned wants large layers of an archive where filesystems can share their blocks.
func TestWriteAligned(t *testing.T) {
	st := ofStore(t)
	id := container.ID(0)
	for i := range 9 {
		id = on(t, st, id, layerTar(t, "a", strings.Repeat("x", alignedFrom+512*i)), built("a"))
	}
	id = on(t, st, id, layerTar(t, "small", strings.Repeat("y", 100)), built("b"))
	var b bytes.Buffer
	if err := WriteOCIArchive(t.Context(), &b, imageOf(t, st, id, OfOptions{}), "x", nil); err != nil {
		t.Fatal(err)
	}
	all := bytes.NewReader(b.Bytes())
	large := 0
	for tr := tar.NewReader(all); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		at := all.Size() - int64(all.Len())
		switch {
		case h.Size < alignedFrom:
			if len(h.PAXRecords) > 0 {
				t.Errorf("%s is aligned", h.Name)
			}
		case at%alignment != 0:
			t.Errorf("%s of %d bytes begins at %d", h.Name, h.Size, at)
		default:
			large++
		}
	}
	if large != 9 {
		t.Errorf("%d large layers", large)
	}
}

func TestWriteArchiveErrors(t *testing.T) {
	im := twoLayers(t, ofStore(t))
	fail := errors.New("no more")
	for n := range 36 { // the archive has 36 blocks
		if err := WriteOCIArchive(t.Context(), &limited{n * 512, fail}, im, "", nil); !errors.Is(err, fail) {
			t.Errorf("after %d bytes: %v", n*512, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := WriteOCIArchive(ctx, io.Discard, im, "", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	im.Layers[0].Size = -1
	if err := WriteOCIArchive(t.Context(), io.Discard, im, "", nil); err == nil {
		t.Error("a layer of unknown size was written")
	}
}

// limited is a writer that has room for so many bytes.
type limited struct {
	left int
	err  error
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	if n < len(p) {
		return n, l.err
	}
	return n, nil
}

// filesIn reads a directory tree.
func filesIn(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all[p], err = os.ReadFile(filepath.Join(dir, p))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// sizeIn is how many bytes of blobs are in a layout, which need not be there.
func sizeIn(t *testing.T, dir string) (size int64) {
	t.Helper()
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs/sha256/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blobs {
		info, err := os.Stat(b)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	return size
}

func TestWriteLayout(t *testing.T) {
	st := ofStore(t)
	im, dir := twoLayers(t, st), filepath.Join(t.TempDir(), "new/layout")
	write := func(im *Image, tag string) []v1.Descriptor {
		t.Helper()
		m := progress.NewMeter(nil, 0)
		before := sizeIn(t, dir)
		if err := WriteLayout(t.Context(), dir, im, tag, m); err != nil {
			t.Fatal(err)
		}
		if done, total := m.Counts(); done != total || done != sizeIn(t, dir)-before {
			t.Errorf("%d bytes of %d counted; there are %d more", done, total, sizeIn(t, dir)-before)
		}
		return checkLayout(t, filesIn(t, dir), im)
	}
	names := func(ds []v1.Descriptor) (s string) {
		for _, d := range ds {
			s += fmt.Sprintf("%q", d.Annotations[v1.AnnotationRefName])
		}
		return s
	}
	if got := names(write(im, "v1")); got != `"v1"` {
		t.Error(got)
	}
	// The files are the layout's own.
	first := filepath.Join(dir, blobName(im.Layers[0].DiffID))
	before, err := os.Stat(first)
	if err != nil {
		t.Fatal(err)
	}
	if stored, err := os.Stat(st.CAS().BlobPath(im.Layers[0].DiffID)); err != nil || os.SameFile(stored, before) {
		t.Errorf("the blob is a link into the store: %v", err)
	}
	other := imageOf(t, st, on(t, st, 0, layerTar(t, "c", "c"), built("c")), OfOptions{})
	if got := names(write(other, "v2")); got != `"v1""v2"` {
		t.Error(got)
	}
	if got := names(write(other, "")); got != `"v1""v2"""` {
		t.Error(got)
	}
	// What a name was given to before loses it. Blobs that are there are not written again,
	// those that cannot be right are.
	if got := names(write(im, "")); got != `"v1""v2"""` {
		t.Error(got)
	}
	if after, err := os.Stat(first); err != nil || !os.SameFile(after, before) {
		t.Errorf("a blob was written again: %v", err)
	}
	if err := os.Truncate(first, 0); err != nil {
		t.Fatal(err)
	}
	if got := names(write(im, "v2")); got != `"v1""""v2"` {
		t.Error(got)
	}
}

// TestWriteLayoutKeeps: an index of others keeps what plash does not know.
func TestWriteLayoutKeeps(t *testing.T) {
	im, dir := twoLayers(t, ofStore(t)), t.TempDir()
	if err := WriteLayout(t.Context(), dir, im, "a", nil); err != nil {
		t.Fatal(err)
	}
	index := filepath.Join(dir, indexFile)
	content := `{"schemaVersion":2,"made_up":{"x":1},"manifests":[{"mediaType":"other","digest":"sha256:` + strings.Repeat("0", 64) + `","size":7,"odd":true,
		"annotations":{"org.opencontainers.image.ref.name":"theirs"}}]}`
	if err := os.WriteFile(index, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := WriteLayout(t.Context(), dir, im, "a", nil); err != nil {
		t.Fatal(err)
	}
	got := string(filesIn(t, dir)[indexFile])
	if !strings.Contains(got, `"made_up":{"x":1}`) || !strings.Contains(got, `"odd":true`) || !strings.Contains(got, `"ref.name":"a"`[1:]) {
		t.Errorf("index %s", got)
	}
}

// TestWriteLayoutRefuses: what is no layout stays as it is, and links in one are not written through.
func TestWriteLayoutRefuses(t *testing.T) {
	im := twoLayers(t, ofStore(t))
	for name, prepare := range map[string]string{
		"other files":       `touch file`,
		"other version":     `echo '{"imageLayoutVersion":"2.0.0"}' >oci-layout`,
		"no JSON":           `echo x >oci-layout`,
		"index is no JSON":  `echo '{"imageLayoutVersion":"1.0.0"}' >oci-layout; echo x >index.json`,
		"manifests are one": `echo '{"imageLayoutVersion":"1.0.0"}' >oci-layout; echo '{"manifests":[7]}' >index.json`,
		"index is a link":   `echo '{"imageLayoutVersion":"1.0.0"}' >oci-layout; ln -s ../victim index.json`,
		"blob is a link":    `echo '{"imageLayoutVersion":"1.0.0"}' >oci-layout; mkdir -p blobs/sha256; ln -s ../../../victim ` + blobName(im.Layers[0].DiffID),
		"giant index":       `echo '{"imageLayoutVersion":"1.0.0"}' >oci-layout; truncate -s 5M index.json`,
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			dir := filepath.Join(top, "layout")
			victim := filepath.Join(top, "victim")
			if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(victim, []byte("{}"), 0o644)); err != nil {
				t.Fatal(err)
			}
			shell(t, dir, prepare)
			if err := WriteLayout(t.Context(), dir, im, "", nil); err == nil {
				t.Error("no error")
			}
			if b, err := os.ReadFile(victim); err != nil || string(b) != "{}" {
				t.Errorf("a file outside is now %q, %v", b, err)
			}
		})
	}
}
