// Package roundtrip has images go from plash, as it is installed, into other programs and back:
// Docker, Podman, Buildah, skopeo, umoci, runc and Debian's registry, as they are. What comes out anywhere is held against what
// went in, by its tree or byte for byte.
package roundtrip

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/ihucos/plash/mountfd/leftover"
)

func TestMain(m *testing.M) { os.Exit(leftover.Main(m)) }

// install installs plash, once, as its Makefile does, and returns where its programs are.
var install = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "installed")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	cmd := exec.Command("make", "-C", "../../..", "install", "PREFIX="+dir, "PLASH="+filepath.Join(dir, "plash"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("make install: %w: %s", err, out)
	}
	return filepath.Join(dir, "bin"), nil
})

// needs skips the test unless it is root's and programs are there.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("starts engines of containers, by root")
	}
	for _, program := range append(programs, "make") {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
}
