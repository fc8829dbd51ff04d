package reaper

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// shell starts a shell with a script.
func shell(t *testing.T, script string, files ...uintptr) int {
	t.Helper()
	pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", script}, &syscall.ProcAttr{Env: os.Environ(), Files: append([]uintptr{0, 1, 2}, files...)})
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// TestWait: the command's end is told, also when others end before.
func TestWait(t *testing.T) {
	if err := Adopt(); err != nil {
		t.Fatal(err)
	}
	for script, want := range map[string]string{
		"exit 3":                       "exit 3",
		"kill -9 $$":                   "signal 9",
		"(true &) ; (true &) ; exit 0": "exit 0",
	} {
		shell(t, "exit 7") // another child, which ends whenever it does
		status, err := Wait(shell(t, script))
		got := "exit " + strconv.Itoa(status.ExitStatus())
		if status.Signaled() {
			got = "signal " + strconv.Itoa(int(status.Signal()))
		}
		if err != nil || got != want {
			t.Errorf("%q: %s, %v", script, got, err)
		}
	}
	if err := killAll(t); err != nil {
		t.Fatal(err)
	}
	if status, err := Wait(unix.Getpid()); err == nil {
		t.Errorf("without a child: %v", status)
	}
}

// killAll kills all that the test has started.
func killAll(t *testing.T) error {
	t.Helper()
	proc, err := os.OpenRoot("/proc")
	if err != nil {
		return err
	}
	defer proc.Close()
	return KillDescendants(proc)
}

// TestKillDescendants: none that left its parent, its session and its signals survives.
func TestKillDescendants(t *testing.T) {
	if err := Adopt(); err != nil {
		t.Fatal(err)
	}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	// Each tells its id, and holds the pipe open.
	const script = `
		(trap '' TERM HUP INT; setsid sh -c 'echo $$ >&3; while :; do sleep 100; done' &)
		sh -c 'sh -c "echo \$\$ >&3; exec sleep 100" & echo $$ >&3; exec sleep 100' &
		exit 0`
	if _, err := Wait(shell(t, script, in.Fd())); err != nil {
		t.Fatal(err)
	}
	in.Close()
	var text strings.Builder
	var b [64]byte
	for strings.Count(text.String(), "\n") < 3 {
		n, err := out.Read(b[:])
		if err != nil {
			t.Fatalf("%q: %v", text.String(), err)
		}
		text.Write(b[:n])
	}
	if err := killAll(t); err != nil {
		t.Fatal(err)
	}
	if n, err := out.Read(b[:]); n > 0 || err == nil {
		t.Errorf("something still has the pipe: %q, %v", b[:n], err)
	}
	for _, word := range strings.Fields(text.String()) {
		pid, err := strconv.Atoi(word)
		if err != nil || unix.Kill(pid, 0) != unix.ESRCH {
			t.Errorf("process %s is still there: %v", word, err)
		}
	}
}
