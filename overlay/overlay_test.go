package overlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/overlay/treetest"
)

func TestRoundTrip(t *testing.T) {
	needRoot(t)
	for seed := range uint64(2) {
		src := t.TempDir()
		treetest.Make(t, src, seed, treetest.Options{Entries: 200})
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
			treetest.Make(t, src, 3, treetest.Options{Entries: 150})
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
				eachWay(t, func(t *testing.T, other Backend) {
					if i == 0 && other != b {
						return
					}
					withMount(t, s, layers, Options{Backend: other}, func(dir string) {
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

// TestStoreOnOverlay mounts a container of a store that is itself on overlayfs: the kernel
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
	defer func() {
		// The kernel lets go of a loop device's file a moment after the device.
		err := unix.Unmount(merged, 0)
		for i := 0; errors.Is(err, unix.EBUSY) && i < 100; i++ {
			time.Sleep(20 * time.Millisecond)
			err = unix.Unmount(merged, 0)
		}
		must(t, err)
	}()
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

// TestStoreOnTmpfs mounts from a filesystem that EROFS cannot read files of.
func TestStoreOnTmpfs(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	defer func() { must(t, unix.Unmount(dir, 0)) }()
	s := newStoreAt(t, filepath.Join(dir, "store"))
	layers := []Layer{fileLayer(t, s, 1), fileLayer(t, s, 2)}
	withMount(t, s, layers, Options{Backend: EROFS}, func(dir string) {
		if got, err := os.ReadFile(filepath.Join(dir, "last")); err != nil || string(got) != "layer 2\n" {
			t.Errorf("read file: %q, %v", got, err)
		}
	})
	// The devices are freed at the end of the last close, in the background.
	deadline := time.Now().Add(2 * time.Second)
	for loopsOf(dir) > 0 && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	if n := loopsOf(dir); n > 0 {
		t.Errorf("%d loop devices are left", n)
	}
}

func loopsOf(dir string) (n int) {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(b), dir) {
			n++
		}
	}
	return n
}

// TestOneMount checks that a container is one mount, with the source asked for, that
// nothing is to be seen before it is attached, and that it goes with one unmount.
func TestOneMount(t *testing.T) {
	needRoot(t)
	s := newStore(t)
	layers := []Layer{fileLayer(t, s, 1), fileLayer(t, s, 2), fileLayer(t, s, 3)}
	table := func() []string {
		b, err := os.ReadFile("/proc/thread-self/mountinfo")
		must(t, err)
		var mine []string
		for line := range strings.SplitSeq(string(b), "\n") {
			if strings.Contains(line, "plash-77") || strings.Contains(line, s.Dir()) {
				mine = append(mine, line)
			}
		}
		return mine
	}
	eachWay(t, func(t *testing.T, b Backend) {
		upper, work := upperDirs(t, s, layers)
		o := Options{Backend: b, Upper: upper, Work: work, Source: "plash-77"}
		m, err := Open(context.Background(), s, layers, o)
		must(t, err)
		if mounts := table(); len(mounts) != 0 {
			t.Errorf("before it is attached: %q", mounts)
		}
		must(t, m.Close())
		withMount(t, s, layers, o, func(dir string) {
			mounts := table()
			if len(mounts) != 1 || !strings.Contains(mounts[0], " "+dir+" ") ||
				!strings.Contains(mounts[0], "overlay plash-77 ") || !strings.Contains(mounts[0], "upperdir="+upper) {
				t.Errorf("mount table has %q", mounts)
			}
		})
		if mounts := table(); len(mounts) != 0 {
			t.Errorf("after unmounting: %q", mounts)
		}
	})
}

// TestUpperIsSelfContained does what makes overlayfs note references to lower layers
// where it is allowed to.
func TestUpperIsSelfContained(t *testing.T) {
	needRoot(t)
	s := newStore(t)
	src := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(src, "dir", "sub"), 0o755))
	must(t, os.WriteFile(filepath.Join(src, "file"), make([]byte, 9000), 0o644))
	layers := []Layer{packLayer(t, s, src, false)}
	eachWay(t, func(t *testing.T, b Backend) {
		upper, work := upperDirs(t, s, layers)
		withMount(t, s, layers, Options{Backend: b, Upper: upper, Work: work}, func(dir string) {
			err := os.Rename(filepath.Join(dir, "dir"), filepath.Join(dir, "moved"))
			if !errors.Is(err, unix.EXDEV) {
				t.Errorf("renaming a directory of a layer: %v", err)
			}
			must(t, os.Chmod(filepath.Join(dir, "file"), 0o600))
		})
		wantMembers(t, packBytes(t, upper, PackOptions{Upper: true}), "./", "file")
	})
}

func TestPrepareUpper(t *testing.T) {
	needRoot(t)
	s := newStore(t)
	src := t.TempDir()
	must(t, os.Chown(src, 7, 8))
	must(t, os.Chmod(src, 0o751|os.ModeSticky))
	must(t, unix.Setxattr(src, "user.x", []byte("y"), 0))
	must(t, os.Chtimes(src, time.Time{}, time.Unix(1234567890, 123456789)))
	layers := []Layer{packLayer(t, s, src, false), fileLayer(t, s, 1)} // the latter says nothing of "./"
	upper, _ := upperDirs(t, s, layers)
	same(t, "prepared upper directory", dump(t, src), dump(t, upper))
	upper, _ = upperDirs(t, s, nil)
	if got := dump(t, upper); got != "\".\" 040755 0:0 0.000000000\n" {
		t.Errorf("upper directory of container 0 is %s", got)
	}
}

func TestOpenErrors(t *testing.T) {
	needRoot(t)
	s := newStore(t)
	layers := []Layer{fileLayer(t, s, 1)}
	ctx := context.Background()
	dir := t.TempDir()
	for _, b := range []Backend{EROFS, Unpack} {
		_, err := Open(ctx, s, []Layer{{Digest: digest.FromString("none")}}, Options{Backend: b})
		if !errors.Is(err, cas.ErrNotExist) || errors.Is(err, ErrUnsupported) {
			t.Errorf("layer that is not there: %v", err)
		}
		o := Options{Backend: b, Upper: filepath.Join(dir, "no-upper"), Work: dir}
		if _, err := Open(ctx, s, layers, o); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "no-upper") {
			t.Errorf("upper directory that is not there: %v", err)
		}
		if _, err := Open(ctx, s, layers, Options{Backend: b, Upper: dir}); err == nil {
			t.Error("upper directory without a work directory is taken")
		}
		o = Options{Backend: b, Upper: "/proc/sys", Work: "/proc/bus"}
		// Another backend would not help.
		if _, err := Open(ctx, s, layers, o); !errors.Is(err, ErrUpper) || !errors.Is(err, unix.EINVAL) || errors.Is(err, ErrUnsupported) {
			t.Errorf("upper directory where none can be: %v", err)
		}
	}
	if _, err := Open(ctx, s, layers, Options{Backend: "fuse"}); err == nil {
		t.Error("a backend that is none is taken")
	}
	// The blob is gone: the index alone is not enough, and that is not the kernel's fault.
	must(t, os.Remove(s.BlobPath(layers[0].Digest)))
	_, err := Open(ctx, s, layers, Options{Backend: EROFS})
	if !errors.Is(err, os.ErrNotExist) || errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "mount index") {
		t.Errorf("blob that is not there: %v", err)
	}
}

func TestUnsupported(t *testing.T) {
	for _, e := range []error{unix.ENODEV, unix.ENOSYS, unix.EINVAL, unix.EPERM, unix.ENOTBLK} {
		if err := classify(fmt.Errorf("mount: %w", e)); !errors.Is(err, ErrUnsupported) || !errors.Is(err, e) {
			t.Errorf("%v is classified as %v", e, err)
		}
	}
	for _, e := range []error{unix.ENOSPC, unix.EIO, unix.ENOENT, unix.EMFILE, nil} {
		if err := classify(e); errors.Is(err, ErrUnsupported) {
			t.Errorf("%v is classified as %v", e, err)
		}
	}
	if _, err := newFSContext("no-such-filesystem").mount(0); !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EPERM) {
		t.Errorf("filesystem that does not exist: %v", err)
	}
}

// TestOtherNamespace mounts from a thread with a mount namespace of its own, with an
// upper directory that only is there.
func TestOtherNamespace(t *testing.T) {
	needRoot(t)
	s := newStore(t)
	layers := []Layer{fileLayer(t, s, 1)}
	dir := t.TempDir()
	eachWay(t, func(t *testing.T, b Backend) {
		must(t, inPrivateNamespace(func() error {
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
				return err
			}
			o := Options{Backend: b, Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work")}
			if err := errors.Join(os.Mkdir(o.Upper, 0o755), os.Mkdir(o.Work, 0o755)); err != nil {
				return err
			}
			m, err := Open(context.Background(), s, layers, o)
			if err != nil {
				return err
			}
			if err := m.AttachTo(dir); err != nil {
				return err
			}
			_, err = os.ReadFile(filepath.Join(dir, "last"))
			return errors.Join(err, os.WriteFile(filepath.Join(dir, "new"), nil, 0o644), m.Close())
		}))
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
			t.Errorf("outside of the namespace there is %v, %v", entries, err)
		}
	})
}
