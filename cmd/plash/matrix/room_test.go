package matrix

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ihucos/plash/importexport/enginetest"
	"github.com/ihucos/plash/importexport/imageserver"
	"github.com/ihucos/plash/runtime/hosttest"
)

// peerPackages are those of the programs that plash is held against, for hosts that are
// containers.
var peerPackages = []string{"bubblewrap", "charliecloud-runtime", "crun", "podman", "proot"}

// A house is what the hosts of one test share.
type house struct {
	t       *testing.T
	dir     string
	program string
	port    string
	docker  func() (*enginetest.Docker, error) // starts it, the first time
}

// Files of a house.
const (
	imageFile   = "debian.tar"
	peersFile   = "peers.tar" // Debian with the peers
	busyboxFile = "busybox.tar"
)

func newHouse(t *testing.T) *house {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("becomes other users and changes mounts, by root")
	}
	// Where users may look, and where runs share it.
	dir, err := os.MkdirTemp("/tmp", "plash-matrix")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, dir: dir, program: filepath.Join(dir, "plash")}
	t.Cleanup(func() {
		err := leftMounts(dir)
		if err == nil { // or what is mounted would go
			err = os.RemoveAll(dir)
		}
		if err != nil {
			t.Error(err)
		}
	})
	build := exec.Command("go", "build", "-o", h.program, "github.com/ihucos/plash/cmd/plash")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	h.port = h.welcome()
	for _, script := range []string{"probe.sh", "peers.sh"} {
		h.put(script, filepath.Join("testdata", script))
	}
	return h
}

// images puts the images into the house.
func (h *house) images(t *testing.T) {
	t.Helper()
	debian, err := imageserver.DebianRoot("")
	if err != nil {
		t.Fatal(err)
	}
	peers, err := imageserver.DebianWith("", peerPackages...)
	if err != nil {
		t.Fatal(err)
	}
	busybox, err := imageserver.BusyboxRoot()
	if err == nil {
		err = os.WriteFile(h.path(busyboxFile), busybox, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	h.put(imageFile, debian)
	h.put(peersFile, peers)
}

func (h *house) path(name string) string { return filepath.Join(h.dir, name) }

// put copies a file into the house, for all to read.
func (h *house) put(name, from string) {
	h.t.Helper()
	if err := copyFile(h.path(name), from, 0o644); err != nil {
		h.t.Fatal(err)
	}
}

func copyFile(to, from string, mode os.FileMode) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// welcome starts who says so to all that come, and returns its port.
func (h *house) welcome() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			_, _ = io.WriteString(c, "welcome") // a guest who does not wait says so himself
			_ = c.Close()
		}
	}()
	h.t.Cleanup(func() {
		if err := l.Close(); err != nil {
			h.t.Error(err)
		}
	})
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// A room is one host's part of the house.
type room struct {
	*house
	dir   string
	token string            // how long its commands sleep, in seconds
	env   map[string]string // of what runs on the host
}

// room makes one for a user, with a copy of the program of its own: so it is known whose
// processes are whose.
func (h *house) room(t *testing.T, number int, user string) *room {
	t.Helper()
	r := &room{house: h, dir: h.path(fmt.Sprint(number)), token: fmt.Sprintf("600.%d%03d", os.Getpid(), number)}
	err := os.Mkdir(r.dir, 0o755)
	if err == nil {
		err = copyFile(filepath.Join(r.dir, "plash"), h.program, 0o755)
	}
	if err == nil && user != "" {
		err = hosttest.Give(user, r.dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.endProcesses(); err != nil {
			t.Error(err)
		}
	})
	runs, kills := 100, 20
	if testing.Short() {
		runs, kills = 10, 4
	}
	if user == "" {
		user = "root"
	}
	r.env = map[string]string{
		"ROOM": r.dir, "USER": user, "HOME": r.dir, "PLASH_DATA": filepath.Join(r.dir, "store"), "PORT": h.port, "TOKEN": r.token,
		"IMAGE": h.path(imageFile), "BUSYBOX": h.path(busyboxFile), "PACKAGE": "hello",
		"RUNS": strconv.Itoa(runs), "KILLS": strconv.Itoa(kills), "CROWD": "",
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	}
	return r
}

// environ is the environment on the host.
func (r *room) environ() []string {
	var env []string
	for name, value := range r.env {
		env = append(env, name+"="+value)
	}
	return env
}

// leftProcesses finds processes of the room's program, and of the commands that it ran.
// They are given a moment to end.
func (r *room) leftProcesses() (err error) {
	var left map[int]string
	for range 60 {
		if left, err = r.processes(); err != nil || len(left) == 0 {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
	for pid, cmdline := range left {
		err = errors.Join(err, fmt.Errorf("left running: %d: %s", pid, cmdline))
	}
	return err
}

// endProcesses kills what a test that has failed leaves.
func (r *room) endProcesses() error {
	left, err := r.processes()
	for pid := range left {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
	}
	return err
}

// processes are those that belong to the room, in whatever container, with their command lines.
func (r *room) processes() (map[int]string, error) {
	program, err := os.Stat(filepath.Join(r.dir, "plash"))
	if err != nil {
		return nil, err
	}
	found := map[int]string{}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		b, _ := os.ReadFile(dir + "/cmdline") // it may be gone
		cmdline := strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " "))
		exe, _ := os.Stat(dir + "/exe")
		if exe != nil && os.SameFile(exe, program) || cmdline == "sleep "+r.token {
			if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
				found[pid] = cmdline
			}
		}
	}
	return found, err
}

// leftMounts finds mounts below a directory, in the test's own namespace.
func leftMounts(dir string) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, dir) {
			err = errors.Join(err, fmt.Errorf("left mounted: %s", strings.TrimSpace(line)))
		}
	}
	return err
}
