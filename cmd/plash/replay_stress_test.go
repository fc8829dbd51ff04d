package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ihucos/plash/replay"
	"github.com/ihucos/plash/runtime/hosttest"
)

// TestReplayUserStress has a plain user follow a plan many times at once, leave processes
// behind, and be killed.
func TestReplayUserStress(t *testing.T) {
	if !replay.Supported {
		t.Skip("plans are not replayed on this architecture")
	}
	images, bin := serveImages(t), installed(t)
	for _, backend := range []string{"fuse", "unpack"} {
		t.Run(backend, func(t *testing.T) {
			p := newPlanned(t, images, bin, hosttest.User, backend)
			t.Run("at once", func(t *testing.T) { p.atOnce(t, 100) })
			t.Run("left behind", p.leftBehind)
			if got := p.source(); got != "replay-1" {
				t.Errorf("the plan is not followed any more: %s", got)
			}
			t.Run("killed", p.killed)
			os.Remove(p.plan) // a run whose server was killed has made a new one
			p.mark()
			if got := p.source(); got != "replay-1" {
				t.Errorf("the plan is not followed after some were killed: %s", got)
			}
			if err := p.leftServers(); err != nil {
				t.Error(err)
			}
		})
	}
}

func (p *planned) atOnce(t *testing.T, n int) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			out, err := p.run("plash-run", p.id, "sh", "-c", fmt.Sprintf("echo %d > /mine; sleep 0.2; cat /mine", i))
			if err != nil || out != strconv.Itoa(i) {
				t.Errorf("run %d: %q, %v", i, out, err)
			}
		})
	}
	wg.Wait()
}

// leftBehind: a process that outlives its command keeps the filesystem that it is in.
func (p *planned) leftBehind(t *testing.T) {
	out := filepath.Join(p.work, "out")
	// What it reads at last has not been read before.
	p.must("plash-run", p.id, "sh", "-c", "(sleep 2; ls /bin; cat /etc/passwd; echo ended) >"+out+" 2>&1 </dev/null &")
	if got := p.source(); got != "replay-1" {
		t.Errorf("the plan is not followed beside it: %s", got)
	}
	var said []byte
	for range 100 {
		said, _ = os.ReadFile(out) // not there yet
		if strings.Contains(string(said), "ended") {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if !strings.Contains(string(said), "root:") || !strings.HasSuffix(string(said), "ended\n") {
		t.Errorf("a process left behind wrote %q", said)
	}
}

// killed: whatever moment a run is killed at, nothing of it stays.
func (p *planned) killed(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 15
	}
	for range rounds {
		cmd, _, _ := p.command("plash-run", p.id, "sh", "-c", "ls -l /bin /etc; sleep 0.01")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(25_000)) * time.Microsecond)
		victim := cmd.Process.Pid
		if servers := p.servers(); len(servers) > 0 && rand.IntN(3) == 0 {
			victim = servers[0]
		}
		if proc, err := os.FindProcess(victim); err == nil {
			_ = proc.Kill() // it may have ended
		}
		_ = cmd.Wait() // killed, or without its server
		if err := p.leftServers(); err != nil {
			t.Fatal(err)
		}
	}
	if err := leftOver(p.work); err != nil {
		t.Error(err)
	}
}

// leftServers waits for the servers' end.
func (p *planned) leftServers() error {
	for range 100 {
		if len(p.servers()) == 0 {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("left running: servers %v", p.servers())
}

// servers are the processes that have a file of the store mapped, and those that serve it before Go
// has started and mapped one.
func (p *planned) servers() []int {
	var found []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		b, _ := os.ReadFile(filepath.Join(dir, "maps")) // gone meanwhile
		if strings.Contains(string(b), p.work+"/store/") || p.early(dir) {
			if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
				found = append(found, pid)
			}
		}
	}
	return found
}

// early tells whether a process, by its directory in /proc, is a server that has not gone on into
// Go yet: it has the device, answers of the store, and one thread.
func (p *planned) early(proc string) bool {
	name, _ := os.ReadFile(filepath.Join(proc, "comm"))
	threads, _ := os.ReadDir(filepath.Join(proc, "task"))
	answers, _ := os.Readlink(filepath.Join(proc, "fd/5"))
	return strings.HasPrefix(string(name), replay.Serve[:15]) && len(threads) == 1 &&
		strings.HasPrefix(answers, p.work+"/store/") && filepath.Base(answers) == replay.AnswersName
}
