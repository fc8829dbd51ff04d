package main

import (
	"bytes"
	le "encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/replay"
	"github.com/ihucos/plash/runtime/hosttest"
)

// TestReplayAnswers: the server of a plan knows what is asked first from earlier runs, and is no
// other than one that knows nothing.
func TestReplayAnswers(t *testing.T) {
	if !replay.Supported {
		t.Skip("plans are not replayed on this architecture")
	}
	images, bin := serveImages(t), installed(t)
	for name, user := range map[string]string{"root": "", "user": hosttest.User} {
		for what, test := range map[string]func(*testing.T, *answered){
			"used": testAnswersUsed, "damaged": testAnswersDamaged, "collected": testAnswersCollected,
		} {
			t.Run(name+", "+what, func(t *testing.T) {
				p := newPlanned(t, images, bin, user, "fuse")
				test(t, &answered{p, filepath.Join(filepath.Dir(p.plan), replay.AnswersName)})
			})
		}
	}
}

// An answered is a container whose runs leave answers.
type answered struct {
	*planned
	file string
}

// content waits until runs of a command add no more answers, and returns the file's content.
func (p *answered) content(command ...string) []byte {
	p.t.Helper()
	var last []byte
	for range 100 {
		p.must("plash-run", append([]string{p.id}, command...)...)
		if err := p.leftServers(); err != nil {
			p.t.Fatal(err)
		}
		b, err := os.ReadFile(p.file)
		if err != nil {
			p.t.Fatal(err)
		}
		if len(b) > 0 && bytes.Equal(b, last) {
			return b
		}
		last = b
	}
	p.t.Fatal("each run of the same command adds answers")
	return nil
}

// testAnswersUsed: a command that has run before is served before Go has started, and what it
// asks for later by Go.
func testAnswersUsed(t *testing.T, p *answered) {
	p.content("sleep", "0.01")
	early, later := false, false
	// A server goes on into Go soon: it may not be met before.
	for i := 0; i < 50 && !(early && later); i++ {
		early, later = p.watched(t)
	}
	if !early || !later {
		t.Errorf("it was served before Go: %v, and then by Go: %v", early, later)
	}
	// More than any file of answers has.
	script := "find / -xdev ! -path '/proc*' ! -path '/dev/*' ! -path '/tmp*' ! -path '/root*' ! -path '/home*' | sort | md5sum; cat /bin/* /lib/* 2>/dev/null | md5sum"
	p.env = append(p.env, replay.Var+"="+replay.Off)
	want := p.must("plash-run", p.id, "sh", "-c", script)
	p.env = p.env[:len(p.env)-1]
	for i := range 8 {
		if got := p.must("plash-run", p.id, "sh", "-c", script); got != want {
			t.Errorf("run %d: %q, want %q", i, got, want)
		}
	}
	if fi, err := os.Stat(p.file); err != nil || fi.Size() > replay.MaxAnswersSize {
		t.Errorf("answers: %v, %v", fi, err)
	}
	if got := p.source(); got != "replay-1" {
		t.Errorf("the plan is not followed any more: %s", got)
	}
}

// watched tells whether a run was seen to be served before Go, and then, until it was killed, by Go.
func (p *answered) watched(t *testing.T) (early, later bool) {
	t.Helper()
	cmd, _, _ := p.command("plash-run", p.id, "sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end) && !later; {
		servers := p.servers()
		for _, pid := range servers {
			early = early || p.terminated(pid)
		}
		later = len(servers) == 1 && !p.early(filepath.Join("/proc", strconv.Itoa(servers[0])))
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // it was killed
	if err := p.leftServers(); err != nil {
		t.Error(err)
	}
	return early, later
}

// terminated sends SIGTERM to a server that has not gone on into Go, which does not end it: who ends a
// session means others. It tells whether the server was one.
func (p *answered) terminated(pid int) bool {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	if !p.early(proc) || unix.Kill(pid, unix.SIGSTOP) != nil {
		return false
	}
	for {
		b, err := os.ReadFile(filepath.Join(proc, "stat"))
		if err != nil || bytes.Contains(b, []byte(") T ")) || bytes.Contains(b, []byte(") Z ")) {
			break
		}
	}
	// Go's start itself is another matter: it begins with handlers of its own.
	early := p.early(proc) && ignored(proc, unix.SIGTERM)
	if early {
		_ = unix.Kill(pid, unix.SIGTERM) // if that ends it, it is not met later
	}
	_ = unix.Kill(pid, unix.SIGCONT)
	return early
}

// ignored tells whether a process ignores a signal: proc_pid_status(5).
func ignored(proc string, sig unix.Signal) bool {
	b, _ := os.ReadFile(filepath.Join(proc, "status"))
	_, rest, _ := strings.Cut(string(b), "\nSigIgn:\t")
	mask, _, _ := strings.Cut(rest, "\n")
	bits, err := strconv.ParseUint(mask, 16, 64)
	return err == nil && bits>>(sig-1)&1 != 0
}

// testAnswersDamaged: a run does the same with whatever is in the file, and leaves a right one.
func testAnswersDamaged(t *testing.T, p *answered) {
	good := p.content("cat", "/etc/os-release")
	want := p.must("plash-run", p.id, "cat", "/etc/os-release")
	head := bytes.IndexByte(good, '\n') + 1
	sealed := func(change func(b []byte) []byte) []byte {
		b := change(bytes.Clone(good))
		le.LittleEndian.PutUint32(b[head:], uint32(len(b)))
		h := uint64(14695981039346656037)
		for rest := b[head+16:]; len(rest) >= 8; rest = rest[8:] {
			h = (h ^ le.LittleEndian.Uint64(rest)) * 1099511628211
			h ^= h >> 32
		}
		le.LittleEndian.PutUint64(b[head+8:], h)
		return b
	}
	if !bytes.Equal(sealed(func(b []byte) []byte { return b }), good) {
		t.Fatal("the checksum is another one")
	}
	swap := func(from, to string) func(b []byte) []byte {
		return func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(from), []byte(to)) }
	}
	for name, content := range map[string][]byte{
		"empty":     nil,
		"cut off":   good[:len(good)/2],
		"too long":  append(bytes.Clone(good), make([]byte, replay.MaxAnswersSize)...),
		"zeros":     make([]byte, len(good)),
		"a bit":     func() []byte { b := bytes.Clone(good); b[len(b)-20] ^= 4; return b }(),
		"other key": sealed(func(b []byte) []byte { b[head+16] ^= 1; return b }),
		"no blobs":  sealed(swap("/blobs/", "/blobz/")),
		"few":       sealed(func(b []byte) []byte { b[head+4], b[head+5] = 0, 0; return b }),
	} {
		if err := os.WriteFile(p.file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got := p.must("plash-run", p.id, "cat", "/etc/os-release"); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if got := p.content("cat", "/etc/os-release"); len(got) != len(good) {
			t.Errorf("%s: there are %d bytes of answers afterwards, before there were %d", name, len(got), len(good))
		}
	}
	// What others can write to is not read, and a file that is not there not missed.
	if err := os.Chmod(p.file, 0o666); err != nil {
		t.Fatal(err)
	}
	if got := p.must("plash-run", p.id, "cat", "/etc/os-release"); got != want {
		t.Errorf("writable by all: %q, want %q", got, want)
	}
	if err := os.Remove(p.file); err != nil {
		t.Fatal(err)
	}
	if got := p.source(); got != "replay-1" {
		t.Errorf("without a file of answers the plan is not followed: %s", got)
	}
}

// testAnswersCollected: a run whose server has not come to open anything yet keeps its layers, though
// its container and they are removed.
func testAnswersCollected(t *testing.T, p *answered) {
	script := "sleep 1; ls /bin | wc -l; cat /etc/passwd; echo ended"
	p.content("sh", "-c", "sleep 0.01")
	cmd, out, _ := p.command("plash-run", p.id, "sh", "-c", script)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end) && len(p.servers()) == 0; {
	}
	p.must("plash-rm", p.id)
	p.must("plash-clean")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if got := out.String(); !strings.Contains(got, "root:") || !strings.HasSuffix(got, "ended\n") {
		t.Errorf("it wrote %q", got)
	}
	if blobs, err := filepath.Glob(filepath.Join(p.work, "store/blobs/sha256/*")); err != nil || len(blobs) > 0 {
		t.Errorf("left in the store: %q, %v", blobs, err)
	}
}
