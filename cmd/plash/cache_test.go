package main

import (
	"os"
	"strings"
	"testing"

	"github.com/ihucos/plash/importexport/registry/registrytest"
	"github.com/ihucos/plash/runtime/hosttest"
)

// sharedLayers is a build whose second time would give something else.
var sharedLayers = []string{
	"--image", "alpine",
	"--run", "head -c 12 /dev/urandom | od >/random; mkdir /dir; chown 12:34 /dir; chmod 4755 /random",
	"--layer", "--run", "rm -r /dir; echo >/dir; ln /random /other",
	"--layer", "--run", "date +%s%N >/date",
}

// TestCacheBetweenMachines has machines with a registry between them, of different users and
// with different backends: one builds, the others do not.
func TestCacheBetweenMachines(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("becomes other users by root")
	}
	host, _ := registrytest.Real{}.Start(t)
	images := serveImages(t)
	build := func(t *testing.T, user, backend, repo string) (tree string, built int) {
		m := newMachine(t, images)
		if user != "root" {
			m.login(user)
		}
		m.env = append(m.env, "PLASH_BACKEND="+backend, "PLASH_CACHE_TO="+host+"/"+repo)
		cmd, stdout, stderr := m.command("plash-build", sharedLayers...)
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v: %s", err, stderr)
		}
		if strings.Contains(stderr.String(), "warning") {
			t.Errorf("%s", stderr)
		}
		id := strings.TrimSpace(stdout.String())
		// The command runs there, and all sees the same.
		m.must("plash-run", id, "test", "/other", "-ef", "/random")
		return m.must("sh", "-c", "plash-export-tar "+id+" | sha256sum"), strings.Count(stderr.String(), "--:\n")
	}
	for _, first := range []string{"root", hosttest.User, hosttest.BareUser} {
		t.Run("built by "+first, func(t *testing.T) {
			repo := "cache/" + first
			want, built := build(t, first, "", repo)
			if built != 3 {
				t.Fatalf("%d layers were built", built)
			}
			for _, second := range [][2]string{
				{"root", "erofs"},
				{"root", "unpack"},
				{"root", "fuse"},
				{"root", "union"},
				{"root", "copy"},
				{hosttest.User, "fuse"},
				{hosttest.User, "unpack"},
				{hosttest.BareUser, "union"},
				{hosttest.BareUser, "fuse"},
			} {
				t.Run(second[0]+" "+second[1], func(t *testing.T) {
					if got, built := build(t, second[0], second[1], repo); built != 0 || got != want {
						t.Errorf("%d layers were built: %s, want %s", built, got, want)
					}
				})
			}
		})
	}
}
