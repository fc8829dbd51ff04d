package overlay

import (
	"context"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/overlay/treetest"
)

// TestConform holds all ways of mounting against what layers have to look like.
func TestConform(t *testing.T) {
	needRoot(t)
	suite := treetest.NewSuite(t)
	s := newStore(t)
	stored := map[string]Layer{}
	eachWay(t, func(t *testing.T, b Backend) {
		suite.Run(t, func(tb testing.TB, tars []string) string {
			layers := make([]Layer, len(tars))
			for i, tar := range tars {
				if _, ok := stored[tar]; !ok {
					stored[tar] = Layer{Digest: ingest(tb, s, func(w io.Writer) error {
						f, err := os.Open(tar)
						if err != nil {
							return err
						}
						defer f.Close()
						_, err = io.Copy(w, f)
						return err
					})}
				}
				layers[i] = stored[tar]
			}
			m, err := Open(context.Background(), s, layers, Options{Backend: b})
			must(tb, err)
			dir := tb.TempDir()
			must(tb, m.AttachTo(dir))
			must(tb, m.Close())
			tb.Cleanup(func() { must(tb, unix.Unmount(dir, 0)) })
			return dir
		})
	})
}
