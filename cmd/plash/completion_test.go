package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What is completed to what, when the tabulator key is hit: by each shell.
var completed = [][2]string{
	{"plash nodep", "plash nodepath "},
	{"plash-nodepath 2 --he", "plash-nodepath 2 --help "},
	{"plash-build --ima", "plash-build --image "},
	{"plash-build --image al", "plash-build --image alpine:3.20 "},
	{"plash-build --image alpine:3", "plash-build --image alpine:3.20 "},
	{"plash-build --image @w", "plash-build --image @web "},
	{"plash-build -i alpine --inc", "plash-build -i alpine --include "},
	{"plash-build -i alpine --include some.p", "plash-build -i alpine --include some.plash "},
	{"plash-build -i alpine --copy some.p", "plash-build -i alpine --copy some.plash "},
	{"plash-build -i alpine --layer write-s", "plash-build -i alpine --layer write-script "},
	{"plash-build -i alpine --import-env PLASH_LX", "plash-build -i alpine --import-env PLASH_LXC_SERVER "},
	{"plash run --image al", "plash run --image alpine:3.20 "},
	{"plash-run @w", "plash-run @web "},
	{"plash-export-tar @my", `plash-export-tar @my\ name `},
	{"plash-import al", "plash-import alpine:3.20 "},
	{"plash-completion z", "plash-completion zsh "},
}

// completionMachine has images and names to complete.
func completionMachine(t *testing.T) *machine {
	t.Helper()
	m := newMachine(t, serveImages(t))
	m.must("plash-import", "alpine:3.20")
	m.must("plash-build", "--image", "alpine:3.20", "--run", "touch /file")
	m.must("plash-map", "web", "2")
	m.must("plash-map", "my name", "1")
	if err := os.WriteFile(filepath.Join(m.work, "some.plash"), []byte("--image\nalpine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestCompletionBash(t *testing.T) {
	const library = "/usr/share/bash-completion/bash_completion"
	if _, err := os.Stat(library); err != nil {
		t.Skip("bash-completion is not installed")
	}
	completeAtTerminal(t, "bash --norc --noprofile -i", ". "+library+"; . <(plash-completion bash)")
}

func TestCompletionZsh(t *testing.T) {
	completeAtTerminal(t, "zsh -f -i", "autoload -U compinit; compinit -u -D; source <(plash-completion zsh)")
}

// completeAtTerminal types lines at a terminal at which a shell is.
func completeAtTerminal(t *testing.T, shell, setup string) {
	argv := strings.Fields(shell)
	path, err := exec.LookPath(argv[0])
	if err != nil {
		t.Skipf("%s is not installed", argv[0])
	}
	m := completionMachine(t)
	cmd := exec.Command(path, argv[1:]...)
	cmd.Env, cmd.Dir = append(m.env, "PS1=$ ", "HOME="+m.work, "TERM=dumb"), m.work
	term := atTerminal(t, cmd)
	term.typed(setup + "; echo set up: $((1 + 1))\n")
	term.expect("set up: 2")
	for _, c := range completed {
		term.expect("$ ")
		term.typed(c[0] + "\t")
		term.expect(c[1])
		term.typed("\x03") // and a new prompt
	}
}

func TestCompletionFish(t *testing.T) {
	if _, err := exec.LookPath("fish"); err != nil {
		t.Skip("fish is not installed")
	}
	m := completionMachine(t)
	m.env = append(m.env, "HOME="+m.work)
	for _, c := range completed {
		out, err := m.run("/usr/bin/env", "fish", "--no-config", "-c", "plash-completion fish | source; complete -C $argv[1]", c[0])
		if err != nil {
			t.Fatal(err)
		}
		want := strings.ReplaceAll(strings.TrimSpace(c[1][strings.LastIndex(c[0], " ")+1:]), `\ `, " ")
		found := false
		for line := range strings.SplitSeq(out, "\n") {
			word, _, _ := strings.Cut(line, "\t")
			found = found || word == want
		}
		if !found {
			t.Errorf("%s: no %q in %q", c[0], want, out)
		}
	}
}

// A keyboard is a user at a terminal.
type keyboard struct {
	*testing.T
	user *os.File
	mu   sync.Mutex
	seen bytes.Buffer
	read int // what expect has seen of it
}

// atTerminal starts a process as the leader of a session on a new terminal.
func atTerminal(t *testing.T, cmd *exec.Cmd) *keyboard {
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
	if err == nil { // wide, so that no line is broken
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
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	k := &keyboard{T: t, user: user}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := user.Read(buf)
			k.mu.Lock()
			k.seen.Write(buf[:n])
			k.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return k
}

func (k *keyboard) typed(text string) {
	k.Helper()
	if _, err := io.WriteString(k.user, text); err != nil {
		k.Fatal(err)
	}
}

// expect waits for text to be shown, after what was expected before.
func (k *keyboard) expect(text string) {
	k.Helper()
	for range 600 {
		k.mu.Lock()
		rest := k.seen.String()[k.read:]
		at := strings.Index(rest, text)
		if at >= 0 {
			k.read += at + len(text)
		}
		k.mu.Unlock()
		if at >= 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.Fatalf("not shown: %q; shown: %q", text, k.seen.String()[k.read:])
}
