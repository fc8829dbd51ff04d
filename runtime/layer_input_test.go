package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestLayerInput: a script finds its input, and the layer has no trace of it, on every backend.
func TestLayerInput(t *testing.T) {
	for _, backend := range append(backendsHere("build"), "copy") {
		if backend == "copy" && os.Geteuid() != 0 {
			continue // chroot is for root
		}
		t.Run("backend "+backend, func(t *testing.T) {
			w := newWorld(t)
			t.Setenv(BackendVar, backend)
			scratch, err := w.st.CAS().Scratch("test")
			if err != nil {
				t.Fatal(err)
			}
			defer scratch.Remove()
			input := filepath.Join(scratch.Path(), "input")
			for _, err := range []error{
				os.MkdirAll(input+"/dir", 0o750),
				os.WriteFile(input+"/dir/file", []byte("text "), 0o640),
				os.Symlink("file", input+"/dir/link"),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			id, _ := w.mustLayer(LayerOptions{Input: input, Script: "cp -a /.plash-input/dir /; echo back >/.plash-input/back"})
			t.Setenv(BackendVar, "")
			equal(t, "copied", w.shIn(id, RunOptions{}, "cat /dir/link; stat -c '%a %u' /dir/file /dir | xargs; ls -A / | grep plash || :"),
				// A user sees all files as his own in a run.
				fmt.Sprintf("text 640 %[1]d 750 %[1]d", os.Geteuid()))
			if b, err := os.ReadFile(input + "/back"); err != nil || string(b) != "back\n" {
				t.Errorf("what the script wrote to its input: %q, %v", b, err)
			}
			if _, _, err := w.layer(LayerOptions{Input: input, Script: "exit 1"}); err == nil {
				t.Error("a step that fails has not")
			}
			if _, err := os.Stat(input + "/dir/file"); err != nil {
				t.Error(err)
			}
		})
	}
}
