package main

import (
	"bytes"
	le "encoding/binary"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ihucos/plash/replay"
	"github.com/ihucos/plash/runtime"
	"github.com/ihucos/plash/runtime/hosttest"
)

// A planned is a container with a plan, and a mark in it that shows whether the plan
// was followed: the source of its root in the mount table.
type planned struct {
	*machine
	t       *testing.T
	backend string // that is asked for
	id      string
	plan    string // the file
}

// TestReplay runs all tests of replaying with the tests' own program, in which Go's
// runtime begins and then package replay, and with the one that the Makefile builds, in
// which replay does.
func TestReplay(t *testing.T) {
	if !replay.Supported {
		t.Skip("plans are not replayed on this architecture")
	}
	images := serveImages(t)
	for _, bin := range []string{"", installed(t)} {
		for name, test := range replayTests() {
			first := "Go"
			if bin != "" {
				first = "replay"
			}
			t.Run(name+", first "+first, func(t *testing.T) { test(t, newPlanned(t, images, bin, "", "")) })
		}
	}
}

func replayTests() map[string]func(*testing.T, *planned) {
	return map[string]func(*testing.T, *planned){
		"looks the same": testReplayLooksTheSame,
		"guards":         testReplayGuards,
		"fails":          testReplayFails,
		"messages":       testReplayMessages,
		"callers":        testReplayCallers,
		"signals":        testReplaySignals,
		"variables":      testReplayVariables,
	}
}

// TestReplayBackends runs them with the backends that are not root's first choice.
func TestReplayBackends(t *testing.T) {
	if !replay.Supported {
		t.Skip("plans are not replayed on this architecture")
	}
	images, bin := serveImages(t), installed(t)
	for _, backend := range []string{"fuse", "unpack"} {
		for name, test := range replayTests() {
			t.Run(backend+", "+name, func(t *testing.T) { test(t, newPlanned(t, images, bin, "", backend)) })
		}
	}
}

// TestReplayUser runs them as a plain user. Only what begins before Go has plans for him.
func TestReplayUser(t *testing.T) {
	if !replay.Supported {
		t.Skip("plans are not replayed on this architecture")
	}
	images, bin := serveImages(t), installed(t)
	for _, backend := range []string{"fuse", "unpack"} {
		for name, test := range replayTests() {
			t.Run(backend+", "+name, func(t *testing.T) { test(t, newPlanned(t, images, bin, hosttest.User, backend)) })
		}
	}
}

// installed is a directory with the programs that "make install" installs.
func installed(t *testing.T) string {
	t.Helper()
	prefix := t.TempDir()
	if err := os.Chmod(filepath.Dir(prefix), 0o755); err != nil { // for plain users
		t.Fatal(err)
	}
	cmd := exec.Command("make", "-s", "-C", "../..", "install", "PREFIX="+prefix, "DESTDIR=", "PLASH="+filepath.Join(prefix, binary))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make install: %v\n%s", err, out)
	}
	return filepath.Join(prefix, "bin")
}

// newPlanned is by root, or by a user and with a backend.
func newPlanned(t *testing.T, images images, bin, user, backend string) *planned {
	t.Helper()
	m := newMachine(t, images)
	m.bin = bin
	if user != "" {
		m.login(user)
	}
	if backend != "" {
		m.env = append(m.env, runtime.BackendVar+"="+backend)
	}
	p := &planned{machine: m, t: t, backend: backend, id: m.must("plash-import", "alpine")}
	p.plan = filepath.Join(m.work, "store/containers/0", p.id, replay.FileName)
	p.mark()
	if got := p.source(); got != "replay-1" {
		t.Fatalf("the plan was not followed: the root is %s", got)
	}
	return p
}

// edit changes a plan and corrects its checksum.
func (p *planned) edit(change func(plan []byte) []byte) {
	p.t.Helper()
	b, err := os.ReadFile(p.plan)
	if err != nil {
		p.t.Fatal(err)
	}
	b = change(b)
	// The first line; then length and checksum of what follows, 4 bytes each.
	head := bytes.IndexByte(b, '\n') + 9
	h := fnv.New32a()
	h.Write(b[head:])
	le.LittleEndian.PutUint32(b[head-4:], h.Sum32())
	if err := os.WriteFile(p.plan, b, 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// swap puts a text of the same length in the place of another.
func (p *planned) swap(from, to string) {
	p.t.Helper()
	p.edit(func(plan []byte) []byte {
		if len(from) != len(to) || !bytes.Contains(plan, []byte(from)) {
			p.t.Fatalf("no %q in the plan", from)
		}
		return bytes.ReplaceAll(plan, []byte(from), []byte(to))
	})
}

// mark has a plan made, and marks it.
func (p *planned) mark() {
	p.t.Helper()
	if got := p.source(); got != "plash-"+p.id {
		p.t.Fatalf("root of a run without a marked plan: %s", got)
	}
	p.swap("plash-"+p.id+"\x00", "replay-1"[:len("plash-"+p.id)]+"\x00")
}

// source is the source of the root filesystem that a run sees.
func (p *planned) source() string {
	p.t.Helper()
	return p.sourceOf("plash-run", p.id, "cat", "/proc/self/mountinfo")
}

func (p *planned) sourceOf(argv ...string) string {
	p.t.Helper()
	for line := range strings.Lines(p.must(argv[0], argv[1:]...)) {
		f := strings.Fields(line)
		if _, fs, ok := strings.Cut(line, " - "); ok && f[4] == "/" {
			if got := strings.Fields(fs)[1]; got != "replay-" {
				return got
			}
			return "replay-1"
		}
	}
	p.t.Fatal("no root in the mount table")
	return ""
}

// expectPlain wants a run that does not follow the plan, and afterwards a plan
// that is followed again.
func (p *planned) expectPlain(why string) {
	p.t.Helper()
	if got := p.source(); got != "plash-"+p.id {
		p.t.Errorf("%s: the root is %s", why, got)
	}
}

// testReplayLooksTheSame compares what a command sees that was started by a plan
// with what it sees without one.
func testReplayLooksTheSame(t *testing.T, p *planned) {
	ids := regexp.MustCompile(`(?m)^\d+ \d+ \d+:\d+|replay-|plash-1|/proc/\d+|^(Pid|Tgid|NSpid|NStgid|NSpgid|PPid|NSsid|[a-z_]*ctxt_switches|Vm[A-Za-z]+|Rss[A-Za-z]+|HugetlbPages|Cpus_allowed.*|THP_enabled|untag_mask|SigQ|State):.*`)
	for _, script := range []string{
		"grep -v ' /tmp/' /proc/self/mountinfo", // other tests mount there
		"env | sort",
		"pwd; cd /; ls -ld . etc",
		"ls -l /proc/self/fd | wc -l; ls /proc/self/fd",
		"cat /proc/self/status",
		"cat /proc/self/limits; umask; id",
		"touch /new && ls /; cat /etc/resolv.conf",
		"ls -lan / | grep -v -e proc -e tmp", // others change how many links they have
	} {
		run := func(env ...string) string {
			cmd, stdout, stderr := p.command("plash-run", p.id, "sh", "-c", script)
			cmd.Env = append(cmd.Env, env...)
			if err := cmd.Run(); err != nil {
				t.Fatalf("%s: %v: %s", script, err, stderr)
			}
			return ids.ReplaceAllString(stdout.String(), "")
		}
		with, without := run(), run(replay.Var+"="+replay.Off)
		without = strings.ReplaceAll(without, replay.Var+"="+replay.Off+"\n", "")
		if with != without {
			t.Errorf("%s:\nwith a plan:\n%s\nwithout:\n%s", script, with, without)
		}
	}
}

func testReplayGuards(t *testing.T, p *planned) {
	pattern := "store/index/sha256/*.erofs"
	if p.backend == "unpack" {
		pattern = "store/unpacked/chain/*"
	}
	index, err := filepath.Glob(filepath.Join(p.work, pattern))
	if err != nil || len(index) == 0 {
		t.Fatal("no index: ", err)
	}
	env := p.env
	for why, c := range map[string]struct{ do, undo func() error }{
		"another home":     {func() error { p.env = append(env, "HOME=/tmp"); return nil }, func() error { p.env = env; return nil }},
		"another backend":  {func() error { p.env = append(env, "PLASH_BACKEND="+p.other()); return nil }, func() error { p.env = env; return nil }},
		"turned off":       {func() error { p.env = append(env, replay.Var+"=off"); return nil }, func() error { p.env = env; return nil }},
		"a touched index":  {func() error { return os.Chtimes(index[0], time.Now(), time.Now()) }, nil},
		"scratch left":     {func() error { return os.Mkdir(filepath.Join(p.work, "store/scratch/build.1.1.1.0.ab"), 0o700) }, func() error { return os.RemoveAll(filepath.Join(p.work, "store/scratch/build.1.1.1.0.ab")) }},
		"a readable plan":  {func() error { return os.Chmod(p.plan, 0o666) }, nil},
		"another's plan":   {func() error { return os.Chown(p.plan, 1, 1) }, nil},
		"no plan":          {func() error { return os.Remove(p.plan) }, nil},
		"a plan cut off":   {func() error { return os.Truncate(p.plan, 1000) }, nil},
		"a plan of zeros":  {func() error { return os.WriteFile(p.plan, make([]byte, 4000), 0o600) }, nil},
		"an earlier boot":  {func() error { p.bootPlan(); return nil }, nil},
		"a wrong checksum": {func() error { return p.flip() }, nil},
	} {
		if err := c.do(); err != nil {
			t.Fatal(why, err)
		}
		p.expectPlain(why)
		if c.undo != nil {
			if err := c.undo(); err != nil {
				t.Fatal(why, err)
			}
		}
		// Whatever was in the way, a plan is followed again after a run or two.
		p.must("plash-run", p.id, "true")
		os.Remove(p.plan)
		p.mark()
		if got := p.source(); got != "replay-1" {
			t.Fatalf("after %s: the plan is not followed: %s", why, got)
		}
	}
	// Options are not what a plan is for.
	if got := p.sourceOf("plash-run", p.id, "-m", "/proc", "cat", "/proc/self/mountinfo"); got != "plash-"+p.id {
		t.Errorf("with an option: the root is %s", got)
	}
}

// other is a backend that is not the plan's.
func (p *planned) other() string {
	switch p.backend {
	case "":
		return "erofs" // which was not asked for
	case "fuse":
		return "unpack"
	}
	return "fuse"
}

// bootPlan makes the plan one of another boot.
func (p *planned) bootPlan() {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		p.t.Fatal(err)
	}
	p.swap(string(boot), strings.Repeat("0", len(boot)))
}

// flip damages a byte.
func (p *planned) flip() error {
	b, err := os.ReadFile(p.plan)
	if err != nil {
		return err
	}
	b[len(b)-10] ^= 1
	return os.WriteFile(p.plan, b, 0o600)
}

// testReplayFails has a plan fail where there is no way back but to start again.
func testReplayFails(t *testing.T, p *planned) {
	swaps := map[string]string{
		"mode=0700\x00": "mode=nono\x00", // the tmpfs
		"lowerdir+\x00": "lowerdir-\x00",
	}
	switch p.backend {
	case "":
		swaps["erofs\x00"] = "xxxxx\x00"
	case "fuse":
		swaps["rootmode\x00"] = "rootmood\x00"
		swaps[`{"Store"`] = `["Store"` // the server dies
	}
	for from, to := range swaps {
		p.swap(from, to)
		// With answers of earlier runs, a server that then dies has let the command begin.
		if err := os.RemoveAll(filepath.Join(filepath.Dir(p.plan), replay.AnswersName)); err != nil {
			t.Fatal(err)
		}
		p.expectPlain(fmt.Sprintf("%q", to))
		dir, err := os.MkdirTemp(p.work, "cwd")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd, stdout, stderr := p.command("plash-run", p.id, "sh", "-c", "pwd; env")
		cmd.Dir = dir
		if err := cmd.Run(); err != nil || !strings.HasPrefix(stdout.String(), dir+"\n") || strings.Contains(stdout.String(), replay.Var) {
			t.Errorf("a run after the plan failed: %v, %s%s", err, stdout, stderr)
		}
		os.Remove(p.plan)
		p.mark()
	}
	if err := leftMounts(p.work); err != nil {
		t.Error(err)
	}
}

// testReplayMessages: what goes wrong with a command is told as without a plan.
func testReplayMessages(t *testing.T, p *planned) {
	run := func(env string, argv ...string) string {
		cmd, stdout, stderr := p.command("plash-run", append([]string{p.id}, argv...)...)
		cmd.Env = append(cmd.Env, env)
		err := cmd.Run()
		return fmt.Sprintf("%v: %s%s", err, stdout, stderr)
	}
	script := filepath.Join(p.work, "script") // shared, as /tmp is
	if err := os.WriteFile(script, []byte("echo \"$0 $1\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, argv := range [][]string{
		{"nosuch"},
		{"/etc"},
		{"/etc/passwd"},
		{"/nosuch/x"},
		{"sh", "-c", "exit 7"},
		{"sh", "-c", "kill -9 $$"},
		{script, "x y"},
		{"printf", "<%s>", "", "a b", ""},
	} {
		with, without := run("A=b", argv...), run(replay.Var+"="+replay.Off, argv...)
		if with != without {
			t.Errorf("%q:\nwith a plan: %s\nwithout:     %s", argv, with, without)
		}
	}
	if got := p.source(); got != "replay-1" {
		t.Errorf("the plan is not followed any more: %s", got)
	}
	p.must("plash-rm", p.id)
	if got := run("A=b", "true"); !strings.Contains(got, "exit status 125") || !strings.Contains(got, "no such container") {
		t.Errorf("a removed container: %s", got)
	}
}
