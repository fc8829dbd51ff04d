package program

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// write writes an executable file.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestFind(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	write(t, filepath.Join(one, "both"), "")
	write(t, filepath.Join(two, "both"), "")
	write(t, filepath.Join(two, "second"), "")
	for _, err := range []error{os.WriteFile(filepath.Join(one, "text"), nil, 0o644), os.Mkdir(filepath.Join(one, "dir"), 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(two)
	for _, tt := range []struct {
		name, path, also string
		want             string // a file
		code             int    // or else an exit code
	}{
		{"both", one + ":" + two, "", one + "/both", 0},
		{"second", one + ":" + two, "", two + "/second", 0},
		{"second", one, two, two + "/second", 0},
		{"second", one + ":", "", "./second", 0}, // an empty element is the working directory
		{"./second", one, "", "./second", 0},
		{two + "/second", "", "", two + "/second", 0},
		{"second", one, "", "", CodeNotFound},
		{"", one, "", "", CodeNotFound},
		{"/nosuch", one, "", "", CodeNotFound},
		{one + "/text/x", one, "", "", CodeNotFound},
		{"dir", one, "", "", CodeCannotExecute},
		{one + "/dir", one, "", "", CodeCannotExecute},
		{"text", one + ":" + two, "", "", CodeCannotExecute},
	} {
		p, err := Find([]string{tt.name, "arg"}, []string{"PATH=" + tt.path, "PATH=/nosuch"}, tt.also)
		code := 0
		var exit *ExitError
		if errors.As(err, &exit) {
			code = exit.ExitCode()
		}
		if p.path != tt.want || code != tt.code || (err == nil) != (code == 0) {
			t.Errorf("%q in %q: %q, %v", tt.name, tt.path, p.path, err)
		}
		if err == nil && !slices.Equal(p.argv, []string{tt.name, "arg"}) {
			t.Errorf("%q: arguments %q", tt.name, p.argv)
		}
	}
	if p, err := Find([]string{"sh"}, nil, ""); err != nil || !slices.Contains(strings.Split(DefaultPath, ":"), filepath.Dir(p.path)) {
		t.Errorf("without PATH: %q, %v", p.path, err)
	}
}

// TestFork forks, and falls back to the shell as execvp(3) does.
func TestFork(t *testing.T) {
	dir := t.TempDir()
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	attr := &syscall.ProcAttr{Env: []string{"X=text"}, Files: []uintptr{0, out.Fd(), 2}}
	run := func(text string) error {
		path := filepath.Join(dir, "program")
		write(t, path, text)
		pid, err := Program{path, []string{"program", "arg"}}.Fork(syscall.ForkExec, attr)
		if err != nil {
			return err
		}
		_, err = syscall.Wait4(pid, nil, 0, nil)
		return err
	}
	for _, text := range []string{"#!/bin/sh\necho $1 $X\n", "echo $1 $X\n"} {
		if err := run(text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	if b, err := os.ReadFile(out.Name()); string(b) != "arg text\narg text\n" {
		t.Errorf("output %q, %v", b, err)
	}
	var exit *ExitError
	if err := run("#!/nosuch\n"); !errors.As(err, &exit) || exit.Code != CodeCannotExecute || !errors.Is(err, errInterpreter) {
		t.Errorf("without its interpreter: %v", err)
	}
	denied := func(string, []string, *syscall.ProcAttr) (int, error) { return 0, unix.EACCES }
	if _, err := (Program{"/bin/sh", []string{"sh"}}).Fork(denied, attr); !errors.As(err, &exit) || exit.Code != CodeCannotExecute {
		t.Errorf("denied: %v", err)
	}
}

// TestShellIn: whatever is at the place of passwd, there is a shell, and no waiting.
func TestShellIn(t *testing.T) {
	for text, want := range map[string]string{
		"root:x:0:0::/root:/bin/ash\n": "/bin/ash",
		"root:x:0:0::/root:/bin/ash":   "/bin/ash",
		"root:x:0:0::/root:\n":         "/bin/sh",
		"root:x:0:0::/root:ash\n":      "/bin/sh",
		"a:b\n":                        "/bin/sh",
		"":                             "/bin/sh",
		"root:x:0:0:" + strings.Repeat("a", 8192):     "/bin/sh",
		"root:x:0:0::/root:/bin/one\nx:x:1:1::/:/two": "/bin/one",
	} {
		root := t.TempDir()
		if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		passwd := filepath.Join(root, "etc/passwd")
		write(t, passwd, text)
		dir, err := os.Open(root)
		if err != nil {
			t.Fatal(err)
		}
		if got := ShellIn(int(dir.Fd())); got != want {
			t.Errorf("%.40q: %q, want %q", text, got, want)
		}
		for _, hostile := range []func() error{
			func() error { return unix.Mkfifo(passwd, 0o644) },
			func() error { return os.Symlink("../../../../../../etc/passwd", passwd) }, // itself
			func() error { return os.Mkdir(passwd, 0o755) },
		} {
			if err := errors.Join(os.Remove(passwd), hostile()); err != nil {
				t.Fatal(err)
			}
			if got := ShellIn(int(dir.Fd())); got != "/bin/sh" {
				t.Errorf("hostile: %q", got)
			}
		}
		dir.Close()
	}
}

func TestNotStarted(t *testing.T) {
	reason := errors.New("reason")
	err := NotStarted(reason)
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Code != CodeNotStarted || !errors.Is(err, reason) || err.Error() != "reason" {
		t.Errorf("%v", err)
	}
	found := execError("name", unix.ENOENT)
	if NotStarted(found) != found {
		t.Error("an error that has a code gets another one")
	}
}

func TestEnv(t *testing.T) {
	env := []string{"A=1", "B=2", "A=3", "AB=4", "E="}
	before := slices.Clone(env)
	for name, want := range map[string]string{"A": "1", "B": "2", "AB": "4", "E": ""} {
		if got, set := LookupEnv(env, name); got != want || !set {
			t.Errorf("%s: %q, %v", name, got, set)
		}
	}
	if got, set := LookupEnv(env, "C"); set {
		t.Errorf("C: %q", got)
	}
	for _, tt := range []struct{ got, want []string }{
		{SetEnv(env, "A", "x"), []string{"B=2", "AB=4", "E=", "A=x"}},
		{UnsetEnv(env, "A"), []string{"B=2", "AB=4", "E="}},
		{UnsetEnv(env, "C"), env},
		{FillEnv(env, []string{"E=5", "C=6", "B=7"}), []string{"A=1", "B=2", "A=3", "AB=4", "E=", "C=6"}},
	} {
		if !slices.Equal(tt.got, tt.want) {
			t.Errorf("%q, want %q", tt.got, tt.want)
		}
	}
	if !slices.Equal(env, before) {
		t.Errorf("changed: %q", env)
	}
}
