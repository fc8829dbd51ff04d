package posixtest

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func execCases() []testCase {
	script := func(e *env) {
		e.write("script", "#!/bin/sh\necho ran\n")
		e.chmod("script", 0o755)
	}
	program := func(name string) func(e *env) {
		return func(e *env) {
			b, err := os.ReadFile("/bin/" + name)
			if err != nil {
				e.Skipf("no /bin/%s", name)
			}
			e.write("program", string(b))
			e.chmod("program", 0o755)
		}
	}
	return []testCase{
		{name: "script", make: script, run: func(e *env) {
			for range 2 {
				equal(e, "output", e.output("script"), "ran\n")
				e.age("script") // copied up
			}
		}},
		{name: "just written", run: func(e *env) {
			for range 10 {
				e.write("new", "#!/bin/sh\necho new\n")
				e.chmod("new", 0o755)
				e.rename("new", "script")
				equal(e, "output", e.output("script"), "new\n")
			}
		}},
		{name: "program", make: program("echo"), run: func(e *env) {
			equal(e, "output", e.output("program", "x"), "x\n")
			e.age("program")
			equal(e, "output", e.output("program", "y"), "y\n")
			e.rename("program", "moved")
			equal(e, "output", e.output("moved", "z"), "z\n")
		}},
		{name: "not executable", make: func(e *env) { script(e); e.chmod("script", 0o644) }, run: func(e *env) {
			e.fails("run", exec.Command(e.at("script")).Run(), unix.EACCES)
			e.chmod("script", 0o755)
			equal(e, "output", e.output("script"), "ran\n")
		}},
		{name: "open for writing", make: program("true"), run: func(e *env) {
			fd := e.open("program", unix.O_RDWR)
			e.fails("run", exec.Command(e.at("program")).Run(), unix.ETXTBSY)
			e.close(fd)
			e.check(exec.Command(e.at("program")).Run())
		}},
		{name: "written while it runs", make: program("sleep"), run: func(e *env) {
			cmd := exec.Command(e.at("program"), "60")
			e.check(cmd.Start())
			defer func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}()
			e.openFails("program", unix.O_RDWR, unix.ETXTBSY)
			e.openFails("program", unix.O_WRONLY|unix.O_TRUNC, unix.ETXTBSY)
			e.fails("truncate", unix.Truncate(e.at("program"), 0), unix.ETXTBSY)
			e.remove("program") // but it can be replaced
			e.write("program", "x")
		}},
		{name: "as its owner", root: true, make: func(e *env) {
			program("id")(e)
			e.chown("program", 1000, 2000)
			e.chmod("program", 0o6755)
		}, run: func(e *env) {
			var sf unix.Statfs_t
			e.check(unix.Statfs(e.dir, &sf))
			if sf.Flags&unix.ST_NOSUID != 0 {
				e.Skipf("mounted with nosuid")
			}
			for range 2 {
				equal(e, "owner of the process", strings.TrimSpace(e.outputAs(1001, "-u")), "1000")
				equal(e, "group of the process", strings.TrimSpace(e.outputAs(1001, "-g")), "2000")
				e.age("program")
			}
		}},
		{name: "waited for", make: script, run: func(e *env) {
			// A shell reads the script while it runs; a new one in its place is not seen.
			e.write("slow", "#!/bin/sh\nread line\necho old\n")
			e.chmod("slow", 0o755)
			cmd := exec.Command(e.at("slow"))
			in, err := cmd.StdinPipe()
			e.check(err)
			var out strings.Builder
			cmd.Stdout = &out
			e.check(cmd.Start())
			time.Sleep(20 * time.Millisecond)
			e.rename("script", "slow")
			_, err = in.Write([]byte("\n"))
			e.check(firstError(err, in.Close(), cmd.Wait()))
			equal(e, "output", out.String(), "old\n")
		}},
	}
}

func (e *env) output(name string, args ...string) string {
	out, err := exec.Command(e.at(name), args...).CombinedOutput()
	if err != nil {
		e.Fatalf("run %s: %v: %s", name, err, out)
	}
	return string(out)
}

// outputAs runs "program" as a user, who need not be let through to its path.
func (e *env) outputAs(uid uint32, args ...string) string {
	f, err := os.Open(e.at("program"))
	e.check(err)
	defer f.Close()
	cmd := exec.Command("/proc/self/fd/3", args...)
	cmd.Dir, cmd.ExtraFiles = "/", []*os.File{f}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		e.Fatalf("run program: %v: %s", err, out)
	}
	return string(out)
}
