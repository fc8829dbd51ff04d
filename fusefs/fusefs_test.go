package fusefs

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ihucos/plash/overlay/treetest"
)

// TestTree compares random trees with what their mounts show, mounted in each way.
func TestTree(t *testing.T) {
	needFUSE(t)
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			src := t.TempDir()
			treetest.Make(t, src, seed, treetest.Options{})
			s := newStore(t)
			layer := packed(t, s, src)
			want := dumpAsTar(t, src)
			for _, way := range []string{"detached", "mount2", "helper"} {
				t.Run(way, func(t *testing.T) {
					defer func() { force.mount2, force.helper = false, false }()
					force.mount2, force.helper = way == "mount2", way == "helper"
					dir := mounted(t, s, Options{Log: os.Stderr}, layer)
					same(t, "the mount", want, dump(t, dir))
					if err := os.WriteFile(filepath.Join(dir, "new"), nil, 0o644); err == nil {
						t.Error("the mount can be written to")
					}
				})
			}
		})
	}
}
