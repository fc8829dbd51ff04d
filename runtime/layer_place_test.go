package runtime

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ihucos/plash/runtime/program"
)

// TestLayerOnOverlay: a store on a filesystem that cannot hold an upper directory,
// as that of a container is.
func TestLayerOnOverlay(t *testing.T) {
	w := newWorld(t, entry{name: "home", none: true})
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The store is copied into the container's own root, and used there.
	inner := *w
	inner.dir = "/inner"
	id := inner.command(call{Op: "layer", Layer: LayerOptions{Script: "echo built >/file; rm /etc/passwd; test -d /home"}}).Args
	again := inner.command(call{Op: "run", ID: 2, Run: RunOptions{Argv: []string{"sh", "-c", "cat /file; ls /etc"}}}).Args
	script := fmt.Sprintf("cp -r %s /inner && PATH=%s && %s '%s' '%s' && %s '%s' '%s'", w.dir, program.DefaultPath, exe, id[1], id[2], exe, again[1], again[2])
	o := RunOptions{Mounts: []string{"default", filepath.Dir(exe)}}
	for _, d := range []string{"/lib64", "/lib"} {
		if _, err := os.Stat(d); err == nil {
			o.Mounts = append(o.Mounts, d) // the test binary may need the dynamic loader
		}
	}
	equal(t, "built and run", w.sh(o, script), "2\nbuilt\nresolv.conf")
}

func TestLayerWithoutProc(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	cmd := w.command(call{Op: "layer", Layer: LayerOptions{Script: "true"}})
	cmd = exec.Command("unshare", append([]string{"-m", "sh", "-c", `umount -l /proc && exec "$0" "$@"`}, cmd.Args...)...)
	r := w.wait(cmd)
	equal(t, "exit code", r.code, 1)
	contains(t, "error", r.err, "find the own program: stat /proc/self/exe: no such file or directory")
}

// TestLayersAtOnce: steps of one process do not see each other's mounts.
func TestLayersAtOnce(t *testing.T) {
	w := newWorld(t)
	const n = 8
	errs := make(chan error, n)
	for i := range n {
		go func() {
			staged, err := RunLayer(t.Context(), w.st, w.id, LayerOptions{
				Script: fmt.Sprintf("set -e; echo %d >/file; sleep 0.02; test $(cat /file) = %d", i, i),
			})
			if err == nil {
				err = staged.Close()
			}
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	eventually(t, "end of all threads with a mount namespace of their own", func() bool {
		threads, _ := filepath.Glob("/proc/self/task/*/ns/mnt")
		seen := map[string]bool{}
		for _, th := range threads {
			if ns, err := os.Readlink(th); err == nil {
				seen[ns] = true
			}
		}
		return len(seen) == 1
	})
}
