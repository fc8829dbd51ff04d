package runtime

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestRunExitCodes(t *testing.T) {
	w := newWorld(
		t,
		entry{name: "bin/noexec", text: "echo no", mode: 0o644},
		entry{name: "bin/nointerpreter", text: "#!/no/such/interpreter\n"},
		entry{name: "bin/noformat", text: "echo from sh: $0 $1\n"},
		entry{name: "bin/directory", dir: true},
	)
	tests := []struct {
		argv []string
		code int
		out  string
		err  string
	}{
		{argv: []string{"true"}},
		{argv: []string{"false"}, code: 1},
		{argv: []string{"sh", "-c", "exit 7"}, code: 7},
		{argv: []string{"/bin/sh", "-c", "exit 255"}, code: 255},
		{argv: []string{"nosuchcommand"}, code: 127, err: "nosuchcommand: command not found"},
		{argv: []string{"/no/such/file"}, code: 127, err: "/no/such/file: not found"},
		{argv: []string{"/bin/sh/x"}, code: 127, err: "not found"},
		{argv: []string{""}, code: 127, err: "not found"},
		{argv: []string{"noexec"}, code: 126, err: "noexec: cannot be executed"},
		{argv: []string{"/bin/noexec"}, code: 126},
		{argv: []string{"/bin/directory"}, code: 126},
		{argv: []string{"directory"}, code: 126},
		{argv: []string{"nointerpreter"}, code: 126, err: "interpreter"},
		{argv: []string{"noformat", "arg"}, out: "from sh: /bin/noformat arg\n"},
	}
	for _, tt := range tests {
		r := w.run(tt.argv...)
		if r.code != tt.code || r.out != tt.out || !strings.Contains(r.err, tt.err) || (r.err != "") != (tt.code > 100 && tt.code < 128) {
			t.Errorf("%q: exit %d, out %q, err %q; want exit %d, out %q, err %q", tt.argv, r.code, r.out, r.err, tt.code, tt.out, tt.err)
		}
	}
}

func TestRunFailsBeforeTheCommand(t *testing.T) {
	w := newWorld(t)
	r := w.wait(w.command(call{Op: "run", ID: 99, Run: RunOptions{Argv: []string{"true"}}}))
	equal(t, "exit code", r.code, 125)
	contains(t, "error", r.err, "no such container")

	r = w.wait(w.command(call{Op: "run", Run: RunOptions{Argv: []string{"true"}, Mounts: []string{"/no/such/path"}}}))
	equal(t, "exit code", r.code, 125)
	contains(t, "error", r.err, "/no/such/path")

	t.Setenv(BackendVar, "copy")
	r = w.wait(w.command(call{Op: "run", Run: RunOptions{Argv: []string{"true"}, Upper: "/up", Work: "/work"}}))
	equal(t, "exit code", r.code, 125)
	contains(t, "error", r.err, "nothing can be mounted here")

	t.Setenv(BackendVar, "nonsense")
	r = w.run("true")
	equal(t, "exit code", r.code, 125)
	contains(t, "error", r.err, "erofs, unpack")
}

func TestRunBackends(t *testing.T) {
	for _, backend := range backendsHere("run") {
		t.Run(backend, func(t *testing.T) {
			w := newWorld(t)
			t.Setenv(BackendVar, backend)
			equal(t, "file", w.sh(RunOptions{}, "cat /etc/passwd"), "root:x:0:0::/root:/bin/ash")
		})
	}
}

func TestRunEmptyRoot(t *testing.T) {
	w := newWorld(t)
	r := w.wait(w.command(call{Op: "run", ID: -1, Run: RunOptions{Argv: []string{"true"}}}))
	equal(t, "exit code", r.code, 127)
}

func TestRunIsTheProcess(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	cmd := w.command(call{Op: "run", Run: RunOptions{Argv: []string{"sh", "-c", "echo $$ $PPID; exec cat"}}})
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, err := out.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "pid and parent", string(buf[:n]), strconv.Itoa(cmd.Process.Pid)+" "+strconv.Itoa(os.Getpid())+"\n")
	kids, err := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/task/" + strconv.Itoa(cmd.Process.Pid) + "/children")
	if err != nil || len(kids) > 0 {
		t.Errorf("children: %q, %v", kids, err)
	}
	// Data passes both ways, as through any process.
	text := strings.Repeat("some bytes \x00\xff\n", 10000)
	go func() {
		_, _ = io.WriteString(in, text)
		in.Close()
	}()
	b, err := io.ReadAll(out)
	if err != nil || string(b) != text {
		t.Errorf("%d of %d bytes came back, %v", len(b), len(text), err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestRunSignals(t *testing.T) {
	w := newWorld(t)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL, syscall.SIGINT, syscall.SIGSEGV} {
		r := w.run("sh", "-c", "kill -"+strconv.Itoa(int(sig))+" $$")
		equal(t, "signal", r.signal, sig)
	}
	// Signals from outside reach the command: it is the process.
	cmd := w.command(call{Op: "run", Run: RunOptions{Argv: []string{"sh", "-c", `trap 'echo got it; exit 9' USR1; echo ready; while :; do sleep 0.01; done`}}})
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(out)
	_ = cmd.Wait()
	equal(t, "output", string(b), "got it\n")
	equal(t, "exit code", cmd.ProcessState.ExitCode(), 9)

	// nohup outside holds inside, and nothing else is blocked or ignored that is not
	// ignored here (by GNU make, for one).
	const grep = "^Sig[BI]"
	r := w.wait(shell(w.command(call{Op: "run", Run: RunOptions{Argv: []string{"grep", grep, "/proc/self/status"}}}), `trap '' HUP`))
	outside, err := exec.Command("sh", "-c", "trap '' HUP; grep '"+grep+"' /proc/self/status").Output()
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "signals", r.out, string(outside))
}

func TestRunEnvironment(t *testing.T) {
	w := newWorld(t)
	cmd := w.command(call{Op: "run", Run: RunOptions{Argv: []string{"env"}}})
	cmd.Env = []string{"PATH=/usr/bin:/bin", "A=1", "ODD= x\ny", "HOME=/root", "PWD=/wherever"}
	equal(t, "environment", w.wait(cmd).out, "PATH=/usr/bin:/bin\nA=1\nODD= x\ny\nHOME=/root\nPWD=/wherever\n")

	// Without PATH there is still a way to find commands.
	cmd = w.command(call{Op: "run", Run: RunOptions{Argv: []string{"env"}}})
	cmd.Env = []string{"PWD=/"}
	equal(t, "environment", w.wait(cmd).out, "PWD=/\n")
}

func TestRunWorkingDirectory(t *testing.T) {
	w := newWorld(t, entry{name: "srv", dir: true}, entry{name: "srv/here", dir: true})
	tests := []struct{ dir, want, pwd string }{
		{"/", "/", "/"},
		{"/etc", "/etc", "/etc"},
		{"/usr/lib", "/", "/"}, // not in the image
		{t.TempDir(), "", ""},  // below /tmp, which is shared
	}
	for _, tt := range tests {
		if tt.want == "" {
			tt.want, tt.pwd = tt.dir, tt.dir
		}
		cmd := w.command(call{Op: "run", Run: RunOptions{Argv: []string{"sh", "-c", `readlink /proc/self/cwd; echo $PWD`}}})
		cmd.Dir = tt.dir
		equal(t, tt.dir, w.wait(cmd).out, tt.want+"\n"+tt.pwd+"\n")
	}
	// One that has been removed.
	cmd := w.command(call{Op: "run", Run: RunOptions{Argv: []string{"pwd"}}})
	cmd.Dir = t.TempDir()
	equal(t, "removed", w.wait(shell(cmd, `rmdir "$PWD"`)).out, "/\n")
}

func TestRunFilesPassThrough(t *testing.T) {
	w := newWorld(t)
	r, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	const script = "echo through >&4; ls /proc/self/fd"
	cmd := w.command(call{Op: "run", Run: RunOptions{Argv: []string{"sh", "-c", script}}})
	cmd.ExtraFiles = []*os.File{nil, wr} // 4
	inside := w.wait(cmd)
	cmd = exec.Command("sh", "-c", script)
	cmd.ExtraFiles = []*os.File{nil, wr}
	outside := w.wait(cmd)
	wr.Close()
	b, _ := io.ReadAll(r)
	equal(t, "what came through", string(b), "through\nthrough\n")
	equal(t, "descriptors", strings.Join(strings.Fields(inside.out), " "), strings.Join(strings.Fields(outside.out), " "))
}

func TestRunWithoutCommandIsTheShell(t *testing.T) {
	for _, tt := range []struct{ name, passwd, want string }{
		{"of root", "root:x:0:0:root:/root:/bin/ash\nuser:x:1:1::/:/bin/false\n", "ash"},
		{"empty field", "root:x:0:0:root:/root:\n", "sh"},
		{"no newline", "root:x:0:0:root:/root:/bin/ash", "ash"},
		{"nonsense", "\x00\xff", "sh"},
		{"empty file", "", "sh"},
	} {
		w := newWorld(t, entry{name: "etc/passwd", text: tt.passwd})
		cmd := w.command(call{Op: "run"})
		cmd.Stdin = strings.NewReader("echo $0\n")
		equal(t, tt.name, w.wait(cmd).out, tt.want+"\n")
	}
	w := newWorld(t, entry{name: "etc/passwd", none: true})
	cmd := w.command(call{Op: "run"})
	cmd.Stdin = strings.NewReader("echo $0; exit 3\n")
	r := w.wait(cmd)
	equal(t, "no passwd", r.out, "sh\n")
	equal(t, "exit code", r.code, 3)
}

func TestRunDropsChanges(t *testing.T) {
	w := newWorld(t)
	w.sh(RunOptions{}, "echo new >/file; rm /etc/passwd; mkdir -p /a/b; test -e /file; test ! -e /etc/passwd")
	equal(t, "the next run", w.sh(RunOptions{}, "ls -d /file /a /etc/passwd 2>/dev/null || :"), "/etc/passwd")
	if left := w.scratch(); len(left) != 0 {
		t.Errorf("left in scratch: %q", left)
	}
	equal(t, "mode of the root", w.sh(RunOptions{}, "stat -c %a /"), "755")
}

func TestRunKeepsChangesInUpper(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	o := RunOptions{Upper: filepath.Join(dir, "up"), Work: filepath.Join(dir, "work")}
	r := w.wait(w.command(call{Op: "run", Run: RunOptions{Argv: []string{"true"}, Upper: o.Upper, Work: o.Work}}))
	equal(t, "without the directories", r.code, 125)
	for _, d := range []string{o.Upper, o.Work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.sh(o, "echo kept >/file; rm /etc/passwd")
	equal(t, "the next run", w.sh(o, "cat /file; test ! -e /etc/passwd"), "kept")
	b, err := os.ReadFile(filepath.Join(o.Upper, "file"))
	if err != nil || string(b) != "kept\n" {
		t.Errorf("in the upper directory: %q, %v", b, err)
	}
	r = w.wait(w.command(call{Op: "run", Run: RunOptions{Argv: []string{"true"}, Upper: o.Upper}}))
	equal(t, "upper without work", r.code, 125)
}

func TestRunDaemonKeepsItsFilesystem(t *testing.T) {
	w := newWorld(t)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	// Rdwr, so that neither side blocks in opening it.
	f, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w.sh(RunOptions{}, `echo mine >/file; setsid sh -c 'read line <`+fifo+`; cat /file /etc/passwd >`+fifo+`.out; sleep 1000' </dev/null >/dev/null 2>&1 & echo $! >`+fifo+`.pid`)
	// The command is gone; others reclaim, the daemon works on.
	w.sh(RunOptions{}, "true")
	if _, err := f.WriteString("go\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "answer of the daemon", func() bool {
		b, _ := os.ReadFile(fifo + ".out")
		return string(b) == "mine\nroot:x:0:0::/root:/bin/ash\n"
	})
	b, err := os.ReadFile(fifo + ".pid")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(-pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func TestRunKilled(t *testing.T) {
	w := newWorld(t)
	// At random moments of its start, and once it runs.
	for i := range 30 {
		cmd := w.command(call{Op: "run", Run: RunOptions{Argv: []string{"sleep", "1000"}}})
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		sleepMicroseconds(i * 200)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
	}
	w.sh(RunOptions{}, "true")
}

func TestRunMany(t *testing.T) {
	w := newWorld(t)
	const n = 20
	results := make(chan result, n)
	for range n {
		cmd := w.command(call{Op: "run", Run: RunOptions{Argv: []string{"sh", "-c", "echo x >/file; cat /file"}}})
		go func() { results <- w.wait(cmd) }()
	}
	for range n {
		if r := <-results; r.code != 0 || r.out != "x\n" {
			t.Errorf("exit %d, out %q, err %q", r.code, r.out, r.err)
		}
	}
}

// TestRunInChroot has a root directory that is no mount: what is mounted must
// stay out of the namespace around it all the same.
func TestRunInChroot(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	root := filepath.Dir(w.dir)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(exe)
	if err == nil {
		err = os.WriteFile(filepath.Join(root, "exe"), b, 0o755)
	}
	if err == nil {
		err = os.Mkdir(filepath.Join(root, "proc"), 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	inside := *w
	inside.dir = "/" + filepath.Base(w.dir)
	for _, c := range []call{
		{Op: "run", Run: RunOptions{Argv: []string{"cat", "/etc/passwd"}}},
		{Op: "layer", Layer: LayerOptions{Script: "cat /etc/passwd"}},
		{Op: "with-mount", Argv: []string{"/exe", "cat"}},
	} {
		args := inside.command(c).Args
		args[0] = "/exe"
		// The test binary may need the dynamic loader.
		// Mounts are shared, but not with those of this machine, where others mount.
		const script = `mount --make-rshared /; for d in /usr /lib /lib64; do mkdir -p "$0$d"; ! [ -d $d ] || mount --bind $d "$0$d"; done
			[ -e "$0/dev" ] || { mkdir "$0/dev" && mknod "$0/dev/null" c 1 3; }
			mount -t proc proc "$0/proc" && grep -v ' /proc ' /proc/self/mountinfo >"$0/before" &&
			chroot "$0" "$@"; grep -v ' /proc ' /proc/self/mountinfo >"$0/after"; cmp "$0/before" "$0/after" >&2`
		cmd := exec.Command("unshare", append([]string{"-m", "--propagation", "private", "sh", "-c", script, root}, args...)...)
		r := w.wait(cmd)
		out := r.out
		if c.Op == "layer" {
			out = r.err
		}
		contains(t, c.Op, out, "root:x:0:0::/root:/bin/ash\n")
		equal(t, c.Op, r.code, 0)
	}
}

// TestRunDaemonKeepsSkeleton: mount points that an image lacks stay as long as
// they are needed, and nothing on disk.
func TestRunDaemonKeepsSkeleton(t *testing.T) {
	w := newWorld(t, entry{name: "home", none: true})
	dir := t.TempDir()
	o := RunOptions{Upper: filepath.Join(dir, "up"), Work: filepath.Join(dir, "work")}
	for _, d := range []string{o.Upper, o.Work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	pidText := w.sh(o, "setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $!")
	pid, err := strconv.Atoi(pidText)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "scratch directories", len(w.scratch()), 0)
	if _, err := os.ReadDir("/proc/" + pidText + "/root/home"); err != nil {
		t.Error(err)
	}
	for _, d := range []string{o.Upper, o.Work} {
		if names, err := os.ReadDir(filepath.Join(d, "home")); err == nil {
			t.Errorf("in the upper directory: home with %v", names)
		}
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}
