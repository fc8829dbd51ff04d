package registry

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/importexport/image"
	"github.com/ihucos/plash/importexport/progress"
	"github.com/ihucos/plash/importexport/registry/registrytest"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestPull(t *testing.T) {
	layers := [][]byte{layerTar(t, "a", 300_000), layerTar(t, "b", 10), layerTar(t, "c", 70_000)}
	for name, prepare := range map[string]func(r *registrytest.Registry){
		"well":           func(*registrytest.Registry) {},
		"cut":            func(r *registrytest.Registry) { r.Faults.CutEvery = 80_000 },
		"cut, no ranges": func(r *registrytest.Registry) { r.Faults.CutEvery = 80_000; r.Faults.NoRanges = true },
		"busy":           func(r *registrytest.Registry) { r.Faults.BusyEvery = 2; r.Faults.FailEvery = 3 },
		"cut manifests":  func(r *registrytest.Registry) { r.Faults.CutManifests = 2 },
		"basic":          func(r *registrytest.Registry) { r.User, r.Password = "me", "secret" },
		"tokens":         func(r *registrytest.Registry) { r.User, r.Password, r.Tokens = "me", "secret", true },
		"busy and tokens": func(r *registrytest.Registry) {
			r.User, r.Password, r.Tokens = "me", "secret", true
			r.Faults.FailEvery = 2
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.New(t)
			want := putImage(t, r, "some/image", "1", layers...)
			prepare(r)
			c := newClient(t)
			writeCredentials(t, r.Host, "me", "secret")
			for _, ref := range []string{":1", ":1@" + want.String(), "@" + want.String()} {
				im, err := c.Pull(t.Context(), parse(t, "%s/some/image%s", r.Host, ref), PullOptions{})
				if name == "cut, no ranges" && err == nil {
					// Each attempt begins at the beginning and gets no further.
					if _, _, err = readLayer(t.Context(), im.Layers[0]); err == nil || !strings.Contains(err.Error(), "attempts") {
						t.Fatal(err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if digest.FromBytes(im.Manifest) != want || im.MediaType != v1.MediaTypeImageManifest || len(im.Layers) != len(layers) {
					t.Fatalf("%+v", im)
				}
				if name == "tokens" {
					r.ExpireTokens()
				}
				for i, l := range im.Layers {
					stored, plain, err := readLayer(t.Context(), l)
					if err != nil {
						t.Fatal(err)
					}
					if digest.FromBytes(stored) != l.Digest || int64(len(stored)) != l.Size || !bytes.Equal(plain, layers[i]) || digest.FromBytes(plain) != l.DiffID {
						t.Errorf("layer %d is another", i)
					}
					if l.From != r.Host+"/some/image" {
						t.Errorf("from %q", l.From)
					}
				}
				if err := im.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// writeCredentials notes a password where docker does.
func writeCredentials(t *testing.T, host, user, password string) {
	t.Helper()
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	file := filepath.Join(os.Getenv("DOCKER_CONFIG"), "config.json")
	if err := os.WriteFile(file, []byte(fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, auth)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestCredentials finds passwords in the places where docker and podman keep them.
func TestCredentials(t *testing.T) {
	r := registrytest.New(t)
	r.User, r.Password = "me", "secret"
	layer := layerTar(t, "a", 10)
	putImage(t, r, "x/y", "1", layer)
	file := func(name, content string, mode os.FileMode) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	const auth = `{"auth":"bWU6c2VjcmV0"}` // me:secret
	for name, prepare := range map[string]func(dir string){
		"docker": func(dir string) {
			t.Setenv("DOCKER_CONFIG", dir)
			file(dir+"/config.json", `{"auths":{"`+r.Host+`":`+auth+`}}`, 0o600)
		},
		"podman": func(dir string) {
			t.Setenv("XDG_RUNTIME_DIR", dir)
			file(dir+"/containers/auth.json", `{"auths":{"`+r.Host+`":`+auth+`}}`, 0o600)
		},
		"podman, of a repository": func(dir string) {
			t.Setenv("REGISTRY_AUTH_FILE", dir+"/auth.json")
			file(dir+"/auth.json", `{"auths":{"`+r.Host+`/x/y":`+auth+`}}`, 0o600)
		},
		"helper": func(dir string) {
			t.Setenv("DOCKER_CONFIG", dir)
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
			file(dir+"/config.json", `{"credHelpers":{"`+r.Host+`":"of-test"}}`, 0o600)
			file(dir+"/docker-credential-of-test", "#!/bin/sh\nread host\n[ \"$1 $host\" = 'get "+r.Host+"' ] && echo '{\"Username\":\"me\",\"Secret\":\"secret\"}'\n", 0o755)
		},
		"no helper": func(dir string) {
			t.Setenv("DOCKER_CONFIG", dir)
			file(dir+"/config.json", `{"credsStore":"nosuch"}`, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			newClient(t)
			prepare(t.TempDir())
			warned := false
			c := New(Options{Warn: func(error) { warned = true }})
			defer c.Close()
			_, err := c.Pull(t.Context(), parse(t, "%s/x/y:1", r.Host), PullOptions{})
			if name == "no helper" {
				if !errors.Is(err, ErrDenied) || !warned {
					t.Errorf("%v, warned: %v", err, warned)
				}
				return
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPullRefused(t *testing.T) {
	layer := layerTar(t, "a", 100_000)
	bad := digest.FromString("bad")
	for _, c := range []struct {
		name    string
		prepare func(r *registrytest.Registry) (ref string)
		want    string
		is      error
	}{
		{"no image", func(*registrytest.Registry) string { return "x:2" }, "manifest unknown", image.ErrNotFound},
		{"no password", func(r *registrytest.Registry) string { r.User = "u"; return "x:1" }, "401", ErrDenied},
		{"no token", func(r *registrytest.Registry) string { r.User, r.Tokens = "u", true; return "x:1" }, "401", ErrDenied},
		{"dead", func(r *registrytest.Registry) string { r.Faults.Dead = 503; return "x:1" }, "503", nil},
		{"nobody there", func(r *registrytest.Registry) string { r.Stop(); return "x:1" }, "connection refused", nil},
		{"another manifest", func(r *registrytest.Registry) string { return "x@" + bad.String() }, "", image.ErrNotFound},
		{"wrong digest", func(r *registrytest.Registry) string { r.Faults.WrongManifestDigest = true; return "x:1" }, "expected sha256:", cas.ErrDigest},
		{"wrong bytes", func(r *registrytest.Registry) string { r.Faults.Spoil = true; return "x:1" }, "expected sha256:", cas.ErrDigest},
		{"cut manifests", func(r *registrytest.Registry) string { r.Faults.CutManifests = 100; return "x:1" }, "unexpected EOF", nil},
		{"schema 1", func(r *registrytest.Registry) string {
			r.PutManifest("x", "old", dockerSchema1, []byte(`{"schemaVersion":1,"fsLayers":[]}`))
			return "x:old"
		}, "schema 1", image.ErrSchema1},
		{"no JSON", func(r *registrytest.Registry) string {
			r.PutManifest("x", "j", v1.MediaTypeImageManifest, []byte(`{`))
			return "x:j"
		}, "JSON", nil},
		{"JSON of another kind", func(r *registrytest.Registry) string {
			r.PutManifest("x", "k", v1.MediaTypeImageManifest, []byte(`[]`))
			return "x:k"
		}, "manifest: a value of the wrong type, array", image.ErrMalformed},
		{"huge", func(r *registrytest.Registry) string {
			r.PutManifest("x", "h", v1.MediaTypeImageManifest, bytes.Repeat([]byte{' '}, maxManifest+1))
			return "x:h"
		}, "more than", ErrUnsupported},
		{"artifact", func(r *registrytest.Registry) string {
			d := r.PutBlob("x", []byte("{}"))
			r.PutManifest("x", "a", v1.MediaTypeImageManifest, jsonOf(t, map[string]any{
				"schemaVersion": 2, "artifactType": "text/plain",
				"config": v1.Descriptor{MediaType: v1.MediaTypeEmptyJSON, Digest: d, Size: 2},
			}))
			return "x:a"
		}, "not a container image", nil},
		{"bad digest", func(r *registrytest.Registry) string {
			r.PutManifest("x", "d", v1.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"config":{"mediaType":"`+v1.MediaTypeImageConfig+`","digest":"sha256:../../x","size":3}}`))
			return "x:d"
		}, "digest", nil},
		{"number of layers", func(r *registrytest.Registry) string {
			config := []byte(`{"rootfs":{"type":"layers","diff_ids":["` + bad.String() + `"]}}`)
			r.PutManifest("x", "n", v1.MediaTypeImageManifest, jsonOf(t, v1.Manifest{Versioned: v2, Config: v1.Descriptor{
				MediaType: v1.MediaTypeImageConfig, Digest: r.PutBlob("x", config), Size: int64(len(config)),
			}}))
			return "x:n"
		}, "0 layers, its config 1", nil},
		{"indexes without end", func(r *registrytest.Registry) string {
			inner := digest.FromString("nothing")
			for range maxNesting {
				inner = r.PutManifest("x", "i", v1.MediaTypeImageIndex, jsonOf(t, v1.Index{Versioned: v2, Manifests: []v1.Descriptor{{Digest: inner}}}))
			}
			return "x:i"
		}, "indexes", ErrUnsupported},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := registrytest.New(t)
			putImage(t, r, "x", "1", layer)
			client := newClient(t)
			im, err := client.Pull(t.Context(), parse(t, "%s/%s", r.Host, c.prepare(r)), PullOptions{})
			if err == nil {
				_, _, err = readLayer(t.Context(), im.Layers[0])
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestPullNoAnswer: what a session does for a request that brings no answer is not done again for the manifest.
func TestPullNoAnswer(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/v2/":
			return
		case "/v2/loop/manifests/1":
			w.Header().Set("Location", req.URL.Path)
			w.WriteHeader(http.StatusTemporaryRedirect)
		default:
			panic(http.ErrAbortHandler)
		}
		asked.Add(1)
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	var retries atomic.Int32
	for ref, want := range map[string]string{
		"lost": "get " + server.URL + "/v2/lost/manifests/1: EOF",
		"loop": "get /v2/loop/manifests/1: more than 10 redirects",
	} {
		retries.Store(0)
		c := newClient(t)
		c.o.Progress = countRetries{c.o.Progress, &retries}
		_, err := c.Pull(t.Context(), parse(t, "%s/%s:1", host, ref), PullOptions{})
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: %v", ref, err)
		}
		if n := retries.Load(); ref == "lost" && (n < 2 || n > 6) || ref == "loop" && n != 0 {
			t.Errorf("%s: tried again %d times", ref, n)
		}
	}
	if n := asked.Load(); n > 12 {
		t.Errorf("%d requests for one redirect without end", n)
	}
}

// countRetries is a display that counts retries.
type countRetries struct {
	progress.Display
	n *atomic.Int32
}

func (c countRetries) Retry(why error, wait time.Duration) {
	c.n.Add(1)
	c.Display.Retry(why, wait)
}

func TestPullWrongLayer(t *testing.T) {
	r := registrytest.New(t)
	putImage(t, r, "x", "1", layerTar(t, "a", 100_000))
	im, err := newClient(t).Pull(t.Context(), parse(t, "%s/x:1", r.Host), PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r.Faults.Spoil = true
	if _, _, err := readLayer(t.Context(), im.Layers[0]); !errors.Is(err, cas.ErrDigest) {
		t.Error(err)
	}
}

func TestPullPlatform(t *testing.T) {
	r := registrytest.New(t)
	a, b := putImage(t, r, "x", "", layerTar(t, "a", 10)), putImage(t, r, "x", "", layerTar(t, "b", 20))
	r.PutManifest("x", "1", v1.MediaTypeImageIndex, jsonOf(t, v1.Index{Versioned: v2, MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{
		{MediaType: v1.MediaTypeImageManifest, Digest: a, Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}},
		{MediaType: v1.MediaTypeImageManifest, Digest: b, Platform: &v1.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}},
	}}))
	c := newClient(t)
	for platform, want := range map[string]digest.Digest{"linux/s390x": a, "linux/arm": b, "linux/arm/v7": b, "linux/arm/v6": "", "windows/amd64": ""} {
		p, err := image.ParsePlatform(platform)
		if err != nil {
			t.Fatal(err)
		}
		im, err := c.Pull(t.Context(), parse(t, "%s/x:1", r.Host), PullOptions{Platform: p})
		if want == "" {
			if !errors.Is(err, image.ErrNotFound) || !strings.Contains(err.Error(), "linux/s390x, linux/arm") {
				t.Errorf("%s: %v", platform, err)
			}
			continue
		}
		if err != nil || digest.FromBytes(im.Manifest) != want {
			t.Errorf("%s: %v", platform, err)
		}
	}
}

func TestMirror(t *testing.T) {
	origin, mirror := registrytest.New(t), registrytest.New(t)
	layer := layerTar(t, "a", 100)
	want := putImage(t, origin, "x", "1", layer)
	manifest, kind := origin.Manifest("x", "1")
	t.Setenv(mirrorsVar, origin.Host+"=http://"+mirror.Host+"/sub")
	c := newClient(t)
	ref := parse(t, "%s/x:1", origin.Host)
	if _, err := c.Pull(t.Context(), ref, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	// The mirror has the manifest now, and not all blobs.
	mirror.PutManifest("sub/x", "1", kind, manifest)
	if _, err := c.Pull(t.Context(), ref, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	config := origin.Blob("x", digest.FromBytes(configOf(t, origin, "x", "1")))
	mirror.PutBlob("sub/x", config)
	origin.ClearLog()
	im, err := c.Pull(t.Context(), ref, PullOptions{})
	if err != nil || digest.FromBytes(im.Manifest) != want {
		t.Fatal(err)
	}
	if n := len(origin.Log()); n != 0 {
		t.Errorf("%d requests to the origin: %q", n, origin.Log())
	}
	if _, plain, err := readLayer(t.Context(), im.Layers[0]); err != nil || !bytes.Equal(plain, layer) {
		t.Fatal(err)
	}
	if n := origin.Requests("GET", "/blobs/"); n != 1 {
		t.Errorf("%d blobs from the origin", n)
	}
	mirror.Stop()
	if _, err = sameClient(t).Pull(t.Context(), ref, PullOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestPlainHTTP(t *testing.T) {
	c := newClient(t)
	for _, host := range []string{"10.255.255.1:5000", "registry.example", "x.local"} {
		g, err := newGuard(endpoint{repository: repository{host: host}}, c.settings, "plash")
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		var plain *plainError
		if _, err := g.RoundTrip(req); !errors.As(err, &plain) {
			t.Errorf("%s: %v", host, err)
		}
	}
	for host, want := range map[string]bool{"localhost": true, "localhost:5000": true, "127.9.0.1:1": true, "[::1]:5000": true, "::1": true, "localhost.example": false, "127.0.0.1.example:80": false, "named:5": true} {
		if got := (settings{plain: []string{"named:5"}}).insecure(host); got != want {
			t.Errorf("%s: %v", host, got)
		}
	}
}

func TestParseRepository(t *testing.T) {
	for s, want := range map[string]string{
		"alpine": "docker.io/library/alpine", "me/x": "docker.io/me/x", "localhost:5000/a/b": "localhost:5000/a/b",
		"x:latest": "", "x:1": "", "localhost:5000/x:1": "", "": "", "A": "", "x@" + digest.FromString("").String(): "",
	} {
		got, err := parseRepository(s)
		if (err == nil) != (want != "") || err == nil && got.String() != want {
			t.Errorf("%q: %q, %v", s, got, err)
		}
	}
}
