package roundtrip

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ihucos/plash/importexport/enginetest"
)

// startDocker starts an engine until the end of the test.
func startDocker(t *testing.T) *enginetest.Docker {
	t.Helper()
	d, err := enginetest.StartDocker(filepath.Join(t.TempDir(), "d"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Stop(); err != nil {
			t.Errorf("%v: %s", err, d.Said())
		}
	})
	return d
}

// dockerRun is a command in a container, which has no network.
func dockerRun(d *enginetest.Docker, args ...string) *exec.Cmd {
	return d.Command(append([]string{"run", "--rm", "--network=none"}, args...)...)
}

// throughDocker has Docker load the image, run it and give it back.
func (w *world) throughDocker(t *testing.T) {
	d := w.docker
	must(t, d.Command("load", "--quiet", "--input", w.archive))
	if got := must(t, dockerRun(d, imageName, "a", "b")); got != "entry a b" {
		t.Errorf("docker run: %q", got)
	}
	w.tree.same(t, treeFrom(t, dockerRun(d, append([]string{imageName, "exec"}, inside()...)...)), running)
	saved := filepath.Join(t.TempDir(), "saved.tar")
	must(t, d.Command("save", "--output", saved, imageName))
	w.comesBack(t, "docker-archive:"+saved)
	m, id := w.comesBack(t, "docker-daemon:"+imageName, "DOCKER_HOST="+d.Host())
	if got := m.must(t, "plash-import-docker", imageName); got != id { // by its name alone
		t.Errorf("%s and %s", got, id)
	}
	// Back over the socket, it is the same image.
	was := must(t, d.Command("image", "inspect", "--format", "{{.Id}}", imageName))
	m.must(t, "plash-export-docker", id, "again:2")
	if is := must(t, d.Command("image", "inspect", "--format", "{{.Id}}", "again:2")); is != was {
		t.Errorf("it was %s, and is %s", was, is)
	}
	w.builtByDocker(t)
}
