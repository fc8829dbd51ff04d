package fusefs

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/overlay/treetest"
	"github.com/opencontainers/go-digest"
)

// TestTree compares random trees with what their mounts show, mounted in each way.
func TestTree(t *testing.T) {
	needFUSE(t)
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			src := t.TempDir()
			treetest.Make(t, src, seed, treetest.Options{})
			s := newStore(t)
			layer := packed(t, s, src)
			want := dumpAsTar(t, src)
			for _, way := range []string{"detached", "mount2", "helper"} {
				t.Run(way, func(t *testing.T) {
					defer func() { force.mount2, force.helper = false, false }()
					force.mount2, force.helper = way == "mount2", way == "helper"
					if _, err := helperPath(); force.helper && err != nil {
						t.Skip(err)
					}
					dir := mounted(t, s, Options{}, layer)
					same(t, "the mount", want, dump(t, dir))
					if err := os.WriteFile(filepath.Join(dir, "new"), nil, 0o644); !errors.Is(err, unix.EROFS) {
						t.Errorf("writing: %v", err)
					}
				})
			}
		})
	}
}

// TestAsKernel compares a mount of several layers with the kernel's EROFS on the
// same index: dumps, and what dumps leave out.
func TestAsKernel(t *testing.T) {
	needFUSE(t)
	src := t.TempDir()
	treetest.Make(t, src, 7, treetest.Options{})
	s := newStore(t)
	layers := []digest.Digest{packed(t, s, src)}
	layers = append(layers, ingest(t, s, archive(t,
		tar.Header{Name: "a/.wh..wh..opq"}, tar.Header{Name: ".wh.many levels"}, tar.Header{Name: "a/new", Size: 3},
		tar.Header{Name: "link", Linkname: "a/new", Typeflag: tar.TypeLink})))
	kernel, fuse := kernelMount(t, s, layers), mounted(t, s, Options{}, layers...)
	want := dump(t, kernel)
	if !strings.Contains(want, `"a/new"`) || strings.Contains(want, `"many levels"`) {
		t.Error("the layers do not do what they should")
	}
	same(t, "the mount", want, dump(t, fuse))
	same(t, "what stat says", stats(t, kernel), stats(t, fuse))
	same(t, "where holes are", holes(t, kernel), holes(t, fuse))
	var k, f unix.Statfs_t
	must(t, unix.Statfs(kernel, &k))
	must(t, unix.Statfs(fuse, &f))
	k.Type, k.Fsid, k.Flags, f.Type, f.Fsid, f.Flags = 0, unix.Fsid{}, 0, 0, unix.Fsid{}, 0
	if k != f {
		t.Errorf("statfs: expected %+v, found %+v", k, f)
	}
}

// kernelMount mounts a stack of layers with the kernel's EROFS.
func kernelMount(t *testing.T, s *cas.Store, layers []digest.Digest) string {
	t.Helper()
	ix, err := s.Merged(context.Background(), layers)
	must(t, err)
	defer ix.Close()
	c, err := unix.Fsopen("erofs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Skipf("no EROFS: %v", err)
	}
	defer unix.Close(c)
	must(t, unix.FsconfigSetString(c, "source", ix.Path()))
	for _, b := range ix.Blobs() {
		must(t, unix.FsconfigSetString(c, "device", s.BlobPath(b)))
	}
	if err := unix.FsconfigCreate(c); errors.Is(err, unix.ENOTBLK) {
		t.Skipf("this kernel does not mount EROFS from files: %v", err)
	} else {
		must(t, err)
	}
	fd, err := unix.Fsmount(c, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY)
	must(t, err)
	defer unix.Close(fd)
	dir := t.TempDir()
	must(t, unix.MoveMount(fd, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH))
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
	return dir
}

// each calls f for each file of a tree, and sums up what it says.
func each(t *testing.T, dir string, f func(path string, st *unix.Stat_t) string) string {
	t.Helper()
	var out strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		if s := f(path, &st); s != "" {
			fmt.Fprintf(&out, "%q %s\n", strings.TrimPrefix(path, dir), s)
		}
		return nil
	}))
	return out.String()
}

func stats(t *testing.T, dir string) string {
	return each(t, dir, func(_ string, st *unix.Stat_t) string {
		size := st.Size
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			size = 0
		}
		return fmt.Sprint(st.Ino, st.Nlink, st.Blocks, size, st.Atim, st.Mtim, st.Ctim, st.Rdev)
	})
}

// holes lists where data and holes begin in each file.
func holes(t *testing.T, dir string) string {
	return each(t, dir, func(path string, st *unix.Stat_t) string {
		if st.Mode&unix.S_IFMT != unix.S_IFREG {
			return ""
		}
		f, err := os.Open(path)
		must(t, err)
		defer f.Close()
		var edges []int64
		for at, whence := int64(0), 3; at < st.Size && len(edges) < 1000; whence = 7 - whence { // SEEK_DATA, SEEK_HOLE
			to, err := unix.Seek(int(f.Fd()), at, whence)
			if err != nil {
				edges = append(edges, -1)
				break
			}
			edges = append(edges, to)
			at = to
		}
		return fmt.Sprint(edges)
	})
}

// archive makes a tar of members whose content is all of one byte.
func archive(t testing.TB, members ...tar.Header) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range members {
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		must(t, w.WriteHeader(&h))
		_, err := w.Write(bytes.Repeat([]byte{'x'}, int(h.Size)))
		must(t, err)
	}
	must(t, w.Close())
	return &b
}

// TestLargeDirectory lists and looks into a directory of a million entries.
func TestLargeDirectory(t *testing.T) {
	needFUSE(t)
	n := 1_000_000
	if testing.Short() {
		n = 20_000
	}
	r, w := io.Pipe()
	go func() {
		tw := tar.NewWriter(w)
		var err error
		for i := 0; i < n && err == nil; i++ {
			err = tw.WriteHeader(&tar.Header{Name: fmt.Sprintf("many/%07d", i), Typeflag: tar.TypeReg})
		}
		w.CloseWithError(errors.Join(err, tw.Close()))
	}()
	s := newStore(t)
	dir := filepath.Join(mounted(t, s, Options{}, ingest(t, s, r)), "many")
	f, err := os.Open(dir)
	must(t, err)
	defer f.Close()
	seen := 0
	for {
		names, err := f.Readdirnames(5000)
		for _, name := range names {
			if name != fmt.Sprintf("%07d", seen) {
				t.Fatalf("entry %d: %s", seen, name)
			}
			seen++
		}
		if err == io.EOF {
			break
		}
		must(t, err)
	}
	if seen != n {
		t.Errorf("%d entries, expected %d", seen, n)
	}
	for _, i := range []int{0, n / 2, n - 1} {
		_, err := os.Stat(filepath.Join(dir, fmt.Sprintf("%07d", i)))
		must(t, err)
	}
	if _, err := os.Stat(filepath.Join(dir, fmt.Sprintf("%07d", n))); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, strings.Repeat("n", 256))); !errors.Is(err, unix.ENAMETOOLONG) {
		t.Error(err)
	}
	for pid := range servers() {
		b, err := os.ReadFile("/proc/" + pid + "/status")
		must(t, err)
		var rss int
		_, after, _ := strings.Cut(string(b), "VmRSS:")
		fmt.Sscan(after, &rss)
		t.Logf("%d kB resident", rss)
		if rss > 40<<10 {
			t.Errorf("%d kB resident after all was listed", rss)
		}
	}
}

// TestLargeFile reads at offsets that do not fit into 32 bits.
func TestLargeFile(t *testing.T) {
	needFUSE(t)
	src := t.TempDir()
	f, err := os.Create(filepath.Join(src, "large"))
	must(t, err)
	const at = 5 << 40
	_, err = f.WriteAt([]byte("here"), at)
	must(t, errors.Join(err, f.Close()))
	s := newStore(t)
	dir := mounted(t, s, Options{}, packed(t, s, src))
	g, err := os.Open(filepath.Join(dir, "large"))
	must(t, err)
	defer g.Close()
	got := make([]byte, 20)
	n, err := g.ReadAt(got, at-4)
	if want := "\x00\x00\x00\x00here"; err != io.EOF || string(got[:n]) != want {
		t.Errorf("%q, %v, expected %q", got[:n], err, want)
	}
}

// TestACL has the kernel enforce an access control list.
func TestACL(t *testing.T) {
	needFUSE(t)
	if _, err := exec.LookPath("setfacl"); err != nil {
		t.Skip(err)
	}
	src := t.TempDir()
	file := filepath.Join(src, "file")
	must(t, os.WriteFile(file, []byte("x"), 0o640))
	must(t, os.Chmod(src, 0o755))
	must(t, exec.Command("setfacl", "-m", "u:65533:r", file).Run())
	s := newStore(t)
	dir := mounted(t, s, Options{}, packed(t, s, src, "--acls"))
	d, err := os.Open(dir) // the way to it is closed to others
	must(t, err)
	defer d.Close()
	for uid, allowed := range map[uint32]bool{65533: true, 65532: false} {
		cmd := exec.Command("/bin/cat", "/proc/self/fd/3/file")
		cmd.ExtraFiles = []*os.File{d}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		if err := cmd.Run(); (err == nil) != allowed {
			t.Errorf("user %d: %v", uid, err)
		}
	}
}

// TestManyLayers mounts a stack of a thousand.
func TestManyLayers(t *testing.T) {
	needFUSE(t)
	s := newStore(t)
	var layers []digest.Digest
	for i := range 1000 {
		layers = append(layers, ingest(t, s, archive(t, tar.Header{Name: fmt.Sprintf("%03d", i), Size: 1})))
	}
	dir := mounted(t, s, Options{}, layers...)
	for i := range layers {
		if b, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%03d", i))); err != nil || len(b) != 1 {
			t.Fatalf("%q, %v", b, err)
		}
	}
}
