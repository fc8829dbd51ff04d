package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ihucos/plash/runtime/bundle"
	"github.com/ihucos/plash/runtime/hosttest"
)

// TestRuncManyAtOnce has 100 isolated containers at the same time, 20 of whose processes are killed:
// nothing is left.
func TestRuncManyAtOnce(t *testing.T) {
	images, bin := serveImages(t), installed(t)
	for _, engine := range bundle.Engines() {
		for _, user := range []string{"", hosttest.User, hosttest.BareUser} {
			t.Run(engine+" "+user, func(t *testing.T) {
				m := newMachine(t, images)
				m.bin = bin
				if user != "" {
					m.login(user)
				}
				m.manyContainers(engine)
			})
		}
	}
}

func (m *machine) manyContainers(engine string) {
	m.t.Helper()
	runs, kills := 100, 20
	if testing.Short() {
		runs, kills = 12, 4
	}
	id := m.must("plash-import", "alpine")
	groups := controlGroups(m.t)
	// Like no other number of seconds.
	mark := fmt.Sprintf("%d.%d", 100000+os.Getpid(), time.Now().UnixNano()%1e6)
	killed := make(chan bool, runs)
	var wg sync.WaitGroup
	for i := range runs {
		wg.Go(func() {
			if i%(runs/kills) == 0 {
				killed <- m.killContainer(engine, id, mark)
				return
			}
			out, err := m.run("plash-runc", "--runtime", engine, id, "sh", "-c", fmt.Sprintf("echo %d > /mine; sleep 0.2; cat /mine", i))
			if err != nil || out != fmt.Sprint(i) {
				m.t.Errorf("run %d: %q, %v", i, out, err)
			}
		})
	}
	wg.Wait()
	close(killed)
	early := 0
	for in := range killed {
		if in {
			early++
		}
	}
	m.t.Logf("%d of %d were killed before they ended", early, kills)
	if early < kills/2 {
		m.t.Errorf("only %d of %d were killed before they ended", early, kills)
	}
	left := ""
	for range 100 {
		b, _ := exec.Command("pgrep", "-a", "-f", "^sleep "+mark).Output() // 1: there are none
		if left = string(b); left == "" {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if left != "" {
		m.t.Errorf("left running: %s", left)
	}
	if now := controlGroups(m.t); now != groups {
		m.t.Errorf("control groups are left: %s, before: %s", now, groups)
	}
	m.must("plash-clean")
	m.must("plash-runc", "--runtime", engine, id, "true")
}

// killContainer starts a container that would run for long, and kills plash or a process that it has
// started at a random moment. It reports whether that was in time.
func (m *machine) killContainer(engine, id, mark string) bool {
	cmd, _, _ := m.command("plash-runc", "--runtime", engine, id, "sh", "-c", "sleep "+mark+" & sleep "+mark)
	if err := cmd.Start(); err != nil {
		m.t.Error(err)
		return false
	}
	time.Sleep(time.Duration(rand.IntN(2000)) * time.Millisecond)
	victim := cmd.Process.Pid
	if others := descendants(victim); len(others) > 0 && rand.IntN(2) == 0 {
		victim = others[rand.IntN(len(others))]
	}
	if p, err := os.FindProcess(victim); err == nil {
		_ = p.Kill() // it may have ended
	}
	// One of those that the container can do without was the victim.
	end := time.AfterFunc(2*time.Second, func() { _ = cmd.Process.Kill() })
	defer end.Stop()
	return cmd.Wait() != nil
}

// controlGroups are those that are called as plash's containers are.
func controlGroups(t testing.TB) string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"*/plash-[0-9]*", "plash-[0-9]*", "*/*/plash-[0-9]*"} {
		dirs, err := filepath.Glob("/sys/fs/cgroup/" + pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, dirs...)
	}
	return strings.Join(found, " ")
}
