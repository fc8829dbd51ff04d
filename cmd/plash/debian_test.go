package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ihucos/plash/importexport/imageserver"
	"github.com/ihucos/plash/overlay/treetest"
)

// TestDebian takes a real Debian from an image server, installs a package from the
// distribution's mirror in it and runs it; and again from the cache at once.
func TestDebian(t *testing.T) {
	if testing.Short() {
		t.Skip("makes and boots a Debian root filesystem")
	}
	im, err := imageserver.DebianImage("")
	if err != nil {
		t.Fatal(err)
	}
	server, err := imageserver.New(im)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	m := newMachine(t, images{server: server.URL()})
	args := []string{"--image", "bookworm", "--apt", "file", "--", "file", "/bin/ls"}
	out := m.must("plash-run", args...)
	if !strings.HasPrefix(out, "/bin/ls: ELF ") {
		t.Errorf("file /bin/ls: %q", out)
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	cmd, stdout, stderr := m.command("plash-run", args...)
	if err := cmd.Run(); err != nil || strings.TrimSpace(stdout.String()) != out || stderr.Len() > 0 {
		t.Errorf("again: %v, %q, %q", err, stdout, stderr)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("again, it took %v", d)
	}
	tar, err := imageserver.DebianRoot("")
	if err != nil {
		t.Fatal(err)
	}
	m.equalsTar(tar)
}

// TestReadsBack has a seeded random tree read back from both backends.
func TestReadsBack(t *testing.T) {
	m := newMachine(t, images{})
	tree := filepath.Join(m.work, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	treetest.Make(t, tree, 7, treetest.Options{Entries: 2000})
	tar := filepath.Join(m.work, "tree.tar")
	cmd := exec.Command("tar", "--xattrs", "--xattrs-include=*", "--acls", "--format=pax", "--sparse", "--numeric-owner",
		"-c", "-C", tree, "-f", tar, ".")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	m.equalsTar(tar)
}

// equalsTar imports a tar and compares what each backend shows with what tar -x
// makes of it.
func (m *machine) equalsTar(tar string) {
	t := m.t
	t.Helper()
	want := filepath.Join(m.work, "want")
	if err := os.MkdirAll(want, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tar", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "-x", "-C", want, "-f", tar)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	wanted, err := treetest.Dump(want)
	if err != nil {
		t.Fatal(err)
	}
	id := m.must("plash-import-tar", tar)
	m.eachMounted(id, func(backend, dir string) {
		got, err := treetest.Dump(dir)
		if err != nil {
			t.Errorf("%s: %v", backend, err)
			return
		}
		if got != wanted {
			t.Errorf("%s: %s", backend, treetest.Diff(wanted, got))
		}
	})
}

// TestApt installs a package that asks questions, where nobody is at a terminal.
func TestApt(t *testing.T) {
	if testing.Short() {
		t.Skip("installs packages in a Debian root filesystem")
	}
	server, err := imageserver.New(plainDebian(t))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	m := newMachine(t, images{server: server.URL()})
	m.must("plash-import", "debian:bookworm")
	cmd, stdout, stderr := m.command("plash-build", "--image", "debian:bookworm", "--apt", "keyboard-configuration", "file")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close() // standard input that never comes to an end
	cmd.Stdin = r
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, stderr)
	}
	// The log: what was done, in lines; no questions, downloads, percentages or warnings.
	percentage := regexp.MustCompile(`[0-9]%([^0-9]|$)`)
	for line := range strings.Lines(stderr.String()) {
		if strings.HasPrefix(line, "--> ") {
			continue
		}
		if percentage.MatchString(line) {
			t.Errorf("in the log: %q", line)
		}
		for _, noise := range []string{"\r", "Get:", "Fetched", "Reading package lists", "debconf", "warning", "WARNING", "[y/N]", "[Y/n]"} {
			if strings.Contains(line, noise) {
				t.Errorf("in the log: %q", line)
			}
		}
	}
	if !strings.Contains(stderr.String(), "Setting up file ") {
		t.Errorf("the log does not say what was installed: %s", stderr)
	}
	// The layer: neither lists nor archives, nor what plash needed meanwhile.
	for line := range strings.SplitSeq(m.must("plash-diff", strings.TrimSpace(stdout.String())), "\n") {
		for _, dir := range []string{"/var/lib/apt/lists/", "/var/cache/apt/", "/usr/sbin/policy-rc.d", "/tmp/", "/dev/", "/proc/"} {
			if strings.HasPrefix(line, "A "+dir) {
				t.Errorf("in the layer: %s", line)
			}
		}
	}
	if out := m.must("plash-run", strings.TrimSpace(stdout.String()), "dpkg", "-s", "keyboard-configuration"); !strings.Contains(out, "Status: install ok installed") {
		t.Errorf("not installed: %s", out)
	}
}
