package share

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestSupply puts into a hostile copy what a container shares: nothing comes out of it.
func TestSupply(t *testing.T) {
	want, err := os.ReadFile(resolvConf)
	if err != nil {
		t.Skip("the host has no /etc/resolv.conf")
	}
	parent := t.TempDir()
	root, outside := filepath.Join(parent, "root"), filepath.Join(parent, "outside")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(root, "etc"), 0o755),
		os.Mkdir(outside, 0o755),
		os.Symlink("../../outside/resolv.conf", filepath.Join(root, "etc/resolv.conf")),
		os.Symlink(outside, filepath.Join(root, "data")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	binds := []Bind{{Path: "/dev", Optional: true}, {Path: resolvConf, Optional: true}, {Path: "/nosuch", Optional: true}, {Path: "/data", From: parent}}
	got, err := Supply(openDir(t, root), binds)
	if err != nil {
		t.Fatal(err)
	}
	inside := strings.TrimPrefix(outside, "/")
	if paths := []string{"dev", "outside/resolv.conf", inside}; !slices.Equal(got.Paths, paths) {
		t.Errorf("paths %q, want %q", got.Paths, paths)
	}
	for _, dir := range []string{"", "outside", filepath.Dir(inside)} {
		if !slices.Contains(got.Parents, dir) {
			t.Errorf("parents %q: no %q", got.Parents, dir)
		}
	}
	if text, err := os.ReadFile(filepath.Join(root, "outside/resolv.conf")); string(text) != string(want) {
		t.Errorf("resolv.conf: %q, %v", text, err)
	}
	if target, err := os.Readlink(filepath.Join(root, "dev/stdin")); target != "/proc/self/fd/0" {
		t.Errorf("/dev/stdin: %q, %v", target, err)
	}
	if _, err := os.Stat(filepath.Join(root, inside)); err != nil {
		t.Error(err)
	}
	if left := list(t, outside); left != "" {
		t.Errorf("outside: %s", left)
	}
}

// TestSupplyPlaces makes places, and nothing in them.
func TestSupplyPlaces(t *testing.T) {
	root, host := t.TempDir(), t.TempDir()
	file := filepath.Join(host, "file")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	fd := openDir(t, root)
	got, err := SupplyPlaces(fd, []Bind{{Path: "/a/dir", From: host}, {Path: "/b/file", From: file}})
	if err == nil {
		err = got.MakeFile(fd, "c")
	}
	if err != nil {
		t.Fatal(err)
	}
	if made := list(t, root); made != "a/ a/dir/ b/ b/file c" {
		t.Errorf("made: %s", made)
	}
	if want := []string{"a/dir", "b/file", "c"}; !slices.Equal(got.Paths, want) {
		t.Errorf("paths %q", got.Paths)
	}
	if text, err := os.ReadFile(filepath.Join(root, "b/file")); len(text) > 0 || err != nil {
		t.Errorf("/b/file: %q, %v", text, err)
	}
}
