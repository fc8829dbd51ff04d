package roundtrip

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ihucos/plash/importexport/registry/registrytest"
)

// A registry is Debian's.
type registry struct {
	host string
	env  []string // of who uses it
}

// startRegistry starts one until the end of the test.
func startRegistry(t *testing.T, o registrytest.Real) registry {
	t.Helper()
	host, authority := o.Start(t)
	r := registry{host: host}
	if o.TLS {
		r.env = append(r.env, "SSL_CERT_FILE="+authority)
	}
	if o.Password {
		dir := t.TempDir()
		auth := base64.StdEncoding.EncodeToString([]byte("me:secret"))
		b, err := json.Marshal(map[string]any{"auths": map[string]any{host: map[string]string{"auth": auth}}})
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		r.env = append(r.env, "DOCKER_CONFIG="+dir, "REGISTRY_AUTH_FILE="+filepath.Join(dir, "config.json"))
	}
	return r
}

// ref is an image in the registry.
func (r registry) ref(name string) string { return "docker://" + r.host + "/" + name }

// skopeo runs the program of that name. It does not care who speaks TLS.
func (w *world) skopeo(t *testing.T, m *machine, args ...string) string {
	t.Helper()
	return m.must(t, "skopeo", append([]string{"--insecure-policy"}, args...)...)
}

// raw is the manifest, or with --config the configuration, of an image.
func (w *world) raw(t *testing.T, m *machine, ref string, options ...string) string {
	t.Helper()
	args := append([]string{"inspect", "--raw", "--tls-verify=false", "--daemon-host=" + w.docker.Host()}, options...)
	return w.skopeo(t, m, append(args, ref)...)
}

// copy has skopeo copy an image.
func (w *world) copy(t *testing.T, m *machine, from, to string) {
	t.Helper()
	w.skopeo(t, m, "copy", "--quiet", "--src-daemon-host="+w.docker.Host(), "--dest-daemon-host="+w.docker.Host(),
		"--src-tls-verify=false", "--dest-tls-verify=false", "--dest-compress-level=1", from, to)
}

// throughRegistries has images go from registry to registry, one of them with a password and
// an authority of its own.
func (w *world) throughRegistries(t *testing.T) {
	safe := startRegistry(t, registrytest.Real{Password: true, TLS: true})
	m := newMachine(t, safe.env...)
	if out, err := newMachine(t, safe.env[:1]...).run("plash-import-docker", safe.ref("ours:1")); err == nil || !strings.Contains(err.Error(), "hint: ") {
		t.Errorf("without a password: %s, %v", out, err)
	}
	if out, err := newMachine(t, safe.env[1:]...).run("plash-import-docker", safe.ref("ours:1")); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without the authority: %s, %v", out, err)
	}
	w.builder.must(t, "plash-push", w.id, w.registry.host+"/ours:1")
	w.copy(t, m, w.registry.ref("ours:1"), safe.ref("copied:1"))
	w.staysTheSame(t, safe, safe.ref("copied:1"))

	var inspected struct {
		Layers []string
		Os     string
	}
	if err := json.Unmarshal([]byte(w.skopeo(t, m, "inspect", safe.ref("copied:1"))), &inspected); err != nil {
		t.Fatal(err)
	}
	if len(inspected.Layers) != 4 || inspected.Os != "linux" {
		t.Errorf("skopeo inspect: %+v", inspected)
	}
}

// staysTheSame pulls an image into a new store and pushes it to the same registry and to
// another one: not a byte of the manifest differs, and so of nothing that it names.
func (w *world) staysTheSame(t *testing.T, other registry, ref string) {
	t.Helper()
	m, id := w.comesBack(t, ref, other.env...)
	want := w.raw(t, m, ref)
	for _, to := range []string{w.registry.ref("back/again:1"), other.ref("back/again:1")} {
		m.must(t, "plash-push", id, strings.TrimPrefix(to, "docker://"))
		if got := w.raw(t, m, to); got != want {
			t.Errorf("%s was %s\nand is at %s %s", ref, want, to, got)
		}
	}
}
