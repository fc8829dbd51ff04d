package runtime

import (
	"os"
	"path/filepath"
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
