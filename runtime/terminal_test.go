package runtime

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/ihucos/plash/runtime/hosttest"
)

func TestTerminal(t *testing.T) {
	for _, op := range []string{"run", "layer"} {
		t.Run(op, func(t *testing.T) {
			w := newWorld(t)
			cmd := w.command(call{Op: op})
			cmd.Env = append(os.Environ(), "PS1=$ ")
			term := hosttest.StartAt(t, cmd)
			term.Expect("$ ")
			term.Type("echo pro''mpt; tty >/dev/null && echo is a''tty\n")
			term.Expect("prompt")
			term.Expect("atty")
			// Ctrl-C is for what the shell runs.
			mark := fmt.Sprintf("5772%d", os.Getpid())
			term.Type("sleep " + mark + "\n")
			eventually(t, "start of sleep", func() bool { return survivors("^sleep "+mark) == 1 })
			term.Type("\x03")
			term.Expect("$ ")
			term.Type("echo code $?\n")
			term.Expect("code 130")
			term.Type("echo kept >/file; exit 4\n")
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
		term := hosttest.StartAt(t, cmd)
		term.Expect("ready")
		term.Type("\x03")
		term.Expect("caught")
		_ = cmd.Wait()
		equal(t, op, cmd.ProcessState.ExitCode(), 0)
	}
	// A script of a build has no say in it.
	cmd := w.command(call{Op: "layer", Layer: LayerOptions{Script: "trap '' INT; echo ready; sleep 1000"}})
	term := hosttest.StartAt(t, cmd)
	term.Expect("ready")
	term.Type("\x03")
	term.Expect("interrupted")
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
		term := hosttest.StartAt(t, outer)
		term.Expect("outer$ ")
		term.Type("'" + strings.Join(helper.Args, "' '") + "'\n")
		term.Expect("42 is it")
		term.Type("\x1a")
		term.Expect("Stopped")
		term.Type("echo in be''tween; fg\n")
		term.Expect("between")
		term.Type("some words\n")
		term.Expect("got some words")
		// A shell in there takes the terminal, and the one out here gets it back.
		term.Type("PS1='inner$ ' '" + strings.Join(inner.Args, "' '") + "'\n")
		term.Expect("inner$ ")
		term.Type("echo still in''side; exit\n")
		term.Expect("inside")
		term.Expect("outer$ ")
		term.Type("sh -c 'read line; echo \"<$line>\"'\n")
		term.Type("more words\n")
		term.Expect("<more words>")
		term.Expect("outer$ ")
		term.Type("exit 0\n")
		if err := outer.Wait(); err != nil {
			t.Error(err)
		}
	}
}
