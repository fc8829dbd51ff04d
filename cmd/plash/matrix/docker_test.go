package matrix

import (
	"fmt"
	"sync"
	"testing"

	"github.com/ihucos/plash/importexport/enginetest"
)

// dockerImage has the peers, too.
const dockerImage = "plash-matrix"

// openDocker gives what starts an engine for the house, once, which ends with the test. It has
// the image.
func (h *house) openDocker(t *testing.T) func() (*enginetest.Docker, error) {
	return sync.OnceValues(func() (*enginetest.Docker, error) {
		d, err := enginetest.StartDocker(h.path("docker"))
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() {
			if err := d.Stop(); err != nil {
				t.Errorf("%v: %s", err, d.Said())
			}
		})
		if out, err := d.Command("import", h.path(peersFile), dockerImage).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("docker import: %w: %s", err, out)
		}
		return d, nil
	})
}
