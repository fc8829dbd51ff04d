package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ihucos/plash/importexport/registry/registrytest"
)

// registryWorld is Debian's registry, and machines that use it.
type registryWorld struct {
	t         *testing.T
	images    images
	host      string
	authority string
}

// machine is a new one, which trusts the registry's authority and knows the password.
func (w *registryWorld) machine() *machine {
	m := newMachine(w.t, w.images)
	config := filepath.Join(m.work, "docker")
	auth := base64.StdEncoding.EncodeToString([]byte("me:secret"))
	err := os.Mkdir(config, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(config, "config.json"), []byte(fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, w.host, auth)), 0o600)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	m.env = append(m.env, "HOME="+m.work, "DOCKER_CONFIG="+config, "SSL_CERT_FILE="+w.authority, "REGISTRY_AUTH_FILE="+config+"/config.json")
	return m
}

// skopeo runs the program of that name, which trusts and knows the same.
func (w *registryWorld) skopeo(m *machine, args ...string) string {
	w.t.Helper()
	return m.must("skopeo", args...)
}

func (w *registryWorld) digest(m *machine, ref string) string {
	w.t.Helper()
	return w.skopeo(m, "inspect", "--format", "{{.Digest}}", "docker://"+w.host+"/"+ref)
}

// TestRegistryRoundTrip sends images to and fro between machines and Debian's registry,
// with skopeo as a witness: trees are equal, and what was pulled and is pushed keeps its digests.
func TestRegistryRoundTrip(t *testing.T) {
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("no skopeo here (Debian package skopeo)")
	}
	w := &registryWorld{t: t, images: serveImages(t)}
	w.host, w.authority = registrytest.Real{Password: true, TLS: true}.Start(t)
	first := w.machine()
	id := first.must("plash-build", sharedLayers...)
	first.must("plash-push", id, w.host+"/made/here:1")
	tree := func(m *machine, id string) string { return m.must("sh", "-c", "plash-export-tar "+id+" | sha256sum") }
	want := tree(first, id)
	if layers := w.skopeo(first, "inspect", "--format", "{{len .Layers}}", "docker://"+w.host+"/made/here:1"); layers != "4" {
		t.Errorf("%s layers", layers)
	}

	again := w.machine()
	if got := again.must("plash-run", "--image", "docker://"+w.host+"/made/here:1", "--", "cat", "/date"); got != first.must("plash-run", id, "cat", "/date") {
		t.Errorf("/date has %q", got)
	}
	for i, how := range [][]string{
		{"--format", "oci"}, {"--format", "v2s2"}, {"--format", "oci", "--dest-compress-format", "zstd"},
	} {
		// In forms of layers that are not ours. (A directory in between has skopeo compress them anew.)
		ref := fmt.Sprintf("made/by-skopeo:%d", i)
		dir := filepath.Join(first.work, fmt.Sprint("dir", i))
		w.skopeo(first, "copy", "-q", "--dest-decompress", "docker://"+w.host+"/made/here:1", "dir:"+dir)
		w.skopeo(first, append(append([]string{"copy", "-q"}, how...), "dir:"+dir, "docker://"+w.host+"/"+ref)...)
		m := w.machine()
		id := m.must("plash-import-docker", "docker://"+w.host+"/"+ref)
		if got := tree(m, id); got != want {
			t.Errorf("%q: another tree", how)
		}
		back := fmt.Sprintf("back/again:%d", i)
		m.must("plash-push", id, w.host+"/"+back)
		if was, is := w.digest(first, ref), w.digest(first, back); was != is {
			t.Errorf("%q: pulled %s, pushed %s", how, was, is)
		}
		m.must("plash-export-docker", "--compression", "none", id, "docker://"+w.host+"/plain/one:1")
		raw := w.skopeo(first, "inspect", "--raw", "docker://"+w.host+"/plain/one:1")
		if strings.Contains(raw, "gzip") || strings.Contains(raw, "zstd") || !strings.Contains(raw, "tar\"") {
			t.Errorf("%q: not plain: %s", how, raw)
		}
		pinned := "docker://" + w.host + "/" + ref + "@" + w.digest(first, ref)
		if got := m.must("plash-import-docker", pinned); got != id {
			t.Errorf("%q: by digest it is container %s, by tag %s", how, got, id)
		}
	}
}
