package overlay

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// treeChanges are shell commands on a small image, each a change of its own.
var treeChanges = []string{
	"",
	"echo new >new; mkdir -p dir/newdir/sub; echo x >dir/newdir/sub/file; mkdir dir/newdir/empty",
	"echo more >>dir/file",
	"chmod 600 dir/file; chmod 700 dir; chown 5:6 link",
	"touch -d 2001-02-03 dir/sub/deep",
	"rm dir/file",
	"rm l2; ln file2 l4",
	"rm -r dir",
	"rm -r dir; mkdir dir; echo new >dir/only",
	"rm -r dir; echo file >dir",
	"rm file; mkdir -p file/sub/sub; echo x >file/sub/sub/x",
	"mv file moved",
	"echo tmp >dir/tmp; rm dir/tmp",
	"ln file hard; ln -s file soft",
	"ln link linked; mkfifo fifo; mknod null c 1 3",
	"setfattr -n user.a -v b dir/sub; setfattr -n trusted.t -v v file; setfattr -x user.x file2",
	"setfacl -m u:5:r file; setfacl -d -m u:5:rwx dir",
	"truncate -s 10M sparse; printf x | dd of=sparse bs=1 seek=5000000 conv=notrunc 2>/dev/null",
	"rm dir/sub/deep; mkdir dir/sub/deep; touch dir/sub/deep/a; mkdir dir/sub/deep/b",
	"chmod 711 .; setfattr -n user.root -v r .",
	"touch empty; rm empty2; mkdir -p a/b/c; rmdir a/b/c; mv a/b a/d",
	"cp -a dir dir2; rm -r dir2/sub; chmod 1777 dir2; rm null0; mknod null0 b 7 0; rm -f fifo0",
}

// TestTreePackSame wants the layer of a tree to be byte for byte that of an upper
// directory of overlayfs after the same changes.
func TestTreePackSame(t *testing.T) {
	needRoot(t)
	s := newStore(t)
	src := t.TempDir()
	shell(t, src, `mkdir -p dir/sub; echo f >file; echo f >file2; setfattr -n user.x -v y file2
		echo d >dir/file; echo e >dir/sub/deep; ln -s dir link; touch empty2; mknod null0 c 1 3; mkfifo fifo0; echo l >l1; ln l1 l2; ln l1 dir/l3
		chown -h 7:8 link dir/file; chmod 4755 file2; find . -exec touch -h -d 2001-01-01 {} +`)
	layers := []Layer{packLayer(t, s, src, false)}
	tree := newTestTree(t, s, layers, filepath.Join(s.Dir(), "copy"), nil)
	for _, change := range treeChanges {
		upper, work := upperDirs(t, s, layers)
		backend := EROFS
		if strings.Contains(change, "setfacl") {
			backend = Unpack // there is no setting an ACL on an EROFS
		}
		withMount(t, s, layers, Options{Backend: backend, Upper: upper, Work: work}, func(dir string) {
			shell(t, dir, change)
		})
		shell(t, tree.dir, change)
		// The time is the only thing that the two cannot have in common.
		for _, dir := range []string{upper, tree.dir} {
			still(t, dir)
		}
		u, err := os.Open(upper)
		must(t, err)
		want, err := PackUpper(context.Background(), s, u)
		must(t, err)
		must(t, u.Close())
		must(t, want.Publish())
		got, err := tree.Pack(context.Background(), nil)
		must(t, err)
		must(t, got.Publish())
		if want.Digest() != got.Digest() {
			a, err := os.ReadFile(s.BlobPath(want.Digest()))
			must(t, err)
			b, err := os.ReadFile(s.BlobPath(got.Digest()))
			must(t, err)
			t.Errorf("after %q: another layer:\noverlayfs: %q\ntree:      %q", change, members(t, a), members(t, b))
		}
		must(t, want.Close())
		must(t, got.Close())
		_, err = tree.setRight()
		must(t, err)
	}
}

func shell(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
}

// still gives all that was changed just now the same time.
func still(t *testing.T, dir string) {
	t.Helper()
	ts := unix.Timespec{Sec: 1e9}
	must(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil || st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
			return err
		}
		if time.Since(time.Unix(st.Mtim.Unix())) > time.Minute {
			return nil
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	}))
}

// TestTreePackWithout leaves paths out, and what they did to their parents.
func TestTreePackWithout(t *testing.T) {
	needRoot(t)
	s := newStore(t)
	src := t.TempDir()
	shell(t, src, "mkdir etc dev home tmp; echo image >etc/resolv.conf; touch etc/passwd home/x tmp/gone; touch -d 2001-01-01 . etc dev")
	layers := []Layer{packLayer(t, s, src, false)}
	tree := newTestTree(t, s, layers, filepath.Join(s.Dir(), "copy"), nil)
	without := []string{"dev", "etc/resolv.conf", "home", "proc", "tmp"}
	shell(t, tree.dir, "rm etc/resolv.conf; echo host >etc/resolv.conf; mkdir proc; touch dev/null")
	must(t, tree.Forgive([]string{"", "etc", "dev", "not there"}))
	tree.settle()
	shell(t, tree.dir, "touch proc/x; rm -r home; rm tmp/gone; touch tmp/x; touch -d 2001-01-01 .")
	staged, err := tree.Pack(t.Context(), without)
	must(t, err)
	must(t, staged.Publish())
	b, err := os.ReadFile(s.BlobPath(staged.Digest()))
	must(t, err)
	layer := Layer{Digest: staged.Digest(), Packed: true}
	must(t, staged.Close())
	wantMembers(t, b, "./")

	shell(t, tree.dir, "echo root >>etc/passwd")
	staged, err = tree.Pack(t.Context(), without)
	must(t, err)
	must(t, staged.Publish())
	b, err = os.ReadFile(s.BlobPath(staged.Digest()))
	must(t, err)
	must(t, staged.Close())
	wantMembers(t, b, "./", "etc/", "etc/passwd")

	// What was left out is not in the tree of the new layer either.
	shell(t, tree.dir, ": >etc/passwd")
	next := openTestTree(t, s, append(slices.Clone(layers), layer), tree.dir)
	must(t, next.withBin(func(bin func() (*os.File, error)) error { return next.Adopt(t.Context(), without, bin) }))
	got := dump(t, tree.dir)
	for _, line := range strings.Split(dump(t, src), "\n") {
		if !strings.HasPrefix(line, `"etc/passwd"`) && !strings.HasPrefix(line, `"."`) && !strings.Contains(got, line) {
			t.Errorf("the tree lacks %s", line)
		}
	}
	if strings.Contains(got, "proc") || strings.Contains(got, `"tmp/x"`) {
		t.Errorf("something is left:\n%s", got)
	}
}
