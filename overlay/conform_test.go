package overlay

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/overlay/treetest"
)

// A tarStore has layers by the paths of their tars.
type tarStore struct {
	*cas.Store
	stored map[string]Layer
}

func newTarStore(tb testing.TB) *tarStore {
	tb.Helper()
	return &tarStore{newStore(tb), map[string]Layer{}}
}

func (s *tarStore) layers(tb testing.TB, tars []string) []Layer {
	tb.Helper()
	layers := make([]Layer, len(tars))
	for i, tar := range tars {
		if _, ok := s.stored[tar]; !ok {
			s.stored[tar] = Layer{Digest: ingest(tb, s.Store, func(w io.Writer) error {
				f, err := os.Open(tar)
				if err != nil {
					return err
				}
				defer f.Close()
				_, err = io.Copy(w, f)
				return err
			})}
		}
		layers[i] = s.stored[tar]
	}
	return layers
}

// mount attaches a container until tb's cleanup, or until what it returns is called.
func (s *tarStore) mount(tb testing.TB, layers []Layer, o Options) (dir string, unmount func()) {
	tb.Helper()
	m, err := Open(context.Background(), s.Store, layers, o)
	must(tb, err)
	dir = tb.TempDir()
	must(tb, m.AttachTo(dir))
	must(tb, m.Close())
	mounted := true
	unmount = func() {
		if mounted {
			must(tb, unix.Unmount(dir, 0))
		}
		mounted = false
	}
	tb.Cleanup(unmount)
	return dir, unmount
}

func (s *tarStore) mounter(b Backend) treetest.Mounter {
	return func(tb testing.TB, tars []string) string {
		dir, _ := s.mount(tb, s.layers(tb, tars), Options{Backend: b})
		return dir
	}
}

func (s *tarStore) writer(b Backend) treetest.Writer {
	return func(tb testing.TB, tars []string) (string, func() string) {
		layers := s.layers(tb, tars)
		upper, work := upperDirs(tb, s.Store, layers)
		dir, unmount := s.mount(tb, layers, Options{Backend: b, Upper: upper, Work: work})
		return dir, func() string {
			unmount()
			tar := filepath.Join(tb.TempDir(), "layer.tar")
			must(tb, os.WriteFile(tar, packBytes(tb, upper, PackOptions{Upper: true}), 0o600))
			layer := s.layers(tb, []string{tar})[0]
			layer.Packed = true
			s.stored[tar] = layer
			return tar
		}
	}
}

// TestConform holds all ways of mounting against what layers have to look like.
func TestConform(t *testing.T) {
	needRoot(t)
	suite := treetest.NewSuite(t)
	s := newTarStore(t)
	eachWay(t, func(t *testing.T, b Backend) { suite.Run(t, s.mounter(b)) })
}

func TestConformWriting(t *testing.T) {
	needRoot(t)
	for _, b := range []Backend{EROFS, Unpack} {
		t.Run(string(b), func(t *testing.T) {
			s := newTarStore(t)
			treetest.ConformWriting(t, s.writer(b), s.mounter(b))
		})
	}
}
