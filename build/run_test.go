package build

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/runtime"
)

func TestMain(m *testing.M) {
	runtime.MaybeInit() // scripts are run by this program, started again
	os.Exit(m.Run())
}

// realBuilder is a Builder that runs scripts in a busybox container.
func realBuilder(t *testing.T) (b *Builder, log func() string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting layers needs root")
	}
	root := busyboxRoot(t)
	writeFiles(t, root, map[string]string{"usr/local/bin/apk": standIn})
	store := newStore(t)
	stderr, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stderr.Close() })
	read := int64(0)
	log = func() string {
		b, err := io.ReadAll(io.NewSectionReader(stderr, read, 1<<30))
		if err != nil {
			t.Fatal(err)
		}
		read += int64(len(b))
		// What this program, not plash, says under "go test -cover" when it ends.
		return strings.ReplaceAll(string(b), "warning: GOCOVERDIR not set, no coverage data emitted\n", "")
	}
	base := importDir(t, store, root)
	return &Builder{
		Containers:   store,
		ResolveImage: func(context.Context, string) (container.ID, error) { return base, nil },
		RunLayer: func(ctx context.Context, parent container.ID, script, input string) (*cas.Staged, error) {
			return runtime.RunLayer(ctx, store, parent, runtime.LayerOptions{Script: script, Input: input, Stderr: stderr})
		},
		Stderr: stderr,
	}, log
}

// importDir makes a container of a directory.
func importDir(t *testing.T, store *container.Store, dir string) container.ID {
	t.Helper()
	pr, pw := io.Pipe()
	go func() {
		w := tar.NewWriter(pw)
		pw.CloseWithError(errors.Join(w.AddFS(os.DirFS(dir)), w.Close()))
	}()
	staged, err := store.CAS().Ingest(t.Context(), pr, cas.IngestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := store.Create(t.Context(), 0, staged, container.CreateOptions{Origin: container.Origin{Kind: "import", From: "busybox"}})
	if err = errors.Join(err, staged.Close()); err != nil {
		t.Fatal(err)
	}
	return r.ID
}

// The session of the README, as far as it is a build's.
func TestSession(t *testing.T) {
	b, log := realBuilder(t)
	for _, tt := range []struct {
		actions []string
		want    container.ID
		log     string
	}{
		{[]string{"--run", "touch /file"}, 2, "--> touch /file\n--:\n"},
		{[]string{"--run", "touch /file"}, 2, ""},
		{[]string{"--run", "touch /file", "--layer", "--run", "touch /file2"}, 3, "--> touch /file2\n--:\n"},
		{[]string{"--apk", "git"}, 4, "--> apk update\n--> apk add git\n--:\n"},
		{[]string{"--devinit", "--write-file", "/etc/a/b", "c"}, 5, "--> : devinit\n--> mkdir -p -- /etc/a\n--> cat\n--:\n"},
		{[]string{"--entrypoint", "/bin/ls"}, 6, "--:\n"},
	} {
		id, err := b.Build(t.Context(), parse(t, append([]string{"-i", "alpine"}, tt.actions...)...))
		if got := log(); err != nil || id != tt.want || got != tt.log {
			t.Errorf("%q: container %d, %v, log %q; want %d, log %q", tt.actions, id, err, got, tt.want, tt.log)
		}
	}
	checkFile(t, b.Containers, 5, "etc/a/b", "c\n")
	checkFile(t, b.Containers, 5, "dev/full", "")
	checkFile(t, b.Containers, 4, "log", "apk\n  update\napk\n  add\n  git\n")

	_, err := b.Build(t.Context(), parse(t, "-i", "alpine", "-x", "touch /file", "-l", "-x", "echo out", "false"))
	var step *StepError
	if !errors.As(err, &step) || step.Layer != 2 || step.Code != 1 || step.Parent != 2 {
		t.Errorf("a step that fails: %v", err)
	}
	if got := log(); got != "--> echo out\nout\n--> false\n" {
		t.Errorf("log of a step that fails: %q", got)
	}
	scratch, err := os.ReadDir(filepath.Join(b.Containers.CAS().Dir(), "scratch"))
	if err != nil || len(scratch) > 0 {
		t.Errorf("left behind: %v, %v", scratch, err)
	}
}

// checkFile checks a file of a container's topmost layer.
func checkFile(t *testing.T, store *container.Store, id container.ID, name, want string) {
	t.Helper()
	r, err := store.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := store.CAS().OpenBlob(r.Layer)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	tr := tar.NewReader(blob)
	for {
		h, err := tr.Next()
		if err != nil {
			t.Errorf("container %d: %s: %v", id, name, fs.ErrNotExist)
			return
		}
		if strings.TrimPrefix(h.Name, "./") != name {
			continue
		}
		if got, err := io.ReadAll(tr); err != nil || string(got) != want {
			t.Errorf("container %d: %s: got %q, %v, want %q", id, name, got, err, want)
		}
		return
	}
}
