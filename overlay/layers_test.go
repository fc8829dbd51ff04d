package overlay

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ihucos/plash/cas"
)

// fileLayer is a layer with a file "N" and one named "last", which the next layer
// replaces.
func fileLayer(tb testing.TB, s *cas.Store, i int) Layer {
	tb.Helper()
	d := ingest(tb, s, func(w io.Writer) error {
		tw := tar.NewWriter(w)
		content := fmt.Sprintf("layer %d\n", i)
		for _, name := range []string{fmt.Sprint(i), "last"} {
			h := tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}
			if err := tw.WriteHeader(&h); err != nil {
				return err
			}
			if _, err := io.WriteString(tw, content); err != nil {
				return err
			}
		}
		return tw.Close()
	})
	return Layer{Digest: d, Packed: true}
}

func TestThousandLayers(t *testing.T) {
	needRoot(t)
	const n, distinct = 1000, 100 // writing a thousand blobs to disk takes too long for a test
	s := newStore(t)
	layers := make([]Layer, n)
	for i := range layers {
		if i < distinct {
			layers[i] = fileLayer(t, s, i)
		} else {
			layers[i] = layers[i%distinct]
		}
	}
	start := time.Now()
	ix, err := s.Merged(context.Background(), digests(layers))
	must(t, err)
	must(t, ix.Close())
	t.Logf("merged in %v", time.Since(start))
	for _, b := range []Backend{EROFS, Unpack} {
		for _, what := range []string{"first", "second"} {
			upper, work := upperDirs(t, s, layers)
			start = time.Now()
			withMount(t, s, layers, Options{Backend: b, Upper: upper, Work: work}, func(dir string) {
				t.Logf("%s mount with %s in %v", what, b, time.Since(start))
				for _, name := range []string{"last", fmt.Sprint(distinct - 1)} {
					got, err := os.ReadFile(filepath.Join(dir, name))
					if want := fmt.Sprintf("layer %d\n", distinct-1); err != nil || string(got) != want {
						t.Errorf("%s: %s is %q, %v", b, name, got, err)
					}
				}
				entries, err := os.ReadDir(dir)
				if err != nil || len(entries) != distinct+1 {
					t.Errorf("%s: %d entries, %v", b, len(entries), err)
				}
			})
		}
	}
}
