package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

// baseTar and topTar are two layers; the upper one deletes, and has what is owned by others.
func baseTar(t testing.TB) []byte {
	return makeTar(t, "etc/", "", "etc/a", "in base", "etc/b", "deleted", "sh", "-> etc/a", "hard", "=> etc/a")
}

func topTar(t testing.TB) []byte { return makeTar(t, "etc/.wh.b", "", "etc/c", "in top") }

func TestFormsOfOneImage(t *testing.T) {
	for _, how := range [][]string{{""}, {"gzip", "zstd"}, {"members", ""}} {
		t.Run(strings.Join(how, "+"), func(t *testing.T) {
			st := newStore(t)
			m := makeImage(t, "r.io/some/image:v1", how, baseTar(t), topTar(t))
			layout := writeLayout(t, m.members())
			archive := archiveOf(t, m.members())
			docker := archiveOf(t, m.dockerMembers())
			var first container.ID
			for i, ref := range []string{
				"oci:" + layout, "oci:" + layout + ":r.io/some/image:v1", "oci:" + layout + ":@0", "oci-archive:" + writeFile(t, archive),
				"oci-archive:" + writeFile(t, gzipped(t, archive)), "docker-archive:" + writeFile(t, archive),
				"docker-archive:" + writeFile(t, docker), "docker-archive:" + writeFile(t, zstded(t, docker)) + ":r.io/some/image:v1",
			} {
				id, err := importRef(t, st, ref, OpenOptions{})
				if err != nil {
					t.Fatalf("%s: %v", ref, err)
				}
				if i == 0 {
					first = id
				}
				if id != first {
					t.Errorf("%s: container %d, want %d", ref, id, first)
				}
			}
			checkKept(t, st, first, m)
		})
	}
}

// checkKept holds a container against the image that it was made of.
func checkKept(t *testing.T, st *container.Store, id container.ID, m *made) {
	t.Helper()
	chain, err := st.Chain(id)
	must(t, err)
	if len(chain) != len(m.tars) {
		t.Fatalf("%d containers of %d layers", len(chain), len(m.tars))
	}
	for i, r := range chain {
		b, err := os.ReadFile(st.CAS().BlobPath(r.Layer))
		if err != nil || !bytes.Equal(b, m.tars[i]) {
			t.Errorf("layer %d: %d bytes, %v", i, len(b), err)
		}
		if top := i == len(chain)-1; top != (r.Config != nil) {
			t.Errorf("layer %d: config %s", i, r.Config)
		}
		if r.Origin.Kind != "import" || r.Origin.Packed() {
			t.Errorf("layer %d: %+v", i, r.Origin)
		}
		if forms := Compressed(st.CAS(), r.Layer); bytes.Equal(m.blobs[i], m.tars[i]) == (len(forms) > 0) {
			t.Errorf("layer %d: known as %v", i, forms)
		} else if len(forms) > 0 && (forms[0].Digest != digest.FromBytes(m.blobs[i]) || forms[0].Size != int64(len(m.blobs[i]))) {
			t.Errorf("layer %d: known as %v", i, forms)
		}
	}
	for name, want := range map[string]string{ConfigFile: string(m.config), ManifestFile: string(m.manifest), TypeFile: v1.MediaTypeImageManifest} {
		if got, err := st.Attached(id, name); err != nil || string(got) != want {
			t.Errorf("%s: %s, %v, want %s", name, got, err, want)
		}
	}
}

func TestLayersAreShared(t *testing.T) {
	st := newStore(t)
	base := baseTar(t)
	imp := func(m *made) container.ID {
		t.Helper()
		id, err := importRef(t, st, "oci:"+writeLayout(t, m.members()), OpenOptions{})
		must(t, err)
		return id
	}
	parent := func(id container.ID) container.ID {
		r, err := st.Get(id)
		must(t, err)
		return r.Parent
	}
	one := imp(makeImage(t, "one", []string{"gzip"}, base, topTar(t)))
	// Its base is another's: that layer is there, and need not be in the image.
	other := makeImage(t, "two", []string{"zstd"}, base, makeTar(t, "x", "y"))
	members := other.members()
	delete(members, blobName(digest.FromBytes(other.blobs[0])))
	two, err := importRef(t, st, "oci:"+writeLayout(t, members), OpenOptions{})
	must(t, err)
	if two == one || parent(two) != parent(one) {
		t.Errorf("containers %d on %d and %d on %d", one, parent(one), two, parent(two))
	}
	// The same layers with another config.
	if three := imp(makeImage(t, "three", []string{""}, base, topTar(t))); three == one || parent(three) != parent(one) {
		t.Errorf("container %d on %d", three, parent(three))
	}
	// The base alone is an image with a config, so not the container that others stand on.
	alone := imp(makeImage(t, "base", []string{""}, base))
	if alone == parent(one) || parent(alone) != 0 {
		t.Errorf("container %d on %d", alone, parent(alone))
	}
	// Whoever imports its tar has that one.
	if id, ok, err := st.Lookup("import:" + digest.FromBytes(base).String()); !ok || err != nil || id != parent(one) {
		t.Errorf("by its tar: %d, %v, %v", id, ok, err)
	}
	// The layer is there on another base too.
	swapped := imp(makeImage(t, "swapped", []string{""}, topTar(t), base))
	if records, err := st.Chain(swapped); err != nil || len(records) != 2 || records[1].Layer != digest.FromBytes(base) {
		t.Errorf("%v, %v", records, err)
	}
	must(t, st.Remove(t.Context(), parent(one)))
	if again := imp(makeImage(t, "one", []string{"gzip"}, base, topTar(t))); again <= swapped {
		t.Errorf("after its removal: %d", again)
	}
}

// TestManifestIsTheLastSeen: the config makes the image; the manifest that it came with
// last is the one that is kept.
func TestManifestIsTheLastSeen(t *testing.T) {
	st := newStore(t)
	m := makeImage(t, "image:1", []string{""}, baseTar(t))
	id, err := importRef(t, st, "docker-archive:"+writeFile(t, archiveOf(t, m.dockerMembers())), OpenOptions{})
	must(t, err)
	if _, err := st.Attached(id, ManifestFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("manifest of a form without one: %v", err)
	}
	for _, how := range []string{"gzip", "zstd", ""} {
		m := makeImage(t, "image:1", []string{how}, baseTar(t))
		again, err := importRef(t, st, "oci:"+writeLayout(t, m.members()), OpenOptions{})
		if err != nil || again != id {
			t.Fatalf("container %d, %v, want %d", again, err, id)
		}
		if got, err := st.Attached(id, ManifestFile); err != nil || !bytes.Equal(got, m.manifest) {
			t.Errorf("%s: %s, %v", how, got, err)
		}
	}
}

func TestNoLayers(t *testing.T) {
	st := newStore(t)
	m := makeImage(t, "scratch:1", []string{""})
	id, err := importRef(t, st, "oci:"+writeLayout(t, m.members()), OpenOptions{})
	must(t, err)
	r, err := st.Get(id)
	must(t, err)
	if r.Parent != 0 || r.Layer != digest.FromBytes(emptyTar) || r.Config == nil {
		t.Errorf("%+v", r)
	}
	if _, err := st.Attached(id, ConfigFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its config does not fit: %v", err)
	}
	again, err := importRef(t, st, "oci:"+writeLayout(t, m.members()), OpenOptions{})
	if err != nil || again != id {
		t.Errorf("again: %d, %v", again, err)
	}
}

// TestEqualLayers: docker's empty layers are all the same.
func TestEqualLayers(t *testing.T) {
	st := newStore(t)
	m := makeImage(t, "image:1", []string{"gzip"}, baseTar(t), emptyTar, topTar(t), emptyTar, emptyTar)
	id, err := importRef(t, st, "oci:"+writeLayout(t, m.members()), OpenOptions{})
	must(t, err)
	checkKept(t, st, id, m)
}

// TestLostBlob: an import puts back what a container has lost.
func TestLostBlob(t *testing.T) {
	st := newStore(t)
	m := makeImage(t, "image:1", []string{"gzip"}, baseTar(t), topTar(t))
	ref := "oci:" + writeLayout(t, m.members())
	id, err := importRef(t, st, ref, OpenOptions{})
	must(t, err)
	for i, damage := range []func(string) error{
		os.Remove,
		func(path string) error {
			must(t, os.Chmod(path, 0o600))
			return os.Truncate(path, 100)
		},
	} {
		must(t, damage(st.CAS().BlobPath(digest.FromBytes(m.tars[i]))))
		again, err := importRef(t, st, ref, OpenOptions{})
		if err != nil || again != id {
			t.Fatalf("container %d, %v, want %d", again, err, id)
		}
		checkKept(t, st, id, m)
	}
}

func TestKeepAtOnce(t *testing.T) {
	st := newStore(t)
	type result struct {
		id  container.ID
		err error
	}
	done := make(chan result)
	const n = 6
	for i := range n {
		m := makeImage(t, "image:1", []string{[]string{"", "gzip", "zstd"}[i%3]}, baseTar(t), makeTar(t, "x", strings.Repeat("y", 1<<20)), topTar(t))
		r, err := ParseRef("oci:" + writeLayout(t, m.members()))
		must(t, err)
		go func() {
			var res result
			im, err := Open(context.Background(), st.CAS(), r, OpenOptions{})
			if res.err = err; err == nil {
				res.id, res.err = Keep(context.Background(), st, im, KeepOptions{})
				res.err = errors.Join(res.err, im.Close())
			}
			done <- res
		}()
	}
	first := <-done
	for range n - 1 {
		if other := <-done; other != first {
			t.Errorf("%v and %v", first, other)
		}
	}
	if list, err := st.List(); err != nil || len(list) != 3 || first.err != nil {
		t.Errorf("%d containers, %v, %v", len(list), err, first.err)
	}
}

// TestForeignLayers are elsewhere.
func TestForeignLayers(t *testing.T) {
	m := makeImage(t, "image:1", []string{"gzip"}, baseTar(t), topTar(t))
	foreign := func(urls string) string {
		return strings.Replace(descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", m.blobs[1]), "{", `{"urls":[`+urls+`],`, 1)
	}
	m.seal(descriptor(v1.MediaTypeImageLayerGzip, m.blobs[0]), foreign(`"ftp://x/1","https://there.example/layer"`))
	members := m.members()
	delete(members, blobName(digest.FromBytes(m.blobs[1])))
	r, err := ParseRef("oci:" + writeLayout(t, members))
	must(t, err)
	for _, c := range []struct {
		sent []byte
		want error
	}{{m.blobs[1], nil}, {m.blobs[0], cas.ErrDigest}, {m.tars[1], cas.ErrDigest}, {nil, os.ErrNotExist}} {
		st := newStore(t)
		before := listing(t, st)
		im, err := Open(t.Context(), st.CAS(), r, OpenOptions{})
		must(t, err)
		o := KeepOptions{Fetch: func(_ context.Context, url string) (io.ReadCloser, error) {
			if url != "https://there.example/layer" {
				t.Errorf("asked for %s", url)
			}
			return io.NopCloser(bytes.NewReader(c.sent)), nil
		}}
		if c.sent == nil {
			o.Fetch = nil
		}
		_, err = Keep(t.Context(), st, im, o)
		if !errors.Is(err, c.want) {
			t.Errorf("%v, want %v", err, c.want)
		}
		if after := listing(t, st); c.want != nil && after != before {
			t.Errorf("the store is not as before:\n%s", after)
		}
		must(t, im.Close())
	}
}

func TestManyLayers(t *testing.T) {
	if testing.Short() {
		t.Skip("many containers take seconds")
	}
	st := newStore(t)
	var tars [][]byte
	for i := range 100 {
		tars = append(tars, makeTar(t, fmt.Sprint(i), "x"))
	}
	m := makeImage(t, "image:1", []string{"", "gzip"}, tars...)
	id, err := importRef(t, st, "docker-archive:"+writeFile(t, archiveOf(t, m.members())), OpenOptions{})
	must(t, err)
	checkKept(t, st, id, m)
	left, err := filepath.Glob(filepath.Join(st.CAS().Dir(), "locks", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("locks left: %v, %v", left, err)
	}
}
