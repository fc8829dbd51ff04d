package posixtest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestExt4 holds the table against what it is about.
func TestExt4(t *testing.T) {
	dir := t.TempDir()
	needExt4(t, dir)
	Fixture(t, dir)
	Run(t, dir, Options{Lower: true})
}

func TestTmpfs(t *testing.T) {
	dir := mount(t, "tmpfs", "")
	Fixture(t, dir)
	Run(t, dir, Tmpfs())
}

func TestOverlayfs(t *testing.T) {
	dir := t.TempDir()
	needExt4(t, dir)
	Run(t, mountOverlay(t, dir, dir), Overlayfs())
}

// TestOverlayfsInMemory has the upper directory on a tmpfs.
func TestOverlayfsInMemory(t *testing.T) {
	dir := t.TempDir()
	needExt4(t, dir)
	upper := mount(t, "tmpfs", "")
	o := Overlayfs()
	maps.Copy(o.Known, Tmpfs().Known)
	Run(t, mountOverlay(t, dir, upper), o)
}

func needExt4(t *testing.T, dir string) {
	t.Helper()
	var sf unix.Statfs_t
	check(t, unix.Statfs(dir, &sf))
	if sf.Type != unix.EXT4_SUPER_MAGIC {
		t.Skip("the directory for temporary files is not on ext4")
	}
}

// mountOverlay mounts an overlayfs over the files of the table, with the options that
// plash has.
func mountOverlay(t *testing.T, lower, upper string) string {
	t.Helper()
	for _, name := range []string{lower + "/lower", upper + "/upper", upper + "/work"} {
		check(t, os.Mkdir(name, 0o755))
	}
	Fixture(t, filepath.Join(lower, "lower"))
	return mount(t, "overlay", fmt.Sprintf("lowerdir=%s/lower,upperdir=%[2]s/upper,workdir=%[2]s/work,"+
		"redirect_dir=nofollow,metacopy=off,index=off,xino=on", lower, upper))
}

func mount(t *testing.T, typ, options string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	check(t, unix.Mount(typ, dir, typ, 0, options))
	t.Cleanup(func() { check(t, unix.Unmount(dir, 0)) })
	return dir
}

// TestFull fills an overlayfs whose upper directory is small.
func TestFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	lower, upper := t.TempDir(), mount(t, "tmpfs", "size=3m")
	FullFixture(t, lower)
	check(t, os.Mkdir(filepath.Join(upper, "upper"), 0o755))
	check(t, os.Mkdir(filepath.Join(upper, "work"), 0o755))
	RunFull(t, mount(t, "overlay", fmt.Sprintf("lowerdir=%s,upperdir=%[2]s/upper,workdir=%[2]s/work", lower, upper)))
}
