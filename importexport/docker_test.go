package importexport

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/image"
	"github.com/ihucos/plash/importexport/registry/registrytest"
	"github.com/opencontainers/go-digest"
)

// dockerArchive is what docker save writes of an image, with the digest of its config.
func dockerArchive(t *testing.T, name string, layers ...[]byte) (archive []byte, id digest.Digest) {
	t.Helper()
	var diffs, members []string
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	add := func(name string, content []byte) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	for i, l := range layers {
		diffs = append(diffs, digest.FromBytes(l).String())
		members = append(members, fmt.Sprintf("%d/layer.tar", i))
		add(members[i], l)
	}
	config, err := json.Marshal(map[string]any{
		"os": "linux", "architecture": strings.Split(image.Platform{}.String(), "/")[1], "author": name,
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	})
	if err != nil {
		t.Fatal(err)
	}
	list, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{name}, "Layers": members}})
	if err != nil {
		t.Fatal(err)
	}
	add("config.json", config)
	add("manifest.json", list)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes(), digest.FromBytes(config)
}

// engine is a stand-in for docker's, with one image.
type engine struct {
	name    string // of the image
	id      digest.Digest
	archive []byte
	sent    atomic.Int32 // how often the image was sent
	cut     bool         // it breaks off in the middle
}

func (e *engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/images/" + e.name + "/json":
		fmt.Fprintf(w, `{"Id":%q,"Os":"linux","Architecture":%q,"RootFS":{"Type":"layers"}}`, e.id, strings.Split(image.Platform{}.String(), "/")[1])
	case "/images/" + e.name + "/get":
		e.sent.Add(1)
		w.Header().Set("Content-Length", fmt.Sprint(len(e.archive)))
		if e.cut {
			_, _ = w.Write(e.archive[:len(e.archive)/2])
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(e.archive)
	default:
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"message":"No such image"}`)
	}
}

// listen lets the engine answer at a socket, whose path it returns.
func (e *engine) listen(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: e}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return path
}

// noEngine makes sure that no engine of this machine is asked.
func noEngine(t *testing.T) {
	t.Helper()
	t.Setenv("PLASH_DOCKER_SOCKET", filepath.Join(t.TempDir(), "none"))
	t.Setenv(image.SizeVariable, "")
}

func TestImportFromEngine(t *testing.T) {
	noEngine(t)
	st := newStore(t)
	e := &engine{name: "some/image:1"}
	e.archive, e.id = dockerArchive(t, e.name, someTar(t, "below"), someTar(t, "above"))
	for _, variable := range []string{"DOCKER_HOST", "CONTAINER_HOST", "PLASH_DOCKER_SOCKET"} {
		t.Setenv(variable, "")
	}
	t.Setenv("DOCKER_HOST", "unix://"+e.listen(t))
	first, err := ImportDocker(t.Context(), st, "docker-daemon:some/image:1", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := tree(t, st, first)["./file"]; got != "above" {
		t.Errorf("content %q", got)
	}
	// It is there now, and known by its id.
	for _, name := range []string{"docker-daemon:some/image:1", "some/image:1", "docker.io/some/image:1"} {
		if id, err := ImportDocker(t.Context(), st, name, Options{}); err != nil || id != first {
			t.Errorf("%s: container %d, %v, want %d", name, id, err, first)
		}
	}
	if n := e.sent.Load(); n != 1 {
		t.Errorf("sent %d times", n)
	}
	// Engines show the first digits of an id.
	byName := e.name
	e.name = e.id.Encoded()[:12]
	for id, found := range map[string]bool{e.name: true, "docker-daemon:" + e.name: true, "docker-daemon:" + e.name[:11]: false} {
		if got, err := ImportDocker(t.Context(), st, id, Options{}); found != (err == nil && got == first) {
			t.Errorf("%s: container %d, %v, want %d", id, got, err, first)
		}
	}
	e.name = byName
	// With containerd's store, docker's ids are not those of configs.
	e.id = digest.FromString("an index")
	for range 3 {
		if id, err := ImportDocker(t.Context(), st, "docker-daemon:some/image:1", Options{}); err != nil || id != first {
			t.Errorf("container %d, %v, want %d", id, err, first)
		}
	}
	if n := e.sent.Load(); n != 2 {
		t.Errorf("sent %d times", n)
	}
	r := registrytest.New(t)
	for name, asked := range map[string]bool{
		"docker-daemon:other": false,
		r.Host + "/other":     true, // the registry, after the engine
	} {
		r.ClearLog()
		if id, err := ImportDocker(t.Context(), st, name, Options{}); !errors.Is(err, image.ErrNotFound) || len(r.Log()) > 0 != asked {
			t.Errorf("%s: container %d, %v, requests to the registry: %q", name, id, err, r.Log())
		}
	}
	if id, err := ImportDocker(t.Context(), st, "docker-daemon:some/image:1", Options{Platform: "plan9/386"}); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("another platform: container %d, %v", id, err)
	}
	e.cut, e.id = true, digest.FromString("cut")
	before := count(t, st)
	for _, name := range []string{"docker-daemon:some/image:1", "some/image:1"} { // the registry is no way out
		if id, err := ImportDocker(t.Context(), st, name, Options{}); err == nil || errors.Is(err, ErrNotSupported) {
			t.Errorf("%s, cut off: container %d, %v", name, id, err)
		}
	}
	if after := count(t, st); after != before {
		t.Errorf("%d containers, before %d", after, before)
	}
}

func TestImportFromNoEngine(t *testing.T) {
	noEngine(t)
	st := newStore(t)
	if id, err := ImportDocker(t.Context(), st, "docker-daemon:x", Options{}); !errors.Is(err, image.ErrNoDaemon) {
		t.Errorf("container %d, %v", id, err)
	}
	t.Setenv("PLASH_DOCKER_SOCKET", "")
	t.Setenv("DOCKER_HOST", "ssh://there")
	if id, err := ImportDocker(t.Context(), st, registrytest.New(t).Host+"/x", Options{}); !errors.Is(err, image.ErrNotFound) { // in the registry
		t.Errorf("container %d, %v", id, err)
	}
	if id, err := ImportDocker(t.Context(), st, "docker-daemon:x", Options{}); err == nil || !strings.Contains(err.Error(), "DOCKER_HOST=ssh://there") {
		t.Errorf("container %d, %v", id, err)
	}
}

// TestImportByName: an image of a registry is asked for once by its name.
func TestImportByName(t *testing.T) {
	noEngine(t)
	st, r := newStore(t), registrytest.New(t)
	name := r.Host + "/some/x:1"
	given, err := ImportTar(t.Context(), st, bytes.NewReader(someTar(t, "pulled")), "x", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := ExportDocker(t.Context(), st, given, "docker://"+name, DockerOptions{}); err != nil {
		t.Fatal(err)
	}
	asked := func() (n int) {
		for _, request := range r.Log() {
			if strings.HasPrefix(request, "GET ") && strings.Contains(request, "/manifests/") {
				n++
			}
		}
		return n
	}
	r.ClearLog()
	var first container.ID
	for i, c := range []struct {
		name string
		o    Options
		asks int
	}{
		{"docker://" + name, Options{}, 1},
		{"docker://" + name, Options{}, 1},
		{name, Options{}, 1},
		{name, Options{Refresh: true}, 2},
	} {
		id, err := ImportDocker(t.Context(), st, c.name, c.o)
		if i == 0 {
			first = id
		}
		if err != nil || id != first || asked() != c.asks {
			t.Errorf("%s: container %d, %v, asked for %d times; want %d, %d times", c.name, id, err, asked(), first, c.asks)
		}
	}
	if id, err := ImportDocker(t.Context(), st, r.Host+"/y:1", Options{}); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("container %d, %v", id, err)
	}
}

func TestMaxImageSize(t *testing.T) {
	for in, want := range map[string]int64{"": 0, "0": -1, "17": 17, "17B": 17, "1K": 1 << 10, "1kb": 1 << 10, "3MiB": 3 << 20, "200G": 200 << 30, "2T": 2 << 40} {
		if got, err := maxImageSize(in); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"x", "-1", "K", "1X", "1KK", "1 K", "9223372036854775807K", "1.5G", "1BK"} {
		if got, err := maxImageSize(in); err == nil {
			t.Errorf("%q: %d", in, got)
		}
	}
}

// TestImportDockerArchive: a file that is as it was is not read again.
func TestImportDockerArchive(t *testing.T) {
	noEngine(t)
	st := newStore(t)
	archive, _ := dockerArchive(t, "x:1", someTar(t, "archived"))
	name := filepath.Join(t.TempDir(), "x.tar.gz")
	if err := os.WriteFile(name, gzipped(t, archive), 0o644); err != nil {
		t.Fatal(err)
	}
	first, err := ImportDocker(t.Context(), st, "docker-archive:"+name, Options{})
	if err != nil {
		t.Fatal(err)
	}
	// Too young to be known by its times, and so read again.
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if id, err := ImportDocker(over, st, "docker-archive:"+name, Options{}); err == nil {
		t.Errorf("a young file was not read again: container %d", id)
	}
	time.Sleep(fileTimeGrain + 100*time.Millisecond) // ctime cannot be set
	if id, err := ImportDocker(t.Context(), st, "docker-archive:"+name, Options{}); err != nil || id != first {
		t.Errorf("container %d, %v, want %d", id, err, first)
	}
	if id, err := ImportDocker(over, st, "docker-archive:"+name, Options{}); err != nil || id != first {
		t.Errorf("an old file was read again: container %d, %v, want %d", id, err, first)
	}
	if _, err := ImportDocker(over, st, "docker-archive:"+name, Options{Refresh: true}); err == nil {
		t.Error("it was not read again when asked for")
	}
	if _, err := ImportDocker(over, st, "docker-archive:"+name+":x:1", Options{}); err == nil {
		t.Error("another image of the file was not read")
	}
	for ref, want := range map[string]string{"docker-archive:" + t.TempDir(): "is a directory", "oci-archive:" + name + "x": "no such file"} {
		if id, err := ImportDocker(t.Context(), st, ref, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: container %d, %v", ref, id, err)
		}
	}
}

// TestForeignLayer: a layer that is not in the archive is downloaded from where it is said to be.
func TestForeignLayer(t *testing.T) {
	noEngine(t)
	layer := someTar(t, "foreign")
	blob := gzipped(t, layer)
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.URL.Path != "/layer" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = w.Write(blob)
	}))
	t.Cleanup(server.Close)
	archive, _ := dockerArchive(t, "x:1", layer)
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		content, readErr := io.ReadAll(r)
		if err = errors.Join(err, readErr); err != nil {
			t.Fatal(err)
		}
		if h.Name == "0/layer.tar" {
			continue
		}
		if h.Name == "manifest.json" {
			sources := fmt.Sprintf(`,"LayerSources":{%q:{"mediaType":%q,"size":%d,"digest":%q,"urls":[%q,%q]}}}]`, digest.FromBytes(layer),
				"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", len(blob), digest.FromBytes(blob), server.URL+"/none", server.URL+"/layer")
			content = []byte(strings.TrimSuffix(string(content), "}]") + sources)
			h.Size = int64(len(content))
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "x.tar")
	if err := os.WriteFile(name, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	st := newStore(t)
	id, err := ImportDocker(t.Context(), st, "docker-archive:"+name, Options{client: hasty()})
	if err != nil {
		t.Fatal(err)
	}
	if got := tree(t, st, id)["./file"]; got != "foreign" || asked != 2 {
		t.Errorf("content %q, asked %d times", got, asked)
	}
	// Once it is there, nobody is asked.
	if again, err := ImportDocker(t.Context(), st, "docker-archive:"+name, Options{client: hasty()}); err != nil || again != id || asked != 2 {
		t.Errorf("container %d, %v, asked %d times", again, err, asked)
	}
	blob = gzipped(t, someTar(t, "other"))
	other := newStore(t)
	if id, err := ImportDocker(t.Context(), other, "docker-archive:"+name, Options{client: hasty()}); !errors.Is(err, cas.ErrDigest) || count(t, other) != 0 {
		t.Errorf("other bytes: container %d, %v", id, err)
	}
}
