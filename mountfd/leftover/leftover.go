// Package leftover is for tests: they are to leave nothing behind.
package leftover

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// Main runs the tests of a package, which get a directory of their own for temporary
// files, as others' tests may be running. It fails if afterwards there is a mount below
// that, a descriptor, or a line of what the functions in more list, that was not there
// before.
func Main(m *testing.M, more ...func() string) int {
	dir, err := os.MkdirTemp("", "plash-test")
	if err == nil {
		// Plain users, whom some tests are for a while, must get in.
		err = errors.Join(os.Chmod(dir, 0o755), os.Setenv("TMPDIR", dir))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := run(m, append(more, Mounts, Descriptors))
	if err := os.RemoveAll(dir); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func run(m *testing.M, lists []func() string) int {
	traces := func() (all string) {
		for _, list := range lists {
			all += list()
		}
		return all
	}
	before := traces()
	code := m.Run()
	left := New(before, traces())
	for range 100 { // what the kernel or a process frees is gone a moment later
		if left == "" {
			return code
		}
		time.Sleep(20 * time.Millisecond)
		left = New(before, traces())
	}
	if code == 0 {
		fmt.Fprintf(os.Stderr, "left over:\n%s", left)
		code = 1
	}
	return code
}

// Mounts lists the mounts of this process that are below the directory for temporary files
// of tests.
func Mounts() string {
	var out strings.Builder
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, os.TempDir()+"/") {
			out.WriteString(line)
		}
	}
	return out.String()
}

// Descriptors lists the descriptors of this process, but those in /proc, and the pipes
// and /dev/null that go-fuse keeps to splice with.
func Descriptors() string {
	var out strings.Builder
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, e := range fds {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasPrefix(target, "/proc/") && !strings.HasPrefix(target, "pipe:") && target != "/dev/null" {
			fmt.Fprintf(&out, "%s %s\n", e.Name(), target)
		}
	}
	return out.String()
}

// New gives the lines of after that before does not have.
func New(before, after string) string {
	had := strings.SplitAfter(before, "\n")
	lines := slices.DeleteFunc(strings.SplitAfter(after, "\n"), func(l string) bool { return slices.Contains(had, l) })
	return strings.Join(lines, "")
}
