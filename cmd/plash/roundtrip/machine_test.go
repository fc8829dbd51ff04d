package roundtrip

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A machine has a store and a home of its own.
type machine struct {
	dir string
	env []string
}

// newMachine makes one, with more in its environment. There is no engine but where that says so.
func newMachine(t *testing.T, env ...string) *machine {
	t.Helper()
	bin, err := install()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	kept := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return strings.HasPrefix(name, "PLASH_") || slices.Contains([]string{"DOCKER_HOST", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "SSL_CERT_FILE", "SOURCE_DATE_EPOCH", "XDG_RUNTIME_DIR"}, name)
	})
	return &machine{dir: dir, env: append(append(kept,
		"PATH="+bin+":"+os.Getenv("PATH"), "HOME="+dir, "TMPDIR="+dir, "PLASH_DATA="+filepath.Join(dir, "store"),
		"DOCKER_HOST=unix:///nonexistent/socket"), env...)}
}

// command is one on the machine.
func (m *machine) command(name string, args ...string) *exec.Cmd {
	if strings.HasPrefix(name, "plash-") {
		bin, _ := install() // newMachine has seen that it is there
		name = filepath.Join(bin, name)
	}
	cmd := exec.Command(name, args...)
	cmd.Env, cmd.Dir = m.env, m.dir
	return cmd
}

// run runs a command and returns what it prints, or an error with what it says.
func (m *machine) run(name string, args ...string) (string, error) {
	return output(m.command(name, args...))
}

func (m *machine) must(t *testing.T, name string, args ...string) string {
	t.Helper()
	return must(t, m.command(name, args...))
}

// output runs a command and returns what it prints, or an error with what it says.
func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, cmp.Or(stderr.String(), stdout.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}

func must(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := output(cmd)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// treeFrom is the tree of the tar that a command prints.
func treeFrom(t *testing.T, cmd *exec.Cmd) tree {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	pipe, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	got, err := readTree(pipe)
	if err == nil {
		_, err = io.Copy(io.Discard, pipe) // what pads the tar
	}
	if waitErr := cmd.Wait(); waitErr != nil {
		err = waitErr
	}
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(cmd.Args, " "), err, stderr.String())
	}
	return got
}

// layers are the digests of a container's layers, from the bottom.
func (m *machine) layers(t *testing.T, id string) (all []string) {
	t.Helper()
	for id != "0" {
		b, err := os.ReadFile(filepath.Join(m.must(t, "plash-nodepath", id), "record.json"))
		var record struct{ Layer string }
		if err == nil {
			err = json.Unmarshal(b, &record)
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, record.Layer)
		id = m.must(t, "plash-parent", id)
	}
	slices.Reverse(all)
	return all
}

// tree is the tree of a container.
func (m *machine) tree(t *testing.T, id string) tree {
	t.Helper()
	return treeFrom(t, m.command("plash-export-tar", id))
}

// packing are the arguments with which tar prints the tree at a directory, but for filesystems
// that are mounted there.
func packing(dir string, more ...string) []string {
	args := []string{
		"tar", "--create", "--file=-", "--format=posix", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--one-file-system", "--directory=" + dir,
	}
	return append(append(args, more...), ".")
}

// inside is packing what is in a container that runs.
func inside() []string {
	return packing("/", "--exclude=./dev/*", "--exclude=./proc", "--exclude=./sys")
}
