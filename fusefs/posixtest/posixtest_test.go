package posixtest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestExt4 holds the table against what it is about.
func TestExt4(t *testing.T) {
	dir := t.TempDir()
	var sf unix.Statfs_t
	check(t, unix.Statfs(dir, &sf))
	if sf.Type != unix.EXT4_SUPER_MAGIC {
		t.Skip("the directory for temporary files is not on ext4")
	}
	Fixture(t, dir)
	Run(t, dir, Options{Lower: true})
}

func TestTmpfs(t *testing.T) {
	dir := mount(t, "tmpfs", "")
	Fixture(t, dir)
	Run(t, dir, Options{Lower: true, Known: map[string]string{}})
}

// TestOverlayfs runs it on the kernel's overlayfs, with the options that plash has.
func TestOverlayfs(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"lower", "upper", "work"} {
		check(t, os.Mkdir(filepath.Join(dir, name), 0o755))
	}
	Fixture(t, filepath.Join(dir, "lower"))
	merged := mount(t, "overlay", fmt.Sprintf(
		"lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work,redirect_dir=nofollow,metacopy=off,index=off,xino=on", dir))
	Run(t, merged, Options{Lower: true, MovesNoLowerDirs: true, Known: map[string]string{}})
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
