package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/importexport/image"
	"github.com/ihucos/plash/importexport/registry/registrytest"
	"github.com/opencontainers/go-digest"
)

// A confWorld is registries by the names that registries.conf and images have for them.
type confWorld struct {
	*testing.T
	hosts map[string]*registrytest.Registry
	warns []string

	mu    sync.Mutex
	asked []string // addresses that were dialled
}

// client is one for which registries.conf has this text: "origin.example" and "mirror1.example" are the registries
// of that name, and others do not exist.
func (w *confWorld) client(format string, a ...any) *Client {
	w.Helper()
	newClient(w.T)
	file := filepath.Join(w.TempDir(), "registries.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, format, a...), 0o600); err != nil {
		w.Fatal(err)
	}
	w.Setenv("CONTAINERS_REGISTRIES_CONF", file)
	c := New(Options{Warn: func(err error) { w.warns = append(w.warns, err.Error()) }})
	c.backoff = time.Millisecond
	w.Cleanup(c.Close)
	c.settings.certs = w.TempDir()
	c.settings.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		if loopback(host) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}
		w.mu.Lock()
		w.asked = append(w.asked, address)
		w.mu.Unlock()
		if r := w.hosts[host]; r != nil {
			return new(net.Dialer).DialContext(ctx, network, r.Host)
		}
		return nil, &net.OpError{Op: "dial", Net: network, Err: &net.DNSError{Err: "no such host", Name: address, IsNotFound: true}}
	}
	return c
}

// newConfWorld has an image of one layer, me/x:1, in origin.example, and below sub in two mirrors.
func newConfWorld(t *testing.T) (w *confWorld, image digest.Digest) {
	w = &confWorld{T: t, hosts: map[string]*registrytest.Registry{}}
	layer := layerTar(t, "a", 1000)
	for _, host := range []string{"origin.example", "mirror1.example", "mirror2.example"} {
		r := registrytest.New(t)
		w.hosts[host] = r
		for _, repo := range []string{"me/x", "sub/me/x", "library/x"} {
			image = putImage(t, r, repo, "1", layer)
		}
	}
	return w, image
}

// used are the manifests that registries were asked for, as HOST/REPOSITORY.
func (w *confWorld) used() []string {
	var all []string
	for host, r := range w.hosts {
		for _, line := range r.Log() {
			if path, ok := strings.CutPrefix(line, "GET /v2/"); ok && strings.Contains(path, "/manifests/") {
				repo, _, _ := strings.Cut(path, "/manifests/")
				all = append(all, host+"/"+repo)
			}
		}
	}
	slices.Sort(all)
	return all
}

// Plain HTTP to names that are not this machine is what insecure allows: without it, nothing arrives.
func TestRegistriesConfPull(t *testing.T) {
	const mirrors = `
[[registry]]
location = "origin.example"
insecure = true
[[registry.mirror]]
location = "mirror1.example/sub"
insecure = true
[[registry.mirror]]
location = "mirror2.example/sub"
insecure = true
`
	onlyDigests := strings.Replace(mirrors, "insecure = true\n", "insecure = true\nmirror-by-digest-only = true\n", 1)
	byKind := strings.Replace(strings.Replace(mirrors, `1.example/sub"`, "1.example/sub\"\npull-from-mirror = \"digest-only\"", 1),
		`2.example/sub"`, "2.example/sub\"\npull-from-mirror = \"tag-only\"", 1)
	for _, c := range []struct {
		name, conf, ref string
		mirrors         string // PLASH_REGISTRY_MIRRORS
		down            []string
		want            []string // used, as HOST/REPOSITORY
		fails           string
		warns           int
	}{
		{name: "first mirror", conf: mirrors, ref: "origin.example/me/x:1", want: []string{"mirror1.example/sub/me/x"}},
		{name: "second mirror", conf: mirrors, ref: "origin.example/me/x:1", down: []string{"mirror1"}, want: []string{"mirror2.example/sub/me/x"}, warns: 1},
		{name: "no mirror", conf: mirrors, ref: "origin.example/me/x:1", down: []string{"mirror1", "mirror2"}, want: []string{"origin.example/me/x"}, warns: 2},
		{name: "nothing", conf: mirrors, ref: "origin.example/me/x:1", down: []string{"mirror1", "mirror2", "origin"}, fails: "pull origin.example/me/x:1: registry origin.example: dial", warns: 2},
		{name: "not in the mirrors", conf: mirrors, ref: "origin.example/library/x:1", want: []string{"mirror1.example/sub/library/x", "mirror2.example/sub/library/x", "origin.example/library/x"}},
		{name: "not in the mirrors, and no more", conf: mirrors, ref: "origin.example/library/x:1", down: []string{"origin"}, want: []string{"mirror1.example/sub/library/x", "mirror2.example/sub/library/x"}, fails: "pull origin.example/library/x:1: not at the mirror mirror1.example, mirror2.example; registry origin.example: dial"},
		{name: "another registry", conf: mirrors, ref: "mirror1.example/me/x:1", fails: "server gave HTTP response to HTTPS client"},
		{name: "mirrors for digests, a tag", conf: onlyDigests, ref: "origin.example/me/x:1", want: []string{"origin.example/me/x"}},
		{name: "mirrors for digests, a digest", conf: onlyDigests, ref: "origin.example/me/x@", want: []string{"mirror1.example/sub/me/x"}},
		{name: "by kind, a tag", conf: byKind, ref: "origin.example/me/x:1", want: []string{"mirror2.example/sub/me/x"}},
		{name: "by kind, a digest", conf: byKind, ref: "origin.example/me/x:1@", want: []string{"mirror1.example/sub/me/x"}},
		{
			name: "another location", conf: "[[registry]]\nprefix = 'reg.example/team'\nlocation = 'origin.example/me'\ninsecure = true\n",
			ref: "reg.example/team/x:1", want: []string{"origin.example/me/x"},
		},
		{
			name: "docker.io", conf: "[[registry]]\nprefix = 'docker.io'\nlocation = 'origin.example'\ninsecure = true\n",
			ref: "x:1", want: []string{"origin.example/library/x"},
		},
		{
			name: "the longest prefix", conf: "[[registry]]\nprefix = '*.example'\nlocation = 'nowhere.example'\n[[registry]]\nprefix = 'reg.example/me'\nlocation = 'mirror1.example/sub/me'\ninsecure = true\n" + mirrors,
			ref: "reg.example/me/x:1", want: []string{"mirror1.example/sub/me/x"},
		},
		{name: "a domain", conf: "[[registry]]\nprefix = '*.example'\ninsecure = true\n", ref: "origin.example/me/x:1", want: []string{"origin.example/me/x"}},
		{name: "not insecure", conf: "[[registry]]\nlocation = 'origin.example'\n", ref: "origin.example/me/x:1", fails: "server gave HTTP response to HTTPS client"},
		{name: "insecure elsewhere", conf: "[[registry]]\nlocation = 'origin.example/other'\ninsecure = true\n", ref: "origin.example/me/x:1", fails: "server gave HTTP response to HTTPS client"},
		{name: "blocked", conf: "[[registry]]\nlocation = 'origin.example'\ninsecure = true\nblocked = true\n", ref: "origin.example/me/x:1", fails: "pull origin.example/me/x:1: registry origin.example: blocked by /"},
		{name: "blocked, the mirrors are not", conf: strings.Replace(mirrors, "[[registry]]\n", "[[registry]]\nblocked = true\n", 1), ref: "origin.example/me/x:1", want: []string{"mirror1.example/sub/me/x"}},
		{
			name: "blocked, also elsewhere", conf: "[[registry]]\nprefix = 'reg.example'\nlocation = 'origin.example'\ninsecure = true\nblocked = true\n",
			ref: "reg.example/me/x:1", fails: "registry reg.example: blocked by /",
		},
		{
			name: "a blocked mirror", conf: mirrors + "[[registry]]\nlocation = 'mirror1.example'\nblocked = true\n", ref: "origin.example/me/x:1",
			want: []string{"mirror2.example/sub/me/x"}, warns: 1,
		},
		{name: "the variable's mirrors", conf: mirrors, mirrors: "origin.example=http://mirror2.example/sub", ref: "origin.example/me/x:1", warns: 1, want: []string{"origin.example/me/x"}},
		{
			name: "the variable's mirrors, insecure", conf: mirrors + "[[registry]]\nlocation = 'mirror2.example'\ninsecure = true\n",
			mirrors: "origin.example=http://mirror2.example/sub", ref: "origin.example/me/x:1", want: []string{"mirror2.example/sub/me/x"},
		},
		{name: "the variable's mirrors of others", conf: mirrors, mirrors: "other.example=http://mirror2.example/sub", ref: "origin.example/me/x:1", want: []string{"mirror1.example/sub/me/x"}},
		{name: "no location", conf: "[[registry]]\nprefix = 'origin.example'\nlocation = 'me'\n", ref: "origin.example/me/x:1", fails: `registries.conf: registry origin.example: "me/me/x" does not begin with the name of a host`},
		{name: "bad location", conf: "[[registry]]\nprefix = 'origin.example'\nlocation = 'mirror1.example/ME'\n", ref: "origin.example/me/x:1", fails: `registries.conf: registry origin.example: "docker://mirror1.example/ME/me/x"`},
		{name: "broken", conf: "[[registry]]\nlocation = 'origin.example'\ninsecure = 1\n", ref: "mirror1.example/me/x:1", fails: "registries.conf:3: registry.insecure: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, want := newConfWorld(t)
			for _, host := range c.down {
				w.hosts[host+".example"].Stop()
			}
			ref := c.ref
			if strings.HasSuffix(ref, "@") {
				ref += want.String()
			}
			t.Setenv(mirrorsVar, c.mirrors)
			client := w.client("%s", c.conf)
			im, err := client.Pull(t.Context(), parse(t, "%s", ref), PullOptions{})
			if (c.fails != "") != (err != nil) || err != nil && !strings.Contains(err.Error(), c.fails) {
				t.Fatalf("%v", err)
			}
			if err == nil {
				_, plain, err := readLayer(t.Context(), im.Layers[0])
				if digest.FromBytes(im.Manifest) != want || err != nil || !bytes.Equal(plain, layerTar(t, "a", 1000)) {
					t.Errorf("another image: %v", err)
				}
			}
			if got := w.used(); !slices.Equal(got, c.want) {
				t.Errorf("from %q", got)
			}
			if len(w.warns) != c.warns {
				t.Errorf("warnings: %q", w.warns)
			}
		})
	}
}

// What a mirror lacks of an image comes from the next one, and then from the location.
func TestRegistriesConfLayers(t *testing.T) {
	w, _ := newConfWorld(t)
	mirror, origin := w.hosts["mirror1.example"], w.hosts["origin.example"]
	manifest, kind := origin.Manifest("me/x", "1")
	mirror.PutManifest("partly/x", "1", kind, manifest)
	mirror.PutBlob("partly/x", configOf(t, origin, "me/x", "1"))
	mirror.PutBlob("partly/x", origin.Blob("me/x", digest.FromBytes(configOf(t, origin, "me/x", "1"))))
	c := w.client("[[registry]]\nprefix = 'reg.example'\nlocation = 'origin.example/me'\ninsecure = true\n" +
		"[[registry.mirror]]\nlocation = 'mirror1.example/partly'\ninsecure = true\n")
	im, err := c.Pull(t.Context(), parse(t, "reg.example/x:1"), PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := w.used(); !slices.Equal(got, []string{"mirror1.example/partly/x"}) {
		t.Errorf("from %q", got)
	}
	if _, plain, err := readLayer(t.Context(), im.Layers[0]); err != nil || !bytes.Equal(plain, layerTar(t, "a", 1000)) {
		t.Error(err)
	}
	if n := origin.Requests("GET", "/v2/me/x/blobs/"); n != 1 {
		t.Errorf("%d blobs from the location", n)
	}
}

// A push goes to the registry of the image's name, as Podman's do.
func TestRegistriesConfPush(t *testing.T) {
	const conf = "[[registry]]\nprefix = 'origin.example'\nlocation = 'mirror2.example/sub'\ninsecure = true\n" +
		"[[registry.mirror]]\nlocation = 'mirror1.example/sub'\ninsecure = true\n"
	w, _ := newConfWorld(t)
	layer := layerTar(t, "b", 3000)
	c := w.client(conf)
	push(t, c, "origin.example/new/y:1", storeImage(t, layer), PushOptions{Store: newStore(t)})
	for host, r := range w.hosts {
		if n := r.Requests("PUT", ""); (n > 0) != (host == "origin.example") {
			t.Errorf("%s: %d uploads", host, n)
		}
	}
	if m, _ := w.hosts["origin.example"].Manifest("new/y", "1"); m == nil {
		t.Error("it is not there")
	}
	w.asked = nil
	c = w.client("%s", strings.Replace(conf, "insecure = true\n", "insecure = true\nblocked = true\n", 1))
	_, err := c.Push(t.Context(), parse(t, "origin.example/new/y:2"), storeImage(t, layer), PushOptions{Store: newStore(t)})
	if err == nil || !strings.Contains(err.Error(), "push origin.example/new/y:2: registry origin.example: blocked by /") || len(w.asked) != 0 {
		t.Errorf("blocked: %v, asked %q", err, w.asked)
	}
	c = w.client("[[registry]\n")
	_, err = c.Push(t.Context(), parse(t, "origin.example/new/y:2"), storeImage(t, layer), PushOptions{Store: newStore(t)})
	if err == nil || !strings.Contains(err.Error(), "registries.conf:1: ") {
		t.Errorf("broken: %v", err)
	}
}

// An image that came by way of a mirror is pushed elsewhere from there again.
func TestRegistriesConfPullPush(t *testing.T) {
	w, want := newConfWorld(t)
	c := w.client("[[registry]]\nprefix = 'reg.example'\nlocation = 'nowhere.example'\n" +
		"[[registry.mirror]]\nlocation = 'mirror1.example'\ninsecure = true\n[[registry]]\nlocation = 'origin.example'\ninsecure = true\n")
	layer := layerTar(t, "a", 1000)
	from := pulled(t, c, "reg.example/me/x:1", layer)
	st, l := newStore(t), from.Layers[0]
	if err := image.RememberCompressed(st, l.DiffID, image.CompressedForm{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size, From: l.From}); err != nil {
		t.Fatal(err)
	}
	im := storeImage(t, layer)
	im.Manifest, im.MediaType, im.Config = from.Manifest, from.MediaType, from.Config
	w.hosts["mirror1.example"].ClearLog()
	if d := push(t, c, "origin.example/copied/x:1", im, PushOptions{Store: st}); d != want {
		t.Errorf("%s became %s", want, d)
	}
	if n := w.hosts["mirror1.example"].Requests("GET", "/v2/me/x/blobs/"); n != 1 {
		t.Errorf("%d blobs from the mirror", n)
	}
}

// The cache of built layers is read where images are, and written where they are pushed.
func TestRegistriesConfCache(t *testing.T) {
	w, _ := newConfWorld(t)
	const conf = "[[registry]]\nprefix = 'origin.example'\nlocation = 'origin.example'\ninsecure = true\n" +
		"[[registry.mirror]]\nlocation = 'mirror1.example'\ninsecure = true\n"
	c := w.client(conf)
	st := newStore(t)
	layer := layerTar(t, "built", 5000)
	staged, err := st.Ingest(t.Context(), bytes.NewReader(layer), cas.IngestOptions{})
	if err == nil {
		err = errors.Join(staged.Publish(), staged.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewLayerCache(c, st, LayerCacheOptions{CacheRepositories: CacheRepositories{To: "origin.example/cache"}, Warn: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	const key = "0123456789abcdef"
	l.Offer(t.Context(), key, digest.FromBytes(layer), int64(len(layer)))
	l.Wait()
	staged = l.Fetch(t.Context(), key)
	if staged == nil {
		t.Fatal("it is not there")
	}
	if err := staged.Close(); err != nil {
		t.Error(err)
	}
	if n := w.hosts["mirror1.example"].Requests("PUT", ""); n != 0 {
		t.Errorf("%d uploads to the mirror", n)
	}
	if want := []string{"mirror1.example/cache", "origin.example/cache"}; !slices.Equal(w.used(), want) {
		t.Errorf("read from %q", w.used())
	}
	// What is wrong with the file is a warning, once.
	var warns []string
	c = w.client("nonsense\n")
	l, err = NewLayerCache(c, st, LayerCacheOptions{CacheRepositories: CacheRepositories{To: "origin.example/cache"}, Warn: func(err error) { warns = append(warns, err.Error()) }})
	if err != nil {
		t.Fatal(err)
	}
	if l.Fetch(t.Context(), key) != nil || l.Fetch(t.Context(), key+"0") != nil || len(warns) != 1 || !strings.Contains(warns[0], "registries.conf:1: ") {
		t.Errorf("warnings: %q", warns)
	}
}

// TLS with a certificate that no one vouches for will do where a registry is insecure.
func TestRegistriesConfTLS(t *testing.T) {
	host, _ := registrytest.Real{TLS: true}.Start(t)
	layer := layerTar(t, "a", 1000)
	w := &confWorld{T: t}
	_, err := w.client("").Push(t.Context(), parse(t, "%s/x:1", host), storeImage(t, layer), PushOptions{Store: newStore(t)})
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Fatalf("with an unknown authority: %v", err)
	}
	c := w.client("[[registry]]\nprefix = 'reg.example'\nlocation = %q\ninsecure = true\n[[registry]]\nlocation = %q\ninsecure = true\n", host+"/some", host+"/some")
	push(t, c, host+"/some/x:1", storeImage(t, layer), PushOptions{Store: newStore(t)})
	pulled(t, c, host+"/some/x:1", layer)
	pulled(t, c, "reg.example/x:1", layer)
	// What one endpoint may, another of the same name may not.
	repo := repository{host, "some/x"}
	if _, err := c.open(t.Context(), endpoint{repository: repo, insecure: true}, toPull); err != nil {
		t.Error(err)
	}
	if _, err := c.open(t.Context(), endpoint{repository: repo}, toPull); err == nil {
		t.Error("it is spoken with as if it were insecure")
	}
	// What is said of one namespace does not hold for another.
	if _, err := c.Pull(t.Context(), parse(t, "%s/other/x:1", host), PullOptions{}); err == nil || errors.Is(err, image.ErrNotFound) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("another namespace: %v", err)
	}
}

// The files are read when a registry is used, not before.
func TestRegistriesConfUnused(t *testing.T) {
	w := &confWorld{T: t}
	c := w.client("nonsense\n")
	file := os.Getenv("CONTAINERS_REGISTRIES_CONF")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.settings.tables(); err != nil {
		t.Error(err)
	}
}
