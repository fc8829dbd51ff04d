package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ihucos/plash/runtime/hosttest"
)

// machine is a store of its own for tests that run the program in many processes.
type machine struct {
	t    testing.TB
	work string
	env  []string
	bin  string          // where the programs are; empty for the tests' own
	user *hosttest.Login // who runs them, if it is not root
}

func newMachine(t testing.TB, images images) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	m := &machine{t: t, env: append(os.Environ(), "PLASH_LXC_SERVER="+images.server)}
	m.setWork(t.TempDir())
	return m
}

// setWork makes a directory the one that the machine's store is in, and in which nothing
// may be left.
func (m *machine) setWork(dir string) {
	m.work = dir
	m.env = append(m.env, "WORK="+dir, "PLASH_DATA="+filepath.Join(dir, "store"))
	m.t.Cleanup(func() {
		if err := leftOver(dir); err != nil {
			m.t.Error(err)
		}
	})
}

func (m *machine) command(name string, args ...string) (*exec.Cmd, *bytes.Buffer, *bytes.Buffer) {
	cmd := exec.Command(filepath.Join(m.bin, name), args...)
	var stdout, stderr bytes.Buffer
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = m.env, m.work, &stdout, &stderr
	m.as(cmd)
	return cmd, &stdout, &stderr
}

// as has the machine's user run a command.
func (m *machine) as(cmd *exec.Cmd) {
	if m.user != nil {
		m.user.Become(cmd)
	}
}

// login gives the machine, which has nothing yet, to a plain user.
func (m *machine) login(name string) {
	m.t.Helper()
	l, err := hosttest.LogIn(name)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := os.Remove(m.work); err != nil {
		m.t.Fatal(err)
	}
	m.user = l
	m.t.Cleanup(func() {
		if err := os.RemoveAll(l.Dir); err != nil {
			m.t.Error(err)
		}
	})
	m.setWork(l.Dir)
	m.env = append(m.env, "HOME="+l.Dir, "TMPDIR="+l.Dir)
}

// run runs a command and returns what it printed, or an error with what it said.
func (m *machine) run(name string, args ...string) (string, error) {
	cmd, stdout, stderr := m.command(name, args...)
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, stderr)
	}
	return strings.TrimSpace(stdout.String()), nil
}

func (m *machine) must(name string, args ...string) string {
	m.t.Helper()
	out, err := m.run(name, args...)
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

// TestManyAtOnce has 50 runs and 10 builds, five of them of the same layer, work on
// one store at the same time.
func TestManyAtOnce(t *testing.T) {
	m := newMachine(t, serveImages(t))
	base := m.must("plash-import", "alpine")
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			out, err := m.run("plash-run", base, "sh", "-c", fmt.Sprintf("echo %d > /mine; sleep 0.2; cat /mine", i))
			if err != nil || out != fmt.Sprint(i) {
				t.Errorf("run %d: %q, %v", i, out, err)
			}
		})
	}
	ids := make([]string, 10)
	for i := range ids {
		wg.Go(func() {
			out, err := m.run("plash-build", "--image", base, "--run", fmt.Sprintf("echo %d > /built; sleep 0.1", i/2))
			if err != nil {
				t.Errorf("build %d: %v", i, err)
			}
			ids[i] = out
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for i, id := range ids {
		seen[id] = true
		if out := m.must("plash-run", id, "cat", "/built"); out != fmt.Sprint(i/2) {
			t.Errorf("build %d is %s: %q", i, id, out)
		}
	}
	if len(seen) != 5 {
		t.Errorf("five layers, each built twice at once: containers %v", ids)
	}
	m.must("plash-list")
}

// TestKilled kills plash, or a process that it has started, at a random moment of an
// import, a build or a run, a hundred times. Each time the next command finds a sound
// store and the work can be done.
func TestKilled(t *testing.T) {
	rounds := 100
	if testing.Short() {
		rounds = 15
	}
	m := newMachine(t, serveImages(t))
	base := m.must("plash-import", "alpine")
	tar := filepath.Join(m.work, "layer.tar")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	killed := 0
	for i := range rounds {
		content := fmt.Sprint(i)
		var args []string
		switch i % 3 {
		case 0:
			if err := bigTar(tar, i); err != nil {
				t.Fatal(err)
			}
			args = []string{"plash-import-tar", tar}
		case 1:
			args = []string{
				"plash-build", "--image", base, "--run", "echo " + content + " > /built",
				"--layer", "--run", "dd if=/dev/zero of=/big bs=64k count=64 2>/dev/null; (sleep 30 &)",
			}
		case 2:
			args = []string{"plash-run", base, "sh", "-c", "echo " + content + " > /mine; sleep 0.03; cat /mine"}
		}
		if m.kill(rnd, args) {
			killed++
		}
		if err := leftOver(m.work); err != nil && !strings.Contains(err.Error(), "left in scratch") {
			t.Fatalf("round %d, %s: %v", i, args[0], err)
		}
		out, err := m.run(args[0], args[1:]...)
		if err != nil {
			t.Fatalf("round %d, again: %v", i, err)
		}
		if i%3 == 2 && out != content {
			t.Fatalf("round %d: run printed %q", i, out)
		}
		if i%3 == 1 {
			if got := m.must("plash-run", out, "cat", "/built"); got != content {
				t.Fatalf("round %d: container %s holds %q", i, out, got)
			}
		}
	}
	t.Logf("%d of %d were killed before they ended", killed, rounds)
	if killed < rounds/3 {
		t.Errorf("only %d of %d were killed before they ended", killed, rounds)
	}
	m.must("plash-clean")
	m.sound()
}

// kill starts a command and kills it or one of its descendants within the time
// it takes. It reports whether that was in time.
func (m *machine) kill(rnd *rand.Rand, args []string) bool {
	cmd, _, _ := m.command(args[0], args[1:]...)
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	time.Sleep(time.Duration(rnd.IntN(60)) * time.Millisecond)
	victim := cmd.Process.Pid
	if others := descendants(victim); len(others) > 0 && rnd.IntN(2) == 0 {
		victim = others[rnd.IntN(len(others))]
	}
	if p, err := os.FindProcess(victim); err == nil {
		_ = p.Kill() // it may have ended
	}
	return cmd.Wait() != nil
}

// descendants returns the processes below one.
func descendants(pid int) []int {
	var found []int
	children, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range children {
		b, _ := os.ReadFile(file) // gone meanwhile: no children
		for f := range strings.FieldsSeq(string(b)) {
			var child int
			if _, err := fmt.Sscan(f, &child); err == nil {
				found = append(append(found, child), descendants(child)...)
			}
		}
	}
	return found
}

// bigTar makes an archive that takes a moment to import, different for each i.
func bigTar(path string, i int) error {
	dir := path + ".d"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for n := range 8 {
		body := bytes.Repeat(fmt.Appendf(nil, "%d %d\n", i, n), 1<<17)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(n)), body, 0o644); err != nil {
			return err
		}
	}
	out, err := exec.Command("tar", "-c", "-C", dir, "-f", path, ".").CombinedOutput()
	if err != nil {
		return fmt.Errorf("tar: %w: %s", err, out)
	}
	return nil
}

// sound verifies every blob against its name, and reads every container to its end.
func (m *machine) sound() {
	m.t.Helper()
	blobs, err := filepath.Glob(filepath.Join(m.work, "store", "blobs", "sha256", "*"))
	if err != nil || len(blobs) == 0 {
		m.t.Fatalf("%d blobs, %v", len(blobs), err)
	}
	for _, blob := range blobs {
		if out := m.must("sha256sum", blob); !strings.HasPrefix(out, filepath.Base(blob)) {
			m.t.Errorf("blob %s has another content: %s", blob, out)
		}
	}
	for id := range strings.FieldsSeq(m.must("plash-list", "-q")) {
		if out := m.must("sh", "-c", "plash-export-tar "+id+" - | tar -t | wc -l"); out == "0" {
			m.t.Errorf("container %s is empty", id)
		}
	}
	if out := m.must("plash-fsck"); out != "" {
		m.t.Errorf("fsck: %s", out)
	}
}
