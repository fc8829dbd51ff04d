package matrix

import (
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// TestMatrix has plash work on all kinds of hosts, and holds what became of it against the
// table, and that against the README. Other programs are shown beside it.
func TestMatrix(t *testing.T) {
	needs(t)
	h := newHouse(t)
	h.images(t)
	h.docker = h.openDocker(t)
	all := rows()
	var mu sync.Mutex
	measured := map[string]map[string]string{}
	t.Run("hosts", func(t *testing.T) {
		for i, w := range all {
			t.Run(w.name, func(t *testing.T) {
				t.Parallel()
				c := w.measure(t, h.room(t, i, w.kind.user()))
				mu.Lock()
				defer mu.Unlock()
				measured[w.name] = c
			})
		}
	})
	if len(measured) == len(all) && !t.Failed() { // not if only some were asked for
		compareREADME(t, table(all, measured))
	}
}

// needs skips the test on machines that cannot be all the hosts.
func needs(t *testing.T) {
	t.Helper()
	for _, program := range []string{"dockerd", "docker", "podman", "proot", "bwrap", "ch-run"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		t.Skip(err)
	}
	for _, name := range []string{"erofs", "overlay", "fuse"} {
		if !strings.Contains(string(known), "\t"+name+"\n") {
			t.Skipf("the kernel does not know %s", name)
		}
	}
	const restriction = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
	if b, err := os.ReadFile(restriction); err == nil && strings.TrimSpace(string(b)) != "0" {
		t.Skipf("%s: users have no namespaces", restriction)
	}
}

// measure finds out what the row's cells are, and says where they are not what they should be.
func (w row) measure(t *testing.T, r *room) map[string]string {
	if err := w.kind.prepare(t, r); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(w.want.backend, "copy") || strings.Contains(w.want.backend, "proot") {
		// Each run at the same time has a copy of the whole image.
		r.env["CROWD"] = r.env["BUSYBOX"]
	}
	found := w.visit(t, r, "probe.sh", r.leftProcesses)
	if err := found.leftBehind(); err != nil {
		t.Error(err)
	}
	if err := found.contradiction(); err != nil {
		t.Error(err)
	}
	got, err := found.cells()
	if err != nil {
		t.Fatal(err)
	}
	for _, column := range ourColumns {
		if want := w.want.wanted(column); got[column] != want {
			t.Errorf("%s: %q, expected %q", column, got[column], want)
		}
	}
	peers := w.visit(t, r, "peers.sh", nil)
	for _, name := range peerColumns {
		got[name] = peerCell(peers[name])
	}
	return got
}

// visit runs a script of the house on the host.
func (w row) visit(t *testing.T, r *room, script string, look func() error) finding {
	t.Helper()
	// What others have started may outlive them; nobody wants that here.
	cmd, err := w.kind.command(r, script, look == nil)
	if err != nil {
		t.Fatal(err)
	}
	return visit(t, cmd, look)
}
