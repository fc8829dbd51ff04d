package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/importexport/imageserver"
	"github.com/ihucos/plash/importexport/registry/registrytest"
	"github.com/ihucos/plash/replay"
	"github.com/ihucos/plash/runtime"
	"github.com/ihucos/plash/runtime/hosttest"
	"github.com/rogpeppe/go-internal/testscript"
)

// The scripts of testdata/script run the real main in processes of their own,
// under all names that it is installed as.
func TestMain(m *testing.M) {
	runtime.MaybeInit()
	programs := map[string]func(){binary: main, binary + "-nosuch": main, replay.Inside: main, "without-filesystems": withoutFilesystems, "in-docker": inDocker, "configured": configured}
	for _, name := range linkNames() {
		programs[name] = main
	}
	testscript.Main(m, programs)
}

// withoutFilesystems is a program that runs a command on a host whose kernel does not
// know some filesystems: without-filesystems erofs,overlay plash-run 1 true.
func withoutFilesystems() {
	cmd := exec.Command(os.Args[2], os.Args[3:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	endWith(hosttest.Without(strings.Split(os.Args[1], ","), cmd))
}

// inDocker is a program that runs a command as in a container that Docker makes without
// options: in-docker plash-run 1 true.
func inDocker() {
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	endWith(hosttest.Confined(cmd))
}

func endWith(err error) {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			os.Exit(128 + int(ws.Signal()))
		}
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(125)
	}
}

func TestScripts(t *testing.T) { runScripts(t, "") }

// TestScriptsCrun runs what runc has run once more under crun.
func TestScriptsCrun(t *testing.T) {
	t.Setenv(engineVar, "crun")
	runScripts(t, "", "runc")
}

// engineVar says which program scripts have run containers.
const engineVar = "PLASH_TEST_ENGINE"

// TestScriptsUnpack runs the scripts that mount once more, on the other backend.
func TestScriptsUnpack(t *testing.T) {
	names := []string{"session", "run", "create"}
	if os.Geteuid() == 0 {
		names = append(names, "mount") // users have FUSE alone for it
	}
	runScripts(t, "unpack", names...)
}

// TestScriptsFuse runs them with our own filesystem below overlayfs.
func TestScriptsFuse(t *testing.T) {
	runScripts(t, "fuse", "session", "run", "mount", "create", "runc", "imageconfig")
}

// TestScriptsUnion runs them with our own filesystem alone.
func TestScriptsUnion(t *testing.T) {
	runScripts(t, "union", "session", "run", "mount", "create", "runc")
}

// TestScriptsRegistry runs those that use a registry with the one that Debian has.
func TestScriptsRegistry(t *testing.T) {
	images := serveImages(t)
	images.registry, _ = registrytest.Real{}.Start(t)
	runScriptsWith(t, images, "", "cache")
}

func runScripts(t *testing.T, backend string, names ...string) {
	runScriptsWith(t, serveImages(t), backend, names...)
}

func runScriptsWith(t *testing.T, images images, backend string, names ...string) {
	p := testscript.Params{
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PLASH_BACKEND", backend)
			env.Setenv("ENGINE", cmp.Or(os.Getenv(engineVar), "runc"))
			return setup(env, images)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":   exits,
			"signals": sendSignal,
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %s", cond)
		},
	}
	if len(names) == 0 {
		p.Dir = "testdata/script"
	}
	for _, name := range names {
		p.Files = append(p.Files, "testdata/script/"+name+".txtar")
	}
	testscript.Run(t, p)
}

// images is what scripts import.
type images struct {
	server string // URL of an image server, which has the tar as alpine and as /alpine.tar
	tar    string // a root filesystem made of busybox
	// registry is the host of a registry. All scripts have the same one.
	registry string
}

func serveImages(t *testing.T) images {
	t.Helper()
	root, err := imageserver.BusyboxRoot()
	if err != nil {
		t.Skip(err)
	}
	im, err := imageserver.BusyboxImage()
	if err != nil {
		t.Fatal(err)
	}
	server, err := imageserver.New(im)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	letOthersExecute(t)
	server.AddFile("alpine.tar", root)
	tar := filepath.Join(t.TempDir(), "alpine.tar")
	if err := os.WriteFile(tar, root, 0o644); err != nil {
		t.Fatal(err)
	}
	return images{server: server.URL(), tar: tar, registry: registrytest.New(t).Host}
}

// letOthersExecute opens the directory in which testscript put the programs to the
// plain users that scripts become.
func letOthersExecute(t *testing.T) {
	t.Helper()
	program, err := exec.LookPath(binary)
	if err == nil {
		err = os.Chmod(filepath.Dir(filepath.Dir(program)), 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// setup gives a script a store and a home of its own, and lets it fail if it
// leaves anything behind.
func setup(env *testscript.Env, images images) error {
	if err := os.Chmod(filepath.Dir(env.WorkDir), 0o755); err != nil { // for plain users
		return err
	}
	env.Setenv("PLASH_LXC_SERVER", images.server)
	env.Setenv("ALPINE_TAR", images.tar)
	env.Setenv("REGISTRY", images.registry)
	store := "store"
	if name := os.Getenv("PLASH_TEST_STORE"); name != "" {
		store = name // see TestStores
	}
	env.Setenv("PLASH_DATA", filepath.Join(env.WorkDir, store))
	env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
	env.Setenv("XDG_DATA_HOME", "")
	if err := os.Mkdir(filepath.Join(env.WorkDir, "home"), 0o755); err != nil {
		return err
	}
	env.Defer(func() {
		if err := leftOver(env.WorkDir); err != nil {
			env.T().Log(err)
			env.T().FailNow()
		}
	})
	return nil
}

// exits runs a program and wants an exit code: exits 3 plash-parent 99.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARG…]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if code != want {
		ts.Fatalf("exit code %d, expected %d", code, want)
	}
}

// sendSignal starts a program, sends it a signal and wants an exit code: signals INT 130
// plash-import-tar fifo. The signal is sent when the program says that it is ready, if it has the
// words "echo ready" in it, else after a moment. Its output goes where that of exec goes.
func sendSignal(ts *testscript.TestScript, neg bool, args []string) {
	numbers := map[string]syscall.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "QUIT": syscall.SIGQUIT}
	if neg || len(args) < 3 || numbers[args[0]] == 0 {
		ts.Fatalf("usage: signals INT|TERM|HUP|QUIT CODE PROGRAM [ARG…]")
	}
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	path, err := exec.LookPath(args[2])
	ts.Check(err)
	cmd := exec.Command(path, args[3:]...)
	out := &readyWriter{w: ts.Stdout(), ready: make(chan struct{})}
	cmd.Env = scriptEnv(ts)
	cmd.Dir, cmd.Stdout, cmd.Stderr = ts.MkAbs("."), out, ts.Stderr()
	ts.Check(cmd.Start())
	wait := 800 * time.Millisecond
	if strings.Contains(strings.Join(args, " "), "echo ready") {
		wait = time.Minute
	}
	select {
	case <-out.ready:
	case <-time.After(wait):
	}
	ts.Check(cmd.Process.Signal(numbers[args[0]]))
	err = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != want {
		ts.Fatalf("exit code %d (%v), expected %d", code, err, want)
	}
}

// A readyWriter tells when the word ready has been written.
type readyWriter struct {
	w     io.Writer
	said  []byte
	ready chan struct{}
}

func (r *readyWriter) Write(p []byte) (int, error) {
	before := bytes.Contains(r.said, []byte("ready"))
	r.said = append(r.said, p...)
	if !before && bytes.Contains(r.said, []byte("ready")) {
		close(r.ready)
	}
	return r.w.Write(p)
}

// scriptEnv is the part of a script's environment that programs need.
func scriptEnv(ts *testscript.TestScript) []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "WORK", "PLASH_DATA", "PLASH_LXC_SERVER", "PLASH_BACKEND", "TMPDIR"} {
		env = append(env, name+"="+ts.Getenv(name))
	}
	return env
}

// leftOver says what a script has left behind: mounts, processes and scratch
// directories. Processes are given a moment to end.
func leftOver(work string) error {
	var err error
	for range 40 {
		if err = errors.Join(leftProcesses(work), leftMounts(work)); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.Join(err, leftScratch(work))
}

func leftMounts(work string) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, work) {
			err = errors.Join(err, fmt.Errorf("left mounted: %s", strings.TrimSpace(line)))
		}
	}
	return err
}

// leftProcesses finds processes that run one of the scripts' programs or have
// the work directory in their environment.
func leftProcesses(work string) error {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if dir == "/proc/"+strconv.Itoa(os.Getpid()) {
			continue
		}
		environ, _ := os.ReadFile(dir + "/environ") // it may be gone, or someone else's
		if strings.Contains(string(environ), "WORK="+work+"\x00") {
			cmdline, _ := os.ReadFile(dir + "/cmdline")
			err = errors.Join(err, fmt.Errorf("left running: %s: %q", dir, cmdline))
		}
	}
	return err
}

// leftScratch finds what is in scratch when it is reclaimed: a run leaves a
// directory there, to the next command.
func leftScratch(work string) error {
	stores, err := filepath.Glob(filepath.Join(work, "*", "scratch"))
	for _, dir := range stores {
		if store, openErr := cas.Open(filepath.Dir(dir)); openErr == nil {
			err = errors.Join(err, store.Reclaim())
		}
	}
	if err != nil {
		return err
	}
	found, err := filepath.Glob(filepath.Join(work, "*", "scratch", "*"))
	if err == nil && len(found) > 0 {
		err = fmt.Errorf("left in scratch: %v", found)
	}
	return err
}
