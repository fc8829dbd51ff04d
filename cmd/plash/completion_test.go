package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ihucos/plash/runtime/hosttest"
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
	term := hosttest.StartAt(t, cmd)
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	term.Type(setup + "; echo set up: $((1 + 1))\n")
	term.Expect("set up: 2")
	for _, c := range completed {
		term.Expect("$ ")
		term.Type(c[0] + "\t")
		term.Expect(c[1])
		term.Type("\x15\n") // the line is deleted: Ctrl-C may come before the shell reads again
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
