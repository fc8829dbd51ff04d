package union

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFull fills the filesystem of the upper directory, and makes it read-only: programs
// are told so, and what was there stays.
func TestFull(t *testing.T) {
	needRoot(t)
	eachForm(t, func(t *testing.T, o Options) {
		lower := t.TempDir()
		prepareOps(t, lower)
		m := newUnion(t, lower, o)
		base := m.writeTo(t, "size=1m")
		if err := fillUp(m.at("filler")); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("filling up: %v", err)
		}
		if err := os.Chmod(m.at("big"), 0o600); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("copying up: %v", err)
		}
		d := dirOf{m.dir, &strings.Builder{}}
		if d.cat("big"); !strings.Contains(d.out.String(), "320000 bytes") {
			t.Errorf("what was not copied up: %s", d.out)
		}
		must(t, os.Remove(m.at("filler")))
		whenRoom(t, unix.ENOSPC, func() error { return os.Chmod(m.at("big"), 0o600) })
		must(t, unix.Mount("", base, "", unix.MS_REMOUNT|unix.MS_RDONLY, "size=1m"))
		for what, err := range map[string]error{
			"create": os.WriteFile(m.at("new"), nil, 0o644), "mkdir": os.Mkdir(m.at("newdir"), 0o755),
			"chmod": os.Chmod(m.at("big"), 0o644), "remove": os.Remove(m.at("file")),
			"rename": os.Rename(m.at("big"), m.at("x")), "copy up": os.Chmod(m.at("file"), 0o600),
		} {
			if !errors.Is(err, unix.EROFS) {
				t.Errorf("%s where nothing can be written: %v", what, err)
			}
		}
		must(t, unix.Mount("", base, "", unix.MS_REMOUNT, "size=1m"))
	})
}

// writeTo mounts the union anew with its upper and work directory on a tmpfs of those options, which it returns.
func (m *mounted) writeTo(t *testing.T, options string) (base string) {
	t.Helper()
	m.unmount()
	base = t.TempDir()
	must(t, unix.Mount("tmpfs", base, "tmpfs", 0, options+",mode=755"))
	t.Cleanup(func() { must(t, unix.Unmount(base, 0)) })
	m.upper, m.work = filepath.Join(base, "upper"), filepath.Join(base, "work")
	must(t, errors.Join(os.Mkdir(m.upper, 0o755), os.Mkdir(m.work, 0o755)))
	m.mount()
	t.Cleanup(m.unmount)
	return base
}

// whenRoom does something that finds no room at first. The space of a deleted file is free once the
// kernel has forgotten the file, which it says in a message of its own.
func whenRoom(t *testing.T, full error, do func() error) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		err := do()
		if err == nil {
			return
		}
		if !errors.Is(err, full) || time.Now().After(end) {
			t.Fatalf("after making room: %v", err)
		}
	}
}

func fillUp(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	b := make([]byte, 64<<10)
	for range 100 {
		if _, err = f.Write(b); err != nil {
			break
		}
	}
	return errors.Join(err, f.Close())
}

// TestRenameAfterFull renames a name of a file that was copied up when there was no room for all of its
// names: the file gets the one that it lacks.
func TestRenameAfterFull(t *testing.T) {
	needRoot(t)
	eachForm(t, func(t *testing.T, o Options) {
		lower := t.TempDir()
		must(t, errors.Join(os.Mkdir(filepath.Join(lower, "a"), 0o755), os.Mkdir(filepath.Join(lower, "b"), 0o755)))
		must(t, os.WriteFile(filepath.Join(lower, "a/file"), []byte("content"), 0o644))
		must(t, os.Link(filepath.Join(lower, "a/file"), filepath.Join(lower, "b/file")))
		m := newUnion(t, lower, o)
		base := m.writeTo(t, "nr_inodes=64")
		// One of both directories is there, and room for the file, but not for the other directory.
		must(t, os.Chmod(m.at("a"), 0o755))
		must(t, errors.Join(os.WriteFile(m.at("room"), nil, 0o644), os.Mkdir(m.at("full"), 0o755)))
		for i := 0; ; i++ {
			err := os.Mkdir(filepath.Join(base, "upper/full", string(rune('a'+i))), 0o755)
			if errors.Is(err, unix.ENOSPC) {
				break
			}
			must(t, err)
		}
		full, err := os.ReadDir(filepath.Join(base, "upper/full"))
		must(t, err)
		for placed := 0; placed == 0; full = full[1:] {
			must(t, os.Remove(filepath.Join(base, "upper/full", full[0].Name())))
			if err := os.Chmod(m.at("a/file"), 0o600); !errors.Is(err, unix.ENOSPC) {
				t.Fatalf("copying up: %v", err)
			}
			in, err := os.ReadDir(filepath.Join(base, "upper/a"))
			must(t, err)
			placed = len(in)
		}
		for _, e := range full {
			must(t, os.Remove(filepath.Join(base, "upper/full", e.Name())))
		}
		must(t, os.Rename(m.at("b/file"), m.at("b/new")))
		b, err := os.ReadFile(m.at("b/new"))
		if err != nil || string(b) != "content" {
			t.Errorf("moved: %q, %v", b, err)
		}
		if _, err := os.Lstat(m.at("b/file")); !errors.Is(err, unix.ENOENT) {
			t.Errorf("the old name: %v", err)
		}
		old, err := os.Stat(m.at("a/file"))
		must(t, err)
		moved, err := os.Stat(m.at("b/new"))
		must(t, err)
		if !os.SameFile(old, moved) {
			t.Error("the file's names are two files now")
		}
	})
}

// TestManyOpen has more files open than the server may: programs are told, and it goes
// on as soon as some are closed.
func TestManyOpen(t *testing.T) {
	needRoot(t)
	m := newUnion(t, "", Options{})
	for i := range 200 {
		must(t, os.MkdirAll(m.at(fmt.Sprintf("d%d", i)), 0o755))
		must(t, os.WriteFile(m.at(fmt.Sprintf("d%d/f", i)), []byte("x"), 0o644))
	}
	lim := unix.Rlimit{Cur: 120, Max: 120}
	must(t, unix.Prlimit(m.server.Process.Pid, unix.RLIMIT_NOFILE, &lim, nil))
	var open []*os.File
	var err error
	for i := range 200 {
		var f *os.File
		if f, err = os.OpenFile(m.at(fmt.Sprintf("d%d/f", i)), os.O_RDWR, 0); err != nil {
			break
		}
		open = append(open, f)
	}
	if !errors.Is(err, unix.EMFILE) || len(open) < 50 {
		t.Errorf("%d are open: %v", len(open), err)
	}
	for _, f := range open {
		must(t, f.Close())
	}
	for i := range 200 {
		if err := os.WriteFile(m.at(fmt.Sprintf("d%d/f", i)), []byte("y"), 0o644); err != nil {
			t.Fatalf("afterwards, file %d: %v", i, err)
		}
	}
}

// TestQuota has the upper directory where files may have 4 MiB: programs are told that it
// is the quota, and what was there stays.
func TestQuota(t *testing.T) {
	needRoot(t)
	const uid = 1000
	base := withQuota(t, "4M")
	lower := t.TempDir()
	must(t, os.WriteFile(filepath.Join(lower, "big"), make([]byte, 320_000), 0o644))
	for _, name := range []string{"", "big"} {
		must(t, os.Chown(filepath.Join(lower, name), uid, uid))
	}
	m := newUnion(t, lower, Options{})
	m.unmount()
	m.upper, m.work, m.user = filepath.Join(base, "upper"), filepath.Join(base, "work"), uid
	for _, dir := range []string{m.upper, m.work} {
		must(t, errors.Join(os.Mkdir(dir, 0o755), os.Chown(dir, uid, uid)))
	}
	openWay(t, m.upper)
	openWay(t, m.store.Dir()+"/x")
	m.mount()
	t.Cleanup(m.unmount)
	must(t, as(uid, uid, 0o022, nil, func() error {
		if err := fillUp(m.at("filler")); !errors.Is(err, unix.EDQUOT) {
			t.Errorf("filling up: %v", err)
		}
		if err := os.Chmod(m.at("big"), 0o600); !errors.Is(err, unix.EDQUOT) {
			t.Errorf("copying up: %v", err)
		}
		if b, err := os.ReadFile(m.at("big")); err != nil || len(b) != 320_000 {
			t.Errorf("what was not copied up has %d bytes, %v", len(b), err)
		}
		if err := os.Remove(m.at("filler")); err != nil {
			t.Errorf("making room: %v", err)
		}
		return nil
	}))
	whenRoom(t, unix.EDQUOT, func() error { return os.WriteFile(m.at("big"), nil, 0) })
}

// withQuota is a directory in which files may have that much together.
func withQuota(t *testing.T, limit string) string {
	t.Helper()
	dir := t.TempDir()
	image, top := filepath.Join(dir, "image"), filepath.Join(dir, "top")
	must(t, errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 256<<20), os.Mkdir(top, 0o755)))
	command := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
	}
	command("mkfs.btrfs", "-q", image)
	command("mount", "-o", "loop", image, top)
	t.Cleanup(func() { must(t, unix.Unmount(top, 0)) })
	limited := filepath.Join(top, "limited")
	command("btrfs", "-q", "subvolume", "create", limited)
	command("btrfs", "quota", "enable", top)
	command("btrfs", "qgroup", "limit", limit, limited)
	return limited
}
