package importexport

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/progress"
)

// newStore makes an empty store and checks at the end that it is sound: no
// scratch is left over.
func newStore(t *testing.T) *container.Store {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	if err := cas.Init(dir); err != nil {
		t.Fatal(err)
	}
	cs, err := cas.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	st, err := container.Open(cs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		left, err := os.ReadDir(filepath.Join(dir, "scratch"))
		if err != nil || len(left) > 0 {
			t.Errorf("scratch space: %v, %v", left, err)
		}
	})
	return st
}

// count is the number of containers.
func count(t *testing.T, st *container.Store) int {
	t.Helper()
	list, err := st.List()
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// someTar is a small tar with one file of that content.
func someTar(t *testing.T, content string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range []*tar.Header{
		{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755},
		{Typeflag: tar.TypeReg, Name: "./file", Mode: 0o644, Size: int64(len(content))},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func gzipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// tree reads a container's files back through its export: name to content.
func tree(t *testing.T, st *container.Store, id container.ID) map[string]string {
	t.Helper()
	var buf bytes.Buffer
	if err := ExportTar(t.Context(), st, id, &buf, ExportOptions{}); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(&buf); ; {
		h, err := r.Next()
		if err != nil {
			return files
		}
		var content bytes.Buffer
		if _, err := content.ReadFrom(r); err != nil {
			t.Fatal(err)
		}
		files[h.Name] = content.String()
	}
}

func TestImportTarSameContentSameID(t *testing.T) {
	st := newStore(t)
	data := someTar(t, "hello")
	var first container.ID
	for i, form := range [][]byte{data, gzipped(t, data), data} {
		id, err := ImportTar(t.Context(), st, bytes.NewReader(form), "test", Options{})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = id
		}
		if id != first {
			t.Errorf("import %d: container %d, want %d", i, id, first)
		}
	}
	other, err := ImportTar(t.Context(), st, bytes.NewReader(someTar(t, "other")), "test", Options{})
	if err != nil || other == first {
		t.Errorf("other content: container %d, %v", other, err)
	}
	if err := st.Remove(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	again, err := ImportTar(t.Context(), st, bytes.NewReader(data), "test", Options{})
	if err != nil || again == first {
		t.Errorf("after its removal: container %d, %v", again, err)
	}
	if got := tree(t, st, again)["./file"]; got != "hello" {
		t.Errorf("content %q", got)
	}
}

func TestImportTarBroken(t *testing.T) {
	data := someTar(t, strings.Repeat("x", 10000))
	zipped := gzipped(t, data)
	for name, content := range map[string][]byte{
		"empty": nil, "text": []byte("<html>no tar</html>\n"), "cut": data[:5000], "cut gzip": zipped[:len(zipped)/2],
	} {
		t.Run(name, func(t *testing.T) {
			st := newStore(t)
			if id, err := ImportTar(t.Context(), st, bytes.NewReader(content), "broken.tar", Options{}); err == nil {
				t.Errorf("container %d", id)
			} else if !strings.Contains(err.Error(), "broken.tar") {
				t.Errorf("error without a name: %v", err)
			}
			if n := count(t, st); n != 0 {
				t.Errorf("%d containers", n)
			}
		})
	}
}

// oldFile writes a file and waits until its times can be relied on: ctime can
// not be set.
func oldFile(t *testing.T, data []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	time.Sleep(fileTimeGrain + 100*time.Millisecond)
	return name
}

func TestImportTarFile(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	name := oldFile(t, someTar(t, "one"))
	id, err := ImportTarFile(t.Context(), st, name, Options{})
	if err != nil {
		t.Fatal(err)
	}
	keyed := func() (container.ID, bool) {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		state, err := stat(f)
		if err != nil {
			t.Fatal(err)
		}
		id, ok, err := st.Lookup(state.key(name))
		if err != nil {
			t.Fatal(err)
		}
		return id, ok
	}
	if got, ok := keyed(); !ok || got != id {
		t.Errorf("not remembered: %d %v", got, ok)
	}
	// It is not read again: a context that is over would say so.
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if again, err := ImportTarFile(over, st, name, Options{}); err != nil || again != id {
		t.Errorf("second import: %d, %v", again, err)
	}
	if err := st.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	back, err := ImportTarFile(t.Context(), st, name, Options{})
	if err != nil || back == id {
		t.Errorf("after removal: %d, %v", back, err)
	}
	// Changed within the grain: neither the old content nor a memory of the new.
	if err := os.WriteFile(name, someTar(t, "two"), 0o644); err != nil {
		t.Fatal(err)
	}
	changed, err := ImportTarFile(t.Context(), st, name, Options{})
	if err != nil || changed == back {
		t.Errorf("changed file: %d, %v", changed, err)
	}
	if got, ok := keyed(); ok {
		t.Errorf("young file remembered as %d", got)
	}
}

func TestImportTarFileErrors(t *testing.T) {
	st := newStore(t)
	dir := t.TempDir()
	if _, err := ImportTarFile(t.Context(), st, dir, Options{}); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("directory: %v", err)
	}
	if _, err := ImportTarFile(t.Context(), st, filepath.Join(dir, "none"), Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

func TestImportTarConcurrent(t *testing.T) {
	st := newStore(t)
	data := someTar(t, strings.Repeat("concurrent", 1000))
	ids := make(chan string)
	const n = 8
	for range n {
		go func() {
			id, err := ImportTar(context.Background(), st, bytes.NewReader(data), "test", Options{})
			ids <- fmt.Sprint(id, err)
		}()
	}
	first := <-ids
	for range n - 1 {
		if other := <-ids; other != first {
			t.Errorf("%s and %s", first, other)
		}
	}
	if got := count(t, st); got != 1 {
		t.Errorf("%d containers", got)
	}
}

// TestImportTarFileChanging: what is written while it is read may be half old
// and half new, and still be a tar.
func TestImportTarFileChanging(t *testing.T) {
	st := newStore(t)
	name := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(name, someTar(t, "x"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	before, err := stat(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(name, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	_, err = importReader(t.Context(), st, f, name, Options{}, unchanged(f, before, time.Now(), "key"))
	if err == nil || !strings.Contains(err.Error(), "changed while it was read") {
		t.Errorf("error %v", err)
	}
	if n := count(t, st); n != 0 {
		t.Errorf("%d containers", n)
	}
}

// TestImportTarFileAgain imports a file that was touched since: it is hashed, and not written once
// more, also where progress is shown.
func TestImportTarFileAgain(t *testing.T) {
	st := newStore(t)
	const size = 8 << 20
	path := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(path, someTar(t, strings.Repeat("x", size)), 0o644); err != nil {
		t.Fatal(err)
	}
	o := Options{Progress: progress.NewPlain(io.Discard)}
	first, err := ImportTarFile(t.Context(), st, path, o)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if err := os.Chtimes(path, now, now); err != nil {
		t.Fatal(err)
	}
	before := written(t)
	again, err := ImportTarFile(t.Context(), st, path, o)
	if err != nil || again != first {
		t.Errorf("container %d, then %d, %v", first, again, err)
	}
	if n := written(t) - before; n > size/2 {
		t.Errorf("%d bytes were written", n)
	}
}

// written is how many bytes this process has written.
func written(t *testing.T) (n int64) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "wchar: %d", &n); err == nil {
			return n
		}
	}
	t.Fatalf("/proc/self/io: %q", text)
	return 0
}
