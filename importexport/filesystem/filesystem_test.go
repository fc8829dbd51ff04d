package filesystem

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/importexport/output"
	"github.com/ihucos/plash/importexport/progress"
	"github.com/ihucos/plash/mountfd/leftover"
	"github.com/ihucos/plash/overlay/treetest"
	"github.com/opencontainers/go-digest"
)

func TestMain(m *testing.M) { os.Exit(leftover.Main(m)) }

func newStore(tb testing.TB) *cas.Store {
	tb.Helper()
	dir := filepath.Join(tb.TempDir(), "store")
	if err := cas.Init(dir); err != nil {
		tb.Fatal(err)
	}
	st, err := cas.Open(dir)
	if err != nil {
		tb.Fatal(err)
	}
	return st
}

// viewOf opens the tree that layers, which are tars, make up.
func viewOf(tb testing.TB, st *cas.Store, known map[string]digest.Digest, layers []string) *cas.View {
	tb.Helper()
	digests := make([]digest.Digest, len(layers))
	for i, name := range layers {
		if known[name] == "" {
			f, err := os.Open(name)
			if err != nil {
				tb.Fatal(err)
			}
			staged, err := st.Ingest(tb.Context(), f, cas.IngestOptions{})
			if err != nil {
				tb.Fatal(err)
			}
			if err := staged.Publish(); err != nil {
				tb.Fatal(err)
			}
			known[name] = staged.Digest()
			staged.Close()
			f.Close()
		}
		digests[i] = known[name]
	}
	v, err := st.View(tb.Context(), digests)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := v.Close(); err != nil {
			tb.Error(err)
		}
	})
	return v
}

type writer func(context.Context, *cas.View, *output.Image, *progress.Meter) error

// imageOf writes an image, twice, and wants it to be the same, and all data to be counted.
func imageOf(tb testing.TB, v *cas.View, write writer) string {
	tb.Helper()
	name := filepath.Join(tb.TempDir(), "image")
	for _, n := range []string{name, name + ".again"} {
		m := progress.NewMeter(nil, 0)
		if err := output.WriteImage(n, func(im *output.Image) error { return write(tb.Context(), v, im, m) }); err != nil {
			tb.Fatal(err)
		}
		want, err := v.DataSize(tb.Context())
		if done, total := m.Counts(); err != nil || done != want || total != want {
			tb.Errorf("%d bytes of %d counted, want %d; %v", done, total, want, err)
		}
	}
	if out, err := exec.Command("cmp", name, name+".again").CombinedOutput(); err != nil {
		tb.Errorf("the same tree gives other bytes: %v: %s", err, out)
	}
	return name
}

// mount mounts an image read-only until the test ends.
func mount(tb testing.TB, kind, image string) string {
	tb.Helper()
	dir := tb.TempDir()
	out, err := exec.Command("mount", "-t", kind, "-o", "ro,loop", image, dir).CombinedOutput()
	if bytes.Contains(out, []byte("unknown filesystem type")) || bytes.Contains(out, []byte("failed to setup loop device")) {
		tb.Skipf("%s", out)
	}
	if err != nil {
		tb.Fatalf("mount: %v: %s", err, out)
	}
	tb.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			tb.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

// TestConform holds images, mounted by the kernel, against the trees that they are made of.
func TestConform(t *testing.T) {
	suite := treetest.NewSuite(t)
	st, known := newStore(t), map[string]digest.Digest{}
	for _, c := range []struct {
		kind  string
		write writer
		check []string // a program that looks at the image
	}{
		{"erofs", WriteEROFS, []string{"fsck.erofs"}},
		{"ext4", WriteExt4, []string{"e2fsck", "-fn"}},
	} {
		t.Run(c.kind, func(t *testing.T) {
			suite.Run(t, func(tb testing.TB, layers []string) string {
				image := imageOf(tb, viewOf(tb, st, known, layers), c.write)
				checked(tb, c.check[0], append(c.check[1:], image)...)
				return mount(tb, c.kind, image)
			})
		})
	}
}

// checked wants a program to find nothing wrong.
func checked(tb testing.TB, name string, args ...string) {
	tb.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		tb.Skip(err)
	}
	if err != nil {
		tb.Errorf("%s: %v: %s", name, err, out)
	}
}
