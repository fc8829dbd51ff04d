package fusefs

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
)

// helperName is the argument with which the test binary is started again to mount.
const helperName = "plash-test-open"

// helper mounts a layer of a store. It waits to be killed, or looks at a file if it is
// told where to attach the mount.
func helper(store, layer, dir string) int {
	err := func() error {
		s, err := cas.Open(store)
		if err != nil {
			return err
		}
		m, err := Open(context.Background(), s, []digest.Digest{digest.Digest(layer)}, Options{Source: os.Getenv("SOURCE")})
		if err != nil {
			return err
		}
		if dir == "" {
			fmt.Println("mounted")
			time.Sleep(time.Minute)
			return nil
		}
		if err := m.AttachTo(dir); err != nil {
			return err
		}
		_, err = os.ReadFile(filepath.Join(dir, "file"))
		return err
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func helperCommand(s *cas.Store, layer digest.Digest, dir string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", helperName, s.Dir(), layer.String(), dir)
	cmd.Env = append(os.Environ(), "SOURCE="+testSource())
	return cmd
}

// TestNamespace mounts in a mount namespace, and in a user namespace with one, that
// end without an unmount: the server does too.
func TestNamespace(t *testing.T) {
	needFUSE(t)
	s, layer := smallLayer(t)
	for _, attr := range []*syscall.SysProcAttr{
		{Unshareflags: unix.CLONE_NEWNS},
		{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{Size: 1}}, GidMappings: []syscall.SysProcIDMap{{Size: 1}},
		},
	} {
		cmd := helperCommand(s, layer, t.TempDir())
		cmd.SysProcAttr = attr
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		waitServers(t, 0)
	}
}

func smallLayer(t *testing.T) (*cas.Store, digest.Digest) {
	t.Helper()
	s := newStore(t)
	return s, ingest(t, s, archive(t, tar.Header{Name: "file", Size: 100_000}, tar.Header{Name: "dir/other", Size: 5}))
}

// waitServers waits until so many of the test's servers are there.
func waitServers(t *testing.T, n int) map[string]string {
	t.Helper()
	for range 200 {
		if s := servers(); len(s) == n {
			return s
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%d servers, expected %d", len(servers()), n)
	return nil
}

// TestEnd unmounts in each way: the server ends with the last use, and not before.
func TestEnd(t *testing.T) {
	needFUSE(t)
	s, layer := smallLayer(t)

	m, err := Open(context.Background(), s, []digest.Digest{layer}, Options{Source: testSource()})
	must(t, err)
	waitServers(t, 1)
	must(t, m.Close()) // never attached
	waitServers(t, 0)

	dir := mounted(t, s, Options{}, layer)
	pid := ""
	for pid = range waitServers(t, 1) {
		n, err := strconv.Atoi(pid)
		must(t, err)
		for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGHUP, unix.SIGTERM, unix.SIGQUIT, unix.SIGPIPE} {
			must(t, unix.Kill(n, sig))
		}
	}
	must(t, Check(dir))
	must(t, Unmount(dir))
	waitServers(t, 0)

	dir = mounted(t, s, Options{}, layer)
	f, err := os.Open(filepath.Join(dir, "file"))
	must(t, err)
	if err := Unmount(dir); !errors.Is(err, unix.EBUSY) {
		t.Errorf("unmount with an open file: %v", err)
	}
	must(t, unix.Unmount(dir, unix.MNT_DETACH))
	time.Sleep(50 * time.Millisecond)
	b := make([]byte, 10)
	if _, err := f.ReadAt(b, 90_000); err != nil || string(b) != "xxxxxxxxxx" {
		t.Errorf("read after a lazy unmount: %q, %v", b, err)
	}
	must(t, f.Close())
	waitServers(t, 0)
}

// TestKilled kills a server: that is told, and the mount can be taken away.
func TestKilled(t *testing.T) {
	needFUSE(t)
	s, layer := smallLayer(t)
	dir := mounted(t, s, Options{}, layer)
	for pid := range waitServers(t, 1) {
		n, err := strconv.Atoi(pid)
		must(t, err)
		must(t, unix.Kill(n, unix.SIGKILL))
	}
	waitServers(t, 0)
	if _, err := os.Stat(filepath.Join(dir, "file")); !errors.Is(err, unix.ENOTCONN) && !errors.Is(err, unix.ECONNABORTED) {
		t.Errorf("stat without a server: %v", err)
	}
	if err := Check(dir); !errors.Is(err, ErrServer) {
		t.Errorf("check: %v", err)
	}
	if err := Unmount(dir); !errors.Is(err, ErrServer) {
		t.Errorf("unmount: %v", err)
	}
	if _, err := os.ReadDir(dir); err != nil {
		t.Errorf("the mount is still there: %v", err)
	}
}

// TestParentKilled kills who mounts at many moments. Nothing is left.
func TestParentKilled(t *testing.T) {
	needFUSE(t)
	s, layer := smallLayer(t)
	n := 60
	if testing.Short() {
		n = 15
	}
	for i := range n {
		cmd := helperCommand(s, layer, "")
		must(t, cmd.Start())
		time.Sleep(time.Duration(i) * 400 * time.Microsecond)
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // killed
	}
	waitServers(t, 0)
}

// TestPipe mounts in a process whose output is read to the end: the server does not
// hold it open, nor what else was inherited.
func TestPipe(t *testing.T) {
	needFUSE(t)
	s, layer := smallLayer(t)
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	cmd := helperCommand(s, layer, "")
	cmd.ExtraFiles = []*os.File{w, w, w, w}
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	w.Close()
	b := make([]byte, 100)
	if n, err := out.Read(b); !bytes.HasPrefix(b[:n], []byte("mounted")) {
		t.Fatalf("%q, %v", b[:n], err)
	}
	time.Sleep(50 * time.Millisecond) // it closes the socket after it has answered
	for pid := range waitServers(t, 1) {
		fds, err := os.ReadDir("/proc/" + pid + "/fd")
		must(t, err)
		for _, fd := range fds {
			if to, _ := os.Readlink("/proc/" + pid + "/fd/" + fd.Name()); strings.HasPrefix(to, "pipe:") || strings.HasPrefix(to, "socket:") {
				t.Errorf("the server has %s open: %s", fd.Name(), to)
			}
		}
		if cwd, _ := os.Readlink("/proc/" + pid + "/cwd"); cwd != "/" {
			t.Errorf("it works in %s", cwd)
		}
		status, err := os.ReadFile("/proc/" + pid + "/status")
		must(t, err)
		if strings.Contains(string(status), fmt.Sprintf("PPid:\t%d\n", cmd.Process.Pid)) {
			t.Error("it is a child of who mounted")
		}
		// A root of its own, and /proc.
		if mounts, err := os.ReadFile("/proc/" + pid + "/mountinfo"); err != nil || strings.Count(string(mounts), "\n") != 2 {
			t.Errorf("it keeps mounts alive: %s, %v", mounts, err)
		}
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	waitServers(t, 0)
}

// TestErrors names what is wrong.
func TestErrors(t *testing.T) {
	needFUSE(t)
	s, layer := smallLayer(t)
	missing := digest.FromString("nothing")
	_, err := Open(context.Background(), s, []digest.Digest{layer, missing}, Options{Source: testSource()})
	if err == nil || !strings.Contains(err.Error(), missing.String()) {
		t.Errorf("a missing layer: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Open(ctx, s, []digest.Digest{layer}, Options{Source: testSource()}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled context: %v", err)
	}
	m, err := Open(context.Background(), s, []digest.Digest{layer}, Options{Source: testSource()})
	must(t, err)
	if err := m.AttachTo(filepath.Join(s.Dir(), "version")); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("attach to a file: %v", err)
	}
	must(t, m.Close())
	waitServers(t, 0)
}
