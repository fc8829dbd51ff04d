package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// insideVar makes the test binary be a program that measures: one that mounts
// something, starts a process that goes on in the background, and takes its time.
const insideVar = "PLASH_BENCH_TEST_INSIDE"

func TestMain(m *testing.M) {
	if os.Getenv(insideVar) == "" {
		os.Exit(m.Run())
	}
	err := inside()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func inside() error {
	scratch := os.Getenv(scratchVar)
	if scratch == "" {
		return sandbox()
	}
	if err := enterSandbox(); err != nil {
		return err
	}
	dir := filepath.Join(scratch, "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		return err
	}
	// In a session of its own, and with no parent but this init, as servers are.
	if err := exec.Command("sh", "-c", "setsid sleep "+os.Getenv(insideVar)+" >/dev/null 2>&1 &").Run(); err != nil {
		return err
	}
	fmt.Println(scratch)
	time.Sleep(time.Minute)
	return nil
}

// However a run ends, no mount, process or scratch directory stays, except that kill -9
// of the outer process leaves the directory.
func TestSandboxLeavesNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("namespaces need root")
	}
	for _, signals := range [][]os.Signal{{unix.SIGTERM, unix.SIGTERM}, {unix.SIGKILL}} {
		// A number by which the sleeping process is known.
		seconds := fmt.Sprintf("%d.%d", 100000+os.Getpid(), len(signals))
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), insideVar+"="+seconds)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		scratch, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatalf("it does not come up: %v", err)
		}
		scratch = strings.TrimSpace(scratch)
		for deadline := time.Now().Add(10 * time.Second); !running(t, seconds); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the process in the background does not run")
			}
		}
		for _, sig := range signals {
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Millisecond)
		}
		if err := cmd.Wait(); err == nil {
			t.Error("it ended as if nothing had happened")
		}
		for deadline := time.Now().Add(10 * time.Second); running(t, seconds); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("after %v, the process in the background still runs", signals)
			}
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil || strings.Contains(string(mounts), scratch) {
			t.Errorf("after %v, something is mounted in %s: %v", signals, scratch, err)
		}
		if _, err := os.Stat(scratch); err == nil && signals[0] != unix.SIGKILL {
			t.Errorf("after %v, %s is left", signals, scratch)
		}
		if err := os.RemoveAll(scratch); err != nil {
			t.Error(err)
		}
	}
}

// running tells whether a process sleeps for so many seconds.
func running(t *testing.T, seconds string) bool {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		// Processes come and go.
		if text, err := os.ReadFile(f); err == nil && string(text) == "sleep\x00"+seconds+"\x00" {
			return true
		}
	}
	return false
}
