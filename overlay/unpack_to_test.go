package overlay

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/opencontainers/go-digest"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/overlay/treetest"
)

// unpackTo unpacks layers, whose blobs are gone by then.
func (s *tarStore) unpackTo(tb testing.TB, tars []string, dir string) LeftOut {
	tb.Helper()
	layers := s.layers(tb, tars)
	v, err := s.View(tb.Context(), digests(layers))
	must(tb, err)
	defer v.Close()
	var m testMeter
	left, err := UnpackTo(tb.Context(), s.Store, v, dir, &m)
	must(tb, err)
	m.wantAll(tb, v.Index)
	return left
}

// A testMeter counts.
type testMeter struct {
	total int64
	done  atomic.Int64
}

func (m *testMeter) Expect(total int64) { m.total = total }
func (m *testMeter) Add(n int64)        { m.done.Add(n) }

// wantAll wants all data of an index to be counted.
func (m *testMeter) wantAll(tb testing.TB, ix *cas.Index) {
	tb.Helper()
	want, err := ix.DataSize(tb.Context())
	must(tb, err)
	if done := m.done.Load(); done != want || m.total != want {
		tb.Errorf("%d bytes of %d counted, want %d", done, m.total, want)
	}
}

// TestConformUnpackTo holds directories that are unpacked for others against what layers have to look like.
func TestConformUnpackTo(t *testing.T) {
	needRoot(t)
	s := newTarStore(t)
	treetest.Conform(t, func(tb testing.TB, tars []string) string {
		dir := tb.TempDir()
		if left := s.unpackTo(tb, tars, dir); left != (LeftOut{}) {
			tb.Errorf("left out: %+v", left)
		}
		// The suite wants what cannot be written to.
		must(tb, unix.Mount(dir, dir, "", unix.MS_BIND, ""))
		tb.Cleanup(func() { must(tb, unix.Unmount(dir, 0)) })
		must(tb, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
		return dir
	})
}

// TestUnpackToRemoved: a view that is open outlives its blobs.
func TestUnpackToRemoved(t *testing.T) {
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "file"), []byte("content"), 0o644))
	tar := filepath.Join(t.TempDir(), "layer.tar")
	treetest.WriteTar(t, tar, root, nil)
	s := newTarStore(t)
	v, err := s.View(t.Context(), digests(s.layers(t, []string{tar})))
	must(t, err)
	defer v.Close()
	_, err = s.Collect(map[digest.Digest]bool{}, map[digest.Digest]bool{})
	must(t, err)
	dir := t.TempDir()
	_, err = UnpackTo(t.Context(), s.Store, v, dir, nil)
	must(t, err)
	if b, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(b) != "content" {
		t.Errorf("%q, %v", b, err)
	}
}

const plainUser = 65534

// asPlainUser does something with all threads of the process being a plain user's.
func asPlainUser(t *testing.T, do func()) {
	t.Helper()
	become := func(id int) {
		t.Helper()
		must(t, syscall.Setresuid(-1, 0, -1)) // who may change the group
		must(t, syscall.Setresgid(-1, id, -1))
		must(t, syscall.Setresuid(-1, id, -1))
	}
	become(plainUser)
	defer become(0)
	do()
}

// alone runs a test in a process of its own, and tells whether this is it: all threads have
// to be the same user's before they can become another's, and other tests change some.
func alone(t *testing.T) bool {
	t.Helper()
	const env = "PLASH_TEST_ALONE"
	if os.Getenv(env) != "" {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), env+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// TestUnpackToUser: a plain user gets all but what is root's to give, with the modes that it has.
func TestUnpackToUser(t *testing.T) {
	needRoot(t)
	if !alone(t) {
		return
	}
	root := t.TempDir()
	shell(t, root, `mkdir -p closed/below nothing; echo x >closed/below/file; echo y >setuid; chmod 4755 setuid; ln setuid link
mknod device c 1 3; ln -s closed symlink; mkfifo fifo; chmod 0555 closed/below; chmod 0 nothing; chmod 0 closed; chown -h 7:8 symlink setuid`)
	must(t, unix.Setxattr(filepath.Join(root, "setuid"), "trusted.x", []byte("y"), 0))
	tar := filepath.Join(t.TempDir(), "layer.tar")
	treetest.WriteTar(t, tar, root, nil)
	s := newTarStore(t)
	dir := t.TempDir()
	must(t, os.Chown(dir, plainUser, plainUser))
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	v, err := s.View(t.Context(), digests(s.layers(t, []string{tar})))
	must(t, err)
	defer v.Close()
	var left LeftOut
	asPlainUser(t, func() { left, err = UnpackTo(t.Context(), s.Store, v, dir, nil) })
	must(t, err)
	if left != (LeftOut{Owners: true, Attributes: true, Devices: true}) {
		t.Errorf("left out: %+v", left)
	}
	for name, want := range map[string]uint32{"closed": 0, "nothing": 0, "closed/below": 0o555, "setuid": 0o755, "closed/below/file": 0o644} {
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(dir, name), &st))
		if st.Mode&0o7777 != want || st.Uid != plainUser {
			t.Errorf("%s has mode %o and owner %d, want %o", name, st.Mode&0o7777, st.Uid, want)
		}
	}
	entries, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != "closed fifo link nothing setuid symlink" {
		t.Errorf("entries: %s", got)
	}
}
