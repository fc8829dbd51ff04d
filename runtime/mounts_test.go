package runtime

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ihucos/plash/runtime/share"
)

func sleepMicroseconds(n int) { time.Sleep(time.Duration(n) * time.Microsecond) }

func TestRunDefaultMounts(t *testing.T) {
	w := newWorld(t)
	home := t.TempDir()
	t.Setenv("HOME", home)
	if err := os.WriteFile(filepath.Join(home, "file"), []byte("at home"), 0o600); err != nil {
		t.Fatal(err)
	}
	equal(t, "home", w.sh(RunOptions{}, "cat ~/file; echo >~/new"), "at home")
	if _, err := os.Stat(filepath.Join(home, "new")); err != nil {
		t.Error(err)
	}
	out := w.sh(RunOptions{}, "cat /proc/self/mountinfo; cat /etc/resolv.conf; test -c /dev/null; test -d /sys/kernel; test -d /dev/pts")
	for _, point := range []string{" / / ", " /proc ", " /sys ", " /dev ", " /tmp ", " /home "} {
		contains(t, "mount table", out, point)
	}
	// Nothing of the host but these: every mount lies in one of them.
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 9 || !strings.Contains(line, " - ") {
			continue
		}
		known := slices.ContainsFunc([]string{"/proc", "/sys", "/dev", "/tmp", "/home", "/etc/resolv.conf"}, func(p string) bool {
			return share.Bind{Path: p}.Covers(f[4])
		})
		if !known && f[4] != "/" {
			t.Errorf("unexpected mount: %s", line)
		}
	}
	if host, err := os.ReadFile("/etc/resolv.conf"); err == nil {
		contains(t, "resolv.conf", out+"\n", string(host))
	}
}

func TestRunNamedMounts(t *testing.T) {
	w := newWorld(t)
	dir, err := os.MkdirTemp("/var/tmp", "plash-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	equal(t, "path with default", w.sh(RunOptions{Mounts: []string{"default", dir}}, "cat "+file+"; test -d /proc/1"), "text")
	equal(t, "one file", w.sh(RunOptions{Mounts: []string{file}}, "cat "+file), "text")
	equal(t, "instead of default", w.sh(RunOptions{Mounts: []string{dir}}, "ls -A /proc /tmp /sys; cat /etc/resolv.conf"),
		"/proc:\n\n/sys:\n\n/tmp:\n# of the image")
	equal(t, "nothing", w.sh(RunOptions{Mounts: []string{}}, "ls -A /proc /dev"), "/dev:\n\n/proc:")
	equal(t, "cgroup", w.sh(RunOptions{Mounts: []string{"cgroup"}}, "ls -A /sys"), "fs")
}

// TestRunMissingMountPoints has an image without any of the usual directories.
func TestRunMissingMountPoints(t *testing.T) {
	var gone []entry
	for _, name := range []string{"proc", "sys", "dev", "tmp", "home", "root", "etc/resolv.conf"} {
		gone = append(gone, entry{name: name, none: true})
	}
	w := newWorld(t, gone...)
	host, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Skip("the host has no /etc/resolv.conf")
	}
	const script = "umask 077; test -c /dev/null && test -d /proc/1 && test -d /sys/kernel && cat /etc/resolv.conf"
	equal(t, "changes dropped", w.sh(RunOptions{}, script)+"\n", string(host))

	dir := t.TempDir()
	o := RunOptions{Upper: filepath.Join(dir, "up"), Work: filepath.Join(dir, "work")}
	for _, d := range []string{o.Upper, o.Work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	equal(t, "changes kept", w.sh(o, script)+"\n", string(host))
	left, err := os.ReadDir(o.Upper)
	if err != nil || len(left) > 0 {
		t.Errorf("mount points in the upper directory: %v, %v", left, err)
	}
	w.sh(o, "echo >/etc/file")
	left, err = os.ReadDir(filepath.Join(o.Upper, "etc"))
	if err != nil || len(left) != 1 {
		t.Errorf("mount points in the upper directory: %v, %v", left, err)
	}
}

// TestRunHostileMountPoints has symbolic links where mounts go.
func TestRunHostileMountPoints(t *testing.T) {
	host, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Skip("the host has no /etc/resolv.conf")
	}
	outside, err := os.MkdirTemp("/var/tmp", "plash-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(outside) })
	tests := []struct {
		name    string
		entries []entry
		file    string // where resolv.conf is to be found
	}{
		{"dangling", []entry{{name: "etc/resolv.conf", link: "../run/systemd/resolve/stub-resolv.conf"}}, "/run/systemd/resolve/stub-resolv.conf"},
		{"absolute", []entry{{name: "etc/resolv.conf", link: "/run/resolv.conf"}, {name: "run", dir: true}, {name: "run/resolv.conf", text: "x"}}, "/run/resolv.conf"},
		{"many dots", []entry{{name: "etc/resolv.conf", link: "../../../../../.." + outside + "/resolv.conf"}}, outside + "/resolv.conf"},
		{"through a link", []entry{{name: "etc", none: true}, {name: "etc", link: "." + outside}}, "/etc/resolv.conf"},
		{"home", []entry{{name: "home", none: true}, {name: "home", link: outside + "/deep"}}, "/etc/resolv.conf"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, tt.entries...)
			equal(t, "resolv.conf", w.sh(RunOptions{}, "cat "+tt.file)+"\n", string(host))
			dir := t.TempDir()
			o := RunOptions{Upper: filepath.Join(dir, "up"), Work: filepath.Join(dir, "work")}
			for _, d := range []string{o.Upper, o.Work} {
				if err := os.Mkdir(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			equal(t, "resolv.conf", w.sh(o, "cat "+tt.file)+"\n", string(host))
			left, err := os.ReadDir(o.Upper)
			if err != nil || len(left) > 0 {
				t.Errorf("in the upper directory: %v, %v", left, err)
			}
			left, err = os.ReadDir(outside)
			if err != nil || len(left) > 0 {
				t.Fatalf("the host was written to: %v, %v", left, err)
			}
		})
	}
}

// TestRunUnusableMountPoints: what is shared by default is left out where an image
// has no place for it; what is asked for is not.
func TestRunUnusableMountPoints(t *testing.T) {
	host, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Skip(err)
	}
	resolv := func(e entry) []entry {
		e.name = "etc/resolv.conf"
		return []entry{{name: e.name, none: true}, {name: "run", dir: true}, {name: "run/my-resolv.conf", text: "covered"}, e}
	}
	for _, tt := range []struct {
		name    string
		entries []entry
		left    string // what is left out
		resolv  bool   // the host's is shared
	}{
		{"directory", resolv(entry{dir: true}), "/etc/resolv.conf", false},
		{"loop", resolv(entry{link: "resolv.conf"}), "/etc/resolv.conf", false},
		{"other file", resolv(entry{link: "/etc/passwd"}), "/etc/resolv.conf", false},
		{"through a file", resolv(entry{link: "/etc/passwd/x"}), "/etc/resolv.conf", false},
		{"link", resolv(entry{link: "../run/my-resolv.conf"}), "", true},
		{"dangling", resolv(entry{link: "/var/run/a/resolv.conf"}), "", true},
		{"no etc", []entry{{name: "etc", none: true}, {name: "etc", text: "file"}}, "/etc/resolv.conf", false},
		{"no dev", []entry{{name: "dev", none: true}, {name: "dev", text: "file"}}, "/dev", true},
		{"no proc", []entry{{name: "proc", none: true}, {name: "proc", text: "file"}}, "/proc", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, tt.entries...)
			const script = "cat /etc/resolv.conf 2>&-; cat /etc/passwd 2>&- || :"
			run := w.run("sh", "-c", script)
			_, built, err := w.layer(LayerOptions{Script: script})
			if run.code != 0 || err != nil {
				t.Fatalf("run: exit %d, %s; script: %v", run.code, run.err, err)
			}
			text := run.out + run.err
			for _, text := range []string{text, built} {
				equal(t, "warnings", strings.Count(text, "is not shared with"), min(len(tt.left), 1))
				contains(t, "warning", text, tt.left)
				equal(t, "host's resolv.conf", strings.Contains(text, string(host)), tt.resolv)
				equal(t, "passwd", strings.Count(text, "root:x:0:0") > 0, tt.name != "no etc")
			}
			if tt.left != "" && tt.name != "other file" {
				r := w.wait(w.command(call{Op: "run", Run: RunOptions{Argv: []string{"true"}, Mounts: []string{tt.left + "/"}}}))
				equal(t, "asked for", r.code, 125)
			}
		})
	}
}
