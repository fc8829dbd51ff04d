package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ihucos/plash/importexport/imageserver"
)

// backends are what PLASH_BACKEND can be, for tests of all of them.
var backends = []string{"erofs", "unpack", "fuse", "union"}

// allWorkloads is the variable that has TestWorkloads do everything on each backend: make nightly.
const allWorkloads = "PLASH_ALL_WORKLOADS"

// TestWorkloads does in a Debian what people do: what they do works, and comes out as it does on the
// kernel's overlayfs. All of it is done in the union, which is ours, and with files read from FUSE what
// depends on those; the rest is the kernel's, and done in the night.
func TestWorkloads(t *testing.T) {
	if testing.Short() {
		t.Skip("installs and compiles in a Debian root filesystem")
	}
	m := newMachine(t, images{})
	tar, err := imageserver.DebianRoot("")
	if err != nil {
		t.Fatal(err)
	}
	base := m.must("plash-import-tar", tar)
	prepared := m.must("plash-create", base, "--", "sh", "-c", downloadScript)
	all := []string{"packages", "compile", "git", "sqlite", "python"}
	if os.Getenv(allWorkloads) != "" {
		t.Run("erofs", func(t *testing.T) { newWorkload(t, m, "erofs").run(prepared, all) })
		t.Run("fuse", func(t *testing.T) { newWorkload(t, m, "fuse").run(prepared, all) })
	} else {
		t.Run("fuse", func(t *testing.T) { newWorkload(t, m, "fuse").run(prepared, []string{"packages", "git"}) })
	}
	t.Run("union", func(t *testing.T) { newWorkload(t, m, "union").run(prepared, all) })
}

// A workload is one backend's.
type workload struct {
	*machine
	backend string
}

func newWorkload(t *testing.T, m *machine, backend string) *workload {
	env := append(slices.Clone(m.env), "PLASH_BACKEND="+backend)
	return &workload{&machine{t: t, work: m.work, env: env}, backend}
}

func (w *workload) run(prepared string, names []string) {
	t := w.t.(*testing.T)
	installed := w.must("plash-create", prepared, "--", "sh", "-c", installScript)
	// Files of the layers that were made on this backend are what the rest works with.
	does := map[string]func(t *testing.T){
		"packages": func(t *testing.T) { w.wantLast(t, "verified", installed, verifyScript) },
		"compile": func(t *testing.T) {
			built := newWorkload(t, w.machine, w.backend).must("plash-create", installed, "--", "sh", "-c", inPlace+compileScript)
			w.wantLast(t, "passed", built, recompileScript)
		},
		"git": func(t *testing.T) {
			repository := newWorkload(t, w.machine, w.backend).must("plash-create", installed, "--", "sh", "-c", inPlace+commitScript)
			script := gitScript
			if w.backend == "fuse" {
				// git compares the inode numbers of links, and overlayfs on FUSE gives a link to a
				// file of a layer another one than the file had.
				script = strings.Replace(script, "clone -q .", "clone -q --no-hardlinks .", 1)
			}
			w.wantLast(t, "clean", repository, script)
		},
		"sqlite": func(t *testing.T) { w.wantLast(t, "8000|8000|ok", installed, inPlace+sqliteScript) },
		"python": func(t *testing.T) { w.python(t, installed) },
	}
	for _, name := range names {
		t.Run(name, does[name])
	}
}

// wantLast runs a script and wants its last line.
func (w *workload) wantLast(t *testing.T, want, id, script string) {
	t.Helper()
	out, err := w.machine.run("plash-run", id, "sh", "-c", "set -e; "+script)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out, "\n")
	if lines[len(lines)-1] != want {
		t.Errorf("the last lines are\n%s\nnot %q", strings.Join(lines[max(0, len(lines)-20):], "\n"), want)
	}
}

var overlayfsResults struct {
	sync.Mutex
	python map[string]string
}

// python runs tests of Python's own, and wants each to end as on overlayfs.
func (w *workload) python(t *testing.T, id string) {
	overlayfsResults.Lock()
	defer overlayfsResults.Unlock()
	if overlayfsResults.python == nil {
		results := newWorkload(t, w.machine, "erofs").pythonResults(t, id)
		for name, result := range results {
			if result == "failed" {
				t.Errorf("fails on overlayfs: %s", name)
			}
		}
		if len(results) < 1000 {
			t.Fatalf("only %d tests ran", len(results))
		}
		overlayfsResults.python = results
		if w.backend == "erofs" {
			return
		}
	}
	want := overlayfsResults.python
	got := w.pythonResults(t, id)
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("%s: %q, on overlayfs %q", name, got[name], want[name])
		}
	}
}

func (w *workload) pythonResults(t *testing.T, id string) map[string]string {
	t.Helper()
	out, err := w.machine.run("plash-run", id, "sh", "-c", "set -e; "+inPlace+"python3 -c '"+pythonScript+"' 2>log")
	if err != nil {
		t.Fatal(err)
	}
	results := map[string]string{}
	for line := range strings.SplitSeq(out, "\n") {
		if rest, ok := strings.CutPrefix(line, "RESULT "); ok {
			result, name, _ := strings.Cut(rest, " ")
			results[name] = result
		}
	}
	return results
}

// eachMounted mounts a container with each backend, one after the other.
func (m *machine) eachMounted(id string, f func(backend, dir string)) {
	env := m.env
	defer func() { m.env = env }()
	for _, backend := range backends {
		m.env = append(slices.Clone(env), "PLASH_BACKEND="+backend)
		dir := filepath.Join(m.work, "mnt")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			m.t.Fatal(err)
		}
		m.must("plash-mount", id, dir)
		f(backend, dir)
		m.must("plash-umount", dir)
	}
}
