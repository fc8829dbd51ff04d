package union

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/mountfd/leftover"
	"github.com/ihucos/plash/overlay/treetest"
)

func TestMain(m *testing.M) {
	if os.Getenv(serveEnv) != "" {
		serveForTest()
		return
	}
	os.Exit(leftover.Main(m))
}

func needRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root")
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func newStore(tb testing.TB) *cas.Store {
	tb.Helper()
	dir := filepath.Join(tb.TempDir(), "store")
	must(tb, cas.Init(dir))
	s, err := cas.Open(dir)
	must(tb, err)
	return s
}

// addLayer makes a layer of what is in a directory.
func addLayer(tb testing.TB, s *cas.Store, dir string) digest.Digest {
	tb.Helper()
	cmd := exec.Command("tar", "-C", dir, "-c", "--format=pax", "--numeric-owner", "--acls", "--xattrs", "--xattrs-include=*", "-S", ".")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(tb, err)
	must(tb, cmd.Start())
	st, err := s.Ingest(context.Background(), out, cas.IngestOptions{})
	must(tb, err)
	_, err = io.Copy(io.Discard, out)
	must(tb, errors.Join(err, cmd.Wait(), st.Publish()))
	d := st.Digest()
	must(tb, st.Close())
	return d
}

// A mounted union of a test, which another process serves: it can be killed, and a page
// fault in this one, during which Go's runtime cannot stop, must not stop the server.
type mounted struct {
	tb          testing.TB
	dir         string // where it is mounted
	upper, work string
	layers      []digest.Digest
	store       *cas.Store
	o           Options
	user        int    // who serves it, if not root
	files       uint64 // how many files the server may have open, if not as many as any

	server *exec.Cmd
	out    *bufio.Reader // what it says
}

// newUnion mounts a union over a layer of what is in lower.
func newUnion(tb testing.TB, lower string, o Options) *mounted {
	tb.Helper()
	needRoot(tb)
	m := &mounted{tb: tb, store: newStore(tb), o: o}
	if lower != "" {
		m.layers = []digest.Digest{addLayer(tb, m.store, lower)}
	}
	base := tb.TempDir()
	m.dir, m.upper, m.work = filepath.Join(base, "m"), filepath.Join(base, "upper"), filepath.Join(base, "work")
	for _, d := range []string{m.dir, m.upper, m.work} {
		must(tb, os.Mkdir(d, 0o755))
	}
	if lower != "" {
		copyRoot(tb, lower, m.upper)
	}
	m.mount()
	tb.Cleanup(m.unmount)
	return m
}

// copyRoot gives an upper directory what the layers say of the root.
func copyRoot(tb testing.TB, from, to string) { copyTree(tb, from, to, "--no-recursion") }

// copyTree copies a tree into an empty directory.
func copyTree(tb testing.TB, from, to string, args ...string) {
	tb.Helper()
	attrs := []string{"--numeric-owner", "--acls", "--xattrs", "--xattrs-include=*"}
	c := exec.Command("tar", append(append([]string{"-c", "--format=pax", "-S", "-C", from}, attrs...), append(args, ".")...)...)
	x := exec.Command("tar", append([]string{"-x", "-p", "-C", to}, attrs...)...)
	pipe, err := c.StdoutPipe()
	must(tb, err)
	x.Stdin = pipe
	must(tb, c.Start())
	must(tb, x.Run())
	must(tb, c.Wait())
}

func (m *mounted) unmount() {
	m.tb.Helper()
	if m.server == nil {
		return
	}
	err := unix.Unmount(m.dir, 0)
	for range 50 {
		if err != unix.EBUSY {
			break
		}
		time.Sleep(10 * time.Millisecond) // what was closed is released a moment later
		err = unix.Unmount(m.dir, 0)
	}
	if err != nil {
		m.tb.Errorf("unmount: %v", err)
		_ = unix.Unmount(m.dir, unix.MNT_DETACH)
	}
	m.wait()
	m.server = nil
}

// wait waits for the server to end, which it does once no mount namespace has the mount any
// more. One that another process has made meanwhile may.
func (m *mounted) wait() {
	m.tb.Helper()
	ended := make(chan error)
	go func() { ended <- m.server.Wait() }()
	select {
	case err := <-ended:
		must(m.tb, err)
		return
	case <-time.After(10 * time.Second):
	}
	tables, _ := filepath.Glob("/proc/[0-9]*/mountinfo")
	for _, name := range tables {
		if mounts, _ := os.ReadFile(name); bytes.Contains(mounts, []byte(m.dir)) {
			m.tb.Logf("%s has the mount: the server is killed", name)
			_ = m.server.Process.Kill()
			<-ended
			return
		}
	}
	_ = m.server.Process.Signal(unix.SIGQUIT) // Go's runtime says what it is doing
	m.tb.Fatalf("nothing has the mount, but the server goes on: %v", <-ended)
}

// remount mounts the union again, over the same upper directory.
func (m *mounted) remount() {
	m.tb.Helper()
	m.unmount()
	m.mount()
}

func (m *mounted) at(name string) string { return filepath.Join(m.dir, name) }

func dump(tb testing.TB, dir string) string {
	tb.Helper()
	d, err := treetest.Dump(dir)
	must(tb, err)
	return d
}

func same(tb testing.TB, what, want, got string) {
	tb.Helper()
	if diff := treetest.Diff(want, got); diff != "" {
		tb.Errorf("%s differs:\n%s", what, diff)
	}
}

// forms are the forms in which marks are written, and the ways in which data goes.
var forms = map[string]Options{
	"passthrough":     {},
	"writeback":       {Writeback: true},
	"xattr whiteouts": {XattrMarks: true},
}

func eachForm(t *testing.T, f func(t *testing.T, o Options)) {
	for name, o := range forms {
		t.Run(name, func(t *testing.T) { f(t, o) })
	}
}
