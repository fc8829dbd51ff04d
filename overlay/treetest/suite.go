package treetest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// A Mounter mounts what layers make up, read-only, and returns where. Layers are the
// paths of their tars, bottom first, with OCI whiteouts; none of them changes,
// so one that has been seen need not be stored again. The mount is taken away
// at tb's cleanup.
type Mounter func(tb testing.TB, layers []string) (dir string)

// A Suite holds backends against what layers have to look like: one set of layers for
// all of them, and what each stack of them makes up.
type Suite struct {
	dir   string
	cases []suiteCase
}

type suiteCase struct {
	name   string
	layers []string
	want   string                          // dump of what they make up
	check  func(t *testing.T, root string) // looks at what dumps leave out; may be nil
	// undumped says that check is all: a dump would take too long.
	undumped bool
}

// NewSuite makes the layers, in a directory that goes with tb.
func NewSuite(tb testing.TB) *Suite {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root: layers have owners and devices")
	}
	s := &Suite{dir: tb.TempDir()}
	for seed := range uint64(2) {
		s.randomTree(tb, seed)
	}
	s.chain(tb, 20)
	s.whiteouts(tb)
	s.implied(tb)
	s.hardLinks(tb)
	s.attributes(tb)
	s.farOffsets(tb)
	s.bigDirectory(tb)
	s.manyLayers(tb)
	return s
}

// Conform runs the suite of a test that has one backend.
func Conform(t *testing.T, mount Mounter) {
	t.Helper()
	NewSuite(t).Run(t, mount)
}

// Run mounts all stacks of layers with a backend, and compares.
func (s *Suite) Run(t *testing.T, mount Mounter) {
	t.Helper()
	for _, c := range s.cases {
		t.Run(c.name, func(t *testing.T) {
			root := mount(t, c.layers)
			if !c.undumped {
				got, err := Dump(root)
				if err != nil {
					t.Fatal(err)
				}
				if diff := Diff(c.want, got); diff != "" {
					t.Errorf("%d layers are mounted as another tree:\n%s", len(c.layers), diff)
				}
			}
			consistent(t, root)
			readOnly(t, root)
			if c.check != nil {
				c.check(t, root)
			}
		})
	}
}

// path is a new path for what the suite makes.
func (s *Suite) path(format string, args ...any) string {
	return filepath.Join(s.dir, fmt.Sprintf(format, args...))
}

func (s *Suite) add(tb testing.TB, name, want string, check func(t *testing.T, root string), layers ...string) {
	tb.Helper()
	got, err := Dump(want)
	must(tb, err)
	s.cases = append(s.cases, suiteCase{name: name, layers: layers, want: got, check: check})
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatalf("make layers: %v", err)
	}
}
