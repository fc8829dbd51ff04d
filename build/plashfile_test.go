package build

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// parseText reads a Plashfile's text that must be right.
func parseText(t *testing.T, text string) *Plan {
	t.Helper()
	p, _, err := ParseText("build.plash", text, nil)
	if err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	return p
}

// A Plashfile means what a command line means.
func TestPlashfile(t *testing.T) {
	for text, want := range map[string][]string{
		"#!/usr/bin/env plash-exec\n# c\n\n--image\nalpine\n--run\ntouch /file\n": {"-i", "alpine", "-x", "touch /file"},
		"--image\nalpine\n--run\ntouch /file":                                     {"-i", "alpine", "-x", "touch /file"},
		"--image alpine --run 'a  b' \"c $x \\\"\\q\" d\\ e #f\ng":                {"-i", "alpine", "-x", "a  b", "c $x \"\\q", "d e", "g"},
		"--run\na\n# text\n\n   \n  b \n--layer\n--run=c=d\n":                     {"-x", "a", "# text", "  b ", "-l", "-x", "c=d"},
		"--run\n#!/bin/sh\n--comment\n#!x\na\n":                                   {"-x", "#!/bin/sh"},
		"--map run\n# no text\na\nit's $b\n":                                      {"-x", "a", "it's $b"},
		"--apt\n# c\na\n# c\n-y\n":                                                {"--defpm", "apt2", "{}", "--apt", "a", "-y"},
		"-i alpine\n-x\na\n-l\n-x b\n":                                            {"-i", "alpine", "-x", "a", "-l", "-x", "b"},
		"-x\na \\\n-l\n-y\n":                                                      {"-x", "a \\\n-l\n-y"},
		"--entrypoint-script\n#!/bin/ash\n# c\nexit\n":                            {"--entrypoint-script", "#!/bin/ash", "# c", "exit"},
		"--comment\na\n--bust-cache\n":                                            {"--bust-cache"},
		"":                                                                        {},
		"#!/usr/bin/env plash-exec":                                               {},
	} {
		got := layerTexts(t, parseText(t, text))
		wantTexts := wordTexts(t, want)
		if strings.Join(got, "\x00") != strings.Join(wantTexts, "\x00") {
			t.Errorf("%s\ngot  %q\nwant %q", text, got, wantTexts)
		}
	}
}

// wordTexts are the scripts of words, in which "--apt" may be followed by what begins with a
// dash.
func wordTexts(t *testing.T, words []string) []string {
	t.Helper()
	if len(words) > 3 && words[3] == "--apt" {
		m := managers[0]
		return []string{m.script(words[4:]) + "\n"}
	}
	return layerTexts(t, parse(t, words...))
}

// Lines of files may begin with dashes.
func TestPlashfileText(t *testing.T) {
	const text = "--write-file /f\n---\n- a\n-l\n# b\n--write-script /s\n#!/bin/sh\n-x"
	want := "cat >/f <<'PLASH'\n---\n- a\n-l\n# b\nPLASH\ncat >/s <<'PLASH'\n#!/bin/sh\n-x\nPLASH\nchmod 755 -- /s\n"
	if got := layerTexts(t, parseText(t, text)); len(got) != 1 || got[0] != want {
		t.Errorf("got %q", got)
	}
}

// Files that were written for plash's ancestor.
func TestOldPlashfiles(t *testing.T) {
	const text = `#!/usr/bin/env plash-exec
# plash-exec: exec=/entrypoint
# usage: docker ARG…

--namespace
docker

--image
alpine

--apk
docker

--layer

--write-script
/entrypoint
#!/bin/sh
exec docker "$@"
`
	p, h, err := ParseText("docker", text, nil)
	if err != nil {
		t.Fatal(err)
	}
	if h.Exec != "/entrypoint" || p.Image != "alpine" {
		t.Errorf("header %+v, image %s", h, p.Image)
	}
	want := []string{
		"# namespace \"docker\"\napk update\napk add docker\n(\n\t{ set +x; } 2>/dev/null\n\trm -rf /var/cache/apk/*\n)\n",
		"# namespace \"docker\"\ncat >/entrypoint <<'PLASH'\n#!/bin/sh\nexec docker \"$@\"\nPLASH\nchmod 755 -- /entrypoint\n",
	}
	if got := layerTexts(t, p); strings.Join(got, "") != strings.Join(want, "") {
		t.Errorf("got %q", got)
	}
}

func TestHeader(t *testing.T) {
	_, h, err := ParseText("f", "#!x\n# plash-exec: exec='/a b' mount=default,/sys\n# c\n# plash-exec: exec=/c\n\n# plash-exec: exec=/d\n", nil)
	if err != nil || h.Exec != "/c" || strings.Join(h.Mounts, " ") != "default /sys" {
		t.Errorf("%+v, %v", h, err)
	}
	_, h, err = ParseText("f", "--comment\n# plash-exec: exec=/d\n", nil)
	if err != nil || h.Exec != "" || h.Mounts != nil {
		t.Errorf("%+v, %v", h, err)
	}
	for text, want := range map[string]string{
		"#\n# plash-exec: exe=/a": "f:2: not a setting of plash-exec: exe=/a",
		"# plash-exec: exec":      "f:1: not a setting of plash-exec: exec",
		"# plash-exec: exec=":     "f:1: not a setting of plash-exec: exec=",
		"# plash-exec: exec='a":   "f:1: a quote is not closed: # plash-exec: exec='a",
	} {
		if _, _, err := ParseText("f", text, nil); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func TestPlashfileErrors(t *testing.T) {
	for text, want := range map[string]string{
		"\n\n--aptt\na":                 "f:3: unknown action --aptt: did you mean --apt?",
		"# c\nalpine":                   "f:2: not an action: \"alpine\": did you mean --alpine?",
		"--run\na\n\n--image\n":         "f:4: --image: missing argument: --image NAME: an argument that begins with - is joined to the action: --image=-ARG",
		"--image\na\nb":                 "f:1: --image: one argument too many: b",
		"--run a\x00b":                  "f:1: a line contains a NUL byte: \"--run a\\x00b\"",
		"--run 'a\nb'":                  "f:1: a quote is not closed: --run 'a",
		"--run \"a\\\"":                 "f:1: a quote is not closed: --run \"a\\\"",
		"--run a -- b":                  "f:1: unexpected -- among the actions",
		"--map\nrum\na":                 "f:2: --map: unknown action rum: did you mean --run?",
		"--image=a\n--eval-string\n--x": "f:3: --eval-string:1: unknown action --x: did you mean -x?",
		"--eval-string '--run a\n":      "f:1: a quote is not closed: --eval-string '--run a",
		"--eval-string --x\\ y":         "f:1: --eval-string:1: unknown action --x: did you mean -x?",
		"--eval-stdin":                  "f:1: --eval-stdin: there is no standard input here",
	} {
		_, _, err := ParseText("f", text, nil)
		var usage *UsageError
		if !errors.As(err, &usage) {
			t.Errorf("%q: %v, want a UsageError", text, err)
			continue
		}
		got := usage.Msg
		if usage.Advice != "" {
			got += ": " + usage.Advice
		}
		if got != want {
			t.Errorf("%q:\ngot  %s\nwant %s", text, got, want)
		}
	}
}

// inDir makes a directory of files, name and content in turn, the working directory.
func inDir(t *testing.T, files ...string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for i := 0; i < len(files); i += 2 {
		if err := os.MkdirAll(filepath.Dir(files[i]), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(files[i], []byte(files[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestInclude(t *testing.T) {
	inDir(
		t,
		"a.plash", "--image\n./base.tar\n--include\nlib/gem.plash\n--gem\nrake\n--include lib/../b.plash\n",
		"b.plash", "--run\nb\n",
		"lib/gem.plash", "--defpm\ngem\ngem install {}\n--include\nc.plash\n",
		"lib/c.plash", "--layer\n--run\nc\n--image-free\n",
	)
	_, err := Parse([]string{"--include", "a.plash"}, nil)
	if err == nil || err.Error() != "lib/c.plash:4: unknown action --image-free" {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile("lib/c.plash", []byte("--run\nc\n--layer\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a.plash", filepath.Join(dir, "a.plash")} {
		for _, action := range []string{"-I", "--include", "--eval-file"} {
			p := parse(t, action, name, "--gem", "irb")
			want := strings.TrimSuffix(strings.Replace(name, "a.plash", "base.tar", 1), "\n")
			if name == "a.plash" {
				want = "./base.tar"
			}
			if p.Image != want {
				t.Errorf("%s: image %s, want %s", name, p.Image, want)
			}
			if got := strings.Join(layerTexts(t, p), "|"); got != "c\n|gem install rake\nb\ngem install irb\n" {
				t.Errorf("got %q", got)
			}
		}
	}
}

func TestIncludeErrors(t *testing.T) {
	inDir(
		t,
		"a", "--include\nb\n",
		"b", "--run\nx\n--eval-string\n--include\\ c\n",
		"c", "--layer include\na\n",
		"self", "--include self\n",
		"twice", "--include x\n--include x\n--include nosuch\n",
		"x", "--run x\n",
	)
	if err := os.Symlink("self", "link"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"self":   "self:1: --include: self includes itself: self → self",
		"link":   "link:1: --include: self includes itself: link → self",
		"twice":  "twice:3: --include: open nosuch: no such file or directory",
		".":      "--include: read .: is a directory",
		"nosuch": "--include: open nosuch: no such file or directory",
		"":       "--include: the path is empty",
	} {
		if _, err := Parse([]string{"--include=" + name}, nil); err == nil || err.Error() != want {
			t.Errorf("%s:\ngot  %v\nwant %s", name, err, want)
		}
	}
	if err := os.WriteFile("b", []byte("--run\nx\n--include c\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Parse([]string{"--include=b"}, nil)
	want := "a:2: --include: b includes itself: b → c → a → b"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// Files that include others twice do not take for ever.
func TestManyIncludes(t *testing.T) {
	inDir(t, "0", "--run x\n")
	for i := 1; i < 30; i++ {
		name, below := string(rune('0'+i)), string(rune('0'+i-1))
		if err := os.WriteFile(name, []byte("--include\n"+below+"\n--include\n"+below+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Parse([]string{"--include", string(rune('0' + 29))}, nil)
	if err == nil || !strings.Contains(err.Error(), "more than 1000 files are included") {
		t.Errorf("%v", err)
	}
}

func TestEvalStringAndStdin(t *testing.T) {
	p, err := Parse(
		[]string{"--eval-string", "--image alpine --run 'a b'\n--run\nc d", "-x", "e", "--eval-stdin", "-x", "g"},
		strings.NewReader("--run\nf f\n"),
	)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(layerTexts(t, p), "|"); p.Image != "alpine" || got != "a b\nc d\ne\nf f\ng\n" {
		t.Errorf("image %s, %q", p.Image, got)
	}
	for want, args := range map[string][]string{
		"standard input:2: unknown action --aptt: did you mean --apt?": {"--eval-stdin"},
		"--eval-stdin: standard input has been read already":           {"--map", "comment", "x", "--eval-string", "", "--eval-stdin", "--eval-stdin"},
		"--eval-string:1: unknown action --aptt: did you mean --apt?":  {"--eval-string=--aptt"},
		"--eval-string:1: not an action: \"alpine\"":                   {"--eval-string", "alpine"},
		"--eval-stdin takes no arguments: x":                           {"--eval-stdin", "x"},
		"--eval-string: one argument too many: y":                      {"--eval-string", "x", "y"},
		"--eval-string: missing argument: --eval-string STRING":        {"--eval-string"},
	} {
		in := "\n--aptt\n"
		if len(args) > 2 {
			in = ""
		}
		if _, err := Parse(args, strings.NewReader(in)); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", args, err, want)
		}
	}
}

func FuzzPlashfile(f *testing.F) {
	for _, seed := range []string{
		"#!/usr/bin/env plash-exec\n# plash-exec: exec=/entrypoint mount=default,/sys\n\n--image\nalpine\n--apk\ngit\n",
		"--run\necho a\n# text\n\n--layer\n--write-file\n/f\n---\n- a\n-l\n",
		"--image alpine --run 'a b' \"c \\\" d\" e\\ f # g\n-x\na \\\n-l\n",
		"--eval-string\n--run a\n--eval-string '--eval-string --run=x'",
		"--defpm gem\ngem install {}\n--gem\n$x `y`\n", "--map run\na\n# b\n", "# plash-exec: exec='", "--run '", "\x00", "--copy\na\n/b\n",
		"--eval-stdin\n--eval-stdin", "--run\r\na\r\n", "a\n--run\nb",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if readsFiles(text) {
			t.Skip("it depends on the files of this machine")
		}
		p, _, err := ParseText("f", text, strings.NewReader(text))
		if err != nil {
			var usage *UsageError
			if !errors.As(err, &usage) || !strings.Contains(usage.Msg, ":") {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		for _, l := range p.layers {
			for i := range l.parts {
				l.parts[i].watch, l.parts[i].copy = "", nil
			}
		}
		script, err := p.Script(context.Background())
		if err != nil || strings.Contains(script, "\x00") {
			t.Fatalf("%q: %v, script %q", text, err, script)
		}
	})
}

// What is quoted comes out of a line as it was.
func FuzzSplitWords(f *testing.F) {
	f.Add("a", "b c")
	f.Add("it's", "\"$x\" \\")
	f.Add("", "#")
	f.Fuzz(func(t *testing.T, a, b string) {
		words, ok := splitWords("--run " + Quote(a) + "  " + Quote(b))
		if !ok || len(words) != 3 || words[1] != a || words[2] != b {
			t.Errorf("%q, %q: got %q, %v", a, b, words, ok)
		}
	})
}

// What is looked at later than it is read has its place in errors, too.
func TestPlacesOfPaths(t *testing.T) {
	inDir(t, "lib/f.plash", "--image x\n\n--copy\nnosuch\n/x\n", "lib/g.plash", "--watch\n.\nnosuch\n")
	for file, want := range map[string]string{
		"lib/f.plash": "lib/f.plash:4: --copy lib/nosuch: ", "lib/g.plash": "lib/g.plash:3: --watch lib/nosuch: ",
	} {
		_, err := parse(t, "--include", file).Layers(t.Context())
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", file, err, want)
		}
	}
}
