package runtime

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/runtime/program"
)

// copies lists the copies of a world's store.
func (w *world) copies() []string {
	w.Helper()
	dirs, err := filepath.Glob(filepath.Join(w.dir, "copies", "*"))
	if err != nil {
		w.Fatal(err)
	}
	return dirs
}

// newCopyWorld is a world in which programs work in copies that are their root.
func newCopyWorld(t *testing.T) *world {
	t.Helper()
	needRoot(t) // chroot
	t.Setenv(BackendVar, "copy")
	return newWorld(t)
}

func TestCopyManyRuns(t *testing.T) {
	w := newCopyWorld(t)
	const script = "test ! -e /mine && echo $$ >/mine && rm /etc/passwd && chmod 700 /etc && sleep 0.1 && cat /mine"
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for range 3 {
				r := w.wait(w.command(call{Op: "run", Run: RunOptions{Argv: []string{"sh", "-c", script}}}))
				if r.code != 0 {
					t.Errorf("exit %d: %s%s", r.code, r.out, r.err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(w.copies()); n > 10 {
		t.Errorf("%d copies for ten at once", n)
	}
}

// TestCopyDaemon: a process that a run has left, and that has closed all that it
// inherited, keeps its copy, and no other run sees that.
func TestCopyDaemon(t *testing.T) {
	w := newCopyWorld(t)
	mark := fmt.Sprintf("1414%d", os.Getpid())
	start := "echo theirs >/file; " + closeAll + " setsid sleep " + mark + " </dev/null >/dev/null 2>&1 & sleep 0.1"
	w.sh(RunOptions{}, start)
	w.sh(RunOptions{}, "test ! -e /file && echo mine >/file")
	equal(t, "copies", len(w.copies()), 2)
	b, err := exec.Command("pkill", "-f", "^sleep "+mark).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	eventually(t, "end of the daemon", func() bool { return survivors("^sleep "+mark) == 0 })
	for range 3 {
		w.sh(RunOptions{}, "test ! -e /file && echo mine >/file")
	}
	equal(t, "copies", len(w.copies()), 2)
}

// closeAll closes the descriptors that shells leave alone.
const closeAll = "i=3; while [ $i -lt 300 ]; do eval \"exec $i<&-\"; i=$((i+1)); done;"

// TestCopyLayerSame: the same script makes the same layer in a copy as in a mount.
func TestCopyLayerSame(t *testing.T) {
	w := newCopyWorld(t)
	const script = `echo one >/file; mkdir -p /dir/sub; ln /file /dir/link; ln -s x /dir/sym; rm /bin/tr; chmod 600 /etc/passwd
		mkdir /opt; chown 5:6 /opt; rm -r /home/* 2>/dev/null; echo >/home/x
		find / -xdev \( -path /proc -o -path /sys -o -path /dev \) -prune -o -exec touch -h -d @1000000000 {} +`
	digests := map[string]bool{}
	for _, backend := range []string{"erofs", "copy", "proot"} {
		t.Setenv(BackendVar, backend)
		if backend == "proot" && !w.hasProot() {
			continue
		}
		staged, err := RunLayer(t.Context(), w.st, w.id, LayerOptions{Script: script, Mounts: []string{"/proc", "/dev"}, Stderr: os.Stderr})
		if err != nil {
			t.Fatal(err)
		}
		digests[staged.Digest().String()] = true
		if err := staged.Close(); err != nil {
			t.Fatal(err)
		}
	}
	equal(t, "layers", len(digests), 1)
}

// hasProot tells whether proot is there, and can run this program.
func (w *world) hasProot() bool {
	_, err := findProot(w.st.CAS())
	return err == nil
}

// TestCopyMovesOn: a step's copy is that of the next step.
func TestCopyMovesOn(t *testing.T) {
	w := newCopyWorld(t)
	id := w.id
	for i := range 5 {
		script := fmt.Sprintf("test ! -e /tmp/x && echo %d >/file%d; mkdir /tmp/x /home/x; cat /file*", i, i)
		r := w.wait(w.command(call{Op: "layer", ID: id, Layer: LayerOptions{Script: script, Mounts: []string{"/home", "/tmp"}}}))
		n, err := strconv.Atoi(strings.TrimSpace(r.out))
		if err != nil {
			t.Fatalf("%v: %s", err, r.err)
		}
		id = container.ID(n)
		equal(t, "copies", len(w.copies()), 1)
	}
	equal(t, "files", w.shIn(id, RunOptions{}, "cat /file*; ls /tmp /home"), "0\n1\n2\n3\n4\n/home:\n\n/tmp:")
	equal(t, "copies", len(w.copies()), 1)
}

// TestCopyKilled kills a step at all moments, and wants none of what it did in the copies
// that others get.
func TestCopyKilled(t *testing.T) {
	w := newCopyWorld(t)
	for i := range 20 {
		cmd := w.command(call{Op: "layer", Layer: LayerOptions{Script: "rm -r /etc; echo x >/file; sleep 0.01; echo x >/bin/new"}})
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		sleepMicroseconds(i * 3000)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		w.sh(RunOptions{}, "test ! -e /file && test ! -e /bin/new && test -e /etc/passwd")
	}
}

// TestCopyInitTold: an init without namespaces that is told to end before it knows what to run
// leaves nothing.
func TestCopyInitTold(t *testing.T) {
	needRoot(t) // chroot
	configOut, configIn, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	statusOut, statusIn, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{initName}, Env: []string{}, Stderr: os.Stderr,
		ExtraFiles: []*os.File{configOut, statusIn, root}, SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*os.File{configOut, statusIn, root} {
		f.Close()
	}
	reads := fmt.Sprintf("%d %#x ", syscall.SYS_READ, configFD)
	eventually(t, "reading of the configuration", func() bool {
		calls, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", cmd.Process.Pid)) // proc_pid_syscall(5)
		return err == nil && slices.ContainsFunc(calls, func(path string) bool {
			b, err := os.ReadFile(path)
			return err == nil && strings.HasPrefix(string(b), reads)
		})
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "arrival of the signal", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
		return err == nil && strings.Contains(string(b), "\nShdPnd:\t0000000000000000\n")
	})
	mark := fmt.Sprintf("1919%d", os.Getpid())
	err = json.NewEncoder(configIn).Encode(initConfig{
		Argv: []string{"sleep", mark}, Env: []string{"PATH=" + program.DefaultPath}, Dir: "/", Umask: -1, Guest: &guestConfig{Chroot: true},
	})
	if err = errors.Join(err, configIn.Close()); err != nil {
		t.Fatal(err)
	}
	var o outcome
	err = statusOut.SetReadDeadline(time.Now().Add(30 * time.Second))
	if err = errors.Join(err, json.NewDecoder(statusOut).Decode(&o)); err != nil {
		t.Error(err, cmd.Process.Kill())
	}
	_ = cmd.Wait() // what it tells says more
	equal(t, "outcome", o.Failure, "told to end")
	equal(t, "what is left", survivors("^sleep "+mark), 0)
}

// TestProotRun: what is different under proot, seen from outside.
func TestProotRun(t *testing.T) {
	t.Setenv(BackendVar, "proot")
	w := newWorld(t)
	if !w.hasProot() {
		t.Skip("needs the Debian package proot, and a static test binary (CGO_ENABLED=0)")
	}
	cmd := w.command(call{Op: "run", Run: RunOptions{Argv: []string{"sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done"}}})
	var out lockedBuffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "start", func() bool { return strings.Contains(out.String(), "ready") })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the code tells
	equal(t, "exit code after a signal", cmd.ProcessState.ExitCode(), 9)

	mark := fmt.Sprintf("1732%d", os.Getpid())
	cmd = w.command(call{Op: "run", Run: RunOptions{Argv: []string{"sleep", mark}}})
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "start", func() bool { return survivors("^sleep "+mark) == 1 })
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	eventually(t, "end with plash", func() bool { return survivors("^sleep "+mark) == 0 })
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
