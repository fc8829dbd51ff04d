package filesystem

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ihucos/plash/cas/tarstream"
	"github.com/opencontainers/go-digest"
)

// writeTar makes a tar of entries, whose data is what data yields for each.
func writeTar(t *testing.T, fill func(w *tarstream.Writer) error) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "layer.tar")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	w := tarstream.NewWriter(f)
	if err := errors.Join(fill(w), w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return name
}

func imageOfTar(t *testing.T, write writer, fill func(w *tarstream.Writer) error) string {
	t.Helper()
	v := viewOf(t, newStore(t), map[string]digest.Digest{}, []string{writeTar(t, fill)})
	return imageOf(t, v, write)
}

// debugfs asks the debugger of e2fsprogs, which needs no mount.
func debugfs(t *testing.T, image, request string) string {
	t.Helper()
	out, err := exec.Command("debugfs", "-R", request, image).Output()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestExt4ManyInodes: more empty files than a group of blocks may have inodes.
func TestExt4ManyInodes(t *testing.T) {
	n := 70_000
	image := imageOfTar(t, WriteExt4, func(w *tarstream.Writer) error {
		for i := range n {
			if err := w.WriteHeader(&tarstream.Entry{Name: fmt.Sprintf("d%d/file %d", i/500, i), Type: tarstream.TypeReg, Mode: 0o644}); err != nil {
				return err
			}
		}
		return nil
	})
	checked(t, "e2fsck", "-fn", image)
	if got := debugfs(t, image, fmt.Sprintf("stat \"/d%d/file %d\"", (n-1)/500, n-1)); !strings.Contains(got, "Mode:  0644") {
		t.Errorf("the last file: %s", got)
	}
	info, err := os.Stat(image)
	if err != nil {
		t.Fatal(err)
	}
	if most := int64(n*ext4Inode) * 3 / 2; info.Size() > most {
		t.Errorf("%d bytes, want at most %d", info.Size(), most)
	}
}

// TestExt4Extents: a file of so many pieces that its tree of extents has two levels of blocks, and one
// that goes on over the copies of the superblock.
func TestExt4Extents(t *testing.T) {
	const pieces, far = 2000, 136 << 20 // beyond the first group
	piece := func(i int) string { return fmt.Sprintf("piece %d", i) }
	image := imageOfTar(t, WriteExt4, func(w *tarstream.Writer) error {
		e := tarstream.Entry{Name: "sparse", Type: tarstream.TypeReg, Mode: 0o644, Size: pieces * 3 * blockSize, Sparse: []tarstream.Segment{}}
		for i := range int64(pieces) {
			e.Sparse = append(e.Sparse, tarstream.Segment{Off: i * 3 * blockSize, Len: blockSize})
		}
		if err := w.WriteHeader(&e); err != nil {
			return err
		}
		for i := range pieces {
			b := make([]byte, blockSize)
			copy(b, piece(i))
			if _, err := w.Write(b); err != nil {
				return err
			}
		}
		if err := w.WriteHeader(&tarstream.Entry{Name: "large", Type: tarstream.TypeReg, Mode: 0o644, Size: far}); err != nil {
			return err
		}
		_, err := copyNumbers(w, far)
		return err
	})
	checked(t, "e2fsck", "-fn", image)
	if got := debugfs(t, image, "stat sparse"); !strings.Contains(got, "(ETB1)") {
		t.Errorf("the tree is not as deep as it is to be: %.600s", got)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root may mount it")
	}
	dir := mount(t, "ext4", image)
	f, err := os.Open(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range pieces {
		b := make([]byte, 3*blockSize)
		if _, err := f.ReadAt(b, int64(i)*3*blockSize); err != nil {
			t.Fatal(err)
		}
		if want := piece(i) + strings.Repeat("\x00", 3*blockSize-len(piece(i))); string(b) != want {
			t.Fatalf("piece %d is %.40q", i, b)
		}
	}
	large, err := os.Open(filepath.Join(dir, "large"))
	if err != nil {
		t.Fatal(err)
	}
	defer large.Close()
	if err := sameAsNumbers(large, far); err != nil {
		t.Error(err)
	}
}

// numbers yields bytes that tell where they are.
type numbers struct{ at *int64 }

func (n numbers) Read(p []byte) (int, error) {
	k := 0
	for ; k+8 <= len(p); k += 8 {
		le.PutUint64(p[k:], uint64(*n.at))
		*n.at += 8
	}
	return k, nil
}

func copyNumbers(w io.Writer, n int64) (int64, error) {
	return io.CopyN(w, numbers{new(int64)}, n)
}

func sameAsNumbers(r io.Reader, size int64) error {
	b := make([]byte, 1<<20)
	for at := int64(0); at < size; at += int64(len(b)) {
		if _, err := io.ReadFull(r, b); err != nil {
			return err
		}
		for i := 0; i < len(b); i += 8 {
			if got := int64(le.Uint64(b[i:])); got != at+int64(i) {
				return fmt.Errorf("at %d are the bytes of %d", at+int64(i), got)
			}
		}
	}
	return nil
}

// TestExt4Grows: the image is a filesystem like others, once it has room.
func TestExt4Grows(t *testing.T) {
	image := imageOfTar(t, WriteExt4, func(w *tarstream.Writer) error {
		return w.WriteHeader(&tarstream.Entry{Name: "dir/file", Type: tarstream.TypeReg, Mode: 0o644})
	})
	if info, err := os.Stat(image); err != nil || info.Size() > 64<<10 {
		t.Errorf("%v bytes for an empty file, %v", info.Size(), err)
	}
	if err := os.Truncate(image, 300<<20); err != nil {
		t.Fatal(err)
	}
	checked(t, "resize2fs", image)
	checked(t, "tune2fs", "-j", image)
	// It makes the directory lost+found, which the container did not have.
	if out, err := exec.Command("e2fsck", "-fp", image).CombinedOutput(); err != nil && !strings.Contains(string(out), "lost+found") {
		t.Fatalf("e2fsck: %v: %s", err, out)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root may mount it")
	}
	// In a namespace of its own: of a mount that others see, a copy may live on in theirs.
	script := `mount -t ext4 -o loop "$1" "$2" && head -c 200M /dev/zero >"$2/dir/new" && rm "$2/dir/file" && umount "$2"`
	out, err := exec.Command("unshare", "-m", "sh", "-c", script, "sh", image, t.TempDir()).CombinedOutput()
	if strings.Contains(string(out), "failed to setup loop device") {
		t.Skipf("%s", out)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	checked(t, "e2fsck", "-fn", image)
}

// TestExt4Limits: what ext4 has no room for is an error, not another tree.
func TestExt4Limits(t *testing.T) {
	large := tarstream.Xattr{Name: "user.a", Value: make([]byte, 5000)}
	for name, e := range map[string]tarstream.Entry{
		"attributes": {Name: "dir/f", Type: tarstream.TypeReg, Mode: 0o644, Xattrs: []tarstream.Xattr{large}},
		"size":       {Name: "dir/f", Type: tarstream.TypeReg, Mode: 0o644, Size: 20 << 40, Sparse: []tarstream.Segment{}},
	} {
		t.Run(name, func(t *testing.T) {
			tar := writeTar(t, func(w *tarstream.Writer) error { return w.WriteHeader(&e) })
			v := viewOf(t, newStore(t), map[string]digest.Digest{}, []string{tar})
			err := WriteExt4(t.Context(), v, nil, nil)
			if !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), "/dir/f") {
				t.Errorf("error %v", err)
			}
		})
	}
	names := writeTar(t, func(w *tarstream.Writer) error {
		err := w.WriteHeader(&tarstream.Entry{Name: "f", Type: tarstream.TypeReg})
		for i := range ext4MaxLinks {
			err = errors.Join(err, w.WriteHeader(&tarstream.Entry{Name: fmt.Sprint(i), Type: tarstream.TypeLink, Linkname: "f"}))
		}
		return err
	})
	v := viewOf(t, newStore(t), map[string]digest.Digest{}, []string{names})
	if err := WriteExt4(t.Context(), v, nil, nil); !errors.Is(err, ErrLimit) {
		t.Errorf("65,001 names: %v", err)
	}
}

func TestExt4Time(t *testing.T) {
	for _, c := range []struct {
		sec    int64
		nsec   uint32
		want   int64
		within uint32
	}{
		{0, 5, 0, 5},
		{-1, 999999999, -1, 999999999},
		{1 << 31, 1, 1 << 31, 1},
		{1<<34 - 1<<31 - 1, 1, 1<<34 - 1<<31 - 1, 1},
		{1 << 34, 1, 1<<34 - 1<<31 - 1, 0},
		{-1 << 31, 7, -1 << 31, 7},
		{-1<<31 - 1, 7, -1 << 31, 0},
	} {
		sec, extra := ext4Time(c.sec, c.nsec)
		// As the kernel reads it: ext4_decode_extra_time.
		if got := int64(int32(sec)) + int64(extra&3)<<32; got != c.want || extra>>2 != c.within {
			t.Errorf("%d.%d becomes %d.%d, want %d.%d", c.sec, c.nsec, got, extra>>2, c.want, c.within)
		}
	}
}
