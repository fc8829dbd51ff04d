package importexport

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/output"
	"github.com/ihucos/plash/overlay/treetest"
	"golang.org/x/sys/unix"
)

// stackOf makes containers of layers, which are tars, and returns the top one.
func stackOf(tb testing.TB, st *container.Store, known map[string]*cas.Staged, layers []string) container.ID {
	tb.Helper()
	id := container.ID(0)
	for _, name := range layers {
		if known[name] == nil {
			f, err := os.Open(name)
			if err != nil {
				tb.Fatal(err)
			}
			staged, err := st.CAS().Ingest(tb.Context(), f, cas.IngestOptions{})
			if err := errors.Join(err, f.Close()); err != nil {
				tb.Fatal(err)
			}
			known[name] = staged
		}
		r, err := st.Create(tb.Context(), id, known[name], container.CreateOptions{})
		if err != nil {
			tb.Fatal(err)
		}
		id = r.ID
	}
	return id
}

func noWarning(tb testing.TB) func(string) {
	return func(text string) { tb.Errorf("warning: %s", text) }
}

// TestExportDir holds directories against the trees that they are to be.
func TestExportDir(t *testing.T) {
	st, known := newStore(t), map[string]*cas.Staged{}
	t.Cleanup(func() {
		for _, staged := range known {
			staged.Close()
		}
	})
	treetest.Conform(t, func(tb testing.TB, layers []string) string {
		dir := filepath.Join(tb.TempDir(), "new")
		if err := ExportDir(tb.Context(), st, stackOf(tb, st, known, layers), dir, noWarning(tb)); err != nil {
			tb.Fatal(err)
		}
		// The suite wants a mount that cannot be written to.
		at := tb.TempDir()
		err := unix.Mount(dir, at, "", unix.MS_BIND, "")
		if err == nil {
			tb.Cleanup(func() {
				if err := unix.Unmount(at, 0); err != nil {
					tb.Error(err)
				}
			})
			err = unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
		}
		if err != nil {
			tb.Skip(err)
		}
		return at
	})
}

func TestExportDirPlaces(t *testing.T) {
	st, top := newStore(t), t.TempDir()
	id, err := ImportTar(t.Context(), st, strings.NewReader(string(someTar(t, "content"))), "x", Options{})
	if err != nil {
		t.Fatal(err)
	}
	export := func(dir string) error {
		return ExportDir(t.Context(), st, id, filepath.Join(top, dir), func(string) {})
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
