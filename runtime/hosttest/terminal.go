package hosttest

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
	"time"

	"golang.org/x/sys/unix"
)

// A Terminal is a user at a terminal of 50 lines of 200 characters.
type Terminal struct {
	// User is the user's side of it: the master of a pseudoterminal.
	User *os.File

	t     *testing.T
	mu    sync.Mutex
	shown bytes.Buffer
	read  int // what Expect has seen of it
}

// StartAt starts a process as the leader of a session on a new terminal. Waiting for it is the
// caller's; a test that has failed kills it.
func StartAt(t *testing.T, cmd *exec.Cmd) *Terminal {
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
	if err == nil {
		err = unix.IoctlSetWinsize(int(user.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 200})
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
	term := &Terminal{User: user, t: t}
	go term.watch()
	return term
}

func (term *Terminal) watch() {
	buf := make([]byte, 4096)
	for {
		n, err := term.User.Read(buf)
		term.mu.Lock()
		term.shown.Write(buf[:n])
		term.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Type types text.
func (term *Terminal) Type(text string) {
	term.t.Helper()
	if _, err := io.WriteString(term.User, text); err != nil {
		term.t.Fatal(err)
	}
}

// Expect waits for text to be shown, after what was expected before.
func (term *Terminal) Expect(text string) {
	term.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if term.has(text) {
			return
		}
	}
	term.t.Fatalf("not in time: %q on the terminal, which shows %q", text, term.Shown())
}

func (term *Terminal) has(text string) bool {
	term.mu.Lock()
	defer term.mu.Unlock()
	i := strings.Index(term.shown.String()[term.read:], text)
	if i >= 0 {
		term.read += i + len(text)
	}
	return i >= 0
}

// Shown is all that has been shown.
func (term *Terminal) Shown() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.shown.String()
}
