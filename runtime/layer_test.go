package runtime

import (
	"context"
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
	"github.com/ihucos/plash/cas/erofs"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/runtime/program"
)

// layer runs a step in this process, and returns what it did to its standard
// error and its layer as a container.
func (w *world) layer(o LayerOptions) (container.ID, string, error) {
	w.Helper()
	r, wr, err := os.Pipe()
	if err != nil {
		w.Fatal(err)
	}
	defer r.Close()
	if o.Stderr == nil {
		o.Stderr = wr
	}
	if o.Script == "" && o.Stdout == nil {
		o.Stdout = wr
	}
	text := make(chan string)
	go func() {
		b, _ := io.ReadAll(r)
		text <- string(b)
	}()
	staged, err := RunLayer(context.Background(), w.st, w.id, o)
	wr.Close()
	if err != nil {
		return 0, <-text, err
	}
	return w.create(staged), <-text, nil
}

func (w *world) create(staged *cas.Staged) container.ID {
	w.Helper()
	defer staged.Close()
	rec, err := w.st.Create(context.Background(), w.id, staged, container.CreateOptions{Origin: container.Origin{Kind: "build"}})
	if err != nil {
		w.Fatal(err)
	}
	return rec.ID
}

// mustLayer is layer for steps that succeed.
func (w *world) mustLayer(o LayerOptions) (container.ID, string) {
	w.Helper()
	id, text, err := w.layer(o)
	if err != nil {
		w.Fatalf("%v\n%s", err, text)
	}
	return id, text
}

const prologue = "PS4='--> '\nset -ex\n"

func TestLayerScript(t *testing.T) {
	w := newWorld(t)
	id, text := w.mustLayer(LayerOptions{Script: prologue + "echo hello\ntouch /file\nrm /etc/passwd"})
	equal(t, "log", text, "--> echo hello\nhello\n--> touch /file\n--> rm /etc/passwd\n")
	equal(t, "result", w.shIn(id, RunOptions{}, "ls /file /etc/passwd 2>/dev/null || :"), "/file")
}

func TestLayerScriptSurroundings(t *testing.T) {
	w := newWorld(t)
	t.Setenv("SECRET", "1")
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	_, text := w.mustLayer(LayerOptions{Script: `
		export -p | grep -v -e OLDPWD -e SHLVL -e PWD
		pwd
		umask
		readlink /proc/self/fd/0
		set -- /proc/$$/fd/*; test $# -le 4 # standard streams and the script
		test $$ -lt 20 # after the init and its threads
		set -- /proc/[0-9]*; echo $# processes
		ls -A /tmp
		test -c /dev/null; test -d /sys/kernel
		cat /etc/resolv.conf
	`})
	host, _ := os.ReadFile("/etc/resolv.conf")
	equal(t, "surroundings", text, "export HOME='/root'\nexport PATH='"+program.DefaultPath+"'\n/\n0022\n/dev/null\n2 processes\n"+string(host))
}

// TestLayerScriptTraces: what the shell says names nothing that is plash's, and the
// script shows nowhere.
func TestLayerScriptTraces(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct{ script, want string }{
		{"true\nnosuchcommand", "sh: eval: line 1: nosuchcommand: not found\n"}, // busybox counts from 0 there
		{"-nosuchcommand", "sh: eval: -nosuchcommand: not found\n"},
		{"if", "sh: eval: syntax error: unexpected end of file (expecting \"then\")\n"},
		{"echo $0", "sh\n"},
		// Everyone on the machine can read arguments.
		{": secret\ntr '\\0' ' ' </proc/$$/cmdline | grep -c secret || :", "0\n"},
		{"env | grep -c secret || :", "0\n"},
	} {
		_, text, _ := w.layer(LayerOptions{Script: tt.script})
		text = strings.Replace(text, "line 0: ", "", 1)
		equal(t, tt.script, text, tt.want)
	}
}

func TestLayerLongScript(t *testing.T) {
	w := newWorld(t)
	var b strings.Builder
	for b.Len() < 3<<20 { // more than execve takes as one argument, or as all
		b.WriteString("# a comment that says nothing at all\n")
	}
	b.WriteString("echo end >/file")
	id, _ := w.mustLayer(LayerOptions{Script: b.String()})
	equal(t, "file", w.shIn(id, RunOptions{}, "cat /file"), "end")
}

// TestLayerLeavesNoTrace: a step that does nothing makes an empty layer, also on
// an image that lacks every mount point.
func TestLayerLeavesNoTrace(t *testing.T) {
	bare := []entry{}
	for _, name := range []string{"proc", "sys", "dev", "tmp", "home", "root", "etc"} {
		bare = append(bare, entry{name: name, none: true})
	}
	for name, entries := range map[string][]entry{
		"usual": nil,
		"bare":  bare,
		"links": {{name: "etc/resolv.conf", link: "../run/systemd/resolve/stub-resolv.conf"}, {name: "home", none: true}, {name: "home", link: "usr/home"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, entries...)
			id, text := w.mustLayer(LayerOptions{Script: "test -c /dev/null && test -d /proc/1 && test -d /sys/kernel && test -s /etc/resolv.conf"})
			equal(t, "log", text, "")
			rec, err := w.st.Get(id)
			if err != nil {
				t.Fatal(err)
			}
			ix, err := w.st.CAS().Index(context.Background(), rec.Layer)
			if err != nil {
				t.Fatal(err)
			}
			defer ix.Close()
			root, err := ix.Inode(ix.Root())
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			if err := ix.ReadDir(&root, dirents(&n)); err != nil || n > 0 {
				t.Errorf("%d entries in the layer's root, %v", n, err)
			}
		})
	}
}

// dirents counts entries.
func dirents(n *int) func(erofs.Dirent) bool {
	return func(erofs.Dirent) bool {
		*n++
		return true
	}
}

func TestLayerFails(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		o    LayerOptions
		want error
	}{
		{LayerOptions{Script: "set -e; touch /x; (exit 7); echo not here"}, &CommandError{Code: 7}},
		{LayerOptions{Script: "kill -TERM $$"}, &CommandError{Code: 143, Signal: syscall.SIGTERM}},
		{LayerOptions{Argv: []string{"sh", "-c", "exit 3"}}, &CommandError{Code: 3}},
		{LayerOptions{Argv: []string{"nosuchcommand"}}, &program.ExitError{Code: 127}},
		{LayerOptions{Argv: []string{"/etc/passwd"}}, &program.ExitError{Code: 126}},
	} {
		_, text, err := w.layer(tt.o)
		var failed *CommandError
		var exit *program.ExitError
		switch want := tt.want.(type) {
		case *CommandError:
			if !errors.As(err, &failed) || *failed != *want {
				t.Errorf("%+v: %v, want %v", tt.o, err, want)
			}
		case *program.ExitError:
			if !errors.As(err, &exit) || exit.Code != want.Code {
				t.Errorf("%+v: %v, want code %d", tt.o, err, want.Code)
			}
		}
		if strings.Contains(text, "not here") {
			t.Errorf("%+v: went on", tt.o)
		}
	}
	if names := w.scratch(); len(names) > 0 {
		t.Errorf("scratch is left while we live: %q", names)
	}
	id, _ := w.mustLayer(LayerOptions{Argv: []string{"sh", "-c", "echo kept >/file; exit 3"}, IgnoreStatus: true})
	equal(t, "file", w.shIn(id, RunOptions{}, "cat /file"), "kept")
	_, err := RunLayer(context.Background(), w.st, 99, LayerOptions{Script: "true"})
	if !errors.Is(err, container.ErrNotFound) {
		t.Errorf("no such container: %v", err)
	}
}

func TestLayerCommand(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	cmd := w.command(call{Op: "layer", Layer: LayerOptions{Argv: []string{"sh", "-c", `read line; echo "$line" >/file; pwd; echo $MARK >&2; test -d /proc/1`}}})
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "MARK=marked", "PWD="+dir)
	cmd.Stdin = strings.NewReader("typed\n")
	r := w.wait(cmd)
	equal(t, "exit code", r.code, 0)
	equal(t, "errors", r.err, "marked\n")
	equal(t, "output", r.out, dir+"\n2\n")
	equal(t, "file", w.shIn(2, RunOptions{}, "cat /file"), "typed")

	// Without a command, the shell.
	cmd = w.command(call{Op: "layer"})
	cmd.Stdin = strings.NewReader("echo $0; touch /fromshell\n")
	r = w.wait(cmd)
	equal(t, "output", r.out, "ash\n3\n")
	equal(t, "file", w.shIn(3, RunOptions{}, "ls /fromshell"), "/fromshell")
}

// survivors is how many processes have mark in their command line.
func survivors(mark string) int {
	out, _ := exec.Command("pgrep", "-c", "-f", mark).Output()
	n, _ := strconv.Atoi(strings.TrimSpace(string(out)))
	return n
}

func TestLayerNothingSurvives(t *testing.T) {
	w := newWorld(t)
	mark := fmt.Sprintf("31415%d", os.Getpid())
	w.mustLayer(LayerOptions{Script: "setsid sleep " + mark + " </dev/null >/dev/null 2>&1 & sleep 0.02; touch /file"})
	equal(t, "processes", survivors("sleep "+mark), 0)
}

// TestLayerKilled kills each of the processes of a step.
func TestLayerKilled(t *testing.T) {
	w := newWorld(t)
	for i, who := range []string{"parent", "init", "command"} {
		mark := fmt.Sprintf("2718%d%d", i, os.Getpid())
		cmd := w.command(call{Op: "layer", Layer: LayerOptions{Script: "setsid sleep " + mark + " & sleep " + mark}})
		var errs strings.Builder
		cmd.Stderr = &errs
		cmd.WaitDelay = 10 * time.Second
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "start of the step", func() bool { return survivors("^sleep "+mark) == 2 })
		initPID := children(t, cmd.Process.Pid)[0]
		if os.Geteuid() != 0 {
			initPID = children(t, initPID)[0] // the first one is the stage
		}
		victim := map[string]int{"parent": cmd.Process.Pid, "init": initPID, "command": children(t, initPID)[0]}[who]
		if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		err := cmd.Wait()
		if err == nil {
			t.Errorf("kill of %s: the step succeeded", who)
		}
		eventually(t, "end of all processes after kill of "+who, func() bool { return survivors("sleep "+mark) == 0 })
		if who == "command" {
			contains(t, "error", errs.String(), "killed by signal 9")
		}
		eventually(t, "no scratch after kill of "+who, func() bool { return len(w.scratch()) == 0 })
	}
}

// TestLayerKilledAnytime kills the parent at moments of the set-up and of the end.
func TestLayerKilledAnytime(t *testing.T) {
	w := newWorld(t)
	for i := range 25 {
		cmd := w.command(call{Op: "layer", Layer: LayerOptions{Script: "echo x >/file"}})
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		sleepMicroseconds(i * 1500)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	w.mustLayer(LayerOptions{Script: "echo x >/file"})
}

func TestLayerInterrupted(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		signal syscall.Signal
		code   int
	}{{syscall.SIGINT, 130}, {syscall.SIGTERM, 143}, {syscall.SIGHUP, 129}, {syscall.SIGQUIT, 131}} {
		mark := fmt.Sprintf("1618%d%d", int(tt.signal), os.Getpid())
		cmd := w.command(call{Op: "layer", Layer: LayerOptions{Script: "sleep " + mark}})
		var errs strings.Builder
		cmd.Stderr = &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "start of the step", func() bool { return survivors("^sleep "+mark) == 1 })
		if err := cmd.Process.Signal(tt.signal); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		equal(t, "exit code", cmd.ProcessState.ExitCode(), tt.code)
		contains(t, "error", errs.String(), "interrupted")
		equal(t, "processes", survivors("sleep "+mark), 0)
		if names, _ := filepath.Glob(filepath.Join(w.dir, "scratch", "*")); len(names) > 0 {
			t.Errorf("scratch is left: %q", names)
		}
	}
}

func TestLayerCancelled(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, err := RunLayer(ctx, w.st, w.id, LayerOptions{Script: "sleep 1000"})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error: %v", err)
	}
}

func children(t *testing.T, pid int) []int {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for _, s := range strings.Fields(string(b)) {
			n, err := strconv.Atoi(s)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, n)
		}
	}
	if len(pids) == 0 {
		t.Fatalf("process %d has no children", pid)
	}
	return pids
}
