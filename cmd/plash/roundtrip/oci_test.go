package roundtrip

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ihucos/plash/importexport/registry/registrytest"
)

// throughUmoci has umoci unpack the layout, and runc run what it has unpacked.
func (w *world) throughUmoci(t *testing.T) {
	m := newMachine(t)
	bundle := filepath.Join(m.dir, "bundle")
	m.must(t, "umoci", "unpack", "--image", w.layout+":1", bundle)
	pack := packing(filepath.Join(bundle, "rootfs"))
	w.tree.same(t, treeFrom(t, m.command(pack[0], pack[1:]...)), whole)
	runs(t, filepath.Join(bundle, "config.json"), append([]string{"/srv/entry", "exec"}, inside()...))
	w.tree.same(t, treeFrom(t, m.command("runc", "--root", filepath.Join(m.dir, "runc"), "run", "--bundle", bundle, filepath.Base(t.TempDir())+"-roundtrip")), running)
	w.scripts(t, m.must(t, "umoci", "stat", "--image", w.layout+":1", "--json"))
}

// runs has a bundle run a command without a terminal.
func runs(t *testing.T, config string, argv []string) {
	t.Helper()
	b, err := os.ReadFile(config)
	var spec map[string]any
	if err == nil {
		err = json.Unmarshal(b, &spec)
	}
	if err != nil {
		t.Fatal(err)
	}
	process := spec["process"].(map[string]any)
	process["args"], process["terminal"] = argv, false
	// umoci's root may not read what others forbid him.
	caps := []string{"CAP_DAC_OVERRIDE"}
	process["capabilities"] = map[string]any{"bounding": caps, "effective": caps, "permitted": caps}
	if b, err = json.Marshal(spec); err == nil {
		err = os.WriteFile(config, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// scripts wants of umoci's history that it has the scripts that made the layers.
func (w *world) scripts(t *testing.T, stat string) {
	t.Helper()
	var said struct {
		History []struct {
			Layer     *struct{ Digest string }
			CreatedBy string `json:"created_by"`
		}
	}
	if err := json.Unmarshal([]byte(stat), &said); err != nil {
		t.Fatal(err)
	}
	var made []string
	for _, h := range said.History {
		if h.Layer != nil {
			made = append(made, h.CreatedBy)
		}
	}
	if len(made) != 4 {
		t.Fatalf("%d layers with history: %+v", len(made), said.History)
	}
	for i, part := range []string{"mkfifo -m 622 /srv/fifo", "rm -r /srv/opaque", "cat >/srv/entry"} {
		if !strings.Contains(made[i+1], part) {
			t.Errorf("layer %d was made by %q", i+1, made[i+1])
		}
	}
}

// throughRunc has plash-runc run the image in both engines.
func (w *world) throughRunc(t *testing.T) {
	for _, engine := range []string{"runc", "crun"} {
		if got := w.builder.must(t, "plash-runc", "--runtime", engine, w.id, "--", "a", "b"); got != "entry a b" {
			t.Errorf("%s: %q", engine, got)
		}
		run := append([]string{"--runtime", engine, w.id, "--", "exec"}, inside()...)
		w.tree.same(t, treeFrom(t, w.builder.command("plash-runc", run...)), running)
	}
	bundle := filepath.Join(t.TempDir(), "bundle")
	w.builder.must(t, "plash-runc", "--bundle", bundle, w.id)
	pack := packing(filepath.Join(bundle, "rootfs"))
	w.tree.same(t, treeFrom(t, exec.Command(pack[0], pack[1:]...)), whole)
}

// throughSkopeo has skopeo carry images from each transport, where plash has put them, to
// another one, where plash finds them.
func (w *world) throughSkopeo(t *testing.T) {
	m := newMachine(t)
	at := func(name string) string { return filepath.Join(m.dir, name) }
	w.builder.must(t, "plash-export-docker", w.id, "docker-daemon:for-skopeo:1")
	w.builder.must(t, "plash-export-docker", w.id, w.registry.ref("for-skopeo:1"))
	ours := []string{
		"docker-archive:" + w.archive + ":" + imageName, "oci:" + w.layout + ":1", "oci-archive:" + w.layoutTar + ":1",
		"docker-daemon:for-skopeo:1", w.registry.ref("for-skopeo:1"),
	}
	theirs := []string{
		"oci:" + at("layout") + ":1", "oci-archive:" + at("oci.tar") + ":1", "docker-daemon:by-skopeo:1",
		w.registry.ref("by-skopeo:1"), "docker-archive:" + at("docker.tar") + ":" + imageName,
	}
	for i, from := range ours {
		w.copy(t, m, from, theirs[i])
		w.comesBack(t, theirs[i], "DOCKER_HOST="+w.docker.Host())
	}
	w.staysTheSame(t, startRegistry(t, registrytest.Real{Password: true}), w.registry.ref("by-skopeo:1"))
}
