package roundtrip

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ihucos/plash/importexport/enginetest"
	"github.com/ihucos/plash/importexport/imageserver"
	"github.com/ihucos/plash/importexport/registry/registrytest"
)

// imageName is what the image is called.
const imageName = "plash-roundtrip:1"

// A world is a container that was built, and what it is exported as.
type world struct {
	builder *machine
	base    string // the container it was built on
	id      string
	tree    tree
	layers  []string // their digests, from the bottom

	archive, layout, layoutTar string // files

	docker   *enginetest.Docker
	registry registry // speaks plain HTTP, and asks for nothing
}

// newWorld builds three layers on Debian and exports them in all forms that are files.
func newWorld(t *testing.T) *world {
	t.Helper()
	debian, err := imageserver.DebianRoot("")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{docker: startDocker(t), registry: startRegistry(t, registrytest.Real{})}
	w.builder = newMachine(t, "DOCKER_HOST="+w.docker.Host())
	w.base = w.builder.must(t, "plash-import-tar", debian)
	actions := []string{"--image", w.base}
	for _, name := range []string{"1.sh", "2.sh", "3.sh"} {
		actions = append(actions, "--layer", "--run", script(t, name))
	}
	w.id = w.builder.must(t, "plash-build", append(actions, "--entrypoint", "/srv/entry")...)
	w.tree = w.builder.tree(t, w.id)
	w.layers = w.builder.layers(t, w.id)
	w.archive = filepath.Join(w.builder.dir, "docker.tar")
	w.layout = filepath.Join(w.builder.dir, "layout")
	w.layoutTar = filepath.Join(w.builder.dir, "oci.tar")
	for _, ref := range []string{"docker-archive:" + w.archive + ":" + imageName, "oci:" + w.layout + ":1", "oci-archive:" + w.layoutTar + ":1"} {
		w.builder.must(t, "plash-export-docker", w.id, ref)
	}
	return w
}

// script is one of a layer.
func script(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata/steps", name))
	if err != nil {
		t.Fatal(err)
	}
	return "set -eu\n" + string(b)
}

// comesBack imports an image into a new store, and wants the layers that were exported, whose
// digests say what is in them. It returns the machine, and the container's id there.
func (w *world) comesBack(t *testing.T, ref string, env ...string) (m *machine, id string) {
	t.Helper()
	m = newMachine(t, env...)
	id = m.must(t, "plash-import-docker", ref)
	if got := m.layers(t, id); !slices.Equal(got, w.layers) {
		t.Errorf("%s: layers %v, want %v", ref, got, w.layers)
		w.tree.same(t, m.tree(t, id), whole)
	}
	return m, id
}
