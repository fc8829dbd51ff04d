package roundtrip

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ihucos/plash/importexport/enginetest"
)

// throughPodman has Podman load the image, run it and give it back.
func (w *world) throughPodman(t *testing.T) {
	p, err := enginetest.NewPodman(filepath.Join(os.TempDir(), "podman"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	const name = "docker.io/library/" + imageName
	must(t, p.Command("load", "--quiet", "--input", w.archive))
	if got := must(t, p.Run(name, "a", "b")); got != "entry a b" {
		t.Errorf("podman run: %q", got)
	}
	w.tree.same(t, treeFrom(t, p.Run(append([]string{name, "exec"}, inside()...)...)), func(name string) (bool, bool) {
		skip, skipTime := running(name)
		return skip || name == ".", skipTime // its root directories have modes of their own
	})
	saved := filepath.Join(t.TempDir(), "saved.tar")
	must(t, p.Command("save", "--quiet", "--output", saved, name))
	w.comesBack(t, "docker-archive:"+saved)
	host, err := p.Serve()
	if err != nil {
		t.Fatal(err)
	}
	m, id := w.comesBack(t, "docker-daemon:"+imageName, "DOCKER_HOST="+host)
	was := must(t, p.Command("image", "inspect", "--format", "{{.Id}}", name))
	m.must(t, "plash-export-docker", id, "again:2")
	if is := must(t, p.Command("image", "inspect", "--format", "{{.Id}}", "docker.io/library/again:2")); is != was {
		t.Errorf("it was %s, and is %s", was, is)
	}
	w.builtByBuildah(t, p, host)
}
