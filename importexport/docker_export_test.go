package importexport

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/image"
	"github.com/ihucos/plash/overlay/treetest"
)

// builtImage is a container of layers that change and delete what is below.
func builtImage(t *testing.T, st *container.Store) container.ID {
	t.Helper()
	id := container.ID(0)
	for i, script := range []string{
		`mkdir -p dir/sub opaque/sub etc; echo a >dir/a; ln dir/a dir/b; echo gone >gone; echo old >opaque/old; ln -s dir/a link
echo x >etc/caps; chown 7:8 dir/sub; chmod 1777 opaque; mkfifo etc/fifo; mknod etc/null c 1 3; truncate -s 1M etc/sparse; echo end >>etc/sparse
chown 12:34 etc/caps; chmod 4755 etc/caps; find . -exec touch -h -d '2001-02-03 04:05:06.123456789' {} +`,
		`mkdir dir opaque; echo changed >dir/a; ln dir/a dir/c; : >.wh.gone; : >opaque/.wh..wh..opq; echo new >opaque/new; mkdir dir/sub2`,
		`mkdir -p dir; : >dir/.wh.b; mkdir -p etc/deep/er; echo y >etc/deep/er/y`,
	} {
		dir := t.TempDir()
		out, err := exec.Command("sh", "-ec", "cd \"$1\"; "+script, "sh", dir).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		layer := filepath.Join(t.TempDir(), "layer.tar")
		run(t, "tar", append(tarAll, "--format=pax", "--sparse", "-C", dir, "-cf", layer, ".")...)
		f, err := os.Open(layer)
		if err != nil {
			t.Fatal(err)
		}
		staged, err := st.CAS().Ingest(t.Context(), f, cas.IngestOptions{})
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		r, err := st.Create(t.Context(), id, staged, container.CreateOptions{Origin: container.Origin{Kind: "build", From: fmt.Sprint("step ", i)}})
		if err := errors.Join(err, staged.Close()); err != nil {
			t.Fatal(err)
		}
		id = r.ID
	}
	return id
}

// TestExportDockerRoundTrip: what other programs unpack is the container, by whatever way it went, and
// what comes back is the same container.
func TestExportDockerRoundTrip(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("devices and owners need root")
	}
	for _, program := range []string{"skopeo", "umoci"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	st, dir := newStore(t), t.TempDir()
	id := builtImage(t, st)
	plain := filepath.Join(dir, "plain")
	if err := ExportDir(t.Context(), st, id, plain, ExportOptions{Warn: func(text string) { t.Error(text) }}); err != nil {
		t.Fatal(err)
	}
	want, err := treetest.Dump(plain)
	if err != nil {
		t.Fatal(err)
	}
	for i, ref := range []string{"oci:" + dir + "/layout:v1", "oci-archive:" + dir + "/oci.tar:v1", "docker-archive:" + dir + "/docker.tar:app:1.0"} {
		if err := ExportDocker(t.Context(), st, id, ref, DockerOptions{}); err != nil {
			t.Fatal(err)
		}
		layout := fmt.Sprintf("%s/copied%d", dir, i)
		run(t, "skopeo", "--insecure-policy", "copy", "--quiet", ref, "oci:"+layout+":v1")
		bundle := fmt.Sprintf("%s/bundle%d", dir, i)
		run(t, "umoci", "unpack", "--image", layout+":v1", bundle)
		got, err := treetest.Dump(bundle + "/rootfs")
		if err != nil {
			t.Fatal(err)
		}
		if diff := treetest.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", ref, diff)
		}
		// An image of the same layers is the same tree.
		back, err := ImportDocker(t.Context(), st, ref, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(export(t, st, back), export(t, st, id)) {
			t.Errorf("%s comes back as another tree", ref)
		}
		// And what came in goes out as it was.
		again := fmt.Sprintf("%s/again%d.tar", dir, i)
		if err := ExportDocker(t.Context(), st, back, "oci-archive:"+again+":v1", DockerOptions{}); err != nil {
			t.Fatal(err)
		}
		first := run(t, "skopeo", "inspect", "--config", "--raw", ref)
		if got := run(t, "skopeo", "inspect", "--config", "--raw", "oci-archive:"+again+":v1"); got != first {
			t.Errorf("%s: config %s, want %s", ref, got, first)
		}
	}
}

// TestExportDockerEngine: the whole image goes to the engine, under its name.
func TestExportDockerEngine(t *testing.T) {
	st := newStore(t)
	id, err := ImportTar(t.Context(), st, bytes.NewReader(someTar(t, "content")), "x", Options{})
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(&got, r.Body)
		if err != nil || r.URL.Path != "/images/load" {
			t.Errorf("%s: %v", r.URL, err)
		}
		fmt.Fprintln(w, `{"stream":"Loaded image: app:latest\n"}`)
	}))
	defer engine.Close()
	t.Setenv("PLASH_DOCKER_SOCKET", "")
	t.Setenv("DOCKER_HOST", "tcp://"+strings.TrimPrefix(engine.URL, "http://"))
	for _, ref := range []string{"app", "docker-daemon:app:latest"} {
		got.Reset()
		if err := ExportDocker(t.Context(), st, id, ref, DockerOptions{}); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "image.tar")
		if err := ExportDocker(t.Context(), st, id, "docker-archive:"+file+":app", DockerOptions{}); err != nil {
			t.Fatal(err)
		}
		if want, err := os.ReadFile(file); err != nil || !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%s: the engine got %d bytes, want %d, %v", ref, got.Len(), len(want), err)
		}
	}
	engine.Close()
	var h interface{ Hint() string }
	if err := ExportDocker(t.Context(), st, id, "app", DockerOptions{}); !errors.Is(err, image.ErrNoDaemon) || !errors.As(err, &h) {
		t.Errorf("no engine: %v", err)
	}
}

func TestExportDockerRefs(t *testing.T) {
	st := newStore(t)
	id, err := ImportTar(t.Context(), st, bytes.NewReader(someTar(t, "content")), "x", Options{})
	if err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]error{
		"oci:": image.ErrBadRef, "docker-archive:x:@0": ErrBadExport, "UPPER": image.ErrBadRef,
		"docker://host.example/x@sha256:" + strings.Repeat("0", 64): ErrBadExport,
	} {
		if err := ExportDocker(t.Context(), st, id, ref, DockerOptions{}); !errors.Is(err, want) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if err := ExportDocker(t.Context(), st, id, "oci:x", DockerOptions{Compression: "zstd"}); !errors.Is(err, ErrBadExport) {
		t.Errorf("compressed layout: %v", err)
	}
	if err := ExportDocker(t.Context(), st, 99, "oci:x", DockerOptions{}); !errors.Is(err, container.ErrNotFound) {
		t.Errorf("no container: %v", err)
	}
	if _, err := os.Stat("x"); err == nil {
		t.Error("something was written")
	}
}
