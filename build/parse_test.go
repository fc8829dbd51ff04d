package build

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// parse reads actions that must be right.
func parse(t *testing.T, args ...string) *Plan {
	t.Helper()
	p, err := Parse(args, nil)
	if err != nil {
		t.Fatalf("Parse(%q): %v", args, err)
	}
	return p
}

// layerTexts returns the scripts of a plan without their prologues.
func layerTexts(t *testing.T, p *Plan) []string {
	t.Helper()
	layers, err := p.Layers(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{}
	for _, l := range layers {
		text, ok := strings.CutPrefix(l.Script, Prologue)
		if !ok {
			t.Errorf("script does not begin with the prologue:\n%s", l.Script)
		}
		texts = append(texts, text)
	}
	return texts
}

func TestScripts(t *testing.T) {
	t.Setenv("PLASH_TEST_ENV", "it's $HOME\n")
	os.Unsetenv("PLASH_TEST_UNSET")
	dir := filepath.Join(t.TempDir(), "with space")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args string // separated by spaces, "␣" stands for one and "␤" for a newline
		want []string
	}{
		{"--run touch␣/file", []string{"touch /file\n"}},
		{"-x a b -x c", []string{"a\nb\nc\n"}},
		{"--run=-x y", []string{"-x\ny\n"}},
		{"--run=", []string{"\n"}},
		{"--run=A=1", []string{"A=1\n"}},
		{"-x a --layer -x b", []string{"a\n", "b\n"}},
		{"-l -x a -l -l --layer -x b -l", []string{"a\n", "b\n"}},
		{"-x a --layer run b c -x d", []string{"a\n", "b\n", "c\n", "d\n"}},
		{"--layer x a b", []string{"a\n", "b\n"}},
		{"--layer run", []string{}},
		{"--map run a b", []string{"a\nb\n"}},
		{"--map layer run", []string{}},
		{"--map map run", []string{}},
		{"--comment a b --comment", []string{}},
		{"-x a --namespace n␤s -x b -l -x c", []string{"a\n", "# namespace \"n\\ns\"\nb\n", "# namespace \"n\\ns\"\nc\n"}},
		{"--namespace n", []string{}},
		{"--align-cwd", []string{"mkdir -p -- '" + dir + "'\ncd '" + dir + "'\n"}},
		{"--import-env PLASH_TEST_ENV PLASH_TEST_UNSET PLASH_TEST_ENV:AS", []string{
			"{ set +x; } 2>/dev/null\nexport PLASH_TEST_ENV='it'\\''s $HOME\n'\nexport AS='it'\\''s $HOME\n'\nset -x\n",
		}},
		{"--import-env PLASH_TEST_UNSET", []string{}},
		{"--bust-cache", []string{"# never cached\n"}},
		{"-x a -l --invalidate-layer -x b", []string{"a\n", "# never cached\nb\n"}},
		{"--entrypoint /bin/a␣b", []string{"# entrypoint \"/bin/a b\"\n"}},
		{"--write-file /file", []string{": >/file\n"}},
		{"--write-file file a", []string{"cat >file <<'PLASH'\na\nPLASH\n"}},
		{"--write-file //file a", []string{"cat >//file <<'PLASH'\na\nPLASH\n"}},
		{"--write-file /a␣b/../c/d a PLASH$x PLASH", []string{
			"mkdir -p -- '/a b/../c'\ncat >'/a b/../c/d' <<'PLASH1'\na\nPLASH$x\nPLASH\nPLASH1\n",
		}},
		{"--write-script /etc/s #!/bin/sh exit", []string{
			"mkdir -p -- /etc\ncat >/etc/s <<'PLASH'\n#!/bin/sh\nexit\nPLASH\nchmod 755 -- /etc/s\n",
		}},
		{"--entrypoint-script exit␣1", []string{
			"# entrypoint \"/entrypoint\"\ncat >/entrypoint <<'PLASH'\n#!/bin/sh\nexit 1\nPLASH\nchmod 755 /entrypoint\n",
		}},
		{"--entrypoint-script #!/bin/ash", []string{
			"# entrypoint \"/entrypoint\"\ncat >/entrypoint <<'PLASH'\n#!/bin/ash\nPLASH\nchmod 755 /entrypoint\n",
		}},
		{"--apk git a$b", []string{"apk update\napk add git 'a$b'\n(\n\t{ set +x; } 2>/dev/null\n\trm -rf /var/cache/apk/*\n)\n"}},
		{"--defpm gem gem␣update gem␣install␣{} echo␣{}{} --gem rake a␣b", []string{
			"gem update\ngem install rake 'a b'\necho rake 'a b'rake 'a b'\n",
		}},
		{"--defpm gem {} --layer gem rake irb", []string{"rake\n", "irb\n"}},
		{"--defpm apt install␣{} --map apt a b --apt c d", []string{"install a\ninstall b\ninstall c d\n"}},
		{"-A git", []string{"apk update\napk add git\n(\n\t{ set +x; } 2>/dev/null\n\trm -rf /var/cache/apk/*\n)\n"}},
		{"-A", []string{}},
	} {
		args := strings.Split(tt.args, " ")
		for i := range args {
			args[i] = strings.NewReplacer("␣", " ", "␤", "\n").Replace(args[i])
		}
		got := layerTexts(t, parse(t, args...))
		if strings.Join(got, "\x00") != strings.Join(tt.want, "\x00") {
			t.Errorf("%s:\ngot  %q\nwant %q", tt.args, got, tt.want)
		}
	}
}

func TestPrologue(t *testing.T) {
	if want := "PS4='--> '\nset -ex\n"; Prologue != want {
		t.Errorf("got %q: every cache key changes with it", Prologue)
	}
}

func TestImages(t *testing.T) {
	for args, want := range map[string]string{
		"-x a":                   "",
		"-i alpine":              "alpine",
		"--from ./x.tar":         "./x.tar",
		"--image=-x":             "-x",
		"--comment -l --image 5": "5",
		"-A":                     "alpine",
		"-D":                     "debian",
		"-U":                     "ubuntu",
		"-F":                     "fedora",
		"-C":                     "centos",
		"-R":                     "archlinux",
		"-G":                     "gentoo",
		"--gentoo":               "gentoo",
	} {
		if got := parse(t, strings.Split(args, " ")...).Image; got != want {
			t.Errorf("%s: image %q, want %q", args, got, want)
		}
	}
}

func TestOneLetterForms(t *testing.T) {
	for short, long := range map[string]string{
		"-A": "--apk", "-D": "--apt", "-U": "--apt", "-F": "--dnf", "-C": "--yum", "-R": "--pacman", "-G": "--emerge",
	} {
		got, want := layerTexts(t, parse(t, short, "a", "b c")), layerTexts(t, parse(t, long, "a", "b c"))
		if len(got) != 1 || got[0] != want[0] {
			t.Errorf("%s: got %q, want %q", short, got, want)
		}
	}
	// A package manager that is defined anew is used.
	got := layerTexts(t, parse(t, "--defpm", "apk", "mine {}", "-A", "a"))
	if len(got) != 1 || got[0] != "mine a\n" {
		t.Errorf("got %q", got)
	}
}

func TestEntrypoint(t *testing.T) {
	p := parse(t, "--entrypoint", "/a", "-l", "-x", "true", "--entrypoint-script", "exit", "--entrypoint", "/b", "-l", "-x", "false")
	if got := p.Entrypoint(); got != "/b" {
		t.Errorf("got %q", got)
	}
	layers, err := p.Layers(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"/a", "/b", ""} {
		if got := layers[i].Entrypoint; got != want {
			t.Errorf("layer %d: got %q, want %q", i, got, want)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	for _, tt := range []struct{ args, msg, hint string }{
		{"alpine", `not an action: "alpine"`, "did you mean --alpine?"},
		{"bookworm", `not an action: "bookworm"`, "actions begin with -, as in --image bookworm"},
		{"--", "unexpected -- among the actions", ""},
		{"-x a\x00b", `a word contains a NUL byte: "a\x00b"`, ""},
		{"--atp x", "unknown action --atp: did you mean --apt?", ""},
		{"-apt x", "unknown action -apt: did you mean --apt?", ""},
		{"--Write_File x", "unknown action --Write_File: did you mean --write-file?", ""},
		{"--imgae x", "unknown action --imgae: did you mean --image?", ""},
		{"--hashpath x", "unknown action --hashpath: did you mean --hash-path?", ""},
		{"--frobnicate", "unknown action --frobnicate", listAdvice},
		{"-a git", "unknown action -a: did you mean -A?", ""},
		{"-", "unknown action -", listAdvice},
		{"-z", "unknown action -z", listAdvice},
		{"--image", "--image: missing argument: --image NAME", "an argument that begins with - is joined to the action: --image=-ARG"},
		{"-i a b", "-i: one argument too many: b", ""},
		{"-i=a", "unknown action -i=a", listAdvice},
		{"--image=", "--image: the name is empty", ""},
		{"-i a -i b", "-i b: a second image, after a", ""},
		{"-A -D", "-D debian: a second image, after alpine", ""},
		{"-x a -i b", "-i b comes after actions that run in it", "put it before the other actions"},
		{"--run", "--run: missing argument: --run LINE…", "an argument that begins with - is joined to the action: --run=-ARG"},
		{"--apt -y x", "--apt: missing argument: --apt PKG…", "an argument that begins with - is joined to the action: --apt=-ARG"},
		{"--bust-cache 1", "--bust-cache takes no arguments: 1", ""},
		{"--map", "--map: missing argument: --map ACTION ARG…", "an argument that begins with - is joined to the action: --map=-ARG"},
		{"--map rum a", "--map: unknown action rum: did you mean --run?", ""},
		{"--map bust-cache 1", "--bust-cache takes no arguments: 1", ""},
		{"--layer image a b", "--image b: a second image, after a", ""},
		{"--namespace=", "--namespace: the name is empty", ""},
		{"--watch=", "--watch: the path is empty", ""},
		{"--write-file= a", "--write-file: the path is empty", ""},
		{"--write-script=", "--write-script: the path is empty", ""},
		{"--entrypoint=", "--entrypoint: the path is empty", ""},
		{"--entrypoint=/\xff", `--entrypoint: not UTF-8, of which the configurations of images are: "/\xff"`, ""},
		{"--import-env 1A", "--import-env: not the name of a variable: 1A", ""},
		{"--import-env A:", "--import-env: not the name of a variable: A:", ""},
		{"--import-env A:B;C", "--import-env: not the name of a variable: 'A:B;C'", ""},
		{"--defpm a", "--defpm: missing argument: --defpm NAME LINE…", "an argument that begins with - is joined to the action: --defpm=-ARG"},
		{"--defpm a b", "--defpm a: no line holds {}", "write {} where the packages go"},
		{"--defpm run {}", "--defpm: --run is an action already", "take another name"},
		{"--defpm defpm {}", "--defpm: --defpm is an action already", "take another name"},
		{"--defpm a/b {}", "--defpm: not a name for a package manager: a/b", ""},
		{"--import os", "--import is not supported: it loaded Python modules", "--defpm defines package managers, --include reads actions from a file"},
	} {
		_, err := Parse(strings.Split(tt.args, " "), nil)
		var usage *UsageError
		if !errors.As(err, &usage) {
			t.Errorf("%s: got %v, want a UsageError", tt.args, err)
			continue
		}
		if usage.Error() != tt.msg || usage.Hint() != tt.hint {
			t.Errorf("%s:\ngot  %s\nhint %s\nwant %s\nhint %s", tt.args, usage, usage.Hint(), tt.msg, tt.hint)
		}
	}
}

func TestScript(t *testing.T) {
	got, err := parse(t, "-i", "a\nb", "-x", "one", "-l", "-x", "two").Script(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	want := "# image: \"a\\nb\"\n\n# layer 1 of 2\n" + Prologue + "one\n\n# layer 2 of 2\n" + Prologue + "two\n"
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if got, err = parse(t).Script(context.Background()); got != "" || err != nil {
		t.Errorf("no actions: got %q, %v", got, err)
	}
}

func TestList(t *testing.T) {
	if !parse(t, "--list").List || parse(t, "-x", "a").List {
		t.Error("--list is not told")
	}
	var b strings.Builder
	if err := List(&b); err != nil {
		t.Fatal(err)
	}
	for _, a := range Actions() {
		if a.Help == "" || a.Group == "" || strings.Contains(a.Help, "\n") {
			t.Errorf("--%s is not described: %+v", a.Name, a)
		}
		for _, w := range a.Words() {
			if !strings.Contains(b.String(), w) {
				t.Errorf("%s is not in the list", w)
			}
		}
	}
	if strings.Contains(b.String(), "--import ") {
		t.Error("--import is in the list")
	}
	if n := strings.Count(b.String(), "\n"); n > 60 {
		t.Errorf("%d lines", n)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"--image\nalpine\n--run\ntouch /file",
		"-A\ngit\n--layer\napk\na\nb\n--map\nrun\nx\ny",
		"--defpm\ngem\ngem install {}\n--gem\nrake\n--layer\ngem\na",
		"--write-file\n/etc/x\nPLASH\nPLASH1\n$x `y` 'z'\n--write-script\n/s",
		"--namespace\nn\n--import-env\nPATH:P\nHOME\n--entrypoint-script\nexit",
		"--run=-x\n--apt=-y\nx\n--list\n--comment\n--devinit\n--align-cwd",
		"--import\nos", "--map\nmap\nlayer", "--\n-", "\xff\n-\xff", "--layer\nlayer\nrun",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, words string) {
		if readsFiles(words) {
			t.Skip("it depends on the files of this machine")
		}
		args := strings.Split(words, "\n")
		p, err := Parse(args, nil)
		if err != nil {
			var usage *UsageError
			if !errors.As(err, &usage) || usage.Msg == "" {
				t.Fatalf("%q: %v", args, err)
			}
			return
		}
		for _, l := range p.layers {
			if len(l.parts) == 0 {
				t.Fatalf("%q: an empty layer", args)
			}
			for i := range l.parts {
				l.parts[i].watch, l.parts[i].copy = "", nil // what there is on this machine is no matter here
			}
		}
		script, err := p.Script(context.Background())
		if err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		if strings.Contains(script, "\x00") {
			t.Fatalf("%q: NUL in the script", args)
		}
	})
}

// readsFiles reports whether actions may include files.
func readsFiles(actions string) bool {
	return strings.Contains(actions, "include") || strings.Contains(actions, "eval-file") || strings.Contains(actions, "I")
}
