package runtime

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
)

// helperName is the argument with which the test binary is started again to do
// one call, as a command of plash would.
const helperName = "plash-test-helper"

// A call is what such a process does.
type call struct {
	Op    string // run, isolate, layer, with-mount, mount, unmount
	Store string
	ID    container.ID
	Run   RunOptions
	Layer LayerOptions
	Argv  []string
	Mount MountOptions
	Dir   string

	Isolate IsolateOptions
}

func TestMain(m *testing.M) {
	MaybeInit()
	if len(os.Args) == 2 && os.Args[1] == "cat" { // a program for where there is none
		b, err := os.ReadFile("etc/passwd")
		os.Stdout.Write(b)
		if err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 3 && os.Args[1] == helperName {
		os.Exit(helper(os.Args[2]))
	}
	os.Exit(m.Run())
}

func helper(arg string) int {
	var c call
	err := json.Unmarshal([]byte(arg), &c)
	if err == nil {
		err = c.do()
	}
	if err == nil {
		return 0
	}
	var end *EndError
	if errors.As(err, &end) {
		end.Raise()
		return end.Code
	}
	fmt.Fprintln(os.Stderr, "plash:", err)
	var coded interface{ ExitCode() int }
	var failed *CommandError
	switch {
	case errors.As(err, &coded):
		return coded.ExitCode()
	case errors.As(err, &failed):
		return failed.Code
	}
	return 1
}

func (c *call) do() error {
	ctx := context.Background()
	cs, err := cas.Open(c.Store)
	if err != nil {
		return err
	}
	if err := cs.Reclaim(); err != nil {
		return err
	}
	st, err := container.Open(cs)
	if err != nil {
		return err
	}
	switch c.Op {
	case "run":
		return Exec(ctx, st, c.ID, c.Run)
	case "isolate":
		return Isolate(ctx, st, c.ID, c.Isolate)
	case "with-mount":
		return WithMount(ctx, st, c.ID, c.Argv)
	case "mount":
		return Mount(ctx, st, c.ID, c.Dir, c.Mount)
	case "unmount":
		return Unmount(c.Dir)
	case "layer":
		staged, err := RunLayer(ctx, st, c.ID, c.Layer)
		if err != nil {
			return err
		}
		defer staged.Close()
		r, err := st.Create(ctx, c.ID, staged, container.CreateOptions{Origin: container.Origin{Kind: "create"}})
		if err == nil {
			fmt.Println(r.ID)
		}
		return err
	}
	return errors.New("no such op: " + c.Op)
}

// A world is a store with a small image in it.
type world struct {
	*testing.T
	dir string // the store
	st  *container.Store
	id  container.ID // the image
}

// needRoot skips a test of what root alone does, or does otherwise.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// backendsHere are the backends that the caller can run, or mount, with.
func backendsHere(task string) []string {
	switch {
	case os.Geteuid() == 0:
		return []string{"erofs", "unpack", "fuse", "union"}
	case task == "mount":
		return []string{"fuse", "union"}
	}
	return []string{"unpack", "fuse", "union"}
}

// newWorld makes a store with the busybox image and entries put over it. The
// test fails if anything is left of what it ran.
func newWorld(t *testing.T, entries ...entry) *world {
	t.Helper()
	w := &world{T: t, dir: filepath.Join(t.TempDir(), "store")}
	if err := cas.Init(w.dir); err != nil {
		t.Fatal(err)
	}
	cs, err := cas.Open(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	if w.st, err = container.Open(cs); err != nil {
		t.Fatal(err)
	}
	w.id = w.add(0, append(busybox(t), entries...)...)
	t.Cleanup(w.checkNothingLeft)
	return w
}

// add makes a container with a layer of entries.
func (w *world) add(parent container.ID, entries ...entry) container.ID {
	w.Helper()
	staged, err := w.st.CAS().Ingest(context.Background(), tarOf(w, entries), cas.IngestOptions{})
	if err != nil {
		w.Fatal(err)
	}
	defer staged.Close()
	r, err := w.st.Create(context.Background(), parent, staged, container.CreateOptions{Origin: container.Origin{Kind: "import"}})
	if err != nil {
		w.Fatal(err)
	}
	return r.ID
}

// checkNothingLeft is how every test ends: no scratch, which means no mount in
// any namespace either, and no mount in ours.
func (w *world) checkNothingLeft() {
	left := w.scratch()
	for end := time.Now().Add(5 * time.Second); len(left) > 0 && time.Now().Before(end); left = w.scratch() {
		time.Sleep(5 * time.Millisecond)
	}
	if len(left) > 0 {
		w.Errorf("scratch is left: %q", left)
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		w.Error(err)
	}
	for line := range strings.Lines(string(table)) {
		if strings.Contains(line, filepath.Dir(w.dir)) {
			w.Errorf("mount is left: %s", line)
		}
	}
}

// scratch is what is in the store's scratch after reclaiming it.
func (w *world) scratch() []string {
	w.Helper()
	if err := w.st.CAS().Reclaim(); err != nil {
		w.Error(err)
	}
	names, err := filepath.Glob(filepath.Join(w.dir, "scratch", "*"))
	if err != nil {
		w.Error(err)
	}
	return names
}

// An entry is a file of a test image.
type entry struct {
	name string
	mode int64  // permissions; 0 is 0755
	text string // content of a file
	link string // target of a symbolic link
	dir  bool
	none bool // takes the entries before it of that name, and below, away
}

const applets = "sh ash ls cat true false pwd env sleep kill id mkdir touch rm rmdir echo stat readlink head wc mount grep sed " +
	"ps test printf ln nohup setsid tty umask seq chmod chown mv cp dd sync tr sort dirname basename find"

// busybox is a root filesystem.
func busybox(t testing.TB) []entry {
	t.Helper()
	b, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skipf("needs the Debian package busybox-static: %v", err)
	}
	entries := []entry{
		{name: "bin", dir: true},
		{name: "etc", dir: true},
		{name: "home", dir: true},
		{name: "root", dir: true, mode: 0o700},
		{name: "proc", dir: true},
		{name: "sys", dir: true},
		{name: "dev", dir: true},
		{name: "tmp", dir: true, mode: 0o1777},
		{name: "etc/resolv.conf", text: "# of the image\n", mode: 0o644},
		{name: "etc/passwd", text: "root:x:0:0::/root:/bin/ash\n", mode: 0o644},
		{name: "bin/busybox", text: string(b)},
	}
	for _, a := range strings.Fields(applets) {
		entries = append(entries, entry{name: "bin/" + a, link: "busybox"})
	}
	return entries
}

func tarOf(t testing.TB, entries []entry) io.Reader {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	var kept []entry
	for _, e := range entries {
		if !e.none {
			kept = append(kept, e)
			continue
		}
		kept = slices.DeleteFunc(kept, func(k entry) bool { return k.name == e.name || strings.HasPrefix(k.name, e.name+"/") })
	}
	for _, e := range kept {
		h := &tar.Header{Name: e.name, Mode: e.mode, Typeflag: tar.TypeReg, Size: int64(len(e.text)), ModTime: time.Unix(1e9, 0)}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		switch {
		case e.dir:
			h.Typeflag, h.Name = tar.TypeDir, e.name+"/"
		case e.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, e.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return &buf
}

// A result is how a helper process ended.
type result struct {
	out, err string
	code     int // -1: killed by signal
	signal   syscall.Signal
}

// command makes the process that does c on the world's image, where c does not
// name another one.
func (w *world) command(c call) *exec.Cmd {
	w.Helper()
	c.Store = w.dir
	if c.ID == 0 {
		c.ID = w.id
	}
	if c.ID < 0 { // container 0
		c.ID = 0
	}
	b, err := json.Marshal(c)
	if err != nil {
		w.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		w.Fatal(err)
	}
	cmd := exec.Command(exe, helperName, string(b))
	cmd.Dir = "/"
	// Should the test be killed, nothing is to be left.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (w *world) wait(cmd *exec.Cmd) result {
	w.Helper()
	var out, errs bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &out
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &errs
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.Fatal(err)
	}
	r := result{out: out.String(), err: errs.String(), code: cmd.ProcessState.ExitCode()}
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		r.signal = ws.Signal()
	}
	return r
}

// run runs a command in the image, as plash-run does.
func (w *world) run(argv ...string) result {
	w.Helper()
	return w.wait(w.command(call{Op: "run", Run: RunOptions{Argv: argv}}))
}

// sh runs a shell script in the image, which must succeed, and returns its output.
func (w *world) sh(o RunOptions, script string) string {
	w.Helper()
	return w.shIn(w.id, o, script)
}

func (w *world) shIn(id container.ID, o RunOptions, script string) string {
	w.Helper()
	o.Argv = []string{"/bin/sh", "-c", script}
	r := w.wait(w.command(call{Op: "run", ID: id, Run: o}))
	if r.code != 0 {
		w.Fatalf("sh -c %q: exit %d, signal %v\n%s%s", script, r.code, r.signal, r.out, r.err)
	}
	return strings.TrimSuffix(r.out, "\n")
}

// shell makes a shell script run before cmd, in the same process.
func shell(cmd *exec.Cmd, script string) *exec.Cmd {
	sh := exec.Command("/bin/sh", append([]string{"-c", script + "\nexec \"$@\"", "sh"}, cmd.Args...)...)
	sh.Dir, sh.Env, sh.Stdin, sh.SysProcAttr = cmd.Dir, cmd.Env, cmd.Stdin, cmd.SysProcAttr
	return sh
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not in time: %s", what)
}

func equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func contains(t testing.TB, what, got, want string) {
	t.Helper()
	if !strings.Contains(got, want) {
		t.Errorf("%s: %q does not contain %q", what, got, want)
	}
}
