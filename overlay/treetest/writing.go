package treetest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// A Writer mounts what layers make up, to be written to. What it returns takes the
// mount away and gives the tar of what was changed in it, as the next layer.
type Writer func(tb testing.TB, layers []string) (dir string, commit func() string)

// ConformWriting changes a random tree again and again, each time in a mount of its
// layers, and wants the layers with the new one to be what was seen in the mount.
func ConformWriting(t *testing.T, write Writer, read Mounter) {
	t.Helper()
	rounds := 10
	if testing.Short() {
		rounds = 4
	}
	src := filepath.Join(t.TempDir(), "tree")
	must(t, os.Mkdir(src, 0o755))
	Make(t, src, 5, Options{Entries: 150})
	singleSpecials(t, src)
	layers := []string{src + ".tar"}
	WriteTar(t, layers[0], src, nil)
	before, err := Dump(src)
	must(t, err)
	for i := range rounds {
		dir, commit := write(t, layers)
		seen, err := Dump(dir)
		must(t, err)
		if diff := Diff(before, seen); diff != "" {
			t.Errorf("round %d, before anything is written:\n%s", i, diff)
		}
		Change(t, dir, uint64(100+i), 20)
		want, err := Dump(dir)
		must(t, err)
		layers = append(layers, commit())
		t.Run(fmt.Sprint("layers: ", len(layers)), func(t *testing.T) {
			got, err := Dump(read(t, layers))
			must(t, err)
			if diff := Diff(want, got); diff != "" {
				t.Errorf("what was written is mounted as another tree:\n%s", diff)
			}
		})
		before = want
	}
}
