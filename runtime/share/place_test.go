package share

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCanonical(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{"a/b", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"a/up": "../..", "a/abs": "/etc", "loop": "loop", "two": "a/abs/x", "dangling": "no/such/../thing", "etc/dots": "../../../../a",
	} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for name, want := range map[string]string{
		"/": "", "/a//b/.": "a/b", "/a/b/../..": "", "/../..": "", "/a/up/etc": "etc", "/a/abs": "etc",
		"/two/y": "etc/x/y", "/dangling": "no/thing", "/etc/dots/b": "a/b", "/new/dir": "new/dir", "/a/abs/../new": "new",
	} {
		got, err := canonical(fd, name)
		if err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	if got, err := canonical(fd, "/loop"); err == nil {
		t.Errorf("loop: %q", got)
	}
}

// openDir opens a directory for the time of a test.
func openDir(t *testing.T, dir string) int {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// list is what lies below a directory: names, "/" behind those of directories.
func list(t *testing.T, dir string) string {
	t.Helper()
	var names []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || path == ".":
		case d.IsDir():
			names = append(names, path+"/")
		default:
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, " ")
}

// TestSkeleton makes what an image lacks, and no directory if that is nothing.
func TestSkeleton(t *testing.T) {
	root, made, host := t.TempDir(), t.TempDir(), t.TempDir()
	file := filepath.Join(host, "file")
	for _, err := range []error{
		os.WriteFile(file, nil, 0o600),
		os.MkdirAll(filepath.Join(root, "has"), 0o755),
		os.Symlink("../../../lib", filepath.Join(root, "link")),
		os.WriteFile(filepath.Join(root, "text"), nil, 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	asked := 0
	dir := func() (string, error) { asked++; return made, nil }
	fd := openDir(t, root)
	none := []Bind{{Path: "/has", From: host}, {Path: "/gone", From: host + "/nosuch", Optional: true}, {Path: "/text/x", From: host, Optional: true}}
	if got, err := Skeleton(fd, none, dir); got != "" || err != nil || asked != 0 {
		t.Errorf("nothing is lacking: %q, %v", got, err)
	}
	some := append(none, Bind{Path: "/a/b", From: host}, Bind{Path: "/link/file", From: file})
	if got, err := Skeleton(fd, some, dir); got != made || err != nil || asked != 1 {
		t.Errorf("%q, %v", got, err)
	}
	if got := list(t, made); got != "a/ a/b/ lib/ lib/file" {
		t.Errorf("made: %s", got)
	}
	if got := list(t, root); got != "has/ link text" {
		t.Errorf("the image: %s", got)
	}
	if _, err := Skeleton(fd, []Bind{{Path: "/text/x", From: host}}, dir); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("below a file: %v", err)
	}
}
