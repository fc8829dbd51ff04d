package build

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// watchTree makes a directory with something of everything.
func watchTree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "a/b"), 0o755),
		os.WriteFile(filepath.Join(dir, "a/file"), []byte("content"), 0o644),
		os.WriteFile(filepath.Join(dir, "a.x"), []byte(strings.Repeat("x", 1<<20)), 0o600),
		os.WriteFile(filepath.Join(dir, "empty\xff\n"), nil, 0o644),
		os.Symlink("a/file", filepath.Join(dir, "link")),
		os.Symlink("nowhere", filepath.Join(dir, "dangling")),
		unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644),
		os.Chmod(filepath.Join(dir, "a"), 0o755),
		os.Chmod(dir, 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func hash(t *testing.T, path string) string {
	t.Helper()
	sum, err := hashPath(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	return sum.String()
}

func TestHashPath(t *testing.T) {
	dir := watchTree(t)
	first := hash(t, dir)
	// The format must not change without notice: keys of all builds that use it would.
	const want = "sha256:99d2f9e7fab744a766da06ae0389eb5bcc14d8020479edda210a4aa34b1c9283"
	if first != want {
		t.Errorf("got %s, want %s", first, want)
	}
	if got := hash(t, watchTree(t)); got != first {
		t.Error("the same tree elsewhere has another digest")
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if got := hash(t, link); got != first {
		t.Error("a link to the tree is not followed")
	}
	seen := map[string]string{first: "nothing"}
	for _, change := range []struct {
		what string
		do   func() error
	}{
		{"content", func() error { return os.WriteFile(filepath.Join(dir, "a/file"), []byte("Content"), 0o644) }},
		{"mode", func() error { return os.Chmod(filepath.Join(dir, "a/file"), 0o755) }},
		{"mode of a directory", func() error { return os.Chmod(filepath.Join(dir, "a"), 0o700) }},
		{"mode of the top", func() error { return os.Chmod(dir, 0o1777) }},
		{"name", func() error { return os.Rename(filepath.Join(dir, "a/file"), filepath.Join(dir, "a/other")) }},
		{"directory", func() error { return os.Mkdir(filepath.Join(dir, "a/b/c"), 0o755) }},
		{"link", func() error {
			os.Remove(filepath.Join(dir, "link"))
			return os.Symlink("a/other", filepath.Join(dir, "link"))
		}},
		{"new", func() error { return os.WriteFile(filepath.Join(dir, "z"), nil, 0o644) }},
		{"type", func() error {
			os.Remove(filepath.Join(dir, "z"))
			return unix.Mkfifo(filepath.Join(dir, "z"), 0o644)
		}},
		{"gone", func() error { return os.Remove(filepath.Join(dir, "fifo")) }},
	} {
		if err := change.do(); err != nil {
			t.Fatal(err)
		}
		sum := hash(t, dir)
		if before, ok := seen[sum]; ok {
			t.Errorf("%s has the digest of %s", change.what, before)
		}
		seen[sum] = change.what
	}
	before := hash(t, dir)
	if err := os.Chtimes(filepath.Join(dir, "a/other"), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if hash(t, dir) != before {
		t.Error("times count")
	}
	if err := os.Chmod(filepath.Join(dir, "a.x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if a, b := hash(t, filepath.Join(dir, "a.x")), hash(t, dir); a == b {
		t.Error("a file has the digest of its directory")
	}
}

func TestWatch(t *testing.T) {
	dir := watchTree(t)
	got := layerTexts(t, parse(t, "--watch", dir, dir+"/a/file", "--hash-path", dir, "-x", "true"))
	want := "# watch " + hash(t, dir) + "\n# watch " + hash(t, dir+"/a/file") + "\n# watch " + hash(t, dir) + "\ntrue\n"
	if len(got) != 1 || got[0] != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWatchErrors(t *testing.T) {
	dir := watchTree(t)
	for _, path := range []string{dir + "/none", dir + "/dangling", dir + "/a/file/x"} {
		p := parse(t, "--watch", path, "-x", "true")
		_, err := p.Script(context.Background())
		if err == nil || !strings.HasPrefix(err.Error(), "--watch "+path+": ") {
			t.Errorf("%s: got %v", path, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := hashPath(ctx, dir); err == nil {
		t.Error("it does not stop when it is told to")
	}
	if _, err := hashFile(ctx, dir+"/a/file"); err == nil {
		t.Error("reading does not stop when it is told to")
	}
}

// Unreadable files and directories are an error, not left out.
func TestWatchUnreadable(t *testing.T) {
	dir := watchTree(t)
	for _, err := range []error{os.Chmod(dir+"/a/file", 0), os.Chmod(dir+"/a/b", 0)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for path := dir; path != os.TempDir() && os.Geteuid() == 0; path = filepath.Dir(path) {
		if err := os.Chmod(path, 0o755); err != nil { // for whom the thread becomes
			t.Fatal(err)
		}
	}
	var file, walk error
	var wait sync.WaitGroup
	wait.Go(func() {
		if os.Geteuid() == 0 {
			// Root may read everything: the thread becomes one whom permissions hold, and loses
			// the capabilities that are about files (setfsuid(2)). It ends with the goroutine.
			goruntime.LockOSThread()
			if _, err := unix.SetfsuidRetUid(65534); err != nil {
				file = err
				return
			}
		}
		_, file = hashFile(t.Context(), dir+"/a/file")
		tree := hostTree{root: dir}
		walk = tree.walk(t.Context(), nil, func(*entry) {})
	})
	wait.Wait()
	if !errors.Is(file, fs.ErrPermission) {
		t.Errorf("a file: %v", file)
	}
	if !errors.Is(walk, fs.ErrPermission) {
		t.Errorf("a directory: %v", walk)
	}
}
