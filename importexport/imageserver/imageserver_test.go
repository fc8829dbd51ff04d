package imageserver

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func busyboxRoot(t *testing.T) []byte {
	t.Helper()
	root, err := BusyboxRoot()
	if errors.Is(err, os.ErrNotExist) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func TestBusyboxRoot(t *testing.T) {
	root := busyboxRoot(t)
	if !bytes.Equal(root, busyboxRoot(t)) {
		t.Error("two roots differ")
	}
	found := map[string]*tar.Header{}
	for r := tar.NewReader(bytes.NewReader(root)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if found[h.Name] != nil {
			t.Errorf("%s is there twice", h.Name)
		}
		if dir := filepath.Dir(strings.TrimSuffix(h.Name, "/")) + "/"; found[dir] == nil && h.Name != "./" {
			t.Errorf("%s has no directory before it", h.Name)
		}
		found[h.Name] = h
	}
	for name, want := range map[string]byte{
		"bin/busybox": tar.TypeReg, "bin/sh": tar.TypeSymlink, "bin/ls": tar.TypeSymlink, "etc/passwd": tar.TypeReg,
		"tmp/": tar.TypeDir, "root/": tar.TypeDir, "usr/bin/env": tar.TypeSymlink, "bin/mount": tar.TypeSymlink,
	} {
		if h := found[name]; h == nil || h.Typeflag != want {
			t.Errorf("%s: %+v", name, h)
		}
	}
	if found["tmp/"].Mode != 0o1777 {
		t.Errorf("mode of /tmp: %o", found["tmp/"].Mode)
	}
}

func TestBusyboxRootRuns(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("chroot needs root")
	}
	dir := t.TempDir()
	untar := exec.Command("tar", "-x", "-C", dir)
	untar.Stdin = bytes.NewReader(busyboxRoot(t))
	if out, err := untar.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	script := "apk update; apk --no-cache add git curl; git --version; curl; whoami"
	out, err := exec.Command("chroot", dir, "/bin/sh", "-lc", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := `fetch http://dl-cdn.alpinelinux.org/alpine/v3.20/main/x86_64/APKINDEX.tar.gz
OK: 1 distinct packages available
(1/2) Installing git (2.15.0-r1)
(2/2) Installing curl (1.0-r1)
OK: 21 MiB in 22 packages
git version 2.15.0
curl version 1.0
root
`
	if string(out) != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
}

func TestServe(t *testing.T) {
	s, err := New(Image{Dist: "alpine", Release: "3.20", Data: []byte("not really xz")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var list struct {
		Products map[string]struct {
			Versions map[string]struct {
				Items map[string]struct {
					Path string
					Size int64
				}
			}
		}
	}
	if err := json.Unmarshal(get(t, s.URL()+"/streams/v1/images.json"), &list); err != nil {
		t.Fatal(err)
	}
	item := list.Products["alpine:3.20:"+Arch()+":default"].Versions[Version0].Items["root.tar.xz"]
	if body := get(t, s.URL()+"/"+item.Path); string(body) != "not really xz" || item.Size != 13 {
		t.Errorf("%q, size %d", body, item.Size)
	}
	if r := s.Requests(); len(r) != 2 || r[0].Path != "/streams/v1/images.json" {
		t.Errorf("requests: %v", r)
	}
}

func get(t *testing.T, url string) []byte {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestDebianCache(t *testing.T) {
	dir := t.TempDir()
	made := 0
	fail := errors.New("no")
	build := func(err error) func(string) error {
		return func(target string) error {
			made++
			return errors.Join(os.WriteFile(target, []byte("tar"), 0o644), err)
		}
	}
	if _, err := debian(dir, ".tar", build(fail)); !errors.Is(err, fail) {
		t.Errorf("error %v", err)
	}
	for range 2 {
		name, err := debian(dir, ".tar", build(nil))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(name); err != nil || string(b) != "tar" {
			t.Errorf("%q, %v", b, err)
		}
	}
	if made != 2 {
		t.Errorf("made %d times, want 2", made)
	}
}

func TestMirror(t *testing.T) {
	t.Setenv(mirrorEnv, "")
	for _, c := range []struct{ file, text, want string }{
		{"sources.list", "# x\ndeb [signed-by=/k] http://mirror.example/debian/ bookworm main\n", "http://mirror.example/debian"},
		{"sources.list.d/debian.sources", "Types: deb\nURIs: https://mirror.example/a https://mirror.example/debian\n", "https://mirror.example/debian"},
		{"sources.list.d/debian.sources", "Types: deb\nURIs: http://deb.debian.org/debian\n", ""},
		{"sources.list.d/other.list", "deb http://mirror.example/debian x y\n", ""},
	} {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, c.file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(mirror(dir), " "); got != c.want {
			t.Errorf("%s %q: got %q, want %q", c.file, c.text, got, c.want)
		}
	}
	t.Setenv(mirrorEnv, "http://m")
	if got := mirror(t.TempDir()); len(got) != 1 || got[0] != "http://m" {
		t.Errorf("got %v", got)
	}
}
