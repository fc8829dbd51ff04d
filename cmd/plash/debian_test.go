package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
