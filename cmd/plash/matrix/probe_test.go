package matrix

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ihucos/plash/runtime"
)

// A line is what the probe says about one thing it has tried.
type line struct {
	code string
	ms   string
	out  string // what was printed
	said string // what was said about errors
}

func (l line) ok() bool { return l.code == "0" }

// A finding is all that the probe has found, by key.
type finding map[string]line

// probeTime is what a probe may take.
const probeTime = 4 * time.Minute

// visit runs a script on a host and collects what it finds. When it says look, it
// waits, and look is called.
func visit(t *testing.T, cmd *exec.Cmd, look func() error) finding {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.WaitDelay = 10 * time.Second // what is left behind holds the streams
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Who hangs is ended, and its children with it.
	timer := time.AfterFunc(probeTime, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	found := finding{}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if lines.Text() == "look" {
			if err := look(); err != nil {
				t.Error(err)
			}
			if _, err := fmt.Fprintln(in); err != nil {
				t.Error(err)
			}
			continue
		}
		f := strings.SplitN(lines.Text(), "\t", 5)
		if len(f) != 5 {
			t.Errorf("not a line of the probe: %q", lines.Text())
			continue
		}
		found[f[0]] = line{f[1], f[2], f[3], f[4]}
		t.Logf("%s: %s (%s ms) %.300s%.400s", f[0], f[1], f[2], f[3], f[4])
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%s: %v: %s", cmd, err, stderr.String())
	}
	return found
}

// backends reads what plash-doctor says, by task.
func (f finding) backends() (map[string]string, error) {
	var h runtime.Host
	if err := json.Unmarshal([]byte(f["doctor"].out), &h); err != nil {
		return nil, fmt.Errorf("read what plash-doctor says: %w: %s", err, f["doctor"].said)
	}
	b := map[string]string{}
	for _, c := range h.Choices {
		b[c.Task] = c.Backend
	}
	return b, nil
}
