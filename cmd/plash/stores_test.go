package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/runtime/hosttest"
)

// oddStore is a name with all that options of mounts, lists of paths and shells read as something
// else.
const oddStore = `a b,c:d\e=ü`

// TestStores has stores on filesystems that lack one thing or another, under an odd name, for root
// and for plain users.
func TestStores(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts filesystems by root")
	}
	image := func(mkfs ...string) func(t *testing.T, dir string) error {
		return func(t *testing.T, dir string) error {
			file := filepath.Join(t.TempDir(), "image")
			for _, cmd := range [][]string{{"truncate", "-s", "4G", file}, append(mkfs, file), {"mount", "-o", "loop", file, dir}} {
				if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
					t.Logf("%v: %s", cmd, out)
					return err
				}
			}
			return nil
		}
	}
	for name, mount := range map[string]func(t *testing.T, dir string) error{
		"tmpfs": func(_ *testing.T, dir string) error { return unix.Mount("tmpfs", dir, "tmpfs", 0, "") },
		// The kernel takes no upper directory on it, and stacks only so many.
		"overlayfs": func(t *testing.T, dir string) error {
			base := t.TempDir()
			for _, d := range []string{"l", "u", "w"} {
				if err := os.Mkdir(filepath.Join(base, d), 0o755); err != nil {
					return err
				}
			}
			return unix.Mount("overlay", dir, "overlay", 0, "lowerdir="+base+"/l,upperdir="+base+"/u,workdir="+base+"/w")
		},
		"xfs":            image("mkfs.xfs", "-q"),
		"btrfs":          image("mkfs.btrfs", "-q"),
		"without xattrs": image("mkfs.ext4", "-q", "-O", "^ext_attr"),
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("/tmp", "plash-store")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := os.Remove(dir); err != nil {
					t.Error(err)
				}
			})
			if err := mount(t, dir); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := unix.Unmount(dir, 0); err != nil {
					t.Error(err)
				}
			})
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for _, user := range []string{"root", hosttest.User, hosttest.BareUser} {
				t.Run(user, func(t *testing.T) {
					l, err := hosttest.LogInAt(user, dir)
					if err != nil {
						t.Fatal(err)
					}
					l.Run(t, "^TestScripts$/^(session|create|run)$", []string{"PLASH_TEST_STORE=" + oddStore})
				})
			}
		})
	}
}
