package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ihucos/plash/replay"
)

// testReplayVariables has callers with and without the variables that an image has, and
// compares what comes of it with a plan and without.
func testReplayVariables(t *testing.T, p *planned) {
	p.id = p.must("plash-build", "--image", p.id, "--run", `mkdir /image
printf '#!/bin/sh\necho tool "$0" "$@"\n' > /image/tool
echo 'echo text "$0" "$@"' > /image/text
echo '#!/nosuch' > /image/broken
chmod 755 /image/*`)
	config := filepath.Join(p.work, "config.json")
	const text = `{"config":{"Env":["PATH=/image:/bin","ONE=image","EMPTY=","PWD=/image","TWO=a=b c"]}}`
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	configured, err := exec.LookPath("configured") // is not installed
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(configured, p.id, config)
	cmd.Env, cmd.Dir = p.env, p.work
	p.as(cmd)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	above := p.id
	p.id = strings.TrimSpace(string(out))
	p.plan = filepath.Join(p.work, "store/containers/0/1", above, p.id, replay.FileName)
	p.mark()
	const run = `exec "$0" "$1" `
	for _, c := range []struct{ name, script, want string }{
		{"none", `unset PATH; ` + run + `sh -c 'echo $PATH $ONE-$EMPTY-$TWO'`, "/image:/bin image--a=b c\n"},
		{"own", `export ONE=own TWO= PATH=/bin; ` + run + `sh -c 'echo $PATH $ONE-${EMPTY-unset}-$TWO'`, "/bin own--\n"},
		{"once", `ONE=own; export ONE; ` + run + `env | grep -c ^ONE=`, "1\n"},
		{"a place", `cd /tmp; ` + run + `sh -c 'echo $PWD'`, "/tmp\n"},
		{"only there", `PATH=/bin; ` + run + `tool 1`, "tool /image/tool 1\n"},
		{"only there, without PATH", `unset PATH; ` + run + `tool 1`, "tool /image/tool 1\n"},
		{"text", `PATH=/bin; ` + run + `text 1`, "text /image/text 1\n"},
		{"broken", `PATH=/bin; ` + run + `broken; echo $?`, "interpreter"},
		{"nowhere", `PATH=/bin; ` + run + `nosuch`, "plash run: nosuch: command not found"},
	} {
		call := func(env ...string) string {
			cmd := exec.Command("/bin/sh", "-c", c.script, p.program("plash-run"), p.id)
			cmd.Env, cmd.Dir = append(p.env, env...), p.work
			p.as(cmd)
			out, err := cmd.CombinedOutput()
			return fmt.Sprintf("%v: %s", err, out)
		}
		with, without := call(), call(replay.Var+"="+replay.Off)
		if with != without || !strings.Contains(with, c.want) {
			t.Errorf("%s:\nwith a plan: %swithout:     %sexpected:    %s", c.name, with, without, c.want)
		}
		if got := p.source(); got != "replay-1" {
			t.Errorf("%s: the plan is not followed any more: %s", c.name, got)
		}
	}
}
