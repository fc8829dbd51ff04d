package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/ihucos/plash/replay"
)

// testReplayCallers has the program called in ways that are rarely tried, and compares
// what comes of it with a plan and without.
func testReplayCallers(t *testing.T, p *planned) {
	many := make([]string, 20_000)
	for i := range many {
		many[i] = fmt.Sprintf("V%d=", i)
	}
	large := make([]string, 8)
	for i := range large {
		large[i] = fmt.Sprintf("L%d=%s", i, strings.Repeat("x", 30_000*(i%2+1)))
	}
	const run = `exec "$0" `
	for name, c := range map[string]struct {
		script string // of the shell that calls plash-run, which is $0
		env    []string
		plain  bool // it is not for plans: the run makes a new one
	}{
		"no streams":       {script: run + `"$1" sh -c 'ls -l /proc/self/fd >&3 | cat' 3>&1 <&- >&- 2>&-`},
		"no input":         {script: run + `"$1" sh -c 'cat; readlink /proc/self/fd/0' <&-`},
		"no error stream":  {script: run + `"$1" nosuch 2>&-`},
		"an empty command": {script: run + `"$1" ""`, plain: true},
		"empty arguments":  {script: run + `"$1" printf '<%s>' "" "" x`},
		"removed cwd":      {script: `mkdir gone && cd gone && rmdir ../gone && ` + run + `"$1" sh -c 'pwd; echo $PWD'`},
		"hidden cwd":       {script: `mkdir -p /var/tmp/plash-test && cd /var/tmp/plash-test && rmdir ../plash-test && ` + run + `"$1" sh -c 'pwd; echo $PWD'`},
		"no PATH":          {script: `unset PATH; ` + run + `"$1" env`},
		"a strange PATH":   {script: `PATH=:/nosuch::/etc; ` + run + `"$1" env`},
		"large variables":  {script: run + `"$1" sh -c 'env | cksum'`, env: large, plain: true},
		"long variables":   {script: run + `"$1" sh -c 'env | cksum'`, env: large[:2]},
		"many variables":   {script: run + `"$1" sh -c 'env | cksum'`, env: many, plain: true},
		"an odd variable":  {script: run + `"$1" env`, env: []string{"=x", "novalue", "A=1", "A=2"}},
		"many arguments":   {script: run + `"$1" sh -c 'echo $# "$@" | cksum' sh $(seq 12000)`},
		"umask and limit":  {script: `umask 027; ulimit -n 100; ` + run + `"$1" sh -c 'umask; ulimit -n; ulimit -Hn'`},
	} {
		call := func(plans string) string {
			cmd := exec.Command("sh", "-c", c.script, p.program("plash-run"), p.id)
			cmd.Env, cmd.Dir = append(p.env, c.env...), p.work
			p.as(cmd)
			if plans != "" {
				cmd.Env = append(cmd.Env, replay.Var+"="+plans)
				if strings.Contains(c.script, "env | cksum") {
					cmd.Args[2] = strings.ReplaceAll(c.script, "env", "env | grep -v ^PLASH_REPLAY=")
				}
			}
			out, err := cmd.CombinedOutput()
			return strings.ReplaceAll(fmt.Sprintf("%v: %s", err, out), replay.Var+"="+plans+"\n", "")
		}
		with, without := call(""), call(replay.Off)
		with, without = plainFDs(with), plainFDs(without)
		if with != without || strings.Contains(with, "signal") {
			t.Errorf("%s:\nwith a plan: %.2000s\nwithout:     %.2000s", name, with, without)
		}
		if c.plain {
			os.Remove(p.plan)
			p.mark()
		}
		if got := p.source(); got != "replay-1" {
			t.Errorf("%s: the plan is not followed any more: %s", name, got)
		}
	}
	if p.bin != "" { // the tests' own program knows what it is by its name
		p.noArguments(t)
	}
}

// plainFDs is a listing of descriptors without times and numbers of processes.
func plainFDs(s string) string {
	var lines []string
	for line := range strings.Lines(s) {
		if _, link, ok := strings.Cut(line, " -> "); ok {
			f := strings.Fields(line)
			line = f[len(f)-3] + " " + link
			if strings.Contains(link, "/proc/") || strings.Contains(link, "pipe:") {
				line = f[len(f)-3] + "\n"
			}
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "")
}

// noArguments starts the program without any, not even a name.
func (p *planned) noArguments(t *testing.T) {
	t.Helper()
	out, err := os.Create(filepath.Join(p.work, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	proc, err := os.StartProcess(p.program(binary), nil, &os.ProcAttr{Env: p.env, Files: []*os.File{nil, out, out}})
	if err != nil {
		t.Fatal(err)
	}
	state, err := proc.Wait()
	if err != nil {
		t.Fatal(err)
	}
	said, err := os.ReadFile(out.Name())
	if err != nil || state.Sys().(syscall.WaitStatus).Signaled() || !strings.Contains(string(said), "no command given") {
		t.Errorf("without arguments: %v, %v: %s", state, err, said)
	}
}

// program is the path of a program.
func (p *planned) program(name string) string {
	p.t.Helper()
	path, err := exec.LookPath(filepath.Join(p.bin, name))
	if err != nil {
		p.t.Fatal(err)
	}
	return path
}

// testReplaySignals compares which signals a command has ignored that its caller has
// ignored. Only a program that begins before Go does can know of all.
func testReplaySignals(t *testing.T, p *planned) {
	for traps, want := range map[string]uint64{
		"": 0, "INT QUIT": 0x6, "HUP": 0x1, "PIPE TERM": 0x5000, "QUIT USR1": 0x204,
	} {
		if p.bin == "" && (traps == "PIPE TERM" || traps == "QUIT USR1") {
			want = 0
		}
		for _, plans := range []string{"", replay.Off} {
			script := `exec "$0" "$1" grep SigIgn /proc/self/status`
			if traps != "" {
				script = "trap '' " + traps + "; " + script
			}
			cmd := exec.Command("sh", "-c", script, p.program("plash-run"), p.id)
			cmd.Env, cmd.Dir = p.env, p.work
			p.as(cmd)
			if plans != "" {
				cmd.Env = append(cmd.Env, replay.Var+"="+plans)
			}
			out, err := cmd.CombinedOutput()
			text := strings.TrimSpace(strings.TrimPrefix(string(out), "SigIgn:"))
			got, parseErr := strconv.ParseUint(text, 16, 64)
			// Without the real-time signals: make has one ignored that the C library keeps for itself.
			if got &= 1<<31 - 1; err != nil || parseErr != nil || got != want {
				t.Errorf("ignored %q, %s=%s: %s (%v), want %x", traps, replay.Var, plans, text, err, want)
			}
		}
	}
}
