package importexport

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ihucos/plash/importexport/output"
	"golang.org/x/sys/unix"
)

func TestExportDirPlaces(t *testing.T) {
	st, top := newStore(t), t.TempDir()
	id, err := ImportTar(t.Context(), st, strings.NewReader(string(someTar(t, "content"))), "x", Options{})
	if err != nil {
		t.Fatal(err)
	}
	export := func(dir string) error {
		return ExportDir(t.Context(), st, id, filepath.Join(top, dir), ExportOptions{})
	}
	empty := filepath.Join(top, "empty")
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(empty)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(export("empty"), export("new/")); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(empty); err != nil || !os.SameFile(before, after) {
		t.Errorf("an empty directory, which may be a mount point, was replaced: %v", err)
	}
	if got, want := run(t, "diff", "-r", empty, filepath.Join(top, "new")), ""; got != want {
		t.Error(got)
	}
	if err := export("empty"); !errors.Is(err, ErrDirNotEmpty) {
		t.Errorf("not empty: %v", err)
	}
	var we *output.WriteError
	if err := export("none/dir"); !errors.As(err, &we) || !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "none/dir") {
		t.Errorf("no directory above: %v", err)
	}
	if err := os.WriteFile(filepath.Join(top, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := export("file"); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("a file: %v", err)
	}
	// If it fails, nothing is left behind.
	r, err := st.Get(id)
	if err == nil {
		err = os.Truncate(st.CAS().BlobPath(r.Layer), 600)
	}
	if err == nil {
		err = os.Mkdir(filepath.Join(top, "again"), 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"again", "never"} {
		if err := export(dir); err == nil {
			t.Errorf("%s: a damaged blob was exported", dir)
		}
	}
	if left, err := os.ReadDir(filepath.Join(top, "again")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	checkNames(t, top, "again", "empty", "file", "new")
}

func checkNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if strings.Join(names, " ") != strings.Join(want, " ") {
		t.Errorf("directory holds %q, want %q", names, want)
	}
}
