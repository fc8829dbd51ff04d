package runtime

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/fusefs/posixtest"
	"github.com/ihucos/plash/overlay/treetest"
)

// TestConform holds the ways to mount by FUSE against what layers have to look like:
// alone, and with a writable top that nothing was written to. Package overlay does so with
// the kernel's.
func TestConform(t *testing.T) {
	if testing.Short() {
		t.Skip("mounts a thousand layers")
	}
	suite := treetest.NewSuite(t)
	for _, c := range []struct {
		name, backend string
		upper         bool
	}{
		{"fuse", "fuse", false},
		{"overlayfs on fuse", "fuse", true},
		{"union", "union", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv(BackendVar, c.backend)
			w := newWorld(t)
			known := map[string]container.ID{} // by the layers' paths
			suite.Run(t, func(tb testing.TB, tars []string) string {
				id, path := container.ID(0), ""
				for _, tar := range tars {
					path += tar + "\x00"
					if known[path] == 0 {
						known[path] = w.addTar(tb, id, tar)
					}
					id = known[path]
				}
				return mountFor(tb, w, id, c.upper)
			})
		})
	}
}

// addTar makes a container with a tar as its layer.
func (w *world) addTar(tb testing.TB, parent container.ID, tar string) container.ID {
	tb.Helper()
	f, err := os.Open(tar)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	staged, err := w.st.CAS().Ingest(context.Background(), f, cas.IngestOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	defer staged.Close()
	r, err := w.st.Create(context.Background(), parent, staged, container.CreateOptions{Origin: container.Origin{Kind: "import"}})
	if err != nil {
		tb.Fatal(err)
	}
	return r.ID
}

// mountFor mounts a container until the end of a test; with an upper directory, the
// mount is made read-only afterwards.
func mountFor(tb testing.TB, w *world, id container.ID, upper bool) string {
	tb.Helper()
	dir := tb.TempDir()
	var o MountOptions
	if upper {
		o = newUpper(tb, w, id)
	}
	if err := Mount(context.Background(), w.st, id, dir, o); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := Unmount(dir); err != nil {
			tb.Error(err)
		}
	})
	if upper {
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

// newUpper makes an upper directory that looks like the root of a container.
func newUpper(tb testing.TB, w *world, id container.ID) MountOptions {
	tb.Helper()
	dir := tb.TempDir()
	o := MountOptions{Upper: filepath.Join(dir, "u"), Work: filepath.Join(dir, "w")}
	if err := withImage(context.Background(), w.st, id, func(im *image) error {
		return makeUpper(context.Background(), im, o.Upper, o.Work)
	}); err != nil {
		tb.Fatal(err)
	}
	return o
}

// TestPosix holds what can be written to against ext4.
func TestPosix(t *testing.T) {
	if testing.Short() {
		t.Skip("does a thousand things")
	}
	w := newWorld(t)
	src := t.TempDir()
	posixtest.Fixture(t, src)
	staged, err := PackDir(t.Context(), w.st, 0, src)
	if err != nil {
		t.Fatal(err)
	}
	defer staged.Close()
	r, err := w.st.Create(t.Context(), 0, staged, container.CreateOptions{Origin: container.Origin{Kind: "add-layer"}})
	if err != nil {
		t.Fatal(err)
	}
	onFUSE := posixtest.Overlayfs()
	for _, name := range []string{
		"link/made", "link/to other kinds", "link/following a symlink", "link/by descriptor", "inode/stays",
	} {
		onFUSE.Known[name+"/lower"] = "without file handles, a link made by copying up has the number of the upper file"
	}
	const moves = "FUSE passes on what allocates, punches holes and zeroes, and nothing that moves data"
	onUnion := posixtest.Options{
		Lower:            true,
		MovesNoLowerDirs: true,
		Known: map[string]string{
			"space/collapse a range":   moves,
			"space/insert a range":     moves,
			"xattr/names of overlayfs": "they have a meaning in the upper directory",
			"special/device 0:0":       "it would be a whiteout",
		},
	}
	for backend, known := range map[string]posixtest.Options{
		"fuse":  onFUSE,
		"union": onUnion,
	} {
		t.Run(backend, func(t *testing.T) {
			t.Setenv(BackendVar, backend)
			dir := t.TempDir()
			if err := Mount(t.Context(), w.st, r.ID, dir, newUpper(t, w, r.ID)); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := Unmount(dir); err != nil {
					t.Error(err)
				}
			}()
			posixtest.Run(t, dir, known)
		})
	}
}
