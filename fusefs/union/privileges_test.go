package union

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestExecuteWritten has a program with a set-user-ID bit written to by another user: what
// the kernel remembers of its mode must not make it run as its owner.
func TestExecuteWritten(t *testing.T) {
	needRoot(t)
	program, err := exec.LookPath("id")
	if err != nil {
		t.Skip(err)
	}
	b, err := os.ReadFile(program)
	must(t, err)
	eachForm(t, func(t *testing.T, o Options) {
		m := newUnion(t, "", o)
		openWay(t, m.dir)
		must(t, os.Chmod(m.dir, 0o755))
		for _, how := range []string{"opened before", "opened after"} {
			path := m.at(strings.ReplaceAll(how, " ", "-"))
			must(t, os.WriteFile(path, b, 0o777))
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			must(t, err)
			must(t, os.Chmod(path, 0o777|os.ModeSetuid))
			if how == "opened after" {
				must(t, f.Close())
			}
			must(t, as(1000, 1000, 0, nil, func() error {
				if how == "opened after" {
					var err error
					if f, err = os.OpenFile(path, os.O_WRONLY, 0); err != nil {
						return err
					}
				}
				_, err := f.WriteAt(b[:1], 0)
				return errors.Join(err, f.Close())
			}))
			cmd := exec.Command(path, "-u")
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1001, Gid: 1001}}
			out, err := cmd.Output()
			must(t, err)
			if got := strings.TrimSpace(string(out)); got != "1001" {
				t.Errorf("%s: it runs as %s", how, got)
			}
		}
	})
}
