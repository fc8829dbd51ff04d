package importexport

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/fetch"
	"github.com/ihucos/plash/importexport/imageserver"
	"github.com/ihucos/plash/importexport/progress"
)

// hasty is a client that does not wait long for anything.
func hasty() *fetch.Client {
	c := fetch.New("plash/test")
	c.Idle, c.Backoff = 300*time.Millisecond, time.Millisecond
	return c
}

func newServer(t *testing.T, images ...imageserver.Image) *imageserver.Server {
	t.Helper()
	before := runtime.NumGoroutine()
	s, err := imageserver.New(images...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		// No connection, timer or reader of a test's downloads is left over.
		for range 100 {
			if runtime.NumGoroutine() <= before {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		stacks := make([]byte, 1<<20)
		t.Errorf("goroutines left over:\n%s", stacks[:runtime.Stack(stacks, true)])
	})
	return s
}

// incompressible is a tar with a file of n bytes that no compression shortens.
func incompressible(t *testing.T, n int) []byte {
	t.Helper()
	content := make([]byte, n)
	if _, err := rand.Read(content); err != nil {
		t.Fatal(err)
	}
	return someTar(t, string(content))
}

func sha256hex(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// TestImportURLFaults: each fault of a server gives a container with the right
// content, or a clear error and no container.
func TestImportURLFaults(t *testing.T) {
	data := gzipped(t, incompressible(t, 1<<20))
	etag := new(atomic.Int64)
	for _, c := range []struct {
		name   string
		faults imageserver.Faults
		sum    string // "right": that of the file
		want   string // part of the error, "": success
	}{
		{name: "none"},
		{name: "none, with checksum", sum: "right"},
		{name: "cut, resumed by ETag", faults: imageserver.Faults{CutEvery: 100_000}},
		{name: "cut, resumed by time", faults: imageserver.Faults{CutEvery: 100_000, WeakETag: false, ETag: func() string { return "" }}},
		{name: "cut, weak ETag", faults: imageserver.Faults{CutEvery: 700_000, WeakETag: true}, want: "cut off after 700000 bytes"},
		{name: "cut, no ranges", faults: imageserver.Faults{CutEvery: 700_000, NoRange: true}, want: "cut off after 700000 bytes"},
		{name: "cut, no validator", faults: imageserver.Faults{CutEvery: 700_000, NoValidator: true}, want: "6 attempts"},
		{name: "cut at once", faults: imageserver.Faults{CutEvery: 1000}, want: "cut off after"},
		{name: "stalled, resumed", faults: imageserver.Faults{StallAfter: 600_000}},
		{name: "stalled, no ranges", faults: imageserver.Faults{StallAfter: 1000, NoRange: true}, want: "no data from the server"},
		{name: "chunked", faults: imageserver.Faults{Chunked: true}},
		{name: "chunked, cut", faults: imageserver.Faults{Chunked: true, CutEvery: 600_000}},
		{name: "slow", faults: imageserver.Faults{Delay: 5 * time.Millisecond}},
		{name: "wrong byte", faults: imageserver.Faults{CorruptAt: 500_000}, want: "checksum"},
		{name: "wrong byte, with checksum", faults: imageserver.Faults{CorruptAt: 500_000}, sum: "right", want: "expected sha256"},
		{name: "wrong checksum", sum: strings.Repeat("0", 64), want: "expected sha256 000000"},
		{name: "no checksum", sum: "123", want: "is no SHA-256"},
		{name: "promised too much", faults: imageserver.Faults{WrongLength: 10}, want: "bytes, not the expected"},
		{name: "promised too little", faults: imageserver.Faults{WrongLength: -10}, want: "changed on the server"},
		{name: "busy at first", faults: imageserver.Faults{Status: []int{429, 503, 500, 502, 504}}},
		{name: "busy for good", faults: imageserver.Faults{Status: []int{503, 503, 503, 503, 503, 503, 503}}, want: "503 Service Unavailable (6 attempts)"},
		{name: "come back later", faults: imageserver.Faults{Status: []int{429}, RetryAfter: "3600"}, want: "come back in 1h0m0s"},
		{name: "busy, cut and busy", faults: imageserver.Faults{Status: []int{500, 0, 429, 0, 500}, CutEvery: 300_000}},
		{name: "missing", faults: imageserver.Faults{Status: []int{404}}, want: "404 Not Found"},
		{name: "forbidden", faults: imageserver.Faults{Status: []int{403}}, want: "403 Forbidden"},
		{name: "nothing at all", faults: imageserver.Faults{Status: []int{204}}, want: "204 No Content"},
		{name: "redirected in a circle", faults: imageserver.Faults{Redirect: "/nowhere/"}, want: "404 Not Found"},
		{
			name: "cut, a new ETag each time", want: "6 attempts",
			faults: imageserver.Faults{CutEvery: 300_000, ETag: func() string { return fmt.Sprintf(`"%d"`, etag.Add(1)) }},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			st, s := newStore(t), newServer(t)
			s.AddFile("/a.tar.gz", data)
			s.SetFaults(c.faults)
			o := Options{client: hasty(), SHA256: c.sum}
			if c.sum == "right" {
				o.SHA256 = "sha256:" + sha256hex(data)
			}
			id, err := ImportURL(t.Context(), st, s.URL()+"/a.tar.gz", o)
			if c.want != "" {
				checkRefused(t, st, id, err, c.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			checkSameTree(t, st, id, data)
		})
	}
}

func checkRefused(t *testing.T, st *container.Store, id container.ID, err error, want string) {
	t.Helper()
	switch {
	case err == nil:
		t.Errorf("container %d", id)
	case !strings.Contains(err.Error(), want):
		t.Errorf("error %q, want %q in it", err, want)
	case strings.Contains(err.Error(), "\n"):
		t.Errorf("error of several lines: %q", err)
	}
	if n := count(t, st); n != 0 {
		t.Errorf("%d containers", n)
	}
}

// checkSameTree compares a container with one made directly of data.
func checkSameTree(t *testing.T, st *container.Store, id container.ID, data []byte) {
	t.Helper()
	want, err := ImportTar(t.Context(), st, bytes.NewReader(data), "the same", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if id != want {
		t.Errorf("container %d, want %d", id, want)
	}
	if n := count(t, st); n != 1 {
		t.Errorf("%d containers", n)
	}
}

func TestImportURLResumes(t *testing.T) {
	st, s := newStore(t), newServer(t)
	data := incompressible(t, 1<<20)
	s.AddFile("/a.tar", data)
	s.SetFaults(imageserver.Faults{CutEvery: 300_000})
	if _, err := ImportURL(t.Context(), st, s.URL()+"/a.tar", Options{client: hasty(), UserAgent: "plash/1"}); err != nil {
		t.Fatal(err)
	}
	var ranges []string
	for _, r := range s.Requests() {
		ranges = append(ranges, r.Range)
		if r.UserAgent != "plash/test" {
			t.Errorf("user agent %q", r.UserAgent)
		}
	}
	if got, want := strings.Join(ranges, ","), ",bytes=300000-,bytes=600000-,bytes=900000-"; got != want {
		t.Errorf("ranges %q, want %q", got, want)
	}
}

// changer serves another file from the nth request on.
func changer(t *testing.T, old, changed []byte, etags bool) (url string, requests *atomic.Int64) {
	t.Helper()
	requests = new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, tag := changed, `"new"`
		first := requests.Add(1) == 1
		if first {
			data, tag = old, `"old"`
		}
		if etags {
			w.Header().Set("ETag", tag)
		} else {
			r.Header.Del("Range")
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		if first {
			w.Write(data[:len(data)/2])
			panic(http.ErrAbortHandler)
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}))
	s.Config.ErrorLog = nil
	t.Cleanup(s.Close)
	return s.URL + "/a.tar", requests
}

// TestImportURLChanged: a file that is replaced during its download is never
// mixed of the two.
func TestImportURLChanged(t *testing.T) {
	for _, etags := range []bool{true, false} {
		t.Run(fmt.Sprint("etags=", etags), func(t *testing.T) {
			st := newStore(t)
			old, changed := incompressible(t, 1<<20), incompressible(t, 1<<20)
			url, requests := changer(t, old, changed, etags)
			id, err := ImportURL(t.Context(), st, url, Options{client: hasty()})
			if err != nil {
				t.Fatal(err)
			}
			checkSameTree(t, st, id, changed)
			if n := requests.Load(); n != 3 {
				t.Errorf("%d requests, want 3", n)
			}
		})
	}
}

// TestImportURLNoRangeSameFile: a server that cannot resume, and cuts once, is
// read from the beginning, without the store noticing.
func TestImportURLNoRangeSameFile(t *testing.T) {
	st := newStore(t)
	data := incompressible(t, 1<<20)
	url, requests := changer(t, data, data, false)
	id, err := ImportURL(t.Context(), st, url, Options{client: hasty()})
	if err != nil {
		t.Fatal(err)
	}
	checkSameTree(t, st, id, data)
	if n := requests.Load(); n != 2 {
		t.Errorf("%d requests, want 2", n)
	}
}

func TestImportURLCached(t *testing.T) {
	st, s := newStore(t), newServer(t)
	one, two := someTar(t, "one"), someTar(t, "two")
	s.AddFile("/a.tar", one)
	url := s.URL() + "/a.tar"
	get := func(o Options) container.ID {
		t.Helper()
		o.client = hasty()
		id, err := ImportURL(t.Context(), st, url, o)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	first := get(Options{})
	s.AddFile("/a.tar", two)
	s.Requests()
	if id := get(Options{}); id != first || len(s.Requests()) != 0 {
		t.Errorf("container %d, want %d, without a request", id, first)
	}
	second := get(Options{Refresh: true})
	if second == first || len(s.Requests()) != 1 {
		t.Errorf("refreshed: container %d", second)
	}
	if id := get(Options{}); id != second {
		t.Errorf("after the refresh: container %d, want %d", id, second)
	}
	s.Requests()
	if id := get(Options{SHA256: sha256hex(one)}); id != first || len(s.Requests()) != 0 {
		t.Errorf("by checksum: container %d, want %d, without a request", id, first)
	}
	if err := st.Remove(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	if id := get(Options{}); id == second || id == first {
		t.Errorf("after removal: container %d", id)
	}
}

func TestImportURLWebPage(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "<!DOCTYPE html><html><body>Please log in.</body></html>")
	}))
	defer s.Close()
	_, err := ImportURL(t.Context(), newStore(t), s.URL+"/a.tar", Options{client: hasty()})
	var h interface{ Hint() string }
	if !errors.As(err, &h) || !strings.Contains(h.Hint(), "web page") {
		t.Errorf("error %v", err)
	}
}

func TestImportURLRedirects(t *testing.T) {
	st, s := newStore(t), newServer(t)
	s.AddFile("/b.tar", someTar(t, "redirected"))
	s.SetFaults(imageserver.Faults{Redirect: "/b.tar"})
	if _, err := ImportURL(t.Context(), st, s.URL()+"/a.tar", Options{client: hasty()}); err != nil {
		t.Error(err)
	}
	circle := httptest.NewServer(http.RedirectHandler("/again", http.StatusFound))
	defer circle.Close()
	if _, err := ImportURL(t.Context(), newStore(t), circle.URL, Options{client: hasty()}); err == nil || !strings.Contains(err.Error(), "10 redirects") {
		t.Errorf("circle: %v", err)
	}
	elsewhere := httptest.NewServer(http.RedirectHandler("file:///etc/passwd", http.StatusFound))
	defer elsewhere.Close()
	if _, err := ImportURL(t.Context(), newStore(t), elsewhere.URL, Options{client: hasty()}); err == nil {
		t.Error("redirect to a file was followed")
	}
}

func TestImportURLDowngrade(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	tls := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusFound))
	defer tls.Close()
	c := hasty()
	c.HTTP.Transport = tls.Client().Transport
	_, err := ImportURL(t.Context(), newStore(t), tls.URL, Options{client: c})
	if err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("error %v", err)
	}
}

func TestImportURLBad(t *testing.T) {
	st := newStore(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]string{
		"ftp://host/x":              "neither http nor https",
		"http://":                   "no host",
		"http://[::1":               "not a URL",
		closed + "/a.tar":           "connection refused",
		"http://user:secret@[::1/x": "not a URL",
	} {
		_, err := ImportURL(t.Context(), st, url, Options{client: hasty()})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: password in the error: %v", url, err)
		}
	}
}

// TestImportURLCancelled: an interrupt ends a download at once, wherever it is.
func TestImportURLCancelled(t *testing.T) {
	for name, faults := range map[string]imageserver.Faults{
		"stalled": {StallAfter: 1000},
		"waiting": {Status: []int{503}, RetryAfter: "60"},
	} {
		t.Run(name, func(t *testing.T) {
			st, s := newStore(t), newServer(t)
			s.AddFile("/a.tar", incompressible(t, 1<<20))
			s.SetFaults(faults)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			time.AfterFunc(100*time.Millisecond, func() { cancel(errors.New("interrupted")) })
			o := Options{client: hasty()}
			o.client.Idle = time.Minute
			start := time.Now()
			id, err := ImportURL(ctx, st, s.URL()+"/a.tar", o)
			checkRefused(t, st, id, err, "interrupted")
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
}

// TestProgressOfDownload: the line is complete before the layer is.
func TestProgressOfDownload(t *testing.T) {
	st, s := newStore(t), newServer(t)
	s.AddFile("/a.tar", incompressible(t, 1<<20))
	var b bytes.Buffer
	o := Options{client: hasty(), Progress: progress.NewPlain(&b)}
	if _, err := ImportURL(t.Context(), st, s.URL()+"/a.tar", o); err != nil {
		t.Fatal(err)
	}
	if want := "[0%|10%|20%|30%|40%|50%|60%|70%|80%|90%|100%]\nextracting...\n"; b.String() != want {
		t.Errorf("%q", b.String())
	}
	b.Reset()
	s.SetFaults(imageserver.Faults{Status: []int{404}})
	if _, err := ImportURL(t.Context(), st, s.URL()+"/b.tar", o); err == nil || b.String() != "" {
		t.Errorf("%q, %v", b.String(), err)
	}
}
