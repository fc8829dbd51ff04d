package overlay

import (
	"os"
	"path/filepath"
	"testing"
)

// TestKept mounts a container, one that has a layer more, and the first one again with the
// same [Layers]: what both have is mounted once, and each shows what it has.
func TestKept(t *testing.T) {
	needRoot(t)
	s := newStore(t)
	layers := []Layer{fileLayer(t, s, 0), fileLayer(t, s, 1), fileLayer(t, s, 2)}
	kept := &Layers{}
	defer kept.Close()
	shown := func(layers []Layer) (fds map[int]bool) {
		t.Helper()
		upper, work := upperDirs(t, s, layers)
		withMount(t, s, layers, Options{Backend: EROFS, Kept: kept, Upper: upper, Work: work}, func(dir string) {
			names, err := filepath.Glob(filepath.Join(dir, "[0-9]"))
			must(t, err)
			if len(names) != len(layers) {
				t.Errorf("%d layers show %q", len(layers), names)
			}
			must(t, os.WriteFile(filepath.Join(dir, "more"), nil, 0o644))
		})
		fds = map[int]bool{}
		for _, m := range kept.mounts {
			fds[m.fd] = true
		}
		return fds
	}
	two, three := shown(layers[:2]), shown(layers)
	if len(two) == 0 || len(three) != len(two)+1 {
		t.Errorf("%d mounts, then %d", len(two), len(three))
	}
	for fd := range two {
		if !three[fd] {
			t.Errorf("descriptor %d of %v is not among %v: it was mounted again", fd, two, three)
		}
	}
	if again := shown(layers[:2]); len(again) != len(two) {
		t.Errorf("%d mounts, at first %d", len(again), len(two))
	}
	withMount(t, s, layers, Options{Backend: EROFS, Kept: kept}, func(dir string) {
		if _, err := os.Stat(filepath.Join(dir, "more")); err == nil {
			t.Error("what was written to an upper directory shows without it")
		}
	})
}
