package overlay

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/overlay/treetest"
)

// scratchIsEmpty checks that nothing half-made is left.
func scratchIsEmpty(tb testing.TB, s *cas.Store) {
	tb.Helper()
	entries, err := os.ReadDir(filepath.Join(s.Dir(), "scratch"))
	must(tb, err)
	if len(entries) != 0 {
		tb.Errorf("left in scratch: %v", entries)
	}
}

func TestUnpackAtOnce(t *testing.T) {
	needRoot(t)
	s := newStore(t)
	src := t.TempDir()
	treetest.Make(t, src, 11, treetest.Options{Entries: 100})
	layers := []Layer{packLayer(t, s, src, false)}
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			m, err := Open(context.Background(), s, layers, Options{Backend: Unpack})
			if err != nil {
				t.Error(err)
				return
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	scratchIsEmpty(t, s)
	withMount(t, s, layers, Options{Backend: Unpack}, func(dir string) {
		same(t, "unpacked tree", dump(t, src), dump(t, dir))
	})
}

func TestUnpackNoSpace(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=3m"))
	defer func() { must(t, unix.Unmount(dir, 0)) }()
	s := newStoreAt(t, filepath.Join(dir, "store"))
	src := t.TempDir()
	must(t, os.WriteFile(filepath.Join(src, "big"), make([]byte, 2<<20), 0o644))
	layers := []Layer{packLayer(t, s, src, false)}
	_, err := Open(context.Background(), s, layers, Options{Backend: Unpack})
	if !errors.Is(err, unix.ENOSPC) || errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), `"big"`) {
		t.Errorf("error is %v", err)
	}
	scratchIsEmpty(t, s)
}

func TestUnpackCancelled(t *testing.T) {
	needRoot(t)
	s := newStore(t)
	src := t.TempDir()
	must(t, os.WriteFile(filepath.Join(src, "f"), []byte("x"), 0o644))
	layers := []Layer{packLayer(t, s, src, false)}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Open(ctx, s, layers, Options{Backend: Unpack}); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	scratchIsEmpty(t, s)
}

// TestCollectUnpacked removes what no one needs, and leaves what is mounted, in
// each way of mounting.
func TestCollectUnpacked(t *testing.T) {
	needRoot(t)
	s := newStore(t)
	layers := []Layer{fileLayer(t, s, 1), fileLayer(t, s, 2)}
	other := []Layer{fileLayer(t, s, 3)}
	none := map[digest.Digest]bool{}
	trees := func() int {
		all, err := filepath.Glob(filepath.Join(s.Dir(), "unpacked/[sc]*/*"))
		must(t, err)
		return len(all)
	}
	// A mount namespace that another test copies from this one holds on to what is
	// unmounted here for a moment.
	collect := func(keep map[digest.Digest]bool, left int) (freed int64, err error) {
		for i := 0; i == 0 || err == nil && trees() > left && i < 200; i++ {
			if i > 0 {
				time.Sleep(20 * time.Millisecond)
			}
			var n int64
			n, err = CollectUnpacked(s, keep, keep)
			freed += n
		}
		return freed, err
	}
	eachWay(t, func(t *testing.T, b Backend) {
		if b != Unpack {
			return
		}
		withMount(t, s, other, Options{Backend: b}, func(dir string) {
			if _, err := collect(none, 1); err != nil || trees() != 1 {
				t.Errorf("a mounted tree was collected: %d left, %v", trees(), err)
			}
			if b, err := os.ReadFile(filepath.Join(dir, "3")); err != nil || len(b) == 0 {
				t.Errorf("mounted file: %q, %v", b, err)
			}
		})
		upper, work := upperDirs(t, s, layers)
		withMount(t, s, layers, Options{Backend: b, Upper: upper, Work: work}, func(string) {
			if trees() != 3 {
				t.Errorf("%d trees, not 3", trees())
			}
			if _, err := collect(none, 2); err != nil || trees() != 2 {
				t.Errorf("mounted trees were collected: %d left, %v", trees(), err)
			}
		})
		keep := map[digest.Digest]bool{layers[0].Digest: true, layers[1].Digest: true}
		if n, err := collect(keep, 2); n != 0 || err != nil || trees() != 2 {
			t.Errorf("collected %d bytes of what is to be kept, %v", n, err)
		}
		if n, err := collect(none, 0); n < 8192 || err != nil || trees() != 0 {
			t.Errorf("collected %d bytes, %v; %d left", n, err, trees())
		}
		scratchIsEmpty(t, s)
	})
}
