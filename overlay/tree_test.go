package overlay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/overlay/treetest"
)

// A testTree is a tree with what it needs.
type testTree struct {
	*Tree
	tb    testing.TB
	dir   string
	probe *os.File
}

func newTestTree(tb testing.TB, s *cas.Store, layers []Layer, dir string, from *Donor) *testTree {
	tb.Helper()
	must(tb, os.Mkdir(dir, 0o700))
	t := openTestTree(tb, s, layers, dir)
	var m testMeter
	t.SetMeter(&m)
	must(tb, t.Make(tb.Context(), from))
	if from == nil {
		m.wantAll(tb, t.ix)
	}
	t.settle()
	return t
}

func openTestTree(tb testing.TB, s *cas.Store, layers []Layer, dir string) *testTree {
	tb.Helper()
	ix, err := s.Merged(tb.Context(), digests(layers))
	must(tb, err)
	tb.Cleanup(func() { must(tb, ix.Close()) })
	root, err := os.Open(dir)
	must(tb, err)
	tb.Cleanup(func() { root.Close() })
	probe, err := os.Create(dir + ".probe")
	must(tb, err)
	tb.Cleanup(func() { probe.Close() })
	return &testTree{Tree: OpenTree(s, ix, root, nil), tb: tb, dir: dir, probe: probe}
}

func (t *testTree) settle() {
	t.tb.Helper()
	must(t.tb, t.Settle(t.tb.Context(), t.probe))
}

// setRight sets the tree right by a manifest that was written and read.
func (t *testTree) setRight() (changed bool, err error) {
	t.tb.Helper()
	m, err := DecodeManifest(t.m.Encode())
	must(t.tb, err)
	t.m = m
	err = t.withBin(func(bin func() (*os.File, error)) error {
		changed, err = t.SetRight(t.tb.Context(), bin)
		return err
	})
	if err == nil {
		t.settle()
	}
	return changed, err
}

func (t *testTree) withBin(f func(bin func() (*os.File, error)) error) error {
	sc, err := t.store.Scratch("bin")
	must(t.tb, err)
	defer func() { must(t.tb, sc.Remove()) }()
	bin, err := os.Open(sc.Path())
	must(t.tb, err)
	defer bin.Close()
	return f(func() (*os.File, error) { return bin, nil })
}

// randomLayer is a layer of a random tree, and its dump.
func randomLayer(tb testing.TB, s *cas.Store, seed uint64, entries int) (Layer, string) {
	tb.Helper()
	src := filepath.Join(tb.TempDir(), "src")
	must(tb, os.Mkdir(src, 0o755))
	treetest.Make(tb, src, seed, treetest.Options{Entries: entries})
	return packLayer(tb, s, src, false), dump(tb, src)
}

// TestTreeSetRight lets all kinds of things be done to a tree, again and again, and
// wants each time the tree of the index back.
func TestTreeSetRight(t *testing.T) {
	needRoot(t)
	seeds := uint64(6)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := newStore(t)
			layer, want := randomLayer(t, s, seed, 300)
			tree := newTestTree(t, s, []Layer{layer}, filepath.Join(s.Dir(), "copy"), nil)
			same(t, "copy", want, dump(t, tree.dir))
			for round := range uint64(8) {
				treetest.Change(t, tree.dir, seed*100+round, int(5+round*5))
				misuse(t, tree.dir, seed*100+round)
				changed, err := tree.setRight()
				must(t, err)
				if !changed {
					t.Error("nothing was seen to have changed")
				}
				same(t, fmt.Sprint("round ", round), want, dump(t, tree.dir))
				if changed, err = tree.setRight(); changed || err != nil {
					t.Errorf("set right twice: %v, %v", changed, err)
				}
			}
		})
	}
}

// misuse does what treetest.Change does not do.
func misuse(t *testing.T, root string, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	var files, dirs []string
	must(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && len(path) < 3000 && d.Type().IsRegular() {
			files = append(files, path)
		}
		if err == nil && len(path) < 3000 && d.IsDir() && path != root {
			dirs = append(dirs, path)
		}
		return err
	}))
	file := func() string { return files[r.IntN(len(files))] }
	dir := func() string { return dirs[r.IntN(len(dirs))] }
	ignore := func(error) {} // two of these may be about one file
	for range 3 {
		hideWrite(t, file())
		a, b := file(), file()
		ignore(unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE))
		ignore(os.Link(file(), filepath.Join(dir(), "another name")))
		ignore(os.Rename(dir(), filepath.Join(dir(), "moved")))
		ignore(os.Rename(file(), file()))
	}
	ignore(os.Remove(file()))
	d := dir()
	ignore(unix.Mknod(filepath.Join(d, "whiteout"), unix.S_IFCHR, 0))
	ignore(os.WriteFile(filepath.Join(d, ".wh.name"), nil, 0o600))
	ignore(os.WriteFile(filepath.Join(d, ".wh..wh..opq"), nil, 0o600))
	ignore(unix.Mknod(filepath.Join(d, "socket"), unix.S_IFSOCK|0o777, 0))
	ignore(unix.Setxattr(d, "trusted.overlay.opaque", []byte("y"), 0))
	ignore(unix.Setxattr(dir(), "system.posix_acl_default", testACL, 0))
	ignore(unix.Setxattr(root, "user.root", []byte("y"), 0))
	deep := filepath.Join(dir(), strings.Repeat("d/", 100))
	ignore(os.MkdirAll(deep, 0o755))
	ignore(os.Rename(file(), filepath.Join(deep, "file")))
	for _, path := range []string{file(), dir(), deep, d} {
		immutable(path)
	}
}

// testACL is u::rwx,u:1000:rwx,g::rwx,m::rwx,o::rwx.
var testACL = []byte("\x02\x00\x00\x00" +
	"\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x07\x00\xe8\x03\x00\x00" +
	"\x04\x00\x07\x00\xff\xff\xff\xff" + "\x10\x00\x07\x00\xff\xff\xff\xff" + "\x20\x00\x07\x00\xff\xff\xff\xff")

// hideWrite changes a byte of a file through memory, and gives it its time back.
func hideWrite(t *testing.T, path string) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer f.Close()
	var st unix.Stat_t
	must(t, unix.Fstat(int(f.Fd()), &st))
	if st.Size == 0 {
		return
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	mem[0]++
	must(t, unix.Munmap(mem))
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{st.Atim, st.Mtim}, 0))
}

func immutable(path string) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	const fsImmutable = 0x10 // FS_IMMUTABLE_FL
	if flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS); err == nil {
		_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|fsImmutable)
	}
}

// TestTreeQuickChange changes a file right after the tree was settled.
func TestTreeQuickChange(t *testing.T) {
	needRoot(t)
	s := newStore(t)
	src := t.TempDir()
	must(t, os.WriteFile(filepath.Join(src, "f"), []byte("right"), 0o644))
	tree := newTestTree(t, s, []Layer{packLayer(t, s, src, false)}, filepath.Join(s.Dir(), "copy"), nil)
	for range 100 {
		f, err := os.OpenFile(filepath.Join(tree.dir, "f"), os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteAt([]byte("wrong"), 0)
		must(t, errors.Join(err, f.Close()))
		if changed, err := tree.setRight(); !changed || err != nil {
			t.Fatalf("set right: %v, %v", changed, err)
		}
		if b, err := os.ReadFile(filepath.Join(tree.dir, "f")); string(b) != "right" {
			t.Fatalf("%q, %v", b, err)
		}
	}
}

// TestTreeMounted wants a tree in which something is mounted not to be touched.
func TestTreeMounted(t *testing.T) {
	needRoot(t)
	s := newStore(t)
	layer, _ := randomLayer(t, s, 1, 50)
	src := t.TempDir()
	must(t, os.Mkdir(filepath.Join(src, "at"), 0o755))
	tree := newTestTree(t, s, []Layer{layer, packLayer(t, s, src, false)}, filepath.Join(s.Dir(), "copy"), nil)
	for _, what := range []string{t.TempDir(), s.Dir()} {
		at := filepath.Join(tree.dir, "at")
		must(t, unix.Mount(what, at, "", unix.MS_BIND, ""))
		_, err := tree.setRight()
		must(t, unix.Unmount(at, 0))
		if !errors.Is(err, ErrMounted) {
			t.Errorf("with a mount in the tree: %v", err)
		}
	}
}

// TestTreeConform packs what was done to a tree, and goes on with the tree as that
// of the new layer.
func TestTreeConform(t *testing.T) {
	needRoot(t)
	for _, adopt := range []bool{true, false} {
		t.Run(fmt.Sprint("adopt=", adopt), func(t *testing.T) {
			s := newTarStore(t)
			n := 0
			var last *testTree
			write := func(tb testing.TB, tars []string) (string, func() string) {
				layers := s.layers(tb, tars)
				if n++; last == nil || !adopt {
					last = newTestTree(tb, s.Store, layers, filepath.Join(s.Dir(), fmt.Sprint("copy", n)), nil)
				} else {
					next := openTestTree(tb, s.Store, layers, last.dir)
					immutable(filepath.Join(last.dir, firstEntry(tb, last.dir)))
					must(tb, next.withBin(func(bin func() (*os.File, error)) error { return next.Adopt(context.Background(), nil, bin) }))
					next.settle()
					last = next
				}
				tree := last
				return tree.dir, func() string {
					staged, err := tree.Pack(context.Background(), nil)
					must(tb, err)
					must(tb, staged.Publish())
					d := staged.Digest()
					must(tb, staged.Close())
					return s.BlobPath(d)
				}
			}
			treetest.ConformWriting(t, write, s.mounter(EROFS))
		})
	}
}

// FuzzDecodeManifest: whatever it is given, it gives an error or what can be written again.
func FuzzDecodeManifest(f *testing.F) {
	m := newManifest()
	m.root = stamp{2, 3}
	m.dirs[7] = []stamp{{1, -1}, {}}
	m.dirs[9] = nil
	f.Add(m.Encode())
	f.Add([]byte(manifestFormat))
	f.Add(append(m.Encode(), make([]byte, 16)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeManifest(b)
		if err != nil {
			return
		}
		again, err := DecodeManifest(m.Encode())
		if err != nil || len(again.dirs) != len(m.dirs) || again.root != m.root {
			t.Errorf("%v: %+v", err, again)
		}
	})
}

func firstEntry(tb testing.TB, dir string) string {
	tb.Helper()
	entries, err := os.ReadDir(dir)
	must(tb, err)
	return entries[0].Name()
}
