package overlay

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/overlay/treetest"
)

func TestRoundTrip(t *testing.T) {
	needRoot(t)
	for seed := range uint64(2) {
		src := t.TempDir()
		treetest.Make(t, src, seed, treetest.Options{})
		want := dump(t, src)
		s := newStore(t)
		layers := []Layer{packLayer(t, s, src, false)}
		same(t, "the tree after packing", want, dump(t, src))
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			eachWay(t, func(t *testing.T, b Backend) {
				withMount(t, s, layers, Options{Backend: b}, func(dir string) {
					same(t, "read-only mount", want, dump(t, dir))
					if err := os.WriteFile(filepath.Join(dir, "new"), nil, 0o644); err == nil {
						t.Error("the mount without an upper directory can be written to")
					}
				})
				upper, work := upperDirs(t, s, layers)
				o := Options{Backend: b, Upper: upper, Work: work, Volatile: true, Source: "plash-1"}
				withMount(t, s, layers, o, func(dir string) {
					same(t, "writable mount", want, dump(t, dir))
				})
			})
		})
	}
}

func TestSameAsTar(t *testing.T) {
	needRoot(t)
	src, out := t.TempDir(), t.TempDir()
	treetest.Make(t, src, 7, treetest.Options{})
	cmd := exec.Command("tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-p", "-x", "-C", out)
	cmd.Stdin = strings.NewReader(string(packBytes(t, src, PackOptions{})))
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, msg)
	}
	same(t, "what tar makes of it", dump(t, src), dump(t, out))
}

// TestChain changes a container again and again, each time packing what changed,
// and compares what all layers make up with what was seen in the mount.
func TestChain(t *testing.T) {
	needRoot(t)
	for _, b := range []Backend{EROFS, Unpack} {
		t.Run(string(b), func(t *testing.T) {
			s := newStore(t)
			src := t.TempDir()
			treetest.Make(t, src, 3, treetest.Options{})
			layers := []Layer{packLayer(t, s, src, false)}
			for i := range 20 {
				upper, work := upperDirs(t, s, layers)
				o := Options{Backend: b, Upper: upper, Work: work, Volatile: true}
				var want string
				withMount(t, s, layers, o, func(dir string) {
					treetest.Change(t, dir, uint64(i), 20)
					want = dump(t, dir)
				})
				layers = append(layers, packLayer(t, s, upper, true))
				if i != 0 && i != 4 && i != 19 {
					continue
				}
				eachWay(t, func(t *testing.T, b Backend) {
					withMount(t, s, layers, Options{Backend: b}, func(dir string) {
						same(t, fmt.Sprintf("mount of %d layers", len(layers)), want, dump(t, dir))
					})
				})
				ix, err := s.Merged(context.Background(), digests(layers))
				must(t, err)
				must(t, ix.Close())
				withMount(t, s, layers, Options{Backend: EROFS}, func(dir string) {
					same(t, fmt.Sprintf("merged mount of %d layers", len(layers)), want, dump(t, dir))
				})
			}
		})
	}
}

func TestOddPaths(t *testing.T) {
	needRoot(t)
	for _, name := range []string{`a b,c:d\e"ü`, strings.Repeat("long", 60) + `,:\`} {
		base := filepath.Join(t.TempDir(), name)
		must(t, os.Mkdir(base, 0o755))
		s := newStoreAt(t, filepath.Join(base, name))
		src := t.TempDir()
		must(t, os.WriteFile(filepath.Join(src, "file"), []byte("content"), 0o644))
		layers := []Layer{packLayer(t, s, src, false)}
		below := filepath.Join(base, "be:low")
		must(t, os.MkdirAll(filepath.Join(below, "mnt"), 0o755))
		upper, work := filepath.Join(base, `up:p,e\r`), filepath.Join(base, `w\o,:`)
		must(t, os.Mkdir(upper, 0o755))
		must(t, os.Mkdir(work, 0o755))
		eachWay(t, func(t *testing.T, b Backend) {
			o := Options{Backend: b, Upper: upper, Work: work, Below: []string{below}}
			withMount(t, s, layers, o, func(dir string) {
				got, err := os.ReadFile(filepath.Join(dir, "file"))
				if err != nil || string(got) != "content" {
					t.Errorf("read file: %q, %v", got, err)
				}
				must(t, os.WriteFile(filepath.Join(dir, "mnt", "new"), nil, 0o644))
				must(t, os.Remove(filepath.Join(upper, "mnt", "new")))
			})
			must(t, os.Remove(filepath.Join(upper, "mnt")))
		})
	}
}

func TestEmptyContainer(t *testing.T) {
	needRoot(t)
	s := newStore(t)
	eachWay(t, func(t *testing.T, b Backend) {
		withMount(t, s, nil, Options{Backend: b}, func(dir string) {
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
				t.Errorf("container without layers has %v, %v", entries, err)
			}
		})
		upper, work := upperDirs(t, s, nil)
		withMount(t, s, nil, Options{Backend: b, Upper: upper, Work: work}, func(dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "new"), nil, 0o644))
			if got := dump(t, dir); !strings.HasPrefix(got, `"." 040755 0:0 `) {
				t.Errorf("root is %s", got)
			}
		})
	})
}

// TestStacked mounts a container of a store that is itself on overlayfs: the kernel
// stacks two filesystems, no more.
func TestStoreOnOverlay(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	defer func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) }()
	for _, d := range []string{"lower", "upper", "work", "merged", "up", "wk"} {
		must(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	merged := filepath.Join(dir, "merged")
	must(t, unix.Mount("overlay", merged, "overlay", 0, fmt.Sprintf(
		"lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir)))
	defer func() { must(t, unix.Unmount(merged, 0)) }()
	s := newStoreAt(t, filepath.Join(merged, "store"))
	src := t.TempDir()
	must(t, os.WriteFile(filepath.Join(src, "file"), []byte("content"), 0o644))
	layers := []Layer{packLayer(t, s, src, false)}
	for _, b := range []Backend{EROFS, Unpack} {
		o := Options{Backend: b, Upper: filepath.Join(dir, "up"), Work: filepath.Join(dir, "wk")}
		withMount(t, s, layers, o, func(dir string) {
			if got, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(got) != "content" {
				t.Errorf("%s: read file: %q, %v", b, got, err)
			}
		})
	}
}
