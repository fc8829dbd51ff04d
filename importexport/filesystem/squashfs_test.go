package filesystem

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/cas/tarstream"
	"github.com/ihucos/plash/importexport/output"
	"github.com/ihucos/plash/importexport/progress"
	"github.com/ihucos/plash/overlay/treetest"
	"github.com/opencontainers/go-digest"
)

func squashfs(compression string) writer {
	return func(ctx context.Context, v *cas.View, im *output.Image, m *progress.Meter) error {
		_, err := WriteSquashfs(ctx, v, im, compression, m)
		return err
	}
}

// TestSquashfs compares what the kernel and unsquashfs make of an image with the tree, apart from
// what the format does not have.
func TestSquashfs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("devices and owners need root")
	}
	for seed := range uint64(2) {
		for _, compression := range Compressions {
			t.Run(fmt.Sprint(seed, " ", compression), func(t *testing.T) {
				root := filepath.Join(t.TempDir(), "root")
				if err := os.Mkdir(root, 0o750); err != nil {
					t.Fatal(err)
				}
				treetest.Make(t, root, seed, treetest.Options{})
				layer := filepath.Join(t.TempDir(), "layer.tar")
				treetest.WriteTar(t, layer, root, nil)
				v := viewOf(t, newStore(t), map[string]digest.Digest{}, []string{layer})
				image := imageOf(t, v, squashfs(compression))
				// GNU tar does not know hard links of devices, so what the tar has is the measure.
				want := t.TempDir()
				treetest.Apply(t, want, layer)
				if diff := treetest.Diff(squashDump(t, want), squashDump(t, mount(t, "squashfs", image))); diff != "" {
					t.Errorf("mounted: %s", diff)
				}
				if _, err := exec.LookPath("unsquashfs"); err != nil {
					t.Skip(err)
				}
				back := filepath.Join(t.TempDir(), "back")
				checked(t, "unsquashfs", "-no-progress", "-quiet", "-dest", back, image)
				if diff := treetest.Diff(squashDump(t, want), squashDump(t, back)); diff != "" {
					t.Errorf("unsquashfs: %s", diff)
				}
			})
		}
	}
}

var (
	dumpTime = regexp.MustCompile(` (-?\d+)\.\d{9}`)
	dumpACL  = regexp.MustCompile(` system\.posix_acl_[a-z]+="(?:[^"\\]|\\.)*"`)
)

// squashDump is a dump of a tree without what squashfs images lack.
func squashDump(t *testing.T, dir string) string {
	t.Helper()
	dump, err := treetest.Dump(dir)
	if err != nil {
		t.Fatal(err)
	}
	dump = dumpTime.ReplaceAllStringFunc(dump, func(s string) string {
		var sec int64
		if _, err := fmt.Sscan(s, &sec); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(" ", max(0, min(sec, squashMaxTime)))
	})
	return dumpACL.ReplaceAllString(dump, "")
}

// TestSquashfsLarge: files of many blocks, with holes, and many small ones in several fragments and
// metadata blocks.
func TestSquashfsLarge(t *testing.T) {
	const small = 4000
	image := imageOfTar(t, squashfs(""), func(w *tarstream.Writer) error {
		err := w.WriteHeader(&tarstream.Entry{Name: "large", Type: tarstream.TypeReg, Mode: 0o644, Size: 8 << 20})
		if err == nil {
			_, err = copyNumbers(w, 8<<20)
		}
		sparse := tarstream.Entry{
			Name: "sparse", Type: tarstream.TypeReg, Mode: 0o644, Size: 3 << 30,
			Sparse: []tarstream.Segment{{Off: 1 << 30, Len: 1 << 20}, {Off: 2<<30 + blockSize, Len: blockSize}},
		}
		if err == nil {
			err = w.WriteHeader(&sparse)
		}
		if err == nil {
			_, err = copyNumbers(w, 1<<20+blockSize)
		}
		for i := range small {
			e := tarstream.Entry{Name: fmt.Sprintf("dir/file %d", i), Type: tarstream.TypeReg, Mode: 0o644, Size: 8 * int64(i%40), UID: uint32(i % 300)}
			if err == nil {
				err = w.WriteHeader(&e)
			}
			if err == nil {
				_, err = copyNumbers(w, e.Size)
			}
		}
		return err
	})
	if os.Geteuid() != 0 {
		t.Skip("only root may mount it")
	}
	dir := mount(t, "squashfs", image)
	open := func(name string) *os.File {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	if err := sameAsNumbers(open("large"), 8<<20); err != nil {
		t.Error(err)
	}
	sparse := open("sparse")
	if info, err := sparse.Stat(); err != nil || info.Size() != 3<<30 {
		t.Errorf("%v, %v", info, err)
	}
	for _, c := range []struct{ off, want int64 }{{1 << 30, 0}, {1<<30 + 1<<20 - 8, 1<<20 - 8}, {2<<30 + blockSize, 1 << 20}, {1<<30 - 8, 0}, {2 << 30, 0}, {3<<30 - 8, 0}} {
		b := make([]byte, 8)
		if _, err := sparse.ReadAt(b, c.off); err != nil || int64(le.Uint64(b)) != c.want {
			t.Errorf("at %d: %d, want %d, %v", c.off, le.Uint64(b), c.want, err)
		}
	}
	for i := range small {
		info, err := os.Stat(filepath.Join(dir, fmt.Sprintf("dir/file %d", i)))
		if err != nil || info.Size() != 8*int64(i%40) {
			t.Fatalf("file %d: %v, %v", i, info, err)
		}
	}
	last := open(fmt.Sprintf("dir/file %d", small-1))
	b := make([]byte, 8)
	if _, err := last.ReadAt(b, 8*((small-1)%40)-8); err != nil || le.Uint64(b) != 8*((small-1)%40)-8 {
		t.Errorf("the last file's end: %d, %v", le.Uint64(b), err)
	}
}

func TestSquashfsLimits(t *testing.T) {
	tar := writeTar(t, func(w *tarstream.Writer) error {
		for i := range squashMaxIDs + 1 {
			if err := w.WriteHeader(&tarstream.Entry{Name: fmt.Sprint(i), Type: tarstream.TypeReg, UID: uint32(i)}); err != nil {
				return err
			}
		}
		return nil
	})
	v := viewOf(t, newStore(t), map[string]digest.Digest{}, []string{tar})
	err := output.WriteImage(filepath.Join(t.TempDir(), "image"), func(im *output.Image) error {
		return squashfs("")(t.Context(), v, im, nil)
	})
	if !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), "users") {
		t.Errorf("too many owners: %v", err)
	}
	if err := squashfs("lzma")(t.Context(), v, nil, nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("unknown compression: %v", err)
	}
}

// TestSquashfsLost: what is left out is told.
func TestSquashfsLost(t *testing.T) {
	for name, want := range map[string]bool{"user.a": false, "trusted.a": false, "security.capability": false, "system.posix_acl_default": true} {
		tar := writeTar(t, func(w *tarstream.Writer) error {
			return w.WriteHeader(&tarstream.Entry{Name: "d", Type: tarstream.TypeDir, Mode: 0o755, Xattrs: []tarstream.Xattr{{Name: name, Value: []byte("\x02\x00\x00\x00")}}})
		})
		v := viewOf(t, newStore(t), map[string]digest.Digest{}, []string{tar})
		err := output.WriteImage(filepath.Join(t.TempDir(), "image"), func(im *output.Image) error {
			lost, err := WriteSquashfs(t.Context(), v, im, "", nil)
			if lost != want {
				t.Errorf("%s: lost %t", name, lost)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}
