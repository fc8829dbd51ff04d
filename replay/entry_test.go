//go:build amd64 || arm64

package replay

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"
)

// program builds a program that begins with plash_entry.
func program(t *testing.T, goarch string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command("go", "build", "-ldflags", "-E plash_entry", "-o", path, "./testdata/program")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+goarch)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// harmless are the functions of Go's runtime that may be called before it starts: those
// that only touch the memory they are given, and those that are never reached,
// since the stack is large, all indexes are checked and the collector does not run.
var harmless = regexp.MustCompile(`^runtime\.(memmove|memequal|memclrNoHeapPointers|duffzero|duffcopy|` +
	`morestack(_noctxt)?(\.abi0)?|panic(Bounds|Index|IndexU|Slice[A-Za-z0-9]*|unsafe[a-z]*|divide|shift)(\.abi0)?|panicmem|gcWriteBarrier[0-9]*)$`)

// TestBeforeGo follows the calls from beforeGo on, in what the linker made.
func TestBeforeGo(t *testing.T) {
	const self = "github.com/ihucos/plash/replay."
	for _, goarch := range []string{"amd64", "arm64"} {
		out, err := exec.Command("go", "tool", "objdump", "-s", `^github.com/ihucos/plash/replay\.`, program(t, goarch)).Output()
		if err != nil {
			t.Fatal("go tool objdump: ", err)
		}
		calls, from := map[string][]string{}, ""
		jump := regexp.MustCompile(`\b(?:CALL|JMP|BL?) ([^ ]+)\(SB\)`)
		for line := range strings.Lines(string(out)) {
			if name, ok := strings.CutPrefix(line, "TEXT "); ok {
				from, _, _ = strings.Cut(name, "(SB)")
				calls[from] = []string{}
			} else if m := jump.FindStringSubmatch(line); m != nil {
				calls[from] = append(calls[from], m[1])
			}
		}
		todo := []string{self + "first"}
		if calls[todo[0]] == nil {
			t.Fatalf("%s: no such function among %d functions", goarch, len(calls))
		}
		var reached []string
		for len(todo) > 0 {
			f := todo[0]
			todo = todo[1:]
			if slices.Contains(reached, f) {
				continue
			}
			reached = append(reached, f)
			switch {
			case strings.HasPrefix(f, self+"goSyscall"):
				t.Errorf("%s: a call of %s, which needs thread-local storage", goarch, f)
			case calls[f] != nil:
				todo = append(todo, calls[f]...)
			case !harmless.MatchString(f):
				t.Errorf("%s: a call of %s", goarch, f)
			}
		}
		if !slices.Contains(reached, self+"(*machine).run") {
			t.Errorf("%s: the calls were not followed: %q", goarch, reached)
		}
	}
}

// TestAfterEntry: where there is nothing to replay, Go starts as ever.
func TestAfterEntry(t *testing.T) {
	cmd := exec.Command(program(t, goruntime.GOARCH), "a", "", "b c")
	cmd.Env = []string{"A=1", "B="}
	out, err := cmd.CombinedOutput()
	if want := `["a" "" "b c"] 2` + "\n"; err != nil || string(out) != want {
		t.Errorf("%v: %s, want %s", err, out, want)
	}
}

// TestDetach: the program that was started has ended when its server goes on.
func TestDetach(t *testing.T) {
	here, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	files := slices.Repeat([]*os.File{in}, 20) // Go opens some of its own
	cmd := &exec.Cmd{Path: program(t, goruntime.GOARCH), Args: []string{Detach, "source", OwnMounts}, Env: []string{}, Stdout: in, ExtraFiles: files}
	err = cmd.Run()
	in.Close()
	said, readErr := io.ReadAll(out)
	if err != nil || readErr != nil {
		t.Fatal(err, readErr)
	}
	own := OwnMounts
	if os.Geteuid() != 0 {
		own = ""
	}
	got, mounts, _ := strings.Cut(string(said), " mnt:")
	if want := fmt.Sprintf("[\"source\" %q] true true bad file descriptor", own); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if same := "mnt:"+strings.TrimSpace(mounts) == here; same != (own == "") {
		t.Errorf("mount namespace %s, the starter's is %s", mounts, here)
	}
}

func TestVector(t *testing.T) {
	var v vector
	for i, s := range []string{"", "plash\x00", "\x00", "", "A=b\x00c"} {
		if s != "" {
			v[i] = &[]byte(s)[0]
		}
	}
	if args, env := v.strings(1), v.strings(4); args != 3 || env != 5 {
		t.Errorf("lists end at %d and %d", args, env)
	}
	if got := append(words.slice(1, 3), words.slice(4, 5)...); !slices.Equal(got, []string{"plash", "", "A=b"}) {
		t.Errorf("strings %q", got)
	}
	for i := range v {
		v[i] = &[]byte{0}[0]
	}
	if end := v.strings(1); end != len(v) {
		t.Errorf("an endless list ends at %d", end)
	}
	beforeGo(&v) // does nothing, but is used
	entered = false
}

// TestDisguise: what a server has of its caller's arguments and variables is its title.
func TestDisguise(t *testing.T) {
	title = []byte("server of 1")
	defer func() { title = nil }()
	for _, c := range []struct {
		args, env int
		mem, want string
	}{
		{3, 2, "plash-run\x001\x00true\x00A=b\x00HOME=/x\x00", "server of 1"},
		{3, 0, "plash-run\x001\x00true\x00", "server of 1"},
		{1, 0, "plash\x00", "serve"},
	} {
		mem := []byte(c.mem)
		var v vector
		at, place := 0, 1
		for i := range c.args + c.env {
			if i == c.args {
				place++
			}
			v[place] = &mem[at]
			at += strings.IndexByte(c.mem[at:], 0) + 1
			place++
		}
		args := v.strings(1)
		env := v.strings(args + 1)
		v.disguise(args, env)
		if got := strings.TrimRight(string(mem), "\x00"); got != c.want || len(got) == len(mem) {
			t.Errorf("%q became %q", c.mem, mem)
		}
		for i := 2; i < env; i++ {
			if v[i] != nil && v[i] != &mem[len(mem)-1] {
				t.Errorf("%q: string %d is something", c.mem, i)
			}
		}
	}
}
