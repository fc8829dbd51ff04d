package runtime

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// mountAt mounts the image at a new directory, and takes it away in the end if
// nobody else has.
func (w *world) mountAt(o MountOptions) string {
	w.Helper()
	dir := w.TempDir()
	w.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	if err := Mount(w.Context(), w.st, w.id, dir, o); err != nil {
		w.Fatal(err)
	}
	return dir
}

func TestMount(t *testing.T) {
	for _, backend := range backendsHere("mount") {
		t.Run(backend, func(t *testing.T) {
			w := newWorld(t)
			t.Setenv(BackendVar, backend)
			dir := w.mountAt(MountOptions{})
			b, err := os.ReadFile(filepath.Join(dir, "etc/passwd"))
			equal(t, "file", string(b), "root:x:0:0::/root:/bin/ash\n")
			if err != nil {
				t.Error(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); !errors.Is(err, unix.EROFS) {
				t.Errorf("write: %v, want a read-only filesystem", err)
			}
			// Someone working in it keeps it there.
			busy := exec.Command("sleep", "1000")
			busy.Dir = dir
			if err := busy.Start(); err != nil {
				t.Fatal(err)
			}
			err = Unmount(dir)
			_ = busy.Process.Kill()
			_ = busy.Wait()
			if !errors.Is(err, unix.EBUSY) {
				t.Errorf("unmount of a busy mount: %v", err)
			}
			var h interface{ Hint() string }
			if !errors.As(err, &h) || !strings.Contains(h.Hint(), dir) {
				t.Errorf("no hint: %v", err)
			}
			if err := Unmount(dir); err != nil {
				t.Fatal(err)
			}
			if err := Unmount(dir); err == nil || !strings.Contains(err.Error(), "nothing is mounted") {
				t.Errorf("second unmount: %v", err)
			}
		})
	}
}

func TestMountWritable(t *testing.T) {
	w := newWorld(t)
	tmp := t.TempDir()
	o := MountOptions{Upper: filepath.Join(tmp, "up"), Work: filepath.Join(tmp, "work")}
	for _, d := range []string{o.Upper, o.Work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir := w.mountAt(o)
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Unmount(dir); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(o.Upper, "file"))
	if err != nil || string(b) != "x" {
		t.Errorf("in the upper directory: %q, %v", b, err)
	}
	dir = w.mountAt(o)
	if _, err := os.Stat(filepath.Join(dir, "file")); err != nil {
		t.Error(err)
	}
	if err := Unmount(dir); err != nil {
		t.Fatal(err)
	}
	if err := Mount(t.Context(), w.st, w.id, dir, MountOptions{Upper: o.Upper}); err == nil {
		t.Error("upper without work is accepted")
	}
	if err := Mount(t.Context(), w.st, w.id, filepath.Join(tmp, "nothing"), MountOptions{}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("no such directory: %v", err)
	}
}

func TestUnmountOnlyOurs(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	dir := filepath.Join(t.TempDir(), "odd dir\n\\x")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("plash-1", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	if err := Unmount(dir); err == nil || !strings.Contains(err.Error(), "not a mount of plash") {
		t.Errorf("someone else's mount: %v", err)
	}
	// On top of it, ours; then below is still there.
	if err := Mount(t.Context(), w.st, w.id, dir, MountOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := Unmount(dir); err != nil {
		t.Errorf("ours on top: %v", err)
	}
	if err := Unmount(dir); err == nil {
		t.Error("the one below was taken away too")
	}
	if err := Unmount(filepath.Join(dir, "nothing")); err == nil {
		t.Error("unmount of what is not there")
	}
}

func TestWithMount(t *testing.T) {
	w := newWorld(t)
	r := w.wait(w.command(call{Op: "with-mount", Argv: []string{"sh", "-c", `cat etc/passwd; test "$PWD" = "$(pwd)"; touch file 2>/dev/null; echo $?; exit 5`}}))
	equal(t, "output", r.out, "root:x:0:0::/root:/bin/ash\n1\n")
	equal(t, "exit code", r.code, 5)
	r = w.wait(w.command(call{Op: "with-mount", Argv: []string{"nosuchcommand"}}))
	equal(t, "exit code", r.code, 127)
	r = w.wait(w.command(call{Op: "with-mount", ID: 99, Argv: []string{"true"}}))
	equal(t, "exit code", r.code, 125)
	// The command runs on the host, with the host's programs.
	r = w.wait(w.command(call{Op: "with-mount", Argv: []string{"sh", "-c", "readlink /proc/$$/root; test -e /work -o -e /usr/lib"}}))
	equal(t, "output", r.out, "/\n")
}

func TestDeescalateSudo(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	const script = "id -u; id -g; id -G; echo $HOME $USER $LOGNAME; echo x >/tmp/plash-deescalate && stat -c %u /tmp/plash-deescalate; rm /tmp/plash-deescalate; test -w /etc/passwd || echo no"
	run := func(env ...string) result {
		cmd := w.command(call{Op: "run", Run: RunOptions{Argv: []string{"sh", "-c", script}, DeescalateSudo: true}})
		cmd.Env = append([]string{"PATH=/usr/bin:/bin", "HOME=/root", "USER=root", "LOGNAME=root"}, env...)
		return w.wait(cmd)
	}
	r := run("SUDO_UID=12345", "SUDO_GID=12346", "SUDO_USER=nobodyknows")
	equal(t, "stranger", r.out, "12345\n12346\n12346\n/root nobodyknows nobodyknows\n12345\nno\n")
	// Debian has a user daemon, uid 1, in no other group.
	r = run("SUDO_UID=1", "SUDO_GID=1", "SUDO_USER=daemon")
	equal(t, "daemon", r.out, "1\n1\n1\n/usr/sbin daemon daemon\n1\nno\n")
	r = run()
	equal(t, "root without sudo", strings.SplitN(r.out, "\n", 2)[0], "0")
	r = run("SUDO_UID=nonsense", "SUDO_GID=1")
	equal(t, "exit code", r.code, 125)
	r = run("SUDO_UID=4294967295", "SUDO_GID=1")
	equal(t, "exit code", r.code, 125)
}

// TestMountRefuses what makes no sense, and says why.
func TestMountRefuses(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	at := filepath.Join(dir, "at")
	for _, d := range []string{"at", "up", "work", "up/in", "work/in"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	up, work := filepath.Join(dir, "up"), filepath.Join(dir, "work")
	for _, tt := range []struct{ at, upper, work, want string }{
		{"", "", "", "no directory given"},
		{file, "", "", "not a directory"},
		{at, up, "", "belong together"},
		{at, "", work, "belong together"},
		{at, up, up, "are one directory"},
		{at, up, filepath.Join(up, "in"), "the second lies in the first"},
		{at, filepath.Join(work, "in"), work, "the first lies in the second"},
		{at, up, "/dev/shm", "two filesystems"},
		{at, file, work, "not a directory"},
		{at, up, file, "not a directory"},
		{at, filepath.Join(dir, "none"), work, "no such file or directory"},
		{at, "/proc", "/proc/sys", "lies in"},
	} {
		err := Mount(t.Context(), w.st, w.id, tt.at, MountOptions{Upper: tt.upper, Work: tt.work})
		if err == nil {
			t.Errorf("%+v: mounted", tt)
			_ = Unmount(tt.at)
			continue
		}
		contains(t, "error", err.Error(), tt.want)
		if tt.upper == "" || tt.at == "" {
			continue
		}
		r := w.wait(w.command(call{Op: "run", Run: RunOptions{Argv: []string{"true"}, Upper: tt.upper, Work: tt.work}}))
		equal(t, "exit code of a run", r.code, 125)
		contains(t, "error", r.err, tt.want)
	}
	if err := Unmount(""); err == nil {
		t.Error("unmounted nothing")
	}
}
