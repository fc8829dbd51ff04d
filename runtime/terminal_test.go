package runtime

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A terminal is a user at a terminal.
type terminal struct {
	*testing.T
	user *os.File
	mu   sync.Mutex
	seen bytes.Buffer
	read int // what expect has seen of it
}

// startAt starts a process as the leader of a session on a new terminal.
func startAt(t *testing.T, cmd *exec.Cmd) *terminal {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminals: %v", err)
	}
	t.Cleanup(func() { user.Close() })
	n, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			_ = cmd.Process.Kill()
		}
	})
	term := &terminal{T: t, user: user}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := user.Read(buf)
			term.mu.Lock()
			term.seen.Write(buf[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return term
}

func (term *terminal) typed(text string) {
	term.Helper()
	if _, err := io.WriteString(term.user, text); err != nil {
		term.Fatal(err)
	}
}

// expect waits for text to be shown, after what was expected before.
func (term *terminal) expect(text string) {
	term.Helper()
	defer func() {
		if term.Failed() {
			term.Logf("the terminal shows %q", term.seen.String())
		}
	}()
	eventually(term, fmt.Sprintf("%q on the terminal", text), func() bool {
		term.mu.Lock()
		defer term.mu.Unlock()
		i := strings.Index(term.seen.String()[term.read:], text)
		if i >= 0 {
			term.read += i + len(text)
		}
		return i >= 0
	})
}

func TestTerminal(t *testing.T) {
	for _, op := range []string{"run", "layer"} {
		t.Run(op, func(t *testing.T) {
			w := newWorld(t)
			cmd := w.command(call{Op: op})
			cmd.Env = append(os.Environ(), "PS1=$ ")
			term := startAt(t, cmd)
			term.expect("$ ")
			term.typed("echo pro''mpt; tty >/dev/null && echo is a''tty\n")
			term.expect("prompt")
			term.expect("atty")
			// Ctrl-C is for what the shell runs.
			mark := fmt.Sprintf("5772%d", os.Getpid())
			term.typed("sleep " + mark + "\n")
			eventually(t, "start of sleep", func() bool { return survivors("^sleep "+mark) == 1 })
			term.typed("\x03")
			term.expect("$ ")
			term.typed("echo code $?\n")
			term.expect("code 130")
			term.typed("echo kept >/file; exit 4\n")
			_ = cmd.Wait()
			equal(t, "exit code", cmd.ProcessState.ExitCode(), 4)
		})
	}
}

func TestTerminalInterruptsCommand(t *testing.T) {
	w := newWorld(t)
	// A command that decides about Ctrl-C itself.
	for _, op := range []string{"run", "layer"} {
		script := "trap 'echo caught; exit 0' INT; echo ready; while :; do sleep 0.01; done"
		cmd := w.command(call{Op: op, Run: RunOptions{Argv: []string{"sh", "-c", script}}, Layer: LayerOptions{Argv: []string{"sh", "-c", script}}})
		term := startAt(t, cmd)
		term.expect("ready")
		term.typed("\x03")
		term.expect("caught")
		_ = cmd.Wait()
		equal(t, op, cmd.ProcessState.ExitCode(), 0)
	}
	// A script of a build has no say in it.
	cmd := w.command(call{Op: "layer", Layer: LayerOptions{Script: "trap '' INT; echo ready; sleep 1000"}})
	term := startAt(t, cmd)
	term.expect("ready")
	term.typed("\x03")
	term.expect("interrupted")
	_ = cmd.Wait()
	equal(t, "script", cmd.ProcessState.ExitCode(), 130)
}

// TestTerminalJobControl has plash under an interactive shell of the host.
func TestTerminalJobControl(t *testing.T) {
	w := newWorld(t)
	for _, op := range []string{"run", "layer"} {
		argv := []string{"sh", "-c", "echo $((40+2)) is it; read line; echo got $line"}
		helper := w.command(call{Op: op, Run: RunOptions{Argv: argv}, Layer: LayerOptions{Argv: argv}})
		inner := w.command(call{Op: op})
		outer := exec.Command("/bin/busybox", "ash", "-i")
		outer.Dir, outer.Env = "/", append(os.Environ(), "PS1=outer$ ", "TERM=dumb")
		term := startAt(t, outer)
		term.expect("outer$ ")
		term.typed("'" + strings.Join(helper.Args, "' '") + "'\n")
		term.expect("42 is it")
		term.typed("\x1a")
		term.expect("Stopped")
		term.typed("echo in be''tween; fg\n")
		term.expect("between")
		term.typed("some words\n")
		term.expect("got some words")
		// A shell in there takes the terminal, and the one out here gets it back.
		term.typed("PS1='inner$ ' '" + strings.Join(inner.Args, "' '") + "'\n")
		term.expect("inner$ ")
		term.typed("echo still in''side; exit\n")
		term.expect("inside")
		term.expect("outer$ ")
		term.typed("sh -c 'read line; echo \"<$line>\"'\n")
		term.typed("more words\n")
		term.expect("<more words>")
		term.expect("outer$ ")
		term.typed("exit 0\n")
		if err := outer.Wait(); err != nil {
			t.Error(err)
		}
	}
}
