package main

import (
	"strings"
	"testing"

	"github.com/ihucos/plash/replay"
)

// TestStepsBeforeGo builds with the tests' own program, whose init of a step is Go's, and with
// the one that the Makefile builds, whose init begins before Go does: a script finds the same, and the
// same is told of it.
func TestStepsBeforeGo(t *testing.T) {
	if !replay.Supported {
		t.Skip("there are no plans on this architecture")
	}
	images, bin := serveImages(t), installed(t)
	ways := map[string]*machine{"Go": newMachine(t, images), "replay": newMachine(t, images)}
	ways["replay"].bin = bin
	for _, c := range []struct {
		script string
		init   bool // the init is told apart, as it should be
	}{
		{`id; pwd; umask; echo "$0 $#"; tr '\0' '\n' </proc/self/environ | sort`, false},
		{`cd /proc/self; grep -v -e ctxt -e gid: -e Sig -e State -e HugeT -e ^Vm -e ^Rss -e Pid: -e NSpid -e Cpus -e Mems -e Speculation status`, false},
		{`cut -d ' ' -f 5- /proc/self/mountinfo | sed 's/ shared:[0-9]*//; s/ master:[0-9]*//; s/upperdir=[^,]*//; s/workdir=[^,]*//' | grep -v -e lowerdir -e overlay | sort`, false},
		{`for f in /proc/self/fd/*; do echo "${f##*/}"; done`, false},
		{`(sleep 100 &) ; sleep 0.5`, false},
		{`tr '\0' ' ' </proc/1/cmdline; readlink /proc/1/cwd /proc/1/root`, false},
		{`sh -c 'kill -TERM $PPID'`, false},
		{`sh -c 'kill -KILL $PPID'`, false},
		{`no-such-command`, false},
		{`exit 77`, false},
		{`test -e /proc/1/task/1 && ls /proc/1/task | wc -l`, true},
		{strings.Repeat("# a long comment\n", 2500) + "echo long", false},
		{strings.Repeat("# a long comment\n", 4500) + "echo too long for a plan", false},
	} {
		type result struct{ out, err, exit string }
		results := map[string]result{}
		for way, m := range ways {
			script := c.script
			if strings.ContainsAny(script, "|&") {
				script = "exec 2>/dev/null\n" + script // what runs at the same time is traced in any order
			}
			cmd, stdout, stderr := m.command("plash-build", "--image", "alpine", "--invalidate-layer", "--run", script)
			exit := "0"
			if err := cmd.Run(); err != nil {
				exit = err.Error()
			}
			results[way] = result{stdout.String(), stderr.String(), exit}
		}
		shown := c.script[:min(60, len(c.script))]
		if same := results["Go"] == results["replay"]; same == c.init {
			t.Errorf("%s:\nGo: %v\nreplay: %v", shown, results["Go"], results["replay"])
		}
	}
	// Without a shell there is nothing to start, which is for Go to tell.
	var said []string
	for _, m := range ways {
		cmd, _, stderr := m.command("plash-build", "--image", "0", "--run", "true")
		if err := cmd.Run(); err == nil {
			t.Error("a build without a shell ends well")
		}
		said = append(said, stderr.String())
	}
	if said[0] != said[1] || !strings.Contains(said[0], "sh") {
		t.Errorf("without a shell: %q", said)
	}
}
