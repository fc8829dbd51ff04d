package proot

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/runtime/program"
	"github.com/ihucos/plash/runtime/share"
)

func TestMain(m *testing.M) {
	MaybeInside()
	os.Exit(m.Run())
}

// newGuest makes a guest with busybox in its root.
func newGuest(t *testing.T) *Guest {
	t.Helper()
	path, err := exec.LookPath("proot")
	if err != nil {
		t.Skipf("needs the Debian package proot: %v", err)
	}
	if works, err := Try(path, t.TempDir()); err != nil || !works {
		t.Skipf("%s does not work here, or the test's program is not static (CGO_ENABLED=0): %v", path, err)
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skipf("needs the Debian package busybox-static: %v", err)
	}
	root := t.TempDir()
	for _, err := range []error{
		os.Mkdir(filepath.Join(root, "bin"), 0o755),
		os.Mkdir(filepath.Join(root, "proc"), 0o755),
		os.WriteFile(filepath.Join(root, "bin/sh"), busybox, 0o755),
		os.WriteFile(filepath.Join(root, Self), nil, 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return &Guest{Proot: path, Dir: root, Binds: []share.Bind{{Path: "/dev"}, {Path: "/proc"}}}
}

// run runs a script in a guest, and returns what it wrote and how it ended.
func run(t *testing.T, g *Guest, c Command) (string, End) {
	t.Helper()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	err = g.Start(c, os.Stdin, in, os.Stderr)
	in.Close()
	if err != nil {
		t.Fatal(err)
	}
	var end *End
	for s := range g.Listen() {
		end = s.End
	}
	if end == nil {
		t.Fatal(g.Ended())
	}
	text, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text)), *end
}

// TestGuest: how a command ends is told, and it has what it was given.
func TestGuest(t *testing.T) {
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "file"), []byte("shared"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		argv []string
		fake bool
		out  string
		end  End
	}{
		{[]string{"sh", "-c", "exit 3"}, false, "", End{Code: 3}},
		{[]string{"sh", "-c", "kill -9 $$"}, false, "", End{Signal: syscall.SIGKILL}},
		{[]string{"sh", "-c", `echo "$X $(umask) $(pwd) $PWD"`}, false, "text 0027 /bin /bin", End{}},
		{[]string{"sh", "-c", "echo $(id -u)"}, true, "0", End{}},
		{[]string{"sh", "-c", "cat /shared/file"}, false, "shared", End{}},
		{[]string{"nosuch"}, false, "", End{Failure: "nosuch: command not found", Code: program.CodeNotFound}},
	} {
		g := newGuest(t)
		g.Fake = tt.fake
		g.Binds = append(g.Binds, share.Bind{Path: "/shared", From: host})
		out, end := run(t, g, Command{Argv: tt.argv, Env: []string{"PATH=/bin", "X=text", "PWD=/bin"}, Dir: "/bin", Umask: 0o027, Alone: true})
		if out != tt.out || end != tt.end {
			t.Errorf("%q: %q, %+v, want %q, %+v", tt.argv, out, end, tt.out, tt.end)
		}
	}
}

// TestGuestEnds: a command ends when the outside does, with all that it has started.
func TestGuestEnds(t *testing.T) {
	g := newGuest(t)
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	err = g.Start(Command{
		Argv: []string{"sh", "-c", "sleep 1000 & echo $$ $!; while :; do sleep 1000; done"}, Env: []string{"PATH=/bin"}, Umask: -1, Alone: true,
	}, os.Stdin, in, os.Stderr)
	in.Close()
	if err != nil {
		t.Fatal(err)
	}
	said := g.Listen()
	if s, ok := <-said; !ok || s.Pid == 0 || s.End != nil {
		t.Fatalf("begin: %+v, %v", s, g.Ended())
	}
	var pids [2]int
	if _, err := fmt.Fscan(out, &pids[0], &pids[1]); err != nil {
		t.Fatal(err)
	}
	if err := g.socket.Close(); err != nil { // as if this process had been killed
		t.Fatal(err)
	}
	if err := out.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(out); len(rest) > 0 || err != nil { // until nobody has the other end
		t.Errorf("%q, %v", rest, err)
	}
	for range said { // until proot has ended
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, 0); err != unix.ESRCH {
			t.Errorf("process %d: %v", pid, err)
		}
	}
}

// TestGuestNot: proot that cannot begin says why.
func TestGuestNot(t *testing.T) {
	g := newGuest(t)
	g.Dir = filepath.Join(g.Dir, "nosuch")
	if err := g.Start(Command{Argv: []string{"sh"}, Umask: -1}, os.Stdin, os.Stdout, os.Stderr); err != nil {
		t.Fatal(err)
	}
	for s := range g.Listen() {
		t.Errorf("said %+v", s)
	}
	if err := g.Ended(); !strings.HasPrefix(err.Error(), "run the command under proot: ") {
		t.Errorf("%v", err)
	}
}
