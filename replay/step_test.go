//go:build amd64 || arm64

package replay

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	goruntime "runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestStepInit has the init of a step follow plans, and go on into Go without one.
func TestStepInit(t *testing.T) {
	path := program(t, goruntime.GOARCH)
	spawn := func(search string, argv ...string) func(p *Plan) {
		return func(p *Plan) { p.Spawn(search, argv, []string{"A=x y", "B="}) }
	}
	for name, c := range map[string]struct {
		plan         func(p *Plan)
		status, said string
	}{
		"ends":        {spawn("/nowhere:/bin", "sh", "-c", `echo "$0 $A.$B."; exit 7`, "zero"), `{"Code":7}`, "zero x y..\n"},
		"killed":      {spawn("/bin", "sh", "-c", "kill -TERM $$"), `{"Signal":15}`, ""},
		"by its path": {spawn("", "/bin/echo", "", "b"), `{"Code":0}`, " b\n"},
		// Its child is left behind, ends first and is not taken for it.
		"left behind": {spawn("/bin", "sh", "-c", "(sh -c 'exit 3' &) ; sleep 0.2; exit 4"), `{"Code":4}`, ""},
		"descriptors": {spawn("/bin", "sh", "-c", "for fd in 3 4 5 6 7; do [ ! -e /proc/self/fd/$fd ] || echo $fd; done"), `{"Code":0}`, ""},
		"not there":   {spawn("/bin", "no-such-program"), StepAgain, ""},
		"fails": {func(p *Plan) {
			p.Call(unix.SYS_CHDIR, String("/no/such/directory"))
			spawn("/bin", "echo")(p)
		}, StepAgain, ""},
		"does nothing": {func(p *Plan) {}, StepAgain, ""},
		"none":         {nil, "", "[] 1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			status, told, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer status.Close()
			files := make([]*os.File, StepPlanFD-2)
			for i := range files[:StepPlanFD-3] {
				files[i] = told
			}
			if c.plan != nil {
				var p Plan
				c.plan(&p)
				f, err := os.CreateTemp(t.TempDir(), "plan")
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if _, err := f.Write(p.Encode()); err != nil {
					t.Fatal(err)
				}
				if _, err := f.Seek(0, io.SeekStart); err != nil {
					t.Fatal(err)
				}
				files[StepPlanFD-3] = f
			}
			var out bytes.Buffer
			cmd := &exec.Cmd{
				Path: path, Args: []string{StepInit}, Env: []string{"C="}, Stdout: &out, Stderr: os.Stderr, ExtraFiles: files,
				// The children of an init that have lost their parent become its own.
				SysProcAttr: &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWPID},
			}
			if os.Geteuid() == 0 {
				cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWPID
			}
			err = cmd.Run()
			told.Close()
			b, readErr := io.ReadAll(status)
			if err != nil || readErr != nil {
				t.Fatal(err, readErr)
			}
			if string(b) != c.status {
				t.Errorf("told %q, want %q", b, c.status)
			}
			if got := out.String(); got != c.said {
				t.Errorf("%q was printed, want %q", got, c.said)
			}
		})
	}
}

// TestSpawnTooMuch: what does not fit makes no plan.
func TestSpawnTooMuch(t *testing.T) {
	for name, spawn := range map[string]func(p *Plan){
		"no command":         func(p *Plan) { p.Spawn("", nil, nil) },
		"too many arguments": func(p *Plan) { p.Spawn("", make([]string, 300), nil) },
		"too long":           func(p *Plan) { p.Spawn("", []string{"sh"}, []string{"A=" + strings.Repeat("x", MaxSize)}) },
	} {
		var p Plan
		if spawn(&p); p.Encode() != nil {
			t.Errorf("%s: there is a plan", name)
		}
	}
}
