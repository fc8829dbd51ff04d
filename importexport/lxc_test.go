package importexport

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/image"
	"github.com/ihucos/plash/importexport/imageserver"
	"github.com/ihucos/plash/importexport/registry/registrytest"
)

// xzImage is an image of a tar with one file that says what it is.
func xzImage(t *testing.T, dist, release, version string) imageserver.Image {
	t.Helper()
	data, err := imageserver.XZ(someTar(t, dist+" "+release+" "+version))
	if err != nil {
		t.Fatal(err)
	}
	return imageserver.Image{Dist: dist, Release: release, Version: version, Data: data}
}

func TestImportLXC(t *testing.T) {
	st := newStore(t)
	s := newServer(t,
		xzImage(t, "alpine", "3.9", "20240601_13:00"), xzImage(t, "alpine", "3.20", "20240601_13:00"),
		xzImage(t, "alpine", "3.20", "20240602_13:00"), xzImage(t, "alpine", "edge", "20240603_13:00"),
		xzImage(t, "debian", "bookworm", "20240601_13:00"), xzImage(t, "debian", "sid", "20240601_13:00"))
	get := func(name string, o Options) container.ID {
		t.Helper()
		o.client, o.Server = hasty(), s.URL()+"/"
		id, err := ImportLXC(t.Context(), st, name, o)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	for name, want := range map[string]string{
		"alpine": "alpine 3.20 20240602_13:00", "alpine:edge": "alpine edge 20240603_13:00",
		"alpine/3.9": "alpine 3.9 20240601_13:00", "debian": "debian bookworm 20240601_13:00",
		"bookworm": "debian bookworm 20240601_13:00", "Debian:SID": "debian sid 20240601_13:00",
	} {
		if got := tree(t, st, get(name, Options{}))["./file"]; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	downloads := 0
	for _, r := range s.Requests() {
		if strings.HasPrefix(r.Path, "/images/") {
			downloads++
		}
	}
	if downloads != 5 {
		t.Errorf("%d downloads of 5 images under 6 names", downloads)
	}
	if n := count(t, st); n != 5 {
		t.Errorf("%d containers, want 5", n)
	}

	old := get("alpine", Options{})
	if r := s.Requests(); len(r) != 0 {
		t.Errorf("a cached name was asked for: %v", r)
	}
	if err := s.Add(xzImage(t, "alpine", "3.20", "20240701_13:00")); err != nil {
		t.Fatal(err)
	}
	if id := get("alpine", Options{}); id != old {
		t.Errorf("container %d, want %d", id, old)
	}
	if id := get("alpine", Options{Refresh: true}); id == old {
		t.Errorf("not refreshed: container %d", id)
	}
}

// TestImportLXCConcurrent: who wants the same image at once waits for the first.
func TestImportLXCConcurrent(t *testing.T) {
	st, s := newStore(t), newServer(t, xzImage(t, "alpine", "3.20", "1"))
	s.SetFaults(imageserver.Faults{Delay: 50 * time.Millisecond})
	results := make(chan string)
	const n = 5
	for range n {
		go func() {
			id, err := ImportLXC(context.Background(), st, "alpine", Options{client: hasty(), Server: s.URL()})
			results <- fmt.Sprint(id, err)
		}()
	}
	for range n {
		if r := <-results; r != "1 <nil>" {
			t.Error(r)
		}
	}
	if r := s.Requests(); len(r) != 3 {
		t.Errorf("%d requests, want 3: %v", len(r), r)
	}
}

// TestImportLXCFaults: what a server says of an image is checked.
func TestImportLXCFaults(t *testing.T) {
	good := xzImage(t, "alpine", "3.20", "20240601_13:00")
	for _, c := range []struct {
		name   string
		change func(s *imageserver.Server)
		want   string // "": success
	}{
		{"none", func(*imageserver.Server) {}, ""},
		{"no index.json", func(s *imageserver.Server) { s.Remove("streams/v1/index.json") }, ""},
		{"no lists", func(s *imageserver.Server) {
			s.Remove("streams/v1/index.json")
			s.Remove("streams/v1/images.json")
		}, "404 Not Found"},
		{"index busy at first", func(s *imageserver.Server) {
			s.SetFaults(imageserver.Faults{Indexes: true, Status: []int{503, 0, 429}})
		}, ""},
		{"index cut", func(s *imageserver.Server) {
			s.SetFaults(imageserver.Faults{Indexes: true, CutEvery: 20, NoRange: true})
		}, "cut off after"},
		{"index broken", func(s *imageserver.Server) { s.AddFile("streams/v1/index.json", []byte("<html>")) }, "not a simplestreams index"},
		{"index of nothing", func(s *imageserver.Server) { s.AddFile("streams/v1/index.json", []byte("{}")) }, "no entry of type image-downloads"},
		{"list broken", func(s *imageserver.Server) { s.AddFile("streams/v1/images.json", []byte("[1]")) }, "not a simplestreams product list"},
		{"list elsewhere", func(s *imageserver.Server) {
			s.AddFile("streams/v1/index.json", []byte(`{"index":{"x":{"datatype":"image-downloads","path":"http://other.example/images.json"}}}`))
		}, "unacceptable path"},
		{"image gone", func(s *imageserver.Server) { s.SetFaults(imageserver.Faults{Status: []int{404}}) }, "404 Not Found"},
		{"image damaged", func(s *imageserver.Server) { s.SetFaults(imageserver.Faults{CorruptAt: 100}) }, "expected sha256"},
		{"image longer", func(s *imageserver.Server) { s.SetFaults(imageserver.Faults{WrongLength: 5}) }, "bytes, not the expected"},
		{"image of no known length, longer", func(s *imageserver.Server) {
			s.SetFaults(imageserver.Faults{Chunked: true})
			replaceItem(t, s, func(item map[string]any) { item["size"] = len(good.Data) - 1 })
		}, "more than the promised"},
		{"image of no known length, shorter", func(s *imageserver.Server) {
			s.SetFaults(imageserver.Faults{Chunked: true})
			replaceItem(t, s, func(item map[string]any) { item["size"] = len(good.Data) + 1 })
		}, "bytes, not the expected"},
		{"wrong checksum", func(s *imageserver.Server) {
			replaceItem(t, s, func(item map[string]any) { item["sha256"] = strings.Repeat("ab", 32) })
		}, "expected sha256 abab"},
		{"no checksum", func(s *imageserver.Server) {
			replaceItem(t, s, func(item map[string]any) { delete(item, "sha256") })
		}, "no image for"},
		{"path out of the server", func(s *imageserver.Server) {
			replaceItem(t, s, func(item map[string]any) { item["path"] = "../../etc/passwd" })
		}, "no image for"},
		{"no tar", func(s *imageserver.Server) {
			s.AddFile("other", []byte("no tar"))
			replaceItem(t, s, func(item map[string]any) {
				item["path"], item["sha256"], item["size"] = "other", sha256hex([]byte("no tar")), 6
			})
		}, "import "},
	} {
		t.Run(c.name, func(t *testing.T) {
			st, s := newStore(t), newServer(t, good)
			c.change(s)
			id, err := ImportLXC(t.Context(), st, "alpine", Options{client: hasty(), Server: s.URL()})
			if c.want != "" {
				checkRefused(t, st, id, err, c.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			checkSameTree(t, st, id, good.Data)
		})
	}
}

// replaceItem changes what the list of s says of the root filesystem of alpine.
func replaceItem(t *testing.T, s *imageserver.Server, change func(item map[string]any)) {
	t.Helper()
	item := map[string]any{}
	for path, f := range s.Files() {
		if strings.HasSuffix(path, "/root.tar.xz") {
			item = map[string]any{"ftype": "root.tar.xz", "path": path[1:], "size": f.Size, "sha256": f.SHA256}
		}
	}
	change(item)
	list, err := json.Marshal(map[string]any{"products": map[string]any{
		"alpine:3.20:" + imageserver.Arch() + ":default": map[string]any{"versions": map[string]any{"1": map[string]any{
			"items": map[string]any{"root.tar.xz": item},
		}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.AddFile("streams/v1/images.json", list)
}

func TestImportLXCUnknown(t *testing.T) {
	st := newStore(t)
	other := xzImage(t, "void", "current", "1")
	other.Arch = "vax"
	s := newServer(t, xzImage(t, "alpine", "3.20", "1"), xzImage(t, "debian", "bookworm", "1"), other)
	for _, c := range []struct{ name, want, hint string }{
		{"Alpin", "import Alpin: ", "did you mean alpine?"},
		{"alpin", "no such image for " + imageserver.Arch() + ": there is alpine:3.20, debian:bookworm", "did you mean alpine?"},
		{"alpine:3.99", "alpine:3.99", "did you mean alpine:3.20?"},
		{"bokworm", "bokworm", "did you mean bookworm?"},
		{"deb", "deb", "did you mean debian?"},
		{"somethingelse", "there is alpine:3.20, debian:bookworm", ""},
		{"void", "(only for vax)", ""},
		{"a b", "is not an image name", ""},
		{"a:b:c:d:e", "is not an image name", ""},
		{"alpine:", "is not an image name", ""},
	} {
		id, err := ImportLXC(t.Context(), st, c.name, Options{client: hasty(), Server: s.URL()})
		checkRefused(t, st, id, err, c.want)
		var h interface{ Hint() string }
		hint := ""
		if errors.As(err, &h) {
			hint = h.Hint()
		}
		if hint != c.hint {
			t.Errorf("%s: hint %q, want %q", c.name, hint, c.hint)
		}
	}
	id, err := ImportLXC(t.Context(), st, "alpine", Options{client: hasty(), Server: s.URL(), Arch: "s390x"})
	checkRefused(t, st, id, err, "no image for s390x at all")
}

func TestServerOption(t *testing.T) {
	t.Setenv("PLASH_LXC_SERVER", "")
	for server, want := range map[string]string{
		"": DefaultServer, "http://h:1/": "http://h:1", "images.example": "https://images.example",
		"HTTP://h/a b//": "http://h/a%20b", "http://h/x?y#z": "http://h/x", "ftp://h": "", "http://": "",
	} {
		o := Options{Server: server}
		u, err := o.server()
		if (err == nil) != (want != "") || err == nil && u.String() != want {
			t.Errorf("%q: %v, %v", server, u, err)
		}
	}
	t.Setenv("PLASH_LXC_SERVER", "http://from.environment")
	if u, err := new(Options).server(); err != nil || u.String() != "http://from.environment" {
		t.Errorf("%v, %v", u, err)
	}
	base, err := parseURL("http://h/base%20x?q")
	if err != nil {
		t.Fatal(err)
	}
	if got := below(base, "images/a%2f/20240601_13:00/root.tar.xz?").String(); got != "http://h/base%20x/images/a%252f/20240601_13:00/root.tar.xz%3F" && !strings.HasSuffix(got, "?q") {
		t.Errorf("got %s", got)
	}
}

func TestSourceOf(t *testing.T) {
	for name, want := range map[string]source{
		"0": sourceContainer, "12": sourceContainer, "@key": sourceContainer, "": sourceContainer,
		"http://h/x.tar": sourceURL, "https://h/x": sourceURL, "HTTPS://h/x": sourceURL,
		"/x.tar": sourceFile, "./x.tar": sourceFile, "../x": sourceFile, "/": sourceFile,
		"docker://alpine": sourceImage, "docker-daemon:x:y": sourceImage, "docker-archive:x": sourceImage,
		"oci:dir": sourceImage, "oci-archive:f": sourceImage, "ftp://h/x": sourceUnsupported,
		"alpine": sourceLXC, "alpine:edge": sourceLXC, "3.20": sourceLXC, "docker": sourceLXC, "oci": sourceLXC, "x.tar": sourceLXC,
	} {
		if got := sourceOf(name); got != want {
			t.Errorf("%q: %d, want %d", name, got, want)
		}
	}
}

func TestResolve(t *testing.T) {
	st, s := newStore(t), newServer(t, xzImage(t, "alpine", "3.20", "1"))
	data := someTar(t, "resolved")
	s.AddFile("/a.tar", data)
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/a.tar", data, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	id, err := ImportTar(t.Context(), st, bytes.NewReader(data), "x", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := st.SetName("key", id); err != nil {
		t.Fatal(err)
	}
	o := Options{client: hasty(), Server: s.URL()}
	for name, want := range map[string]container.ID{
		"0": 0, id.String(): id, "@key": id, s.URL() + "/a.tar": id, "./a.tar": id, dir + "/a.tar": id, "alpine": id + 1,
	} {
		if got, err := Resolve(t.Context(), st, name, o); err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", name, got, err, want)
		}
	}
	for name, want := range map[string]error{
		"99": container.ErrNotFound, "@none": container.ErrNotFound, "docker://" + registrytest.New(t).Host + "/x": image.ErrNotFound,
		"oci:x": os.ErrNotExist, "ftp://h/x": ErrNotSupported, "./none.tar": os.ErrNotExist, "nosuchimage": ErrUnknownImage,
	} {
		if got, err := Resolve(t.Context(), st, name, o); !errors.Is(err, want) {
			t.Errorf("%s: %d, error %v, want %v", name, got, err, want)
		}
	}
	_, err = Resolve(t.Context(), st, "a.tar", o)
	var h interface{ Hint() string }
	if !errors.As(err, &h) || h.Hint() != "the file of that name is ./a.tar" {
		t.Errorf("a.tar: %v", err)
	}
	if _, err := Resolve(t.Context(), st, "", o); err == nil {
		t.Error("the empty name means something")
	}
}
