package copytree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/overlay"
	"github.com/ihucos/plash/overlay/treetest"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// newStore makes a store with a layer of a random tree, and gives the tree's dump.
func newStore(tb testing.TB, dir string) (s *cas.Store, layers []digest.Digest, dump string) {
	tb.Helper()
	return newStoreWith(tb, dir, treetest.Options{Entries: 200, Plain: os.Geteuid() != 0})
}

func newStoreWith(tb testing.TB, dir string, o treetest.Options) (s *cas.Store, layers []digest.Digest, dump string) {
	tb.Helper()
	must(tb, cas.Init(dir))
	s, err := cas.Open(dir)
	must(tb, err)
	src := filepath.Join(tb.TempDir(), "src")
	must(tb, os.Mkdir(src, 0o755))
	treetest.Make(tb, src, 1, o)
	must(tb, os.RemoveAll(filepath.Join(src, "long symlink"))) // xfs has shorter ones
	dump, err = treetest.Dump(src)
	must(tb, err)
	return s, []digest.Digest{addLayer(tb, s, nil, src)}, dump
}

func addLayer(tb testing.TB, s *cas.Store, below []digest.Digest, src string) digest.Digest {
	tb.Helper()
	f, err := os.Open(src)
	must(tb, err)
	defer f.Close()
	var layers []overlay.Layer
	for _, d := range below {
		layers = append(layers, overlay.Layer{Digest: d})
	}
	staged, err := overlay.PackContent(tb.Context(), s, layers, f)
	must(tb, err)
	must(tb, staged.Publish())
	must(tb, staged.Close())
	return staged.Digest()
}

func take(tb testing.TB, s *cas.Store, layers []digest.Digest) *Copy {
	tb.Helper()
	c, err := Take(tb.Context(), s, layers)
	must(tb, err)
	return c
}

func same(tb testing.TB, c *Copy, want string) {
	tb.Helper()
	got, err := treetest.Dump(c.Dir())
	must(tb, err)
	if diff := treetest.Diff(want, got); diff != "" {
		tb.Errorf("%s differs:\n%s", c.Dir(), diff)
	}
}

func copies(tb testing.TB, s *cas.Store) []string {
	tb.Helper()
	dirs, err := list(s, "")
	must(tb, err)
	scratch, err := os.ReadDir(filepath.Join(s.Dir(), "scratch"))
	must(tb, err)
	if len(scratch) > 0 {
		tb.Errorf("scratch is left: %v", scratch)
	}
	return dirs
}

func TestTake(t *testing.T) {
	s, layers, want := newStore(t, filepath.Join(t.TempDir(), "store"))
	a := take(t, s, layers)
	same(t, a, want)
	b := take(t, s, layers)
	same(t, b, want)
	if a.Dir() == b.Dir() {
		t.Fatal("a copy was given twice")
	}
	must(t, os.WriteFile(filepath.Join(a.Dir(), "new"), nil, 0o644))
	first := a.Dir()
	must(t, a.Close())
	a = take(t, s, layers)
	same(t, a, want)
	if a.Dir() != first {
		t.Error("a free copy was not used again")
	}
	must(t, a.Close())
	must(t, b.Close())
	if n := len(copies(t, s)); n != 2 {
		t.Errorf("%d copies", n)
	}
	freed, err := RemoveIdle(s)
	if err != nil || freed == 0 || len(copies(t, s)) != 0 {
		t.Errorf("%d bytes freed, %v", freed, err)
	}
}

// TestInhabited wants a copy that a process is in to be left to it.
func TestInhabited(t *testing.T) {
	s, layers, want := newStore(t, filepath.Join(t.TempDir(), "store"))
	for _, how := range []string{"cwd", "root"} {
		if how == "root" && os.Geteuid() != 0 {
			continue
		}
		c := take(t, s, layers)
		dir := c.Dir()
		stop := liveIn(t, dir, how)
		must(t, c.Close())
		other := take(t, s, layers)
		if other.Dir() == dir {
			t.Errorf("%s: an inhabited copy was given away", how)
		}
		same(t, other, want)
		must(t, other.Close())
		if _, err := RemoveIdle(s); err != nil || !slices.Equal(copies(t, s), []string{filepath.Dir(dir)}) {
			t.Errorf("%s: copies are %v, %v", how, copies(t, s), err)
		}
		stop()
		c = take(t, s, layers)
		if c.Dir() != dir {
			t.Errorf("%s: the copy is not free again", how)
		}
		must(t, c.Close())
	}
}

// liveIn starts a process that has its working directory, or its root, in a directory.
func liveIn(t *testing.T, dir, how string) (stop func()) {
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe, "live-in", how, dir)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	_, err = out.Read(make([]byte, 1))
	must(t, err)
	return func() {
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // killed
	}
}

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "live-in" {
		err := os.Chdir(os.Args[3])
		if os.Args[2] == "root" {
			err = errors.Join(unix.Chroot("."), unix.Chdir("/"))
		}
		if err != nil {
			os.Exit(1)
		}
		os.Stdout.Write([]byte("x"))
		time.Sleep(time.Hour)
	}
	os.Exit(m.Run())
}

// TestHidden: processes that may not be looked at are taken for inhabitants if they are
// younger than the last taking, and of our pid namespace.
func TestHidden(t *testing.T) {
	s, layers, _ := newStore(t, filepath.Join(t.TempDir(), "store"))
	c := take(t, s, layers)
	namespace, since := c.signature()
	if namespace != pidNamespace() || since == 0 {
		t.Fatalf("signed by %d at %d", namespace, since)
	}
	for start, want := range map[uint64]bool{since - 1: false, since: true, since + 1: true} {
		if got := (&inhabitants{known: true, hidden: []uint64{start}}).of(c); got != want {
			t.Errorf("a process of %d in a copy of %d: %v", start, since, got)
		}
	}
	_, err := c.lock.WriteAt(fmt.Appendf(nil, "%20d %20d\n", namespace+1, since), 0)
	must(t, err)
	if (&inhabitants{known: true, hidden: []uint64{since + 1}}).of(c) {
		t.Error("a process of our namespace in a copy of another one")
	}
	must(t, c.lock.Truncate(0))
	if !(&inhabitants{known: true, hidden: []uint64{1}}).of(c) {
		t.Error("nobody has signed, so it may be anyone")
	}
	must(t, c.Close())
}

// TestAtOnce has many take copies, change them, and give them back.
func TestAtOnce(t *testing.T) {
	s, layers, want := newStore(t, filepath.Join(t.TempDir(), "store"))
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			for j := range 4 {
				c, err := Take(context.Background(), s, layers)
				if err != nil {
					t.Error(err)
					return
				}
				same(t, c, want)
				if err := os.WriteFile(filepath.Join(c.Dir(), fmt.Sprint("file", i, j)), nil, 0o644); err != nil {
					t.Error(err)
				}
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(copies(t, s)); n > 10 {
		t.Errorf("%d copies for ten at once", n)
	}
}

// TestBecome goes on with a copy as that of the next layer.
func TestBecome(t *testing.T) {
	s, layers, _ := newStore(t, filepath.Join(t.TempDir(), "store"))
	c := take(t, s, layers)
	ino := inode(t, c.Dir())
	for i := range 5 {
		must(t, os.WriteFile(filepath.Join(c.Dir(), fmt.Sprint("new", i)), []byte("x"), 0o644))
		must(t, os.MkdirAll(filepath.Join(c.Dir(), "without/x"), 0o755))
		staged, err := c.Tree().Pack(t.Context(), []string{"without"})
		must(t, err)
		must(t, staged.Publish())
		must(t, c.Become(staged.Digest(), []string{"without"}))
		must(t, c.Close())
		layers = append(layers, staged.Digest())
		must(t, staged.Close())
		c = take(t, s, layers)
		if inode(t, c.Dir()) != ino {
			t.Error("it is another copy")
		}
		if _, err := os.Lstat(filepath.Join(c.Dir(), "without")); err == nil {
			t.Error("what was not packed is there")
		}
	}
	got, err := treetest.Dump(c.Dir())
	must(t, err)
	must(t, c.Close())
	_, err = RemoveIdle(s)
	must(t, err)
	c = take(t, s, layers)
	same(t, c, got)
	must(t, c.Close())
}

func inode(tb testing.TB, path string) uint64 {
	var st unix.Stat_t
	must(tb, unix.Lstat(path, &st))
	return st.Ino
}

// TestCollect removes copies of chains that are gone, and those of other boots.
func TestCollect(t *testing.T) {
	s, layers, _ := newStore(t, filepath.Join(t.TempDir(), "store"))
	must(t, take(t, s, layers).Close())
	keep := map[digest.Digest]bool{cas.ChainID(layers): true}
	if _, err := Collect(s, nil, keep); err != nil || len(copies(t, s)) != 1 {
		t.Errorf("a copy that is needed: %v, %v", copies(t, s), err)
	}
	c := take(t, s, layers)
	if _, err := Collect(s, nil, nil); err != nil || len(copies(t, s)) != 1 {
		t.Errorf("a copy that is taken: %v, %v", copies(t, s), err)
	}
	must(t, writeManifest(c.dir, header{Boot: "other", Chain: chainName(cas.ChainID(layers))}, c.tree.Manifest()))
	must(t, c.Close())
	if _, err := Collect(s, nil, keep); err != nil || len(copies(t, s)) != 0 {
		t.Errorf("a copy of another boot: %v, %v", copies(t, s), err)
	}
}

// TestDamaged wants a copy whose manifest is of no use to be replaced.
func TestDamaged(t *testing.T) {
	s, layers, want := newStore(t, filepath.Join(t.TempDir(), "store"))
	for _, text := range []string{"", "x", "{}\n", "{}\nstamps", strings.Repeat("\x00", 100)} {
		c := take(t, s, layers)
		must(t, os.WriteFile(filepath.Join(c.dir, manifestFile), []byte(text), 0o600))
		must(t, os.WriteFile(filepath.Join(c.Dir(), "wrong"), nil, 0o600))
		must(t, c.Close())
	}
	c := take(t, s, layers)
	same(t, c, want)
	must(t, c.Close())
	if n := len(copies(t, s)); n != 1 {
		t.Errorf("%d copies", n)
	}
}

// TestFilesystems uses copies again on filesystems that tell of all changes, and files
// share blocks where they can.
func TestFilesystems(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, c := range []struct {
		name  string
		mount func(t *testing.T, at string)
	}{
		{"tmpfs", func(t *testing.T, at string) { must(t, unix.Mount("tmpfs", at, "tmpfs", 0, "")) }},
		{"overlayfs on tmpfs", overlayMount},
		{"btrfs", loopMount("mkfs.btrfs", "-q")},
		{"xfs", loopMount("mkfs.xfs", "-q", "-m", "reflink=1")},
		{"ext4 of seconds", loopMount("mkfs.ext4", "-q", "-I", "128", "-b", "4096")},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := t.TempDir()
			c.mount(t, at)
			defer func() { must(t, unix.Unmount(at, 0)) }()
			// Not all have devices of all numbers and attributes of all lengths.
			s, layers, want := newStoreWith(t, filepath.Join(at, "store"), treetest.Options{Entries: 100, Plain: true})
			if c.name == "ext4 of seconds" {
				want = "" // it cannot keep the times
			}
			a, b := take(t, s, layers), take(t, s, layers)
			if want != "" {
				same(t, a, want)
				same(t, b, want)
			}
			dir := a.Dir()
			for range 3 {
				must(t, os.WriteFile(filepath.Join(a.Dir(), "wrong"), nil, 0o600))
				secretly(t, a.Dir())
				must(t, a.Close())
				a = take(t, s, layers)
				if want != "" {
					same(t, a, want)
				}
				if _, err := os.Lstat(filepath.Join(a.Dir(), "wrong")); err == nil {
					t.Error("what was done to it is left")
				}
				if a.Dir() != dir {
					t.Error("it was not used again")
				}
			}
			must(t, errors.Join(a.Close(), b.Close()))
		})
	}
}

// overlayMount mounts an overlayfs over two filesystems.
func overlayMount(t *testing.T, at string) {
	lower, upper := t.TempDir(), t.TempDir()
	must(t, unix.Mount("tmpfs", upper, "tmpfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(upper, 0)) })
	must(t, os.Mkdir(upper+"/u", 0o755))
	must(t, os.Mkdir(upper+"/w", 0o755))
	must(t, unix.Mount("overlay", at, "overlay", 0, "lowerdir="+lower+",upperdir="+upper+"/u,workdir="+upper+"/w"))
}

// secretly changes a file through memory that was read before, in a way that tmpfs does
// not tell of.
func secretly(t *testing.T, dir string) {
	var path string
	must(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if fi, e := d.Info(); err == nil && e == nil && fi.Mode().IsRegular() && fi.Size() > 4000 {
			path = p
		}
		return err
	}))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	mem, err := unix.Mmap(int(f.Fd()), 0, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	read := mem[0]
	mem[0] = read + 1
	must(t, unix.Munmap(mem))
}

// TestNoSpace has idle copies go where there is no room for a new one.
func TestNoSpace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	at := t.TempDir()
	must(t, unix.Mount("tmpfs", at, "tmpfs", 0, "size=16m"))
	defer func() { must(t, unix.Unmount(at, 0)) }()
	s, layers, _ := newStore(t, filepath.Join(at, "store"))
	src := t.TempDir()
	for i := range 8 {
		must(t, os.WriteFile(filepath.Join(src, fmt.Sprint("file", i)), nil, 0o644))
		layers = append(layers, addLayer(t, s, layers, src))
		must(t, take(t, s, layers).Close())
	}
	if n := len(copies(t, s)); n == 8 {
		t.Error("there was room for all copies: nothing was tried")
	}
	var taken []*Copy
	for {
		c, err := Take(t.Context(), s, layers)
		if err != nil {
			if !errors.Is(err, unix.ENOSPC) {
				t.Error(err)
			}
			break
		}
		taken = append(taken, c)
	}
	if len(taken) == 0 {
		t.Error("no copy, though none was taken")
	}
	for _, c := range taken {
		must(t, c.Close())
	}
	copies(t, s) // nothing is left in scratch
}

// loopMount mounts a new filesystem in a file.
func loopMount(mkfs string, args ...string) func(t *testing.T, at string) {
	return func(t *testing.T, at string) {
		if _, err := exec.LookPath(mkfs); err != nil {
			t.Skip(err)
		}
		img := filepath.Join(t.TempDir(), "img")
		must(t, os.WriteFile(img, nil, 0o600))
		must(t, os.Truncate(img, 400<<20))
		for _, cmd := range [][]string{append(append([]string{mkfs}, args...), img), {"mount", "-o", "loop", img, at}} {
			if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
				t.Skipf("%v: %v: %s", cmd, err, out)
			}
		}
	}
}
