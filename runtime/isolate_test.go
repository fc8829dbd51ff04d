package runtime

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/runtime/bundle"
	"github.com/ihucos/plash/runtime/hosttest"
	"github.com/ihucos/plash/runtime/ids"
)

// onEngines runs a test with each program that runs containers.
func onEngines(t *testing.T, test func(t *testing.T, engine string)) {
	for _, engine := range bundle.Engines() {
		t.Run(engine, func(t *testing.T) {
			if _, err := bundle.Find(engine); err != nil {
				t.Skip(err)
			}
			test(t, engine)
		})
	}
}

// isolated makes the process that runs a command in the image, as plash-runc does.
func (w *world) isolated(engine string, argv ...string) *exec.Cmd {
	w.Helper()
	return w.command(call{Op: "isolate", Isolate: IsolateOptions{Engine: engine, Argv: argv}})
}

func TestIsolateTerminal(t *testing.T) {
	w := newWorld(t)
	onEngines(t, func(t *testing.T, engine string) {
		cmd := w.isolated(engine)
		cmd.Env = append(os.Environ(), "TERM=vt100")
		term := hosttest.StartAt(t, cmd)
		term.Expect("#")
		term.Type("echo pro''mpt; tty >/dev/null && echo is a''tty; echo $TERM\n")
		term.Expect("prompt")
		term.Expect("atty")
		term.Expect("vt100")
		// Ctrl-C is for what the shell runs.
		term.Type("echo sle''eps; sleep 1000\n")
		term.Expect("sleeps")
		eventually(t, "the end of sleep", func() bool {
			term.Type("\x03")
			term.Type("echo code $?\n")
			return strings.Contains(term.Shown(), "code 130")
		})
		if err := unix.IoctlSetWinsize(int(term.User.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 77}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "another size", func() bool {
			term.Type("busybox stty size\n")
			return strings.Contains(term.Shown(), "33 77")
		})
		term.Type("\x03\nexit 4\n")
		_ = cmd.Wait()
		equal(t, "exit code", cmd.ProcessState.ExitCode(), 4)
	})
}

// TestIsolateInterrupt has the container without a terminal, and Ctrl-C typed at ours: it gets one
// SIGINT.
func TestIsolateInterrupt(t *testing.T) {
	w := newWorld(t)
	onEngines(t, func(t *testing.T, engine string) {
		mark := fmt.Sprintf("1816%d", os.Getpid())
		for script, want := range map[string]int{
			"trap 'echo caught' INT; echo ready; sleep 0.5; sleep 0.5; sleep 0.5; exit 3": 3,
			"echo ready; sleep 1000; true":   130, // all of the group get it
			"echo ready; exec sleep " + mark: -1,
		} {
			out := filepath.Join(t.TempDir(), "out")
			cmd := shell(w.isolated(engine, "sh", "-c", script), "exec >"+out)
			term := hosttest.StartAt(t, cmd)
			read := func() string {
				b, err := os.ReadFile(out)
				if err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
				return string(b)
			}
			eventually(t, "start of the command", func() bool {
				return read() == "ready\n" && (want != -1 || survivors("^sleep "+mark) == 1) // else the shell gets it
			})
			term.Type("\x03")
			_ = cmd.Wait()
			equal(t, "exit code", cmd.ProcessState.ExitCode(), want)
			if want == 3 {
				equal(t, "output", read(), "ready\ncaught\n")
			}
		}
	})
}

// TestIsolateTerminalModes has the terminal in the modes that it had, also when the engine could not
// give them back.
func TestIsolateTerminalModes(t *testing.T) {
	w := newWorld(t)
	onEngines(t, func(t *testing.T, engine string) {
		cmd := w.isolated(engine, "sh", "-c", "echo ready; sleep 1000")
		term := hosttest.StartAt(t, cmd)
		term.Expect("ready")
		stage := 0
		eventually(t, "a stage", func() bool {
			_, err := fmt.Sscan(strings.Join(taskChildren(cmd.Process.Pid), " "), &stage)
			return err == nil
		})
		if err := unix.Kill(stage, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		equal(t, "signal", cmd.ProcessState.Sys().(syscall.WaitStatus).Signal(), unix.SIGKILL)
		modes, err := unix.IoctlGetTermios(int(term.User.Fd()), unix.TCGETS)
		if err != nil || modes.Lflag&unix.ICANON == 0 || modes.Lflag&unix.ECHO == 0 {
			t.Errorf("modes of the terminal: %+v, %v", modes, err)
		}
	})
}

// taskChildren are the children of all threads of a process.
func taskChildren(pid int) []string {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var all []string
	for _, file := range files {
		b, _ := os.ReadFile(file) // the thread may be gone
		all = append(all, string(b))
	}
	return all
}

// TestIsolateKilled kills plash, its stage or the engine: the container ends with each.
func TestIsolateKilled(t *testing.T) {
	w := newWorld(t)
	onEngines(t, func(t *testing.T, engine string) {
		for depth := range 3 {
			mark := fmt.Sprintf("5773%d%d", os.Getpid(), depth)
			cmd := w.isolated(engine, "sh", "-c", "sleep "+mark+" & sleep "+mark)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "start of the container", func() bool { return survivors("^sleep "+mark) == 2 })
			victim := cmd.Process.Pid
			for range depth {
				// The last one: a stage may have started a server before.
				all := strings.Fields(strings.Join(taskChildren(victim), " "))
				if len(all) == 0 {
					t.Fatalf("no child of %d", victim)
				}
				slices.SortFunc(all, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
				if _, err := fmt.Sscan(all[len(all)-1], &victim); err != nil {
					t.Fatal(err)
				}
			}
			if err := unix.Kill(victim, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			end := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
			_ = cmd.Wait()
			if !end.Stop() {
				t.Errorf("depth %d: it does not end", depth)
			}
			eventually(t, "end of the container", func() bool { return survivors("^sleep "+mark) == 0 })
		}
	})
}

// configured makes a container on the image with an image configuration.
func (w *world) configured(config any, layer func(*tar.Writer) error) container.ID {
	w.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	err := layer(tw)
	if err == nil {
		err = tw.Close()
	}
	if err != nil {
		w.Fatal(err)
	}
	text, err := json.Marshal(map[string]any{"config": config})
	if err != nil {
		w.Fatal(err)
	}
	staged, err := w.st.CAS().Ingest(context.Background(), &buf, cas.IngestOptions{})
	if err != nil {
		w.Fatal(err)
	}
	defer staged.Close()
	r, err := w.st.Create(context.Background(), w.id, staged, container.CreateOptions{Config: text})
	if err != nil {
		w.Fatal(err)
	}
	return r.ID
}

func noFiles(*tar.Writer) error { return nil }

// TestIsolateDevices has an image with a device of the host: nobody may open it.
func TestIsolateDevices(t *testing.T) {
	needRoot(t) // others get no device out of an image
	w := newWorld(t)
	// Another name of /dev/zero, which can be read without doing harm.
	id := w.configured(nil, func(tw *tar.Writer) error {
		return tw.WriteHeader(&tar.Header{Name: "zero", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 5})
	})
	onEngines(t, func(t *testing.T, engine string) {
		for _, path := range []string{"/zero", "/made"} {
			r := w.wait(w.command(call{Op: "isolate", ID: id, Isolate: IsolateOptions{
				Engine: engine, Argv: []string{"sh", "-c", "busybox mknod /made c 1 5; head -c 1 " + path},
			}}))
			if r.code == 0 || !strings.Contains(r.err, "Permission denied") && path == "/zero" {
				t.Errorf("open %s: %+v", path, r)
			}
		}
	})
	// It is there.
	equal(t, "type", w.shIn(id, RunOptions{}, "ls -l /zero | head -c 1"), "c")
}

// TestIsolateHostile has images with other things than what is looked for.
func TestIsolateHostile(t *testing.T) {
	w := newWorld(t)
	passwd := func(h tar.Header, text string) func(*tar.Writer) error {
		return func(tw *tar.Writer) error {
			h.Name, h.Size, h.Mode = "etc/passwd", int64(len(text)), 0o644
			err := tw.WriteHeader(&h)
			if err == nil {
				_, err = tw.Write([]byte(text))
			}
			return err
		}
	}
	type config struct{ User, WorkingDir string }
	for _, c := range []struct {
		name   string
		config any
		layer  func(*tar.Writer) error
		want   string // of the error; "" for none
	}{
		{"pipe for passwd", config{User: "web"}, passwd(tar.Header{Typeflag: tar.TypeFifo}, ""), "not a regular file"},
		{"directory for passwd", config{}, passwd(tar.Header{Typeflag: tar.TypeDir}, ""), "not a regular file"},
		{"link out of the root", config{User: "0"}, passwd(tar.Header{Typeflag: tar.TypeSymlink, Linkname: "/../../../../etc/shadow"}, ""), ""},
		{"nonsense in passwd", config{User: "web"}, passwd(tar.Header{}, "::::\n\x00\nweb:x:-1:zz\n"), "-1 is no id"},
		{"no user", config{User: "web"}, noFiles, "unable to find user web"},
		{"a number too large", config{User: "99999999999"}, noFiles, "of the image"},
		{"a negative number", config{User: "-1"}, noFiles, "of the image"},
		{"working directory is a file", config{WorkingDir: "/etc/passwd"}, noFiles, "run "},
		{"working directory out of the root", config{WorkingDir: "/../../.."}, noFiles, ""},
		{"configuration is none", []string{"x"}, noFiles, "read the configuration of container"},
	} {
		id := w.configured(c.config, c.layer)
		onEngines(t, func(t *testing.T, engine string) {
			r := w.wait(w.command(call{Op: "isolate", ID: id, Isolate: IsolateOptions{Engine: engine, Argv: []string{"true"}}}))
			if c.want == "" && r.code != 0 || c.want != "" && (r.code != 125 || !strings.Contains(r.err, c.want)) {
				t.Errorf("%s: %+v, expected %q", c.name, r, c.want)
			}
		})
	}
}

// TestIsolateUser has an image that says who runs its command.
func TestIsolateUser(t *testing.T) {
	w := newWorld(t)
	single := false
	if os.Geteuid() != 0 {
		_, _, err := ids.Subordinate(os.Geteuid())
		single = err != nil
	}
	onEngines(t, func(t *testing.T, engine string) {
		for user, want := range map[string]string{
			"12": "12 0", "12:34": "12 34", "root": "0 0",
		} {
			id := w.configured(map[string]string{"User": user}, noFiles)
			r := w.wait(w.command(call{Op: "isolate", ID: id, Isolate: IsolateOptions{Engine: engine, Argv: []string{"sh", "-c", "echo $(id -u) $(id -g)"}}}))
			if single && user != "root" {
				if r.code != 125 || !strings.Contains(r.err, "there is no user here but root") {
					t.Errorf("%s: %+v", user, r)
				}
				continue
			}
			if r.code != 0 || strings.TrimSpace(r.out) != want {
				t.Errorf("%s: %+v, expected %q", user, r, want)
			}
		}
	})
}

// TestIsolateSignalAtOnce sends signals at any moment of the beginning.
func TestIsolateSignalAtOnce(t *testing.T) {
	w := newWorld(t)
	rounds := 40
	if testing.Short() {
		rounds = 10
	}
	onEngines(t, func(t *testing.T, engine string) {
		for i := range rounds {
			cmd := w.isolated(engine, "sleep", "1000")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			// Not before the program can tell it from its default action.
			time.Sleep(time.Duration(20+i*150/rounds) * time.Millisecond)
			if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- cmd.Wait() }()
			select {
			case <-done:
			case <-time.After(20 * time.Second):
				_ = cmd.Process.Kill()
				<-done
				t.Fatalf("round %d: it does not end", i)
			}
			if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != unix.SIGTERM {
				t.Errorf("round %d: %v", i, cmd.ProcessState)
			}
		}
	})
}
