package hosttest

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// Plain users that `scripts/deps test` makes.
const (
	User     = "plashtest" // has subordinate ids
	BareUser = "plashbare" // has none
)

// A Login is a plain user, with a directory of his own for what programs write.
type Login struct {
	Name     string
	Dir      string
	uid, gid int
}

// LogIn makes a directory for a plain user, which is the caller's to remove. It needs root.
func LogIn(name string) (*Login, error) {
	// Not in the directory of a test, which others may not enter; and where runs share it.
	return LogInAt(name, "/tmp")
}

// LogInAt makes it in a directory that the user can enter.
func LogInAt(name, dir string) (*Login, error) {
	l, err := lookUp(name)
	if err != nil {
		return nil, err
	}
	if l.Dir, err = os.MkdirTemp(dir, "plash-"+name); err != nil {
		return nil, err
	}
	return l, os.Chown(l.Dir, l.uid, l.gid)
}

// lookUp finds a user's ids.
func lookUp(name string) (*Login, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("%w (`scripts/deps test` makes the users of tests)", err)
	}
	l := &Login{Name: name}
	if l.uid, err = strconv.Atoi(u.Uid); err != nil {
		return nil, err
	}
	l.gid, err = strconv.Atoi(u.Gid)
	return l, err
}

// credential is what makes a process the user's.
func (l *Login) credential() *syscall.Credential {
	return &syscall.Credential{Uid: uint32(l.uid), Gid: uint32(l.gid)}
}

// Command is a command that the user runs in his directory, which is his home too.
func (l *Login) Command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	l.Become(cmd)
	cmd.Dir = l.Dir
	cmd.Env = []string{
		"HOME=" + l.Dir, "TMPDIR=" + l.Dir, "USER=" + l.Name, "LOGNAME=" + l.Name, "CI=" + os.Getenv("CI"),
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	}
	return cmd
}

// Become has the user run a command.
func (l *Login) Become(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: l.credential()}
}

// Program copies a program to where the user can execute it.
func (l *Login) Program(path string) (string, error) {
	to := filepath.Join(l.Dir, filepath.Base(path))
	in, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return "", err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return "", err
	}
	return to, out.Close()
}

// RunAs runs tests of the calling test's program as a plain user, with a copy of the package's
// testdata. The calling test needs root; it must not be among the tests that are run.
func RunAs(t *testing.T, name, tests string, flags ...string) {
	t.Helper()
	l, err := LogIn(name)
	if err != nil {
		t.Fatal(err)
	}
	l.Run(t, tests, nil, flags...)
}

// Run is RunAs for a user who is logged in, with more variables in his environment; his directory
// is removed at the end.
func (l *Login) Run(t *testing.T, tests string, env []string, flags ...string) {
	t.Helper()
	t.Cleanup(func() {
		if err := os.RemoveAll(l.Dir); err != nil {
			t.Error(err)
		}
	})
	program, err := os.Executable()
	if err == nil {
		program, err = l.Program(program)
	}
	if _, statErr := os.Stat("testdata"); err == nil && statErr == nil {
		err = os.CopyFS(filepath.Join(l.Dir, "testdata"), os.DirFS("testdata"))
	}
	if err != nil {
		t.Fatal(err)
	}
	// Longer than any test takes, shorter than the limit of the calling one.
	flags = append(flags, "-test.timeout=5m")
	cmd := l.Command(program, append([]string{"-test.v", "-test.run", tests}, flags...)...)
	cmd.Env = append(cmd.Env, env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// Give makes a file a user's.
func Give(name, path string) error {
	l, err := lookUp(name)
	if err != nil {
		return err
	}
	return os.Chown(path, l.uid, l.gid)
}

// IDs are a user's numbers, as UID:GID.
func IDs(name string) (string, error) {
	l, err := lookUp(name)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d:%d", l.uid, l.gid), nil
}
