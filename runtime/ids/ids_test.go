package ids

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	goruntime "runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/runtime/hosttest"
)

// inside starts a shell in a user namespace with maps, and returns what it says of its ids.
func inside(t *testing.T, m Maps) string {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "read go; id -u; id -g; cat /proc/self/uid_map; grep CapEff /proc/self/status")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	m.Apply(cmd.SysProcAttr)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out := new(strings.Builder)
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	goruntime.LockOSThread() // Pdeathsig
	defer goruntime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) {
			t.Skipf("no user namespaces here: %v", err)
		}
		t.Fatal(err)
	}
	err = m.Write(cmd.Process.Pid)
	if err == nil {
		_, err = io.WriteString(in, "\n")
	}
	if err = errors.Join(err, in.Close(), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(out.String()), " ")
}

// TestFor has processes be who the maps say.
func TestFor(t *testing.T) {
	uid, gid := os.Geteuid(), os.Getegid()
	m, err := For(AsCaller)
	if !m.None || err != nil {
		t.Errorf("as caller: %+v, %v", m, err)
	}
	attr := &syscall.SysProcAttr{}
	if m.Apply(attr); attr.Cloneflags != 0 || attr.AmbientCaps != nil {
		t.Errorf("as caller: %+v", attr)
	}

	m, err = For(AsSelf)
	if err != nil {
		t.Fatal(err)
	}
	if m.Flat == HasCapabilities(unix.CAP_SETUID, unix.CAP_SETGID) || m.Flat && !m.Single() {
		t.Errorf("as self: %+v", m)
	}
	if got, want := inside(t, m), fmt.Sprintf("%d %d ", uid, gid); !strings.HasPrefix(got, want) {
		t.Errorf("as self: %q, want %q", got, want)
	}

	m, err = For(AsRoot)
	if err != nil && !errors.Is(err, ErrNoSubordinate) || err != nil != (uid != 0 && m.Single()) {
		t.Errorf("as root: %+v, %v", m, err)
	}
	got := inside(t, m)
	if !strings.HasPrefix(got, "0 0 0 ") || strings.HasSuffix(got, "CapEff: 0000000000000000") {
		t.Errorf("as root: %q", got)
	}
	if uid == 0 {
		return
	}
	if got, want := inside(t, m.WithoutSubordinate()), fmt.Sprintf("0 0 0 %d 1 CapEff:", uid); !strings.HasPrefix(got, want) {
		t.Errorf("without subordinate ids: %q, want %q", got, want)
	}
	if !m.Flat || !m.WithoutSubordinate().Flat {
		t.Errorf("a user has the ids of all users of an image: %+v", m)
	}
}

// TestSubordinate: the ids begin with 1 and have no gaps; who has none is told how to get some.
func TestSubordinate(t *testing.T) {
	uids, gids, err := Subordinate(os.Geteuid())
	if err != nil {
		if !errors.Is(err, ErrNoSubordinate) || uids != nil || gids != nil {
			t.Errorf("%v, %v, %v", uids, gids, err)
		}
	}
	for _, ranges := range [][]syscall.SysProcIDMap{uids, gids} {
		next := 1
		for _, r := range ranges {
			if r.ContainerID != next || r.Size < 1 {
				t.Errorf("%+v", ranges)
			}
			next += r.Size
		}
		if next > maxSubordinate+1 {
			t.Errorf("%d ids: %+v", next, ranges)
		}
	}
	if _, _, err := Subordinate(1<<31 - 3); !errors.Is(err, ErrNoSubordinate) {
		t.Errorf("for nobody: %v", err)
	}
	hint := SubordinateHint(1<<31 - 3)
	if _, err := exec.LookPath(newUIDMap); err != nil {
		if !strings.Contains(hint, "install uidmap") {
			t.Errorf("hint %q", hint)
		}
		return
	}
	var first, last int64
	if _, err := fmt.Sscanf(freeRange(), "%d-%d", &first, &last); err != nil || last-first != maxSubordinate {
		t.Fatalf("free range %q: %v", freeRange(), err)
	}
	if !strings.Contains(hint, freeRange()) || !strings.HasSuffix(hint, " 2147483645") {
		t.Errorf("hint %q", hint)
	}
	for _, file := range []string{subUIDFile, subGIDFile} {
		taken, err := user.ParseSubIDFile(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for _, r := range taken {
			if r.SubID <= last && first < r.SubID+r.Count {
				t.Errorf("free range %q: %s has %+v", freeRange(), file, r)
			}
		}
	}
}

// TestDropInheritance: the next program of a thread inherits none of its capabilities, and the
// thread keeps them.
func TestDropInheritance(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	done := make(chan error, 1)
	go func() {
		goruntime.LockOSThread() // never unlocked: the thread ends with this
		done <- func() error {
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var data [2]unix.CapUserData
			if err := unix.Capget(&header, &data[0]); err != nil {
				return err
			}
			before := data
			data[0].Inheritable = data[0].Permitted
			if err := unix.Capset(&header, &data[0]); err != nil {
				return err
			}
			if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_SETUID, 0, 0); err != nil {
				return err
			}
			if err := DropInheritance(); err != nil {
				return err
			}
			if err := unix.Capget(&header, &data[0]); err != nil {
				return err
			}
			ambient, err := unix.PrctlRetInt(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_IS_SET, unix.CAP_SETUID, 0, 0)
			if err != nil || ambient != 0 || data[0].Inheritable != 0 || data[0].Effective != before[0].Effective {
				return fmt.Errorf("ambient %d, %+v: %w", ambient, data, err)
			}
			return nil
		}()
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestSudoCaller: who calls sudo is known, and nothing else in its variables passes for an id.
func TestSudoCaller(t *testing.T) {
	env := func(uid, gid string) []string {
		return []string{"HOME=/root", "SUDO_UID=" + uid, "SUDO_GID=" + gid, "SUDO_USER=nosuchuser"}
	}
	if os.Geteuid() != 0 {
		if who, err := SudoCaller(env("1", "1")); who != nil || err != nil {
			t.Errorf("who is not root: %+v, %v", who, err)
		}
		return
	}
	if who, err := SudoCaller([]string{"HOME=/root"}); who != nil || err != nil {
		t.Errorf("without sudo: %+v, %v", who, err)
	}
	for _, bad := range [][2]string{{"", "1"}, {"1", ""}, {"x", "1"}, {"-1", "1"}, {"4294967295", "1"}, {"1", "4294967295"}, {"4294967296", "1"}} {
		if who, err := SudoCaller(env(bad[0], bad[1])); err == nil {
			t.Errorf("%q: %+v", bad, who)
		}
	}
	who, err := SudoCaller(env("2147483645", "2147483644"))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(who.Environ([]string{"HOME=/root", "A=b"}), " "); got != "HOME=/root A=b USER=nosuchuser LOGNAME=nosuchuser" {
		t.Errorf("environment %q", got)
	}
	cmd := make(chan string, 1)
	go func() {
		goruntime.LockOSThread() // never unlocked: the thread ends with this
		err := who.Become()
		uid, gid := unix.Geteuid(), unix.Getegid()
		groups, groupsErr := unix.Getgroups()
		cmd <- fmt.Sprint(uid, gid, groups, err, groupsErr)
	}()
	if got := <-cmd; got != "2147483645 2147483644 [2147483644] <nil> <nil>" {
		t.Errorf("became %s", got)
	}
	if os.Geteuid() != 0 {
		t.Error("other threads have become the user too")
	}
}

// TestUsers runs the tests of this package once more, by plain users.
func TestUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, name := range []string{hosttest.User, hosttest.BareUser} {
		t.Run(name, func(t *testing.T) { hosttest.RunAs(t, name, "^Test") })
	}
}
