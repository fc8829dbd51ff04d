package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Engines are the programs that can run a bundle, the first choice first.
func Engines() []string { return []string{"runc", "crun"} }

// IsEngine tells whether there is an engine of that name.
func IsEngine(name string) bool { return slices.Contains(Engines(), name) }

// ErrNoEngine is wrapped by the error about a program that is not installed.
var ErrNoEngine = errors.New("not installed")

// An Engine is a program that runs bundles (OCI runtime specification, runtime.md).
type Engine struct{ Name, Path string }

// engineError says which package has the program.
type engineError struct {
	error
	hint string
}

func (e *engineError) Unwrap() error { return e.error }
func (e *engineError) Hint() string  { return e.hint }

// Find finds an engine by its name, or the first that is installed if that is "". Debian has
// runc where plain users do not look for programs.
func Find(name string) (Engine, error) {
	names := Engines()
	switch {
	case name == "":
	case !IsEngine(name):
		return Engine{}, fmt.Errorf("%s: no program that runs containers: expected %s", name, strings.Join(names, " or "))
	default:
		names = []string{name}
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return Engine{name, path}, nil
		}
		for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
			if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
				return Engine{name, path}, nil
			}
		}
	}
	which := strings.Join(names, " and ")
	return Engine{}, &engineError{fmt.Errorf("%s: %w", which, ErrNoEngine), "sudo apt-get install " + names[0]}
}

// A Run is one run of a bundle. The directory is for the engine's own files.
type Run struct {
	Engine
	Bundle, Dir string
	Name        string
}

func (r *Run) pidFile() string { return filepath.Join(r.Dir, "pid") }
func (r *Run) logFile() string { return filepath.Join(r.Dir, "log") }

// Command is the command that runs the bundle, and ends as its command does. The engine makes
// no control groups: they would outlive it if it were killed.
func (r *Run) Command() *exec.Cmd {
	cmd := exec.Command(r.Path, "--root", filepath.Join(r.Dir, "state"), "--log", r.logFile(), "--log-format", "json")
	switch r.Engine.Name {
	case "crun":
		cmd.Args = append(cmd.Args, "--cgroup-manager", "disabled")
	default:
		// It goes on without, if it may make none.
		cmd.Args = append(cmd.Args, "--rootless", "true")
	}
	cmd.Args = append(cmd.Args, "run", "--bundle", r.Bundle, "--pid-file", r.pidFile(), r.Name)
	return cmd
}

// Pid is the first process of the container, as the engine sees it; 0 as long as there
// is none. It stays what it was when the process has ended.
func (r *Run) Pid() int {
	b, err := os.ReadFile(r.pidFile())
	if err != nil {
		return 0
	}
	pid := 0
	if _, err := fmt.Sscan(string(b), &pid); err != nil {
		return 0
	}
	return pid
}

// Said is the last thing that the engine has logged.
func (r *Run) Said() string {
	b, err := os.ReadFile(r.logFile())
	if err != nil {
		return ""
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	for _, line := range slices.Backward(lines) {
		var entry struct{ Msg string }
		if json.Unmarshal(line, &entry) == nil && entry.Msg != "" {
			return entry.Msg
		}
	}
	return ""
}
