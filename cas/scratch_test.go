package cas

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func scratchStore(t testing.TB) *Store {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "scratch"), 0o700); err != nil {
		t.Fatal(err)
	}
	return &Store{dir: dir}
}

func scratchEntries(t testing.TB, s *Store) []string {
	t.Helper()
	names, err := scratchNames(filepath.Join(s.Dir(), "scratch"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func reclaim(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Reclaim(); err != nil {
		t.Fatalf("Reclaim: %v", err)
	}
}

// deadOwner is a process that has been and is no more.
func deadOwner(t testing.TB) owner {
	t.Helper()
	c := exec.Command("/proc/self/exe", "-test.run=^$")
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	o := self()
	o.pid = c.Process.Pid
	return o
}

// leave makes a scratch directory as if o had made it and died.
func leave(t testing.TB, s *Store, kind string, o owner) string {
	t.Helper()
	f := strings.Split(s.scratchName(kind), ".")
	f[1], f[2], f[3], f[4] = strconv.Itoa(o.pid), o.start, o.pidNS, o.boot
	path := filepath.Join(s.Dir(), "scratch", strings.Join(f, "."))
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounts need root")
	}
}

func TestScratchOfTheLivingStays(t *testing.T) {
	s := scratchStore(t)
	sc, err := s.Scratch("run")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.Dir(), "scratch", s.scratchName("file"))
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	reclaim(t, s)
	if !exists(sc.Path()) || !exists(file) {
		t.Fatal("Reclaim removed what a living process owns")
	}
	if err := os.MkdirAll(filepath.Join(sc.Path(), "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := sc.Remove(); err != nil {
		t.Fatal(err)
	}
	if exists(sc.Path()) {
		t.Fatal("Remove left the directory")
	}
	if err := sc.Remove(); err != nil {
		t.Fatalf("second Remove: %v", err)
	}
}

func TestScratchMakesItsParent(t *testing.T) {
	s := &Store{dir: filepath.Join(t.TempDir(), "store")}
	reclaim(t, s)
	if _, err := s.Scratch("run"); err != nil {
		t.Fatal(err)
	}
}

func TestReclaimJudgesOwners(t *testing.T) {
	s := scratchStore(t)
	gone := deadOwner(t)
	me := self()
	tests := []struct {
		name string
		o    owner
		keep bool
	}{
		{"this process", me, true},
		{"dead process", gone, false},
		{"pid used again", owner{me.pid, "1", me.pidNS, me.boot}, false},
		{"boot before", owner{me.pid, me.start, me.pidNS, "00000000"}, false},
		{"boot before, other pid namespace", owner{me.pid, me.start, "1", "00000000"}, false},
		{"other pid namespace", owner{gone.pid, gone.start, "1", me.boot}, true},
		{"no start time, alive", owner{me.pid, "0", me.pidNS, me.boot}, true},
	}
	for _, tt := range tests {
		path := leave(t, s, "run", tt.o)
		reclaim(t, s)
		if exists(path) != tt.keep {
			t.Errorf("%s: kept %v, want %v", tt.name, exists(path), tt.keep)
		}
	}
}

func TestReclaimLeavesForeignNames(t *testing.T) {
	s := scratchStore(t)
	path := filepath.Join(s.Dir(), "scratch", "lost+found")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	reclaim(t, s)
	if !exists(path) {
		t.Fatal("Reclaim removed a name that plash did not make")
	}
}

func TestReclaimRemovesAnything(t *testing.T) {
	s := scratchStore(t)
	path := leave(t, s, "run", deadOwner(t))
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("keep"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"u/etc", "u/.hidden", "w/work"} {
		if err := os.MkdirAll(filepath.Join(path, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"file": outside, "dir": filepath.Dir(outside), "dangling": "/nowhere"} {
		if err := os.Symlink(target, filepath.Join(path, "u", name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(path, "u/fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 3000 {
		if err := os.WriteFile(filepath.Join(path, "u/etc", strconv.Itoa(i)), nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(path, "u/etc"), 0); err != nil {
		t.Fatal(err)
	}
	deepTree(t, filepath.Join(path, "u"), 1500)

	before := openFiles(t)
	reclaim(t, s)
	if left := scratchEntries(t, s); len(left) > 0 {
		t.Fatalf("left: %q", left)
	}
	if b, err := os.ReadFile(outside); err != nil || string(b) != "keep" {
		t.Fatalf("a symbolic link was followed: %q, %v", b, err)
	}
	if after := openFiles(t); after != before {
		t.Fatalf("%d open files before, %d after", before, after)
	}
}

// deepTree makes two chains of directories that are longer than any path, with
// a file at each level.
func deepTree(t *testing.T, dir string, depth int) {
	t.Helper()
	for _, name := range []string{"deep", "deeper"} {
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		for range depth {
			if err := unix.Mkdirat(fd, name, 0o700); err != nil {
				t.Fatal(err)
			}
			next, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.Mknodat(next, "file", unix.S_IFREG|0o600, 0); err != nil {
				t.Fatal(err)
			}
			unix.Close(fd)
			fd = next
		}
		unix.Close(fd)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func TestReclaimClearsImmutable(t *testing.T) {
	needRoot(t)
	s := scratchStore(t)
	path := leave(t, s, "build", deadOwner(t))
	for _, dir := range []string{"i/d", "a"} {
		if err := os.MkdirAll(filepath.Join(path, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(path, "i/d/f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, flag := range map[string]int{"i/d/f": fsImmutable, "i/d": fsImmutable, "i": fsImmutable, "a": fsAppend} {
		f, err := os.Open(filepath.Join(path, name))
		if err != nil {
			t.Fatal(err)
		}
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flag)
		f.Close()
		if err != nil {
			t.Skipf("no file attributes here: %v", err)
		}
	}
	reclaim(t, s)
	if left := scratchEntries(t, s); len(left) > 0 {
		t.Fatalf("left: %q", left)
	}
}

func TestReclaimDetachesMounts(t *testing.T) {
	needRoot(t)
	s := scratchStore(t)
	path := leave(t, s, "run", deadOwner(t))
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "keep"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"m/deep/er", "n"} {
		dir = filepath.Join(path, dir)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		// Removal tells mounts from directories by mount, not by device: this one is
		// of the same filesystem.
		if err := unix.Mount(outside, dir, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	}
	// While it is mounted in a namespace of the living (ours), it is in use.
	reclaim(t, s)
	if !exists(path) {
		t.Fatal("Reclaim removed a mounted directory")
	}
	sc := &Scratch{path: path, lock: -1}
	if err := sc.Remove(); err != nil {
		t.Fatal(err)
	}
	if left := scratchEntries(t, s); len(left) > 0 {
		t.Fatalf("left: %q", left)
	}
	if !exists(filepath.Join(outside, "keep")) {
		t.Fatal("removal entered a mount")
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(table), path) {
		t.Fatal("mounts are left")
	}
}

func TestReclaimSeesMountsOfOtherNamespaces(t *testing.T) {
	needRoot(t)
	s := scratchStore(t)
	path := leave(t, s, "run", deadOwner(t))
	// What a daemon looks like that was started in a container.
	daemon := exec.Command("sh", "-c", `mount --bind "$0" "$0" && echo ready && exec sleep 60`, path)
	daemon.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	out, err := daemon.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = daemon.Process.Kill(); _ = daemon.Wait() })
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	reclaim(t, s)
	if !exists(path) {
		t.Fatal("Reclaim removed what a mount of another namespace uses")
	}
	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = daemon.Wait()
	// The kernel takes a namespace down a little after its last process.
	for range 100 {
		reclaim(t, s)
		if !exists(path) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("Reclaim kept what nobody uses any more")
}

// TestReclaimSeesWholeNamespaces has processes whose root is detached, so that they see no
// mounts: what is mounted in their namespace counts, and they do not.
func TestReclaimSeesWholeNamespaces(t *testing.T) {
	needRoot(t)
	const detach = `mount --rbind / "$1" && exec chroot "$1" sh -c 'umount -l / && echo ready && read wait'`
	for name, c := range map[string]struct {
		script string
		stays  bool
	}{
		"without the directory": {detach, false},
		"with the directory":    {`mount --bind "$0" "$0" && ` + detach, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := scratchStore(t)
			path := leave(t, s, "run", deadOwner(t))
			confined := exec.Command("sh", "-c", c.script, path, t.TempDir())
			confined.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
			confined.Stderr = os.Stderr
			out, err := confined.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			wait, err := confined.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := confined.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = wait.Close(); _ = confined.Process.Kill(); _ = confined.Wait() }()
			if _, err := out.Read(make([]byte, 6)); err != nil {
				t.Fatal(err)
			}
			table, err := os.ReadFile("/proc/" + strconv.Itoa(confined.Process.Pid) + "/mountinfo")
			if err != nil || len(table) > 0 {
				t.Skipf("the process sees mounts: %q, %v", table, err)
			}
			reclaim(t, s)
			if exists(path) != c.stays {
				t.Errorf("it stays: %v, want %v", exists(path), c.stays)
			}
		})
	}
}

// TestReclaimOfOtherPidNamespaces: the lock tells whether the owner lives.
func TestReclaimOfOtherPidNamespaces(t *testing.T) {
	s := scratchStore(t)
	sc, err := s.Scratch("build")
	if err != nil {
		t.Fatal(err)
	}
	// As a process of another pid namespace would name it.
	o := self()
	o.pidNS = "1"
	path := leave(t, s, "build", o)
	if err := unix.Rename(sc.Path(), path); err != nil {
		t.Fatal(err)
	}
	sc.path = path
	if err := os.WriteFile(filepath.Join(path, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dead, file := leave(t, s, "build", o), leave(t, s, "index", o)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	reclaim(t, s)
	if !exists(dead) {
		t.Fatal("a directory was removed that somebody may be about to lock")
	}
	youth = 0
	defer func() { youth = time.Minute }()
	reclaim(t, s)
	if !exists(path) || !exists(file) {
		t.Fatal("what may be in use was removed")
	}
	if exists(dead) {
		t.Fatal("what nobody has locked was left")
	}
	before := openFiles(t)
	if err := sc.Remove(); err != nil || exists(path) {
		t.Fatalf("Remove: %v", err)
	}
	if after := openFiles(t); after != before-1 {
		t.Fatalf("%d open files before, %d after", before, after)
	}
}

func TestReclaimRace(t *testing.T) {
	s := scratchStore(t)
	o := deadOwner(t)
	for range 50 {
		path := leave(t, s, "run", o)
		if err := os.MkdirAll(filepath.Join(path, "u/a/b/c"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	errs := make(chan error)
	for range 8 {
		go func() { errs <- s.Reclaim() }()
	}
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if left := scratchEntries(t, s); len(left) > 0 {
		t.Fatalf("left: %q", left)
	}
}

func BenchmarkReclaimNothing(b *testing.B) {
	s := scratchStore(b)
	for b.Loop() {
		if err := s.Reclaim(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReclaimOne(b *testing.B) {
	s := scratchStore(b)
	o := deadOwner(b)
	for b.Loop() {
		path := leave(b, s, "run", o)
		if err := os.MkdirAll(filepath.Join(path, "w/work/incompat"), 0o700); err != nil {
			b.Fatal(err)
		}
		if err := s.Reclaim(); err != nil {
			b.Fatal(err)
		}
	}
}
