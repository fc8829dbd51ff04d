package rootemu

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/overlay"
)

// The test program is also what it tests: started under these names it is the init of a
// container in a user namespace with one user, and a program in there.
const (
	initName  = "rootemu-test-init"
	callsName = "rootemu-test-calls"
)

func TestMain(m *testing.M) {
	switch os.Args[0] {
	case initName:
		testInit()
	case callsName:
		testCalls()
	}
	before := openFiles()
	code := m.Run()
	if after := openFiles(); code == 0 && after != before {
		fmt.Fprintf(os.Stderr, "left open:\n%s\nwas:\n%s\n", after, before)
		code = 1
	}
	os.Exit(code)
}

func openFiles() string {
	var out strings.Builder
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, e := range fds {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasPrefix(target, "/proc/") && !strings.HasPrefix(target, "anon_inode:") {
			fmt.Fprintf(&out, "%s %s\n", e.Name(), target)
		}
	}
	return out.String()
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// outside is who root of the container is outside of it, if the tests run as root.
const outside = 54321

// A container is a place to run commands in.
type container struct {
	Lower, Upper, Work, At string
	Self                   string // the test program
	Argv                   []string
	Blind                  bool
	Whole                  bool // the lower directory has programs of its own
	Store                  string
	Layer                  digest.Digest
	store                  *cas.Store
	layers                 []overlay.Layer
	memory                 *Memory
}

// newContainer makes a container of the host's programs. Below it is a layer of entries, which
// belong to root in there.
func newContainer(t testing.TB, entries ...tar.Header) *container {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755)) // the user must come through
	c := &container{
		Lower: dir + "/lower", Upper: dir + "/upper", Work: dir + "/work", At: dir + "/at", Self: dir + "/self",
	}
	for _, d := range []string{c.Lower, c.Upper, c.Work, c.At} {
		must(t, os.Mkdir(d, 0o755))
	}
	copySelf(t, c.Self)
	etc := []string{"passwd", "group", "pam.d", "security", "login.defs", "nsswitch.conf", "shells"}
	for _, d := range []string{"etc", "usr", "proc", "dev", "tmp", "root", "sys", "var"} {
		must(t, os.Mkdir(c.Lower+"/"+d, 0o755))
	}
	for _, l := range []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"} {
		if target, err := os.Readlink("/" + l); err == nil {
			must(t, os.Symlink(target, c.Lower+"/"+l))
		}
	}
	for _, e := range etc {
		if out, err := exec.Command("cp", "-rL", "/etc/"+e, c.Lower+"/etc/"+e).CombinedOutput(); err != nil {
			t.Logf("%s", out) // a user cannot read all of it, and needs none of that
		}
	}
	must(t, os.WriteFile(c.Lower+"/etc/shadow", []byte("root:*:19000::::::\nwww-data:*:19000::::::\n"), 0o640))
	c.addLayer(t, entries)
	if os.Geteuid() == 0 {
		for _, d := range []string{c.Lower, c.Upper, c.Work, c.At} {
			giveAway(t, d)
		}
	}
	for _, h := range entries { // a chown takes some of these bits away
		if h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeDir {
			at := filepath.Join(c.Lower, h.Name)
			must(t, errors.Join(unix.Chmod(at, uint32(h.Mode)), os.Chtimes(at, time.Unix(0, 0), time.Unix(0, 0))))
		}
	}
	t.Cleanup(func() { _ = os.Chmod(c.Work+"/work", 0o700) }) // overlayfs leaves it as nobody's
	return c
}

// giveAway gives a tree to root of the container.
func giveAway(t testing.TB, dir string) {
	t.Helper()
	must(t, filepath.Walk(dir, func(path string, _ os.FileInfo, err error) error {
		return errors.Join(err, os.Lchown(path, outside, outside))
	}))
}

func copySelf(t testing.TB, to string) {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	must(t, os.WriteFile(to, self, 0o755))
}

// addLayer puts entries into the lower directory, as root's, and into a store, as they are.
func (c *container) addLayer(t testing.TB, entries []tar.Header) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		at := filepath.Join(c.Lower, h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			must(t, os.MkdirAll(at, 0o755))
		case tar.TypeSymlink:
			must(t, os.Symlink(h.Linkname, at))
		default:
			must(t, os.WriteFile(at, nil, 0o644))
		}
		must(t, w.WriteHeader(&h))
	}
	must(t, w.Close())
	dir := filepath.Join(t.TempDir(), "store")
	must(t, cas.Init(dir))
	s, err := cas.Open(dir)
	must(t, err)
	st, err := s.Ingest(context.Background(), &b, cas.IngestOptions{})
	must(t, err)
	must(t, errors.Join(st.Publish(), st.Close()))
	c.Store, c.Layer = dir, st.Digest()
	c.store, c.layers = s, []overlay.Layer{{Digest: c.Layer}}
	if os.Geteuid() == 0 {
		giveAway(t, dir)
	}
}

// run runs a command in the container and gives what it prints.
func (c *container) run(t testing.TB, argv ...string) string {
	t.Helper()
	out, err := c.tryRun(t, argv...)
	if err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, out)
	}
	return out
}

// sh runs a script, which ends with the first command that fails.
func (c *container) sh(t testing.TB, script string) string {
	t.Helper()
	return c.run(t, "/bin/sh", "-ec", script)
}

func (c *container) tryRun(t testing.TB, argv ...string) (string, error) {
	t.Helper()
	c.Argv = argv
	memoryOut, memoryIn, err := os.Pipe()
	must(t, err)
	defer memoryOut.Close()
	config, err := json.Marshal(c)
	must(t, err)
	id := os.Geteuid()
	if id == 0 {
		id = outside
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{initName, string(config)}
	cmd.ExtraFiles = []*os.File{memoryIn}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: id, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: id, Size: 1}},
		Credential:  &syscall.Credential{NoSetGroups: true},
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Start()
	memoryIn.Close()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) {
		t.Skipf("needs user namespaces: %v", err)
	}
	must(t, err)
	m, readErr := Read(memoryOut)
	err = cmd.Wait()
	if readErr != nil {
		t.Fatalf("%v\n%s", errors.Join(err, readErr), out.String())
	}
	c.memory = m
	m.handles = true
	return out.String(), err
}

// testInit runs a container's command.
func testInit() {
	var c container
	err := json.Unmarshal([]byte(os.Args[1]), &c)
	if err == nil {
		err = c.start()
	}
	var exit exitCode
	if errors.As(err, &exit) {
		os.Exit(int(exit))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "init:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func (c *container) start() error {
	unix.CloseOnExec(3)
	upper, err := os.Open(c.Upper)
	if err != nil {
		return err
	}
	store, err := cas.Open(c.Store)
	if err != nil {
		return err
	}
	flat, err := overlay.OpenFlat(context.Background(), store, []overlay.Layer{{Digest: c.Layer}}, nil)
	if err != nil {
		return err
	}
	if err := c.enter(); err != nil {
		return err
	}
	var pid int
	var forkErr error
	fork := func() {
		argv := c.Argv
		path := argv[0]
		if path == callsName {
			path = "/self"
		}
		env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C"}
		pid, forkErr = syscall.ForkExec(path, argv, &syscall.ProcAttr{Env: env, Files: []uintptr{0, 1, 2}})
	}
	e := &Emulation{Memory: newMemory()}
	if c.Blind {
		err = onThread(func() error {
			if err := blindFilter(); err != nil {
				return err
			}
			fork()
			return nil
		})
	} else {
		e = Fork(Options{Upper: upper, OwnerBelow: flat.OwnerBelow}, fork)
		err = e.Blind
	}
	if err = errors.Join(err, forkErr); err != nil {
		return err
	}
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, 0, nil)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if got == pid {
			if ws.ExitStatus() != 0 {
				err = exitCode(ws.ExitStatus())
			}
			return errors.Join(err, e.Memory.Write(os.NewFile(3, "memory")))
		}
	}
}

// enter makes the container's root that of this process.
func (c *container) enter() error {
	options := fmt.Sprintf("userxattr,lowerdir=%s,upperdir=%s,workdir=%s", c.Lower, c.Upper, c.Work)
	steps := []func() error{
		func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, "") },
		func() error { return unix.Mount("overlay", c.At, "overlay", 0, options) },
		c.mountPrograms,
		func() error { return unix.Mount("/dev", c.At+"/dev", "", unix.MS_BIND|unix.MS_REC, "") },
		func() error { return unix.Mount("proc", c.At+"/proc", "proc", 0, "") },
		func() error { return os.WriteFile(c.At+"/self", nil, 0o755) },
		func() error { return unix.Mount(c.Self, c.At+"/self", "", unix.MS_BIND, "") },
		func() error { return unix.Chdir(c.At) },
		func() error { return unix.PivotRoot(".", ".") },
		func() error { return unix.Unmount(".", unix.MNT_DETACH) },
		func() error { return unix.Chdir("/") },
	}
	for n, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("step %d into the container: %w", n, err)
		}
	}
	return nil
}

func (c *container) mountPrograms() error {
	if c.Whole {
		return nil
	}
	return unix.Mount("/usr", c.At+"/usr", "", unix.MS_BIND|unix.MS_REC, "")
}
