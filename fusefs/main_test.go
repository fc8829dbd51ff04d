package fusefs

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/mountfd/leftover"
	"github.com/ihucos/plash/overlay/treetest"
)

// TestMain checks that the tests leave no server either.
func TestMain(m *testing.M) {
	MaybeServe()
	if len(os.Args) == 5 && os.Args[1] == helperName {
		os.Exit(helper(os.Args[2], os.Args[3], os.Args[4]))
	}
	os.Exit(leftover.Main(m, serversLeft))
}

func serversLeft() string {
	var out strings.Builder
	for pid, source := range servers() {
		fmt.Fprintf(&out, "%s %s\n", pid, source)
	}
	return out.String()
}

// servers are the pids of this test's servers, with their sources. (Others may be running.)
func servers() map[string]string {
	found := map[string]string{}
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range all {
		b, err := os.ReadFile(path)
		argv := strings.Split(string(b), "\x00")
		if err == nil && len(argv) > 1 && (argv[0] == serverName || argv[0] == starterName) && strings.HasPrefix(argv[1], testSource()) {
			found[filepath.Base(filepath.Dir(path))] = argv[1]
		}
	}
	return found
}

func testSource() string { return fmt.Sprintf("test-%d", os.Getpid()) }

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func needFUSE(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("mounting needs root")
	}
	if _, err := os.Stat(devicePath); err != nil {
		tb.Skipf("no FUSE: %v", err)
	}
}

func newStore(tb testing.TB) *cas.Store {
	tb.Helper()
	dir := filepath.Join(tb.TempDir(), "store")
	must(tb, cas.Init(dir))
	s, err := cas.Open(dir)
	must(tb, err)
	return s
}

func ingest(tb testing.TB, s *cas.Store, r io.Reader) digest.Digest {
	tb.Helper()
	st, err := s.Ingest(context.Background(), r, cas.IngestOptions{})
	must(tb, err)
	must(tb, st.Publish())
	d := st.Digest()
	must(tb, st.Close())
	return d
}

// packed makes a layer of a directory, with GNU tar.
func packed(tb testing.TB, s *cas.Store, dir string, more ...string) digest.Digest {
	tb.Helper()
	args := append([]string{
		"--format=posix", "--pax-option=delete=atime,delete=ctime", "--xattrs", "--xattrs-include=*",
		"--numeric-owner", "--sparse", "-C", dir, "-c", ".",
	}, more...)
	cmd := exec.Command("tar", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(tb, err)
	if err := cmd.Start(); err != nil {
		tb.Skipf("tar: %v", err)
	}
	d := ingest(tb, s, out)
	must(tb, cmd.Wait())
	return d
}

// mounted attaches a mount of layers to a directory, until the test ends.
func mounted(tb testing.TB, s *cas.Store, o Options, layers ...digest.Digest) string {
	tb.Helper()
	dir := tb.TempDir()
	if o.Source == "" {
		o.Source = testSource()
	}
	m, err := Open(context.Background(), s, layers, o)
	must(tb, err)
	must(tb, m.AttachTo(dir))
	must(tb, m.Close())
	tb.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil && err != unix.EINVAL {
			tb.Errorf("unmount: %v", err)
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	return dir
}

func dump(tb testing.TB, dir string) string {
	tb.Helper()
	d, err := treetest.Dump(dir)
	must(tb, err)
	return d
}

// specialLink matches what a dump says of hard links to devices and FIFOs, which GNU tar
// takes for files of their own.
var specialLink = regexp.MustCompile(`(?m)^("(?:[^"\\]|\\.)*" 0[126].*) link="(?:[^"\\]|\\.)*"`)

// dumpAsTar is what a tree looks like after tar.
func dumpAsTar(tb testing.TB, dir string) string {
	return specialLink.ReplaceAllString(dump(tb, dir), "$1")
}

func same(tb testing.TB, what, want, got string) {
	tb.Helper()
	if diff := treetest.Diff(want, got); diff != "" {
		tb.Errorf("%s differs:\n%s", what, diff)
	}
}
