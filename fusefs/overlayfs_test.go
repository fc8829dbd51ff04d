package fusefs

import (
	"archive/tar"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/overlay/treetest"
)

// TestUnderOverlayfs puts the kernel's overlayfs on a mount, and works in it.
func TestUnderOverlayfs(t *testing.T) {
	needFUSE(t)
	src := t.TempDir()
	treetest.Make(t, src, 11, treetest.Options{Entries: 150})
	s := newStore(t)
	lower := mounted(t, s, Options{}, packed(t, s, src))
	want := dump(t, lower)
	tmp := t.TempDir()
	for _, d := range []string{"upper", "work", "root"} {
		must(t, os.Mkdir(filepath.Join(tmp, d), 0o755))
	}
	root := filepath.Join(tmp, "root")
	options := "lowerdir=" + lower + ",upperdir=" + tmp + "/upper,workdir=" + tmp + "/work,xino=on,redirect_dir=nofollow,metacopy=off,index=off"
	if err := unix.Mount("test", root, "overlay", 0, options); err != nil {
		t.Skipf("overlayfs: %v", err)
	}
	defer func() { must(t, unix.Unmount(root, 0)) }()
	below := func(dump string) string { // the root is the upper directory's
		_, rest, _ := strings.Cut(dump, "\n")
		return rest
	}
	same(t, "the overlayfs", below(want), below(dump(t, root)))

	file := filepath.Join(root, "data between")
	var before, after unix.Stat_t
	must(t, unix.Stat(file, &before))
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = f.WriteString("more")
	must(t, errors.Join(err, f.Close()))
	must(t, unix.Stat(file, &after))
	if after.Ino != before.Ino || after.Size != before.Size+4 {
		t.Errorf("after copy-up: inode %d of %d bytes, before: inode %d of %d bytes", after.Ino, after.Size, before.Ino, before.Size)
	}
	treetest.Change(t, root, 1, 100)
	same(t, "what lies below", want, dump(t, lower))
}

// TestForgottenUnderOverlayfs works with copies of files that the kernel has forgotten the
// originals of. (Overlayfs looked those up by handles, found them without their names,
// and FUSE would not say that they are still right: ESTALE.)
func TestForgottenUnderOverlayfs(t *testing.T) {
	needFUSE(t)
	s := newStore(t)
	lower := mounted(t, s, Options{}, ingest(t, s, archive(t, tar.Header{Name: "d/file", Size: 7, Mode: 0o644})))
	tmp := t.TempDir()
	for _, d := range []string{"upper", "work", "root"} {
		must(t, os.Mkdir(filepath.Join(tmp, d), 0o755))
	}
	root := filepath.Join(tmp, "root")
	options := "lowerdir=" + lower + ",upperdir=" + tmp + "/upper,workdir=" + tmp + "/work,xino=on,redirect_dir=nofollow,metacopy=off,index=off"
	if err := unix.Mount("test", root, "overlay", 0, options); err != nil {
		t.Skipf("overlayfs: %v", err)
	}
	defer func() { must(t, unix.Unmount(root, 0)) }()
	file := filepath.Join(root, "d/file")
	must(t, os.Chmod(file, 0o600))
	for range 3 {
		must(t, os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0))
		must(t, os.Rename(file, file+"2"))
		must(t, os.Rename(file+"2", file))
		must(t, os.Chmod(file, 0o640))
	}
}
