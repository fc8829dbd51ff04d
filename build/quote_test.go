package build

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// shells are the shells that images have as sh.
var shells = [][]string{{"dash"}, {"busybox", "sh"}, {"bash", "--posix"}, {"bash"}}

// eachShell runs a subtest with every shell that this machine has.
func eachShell(t *testing.T, test func(t *testing.T, shell []string)) {
	for _, shell := range shells {
		t.Run(strings.Join(shell, " "), func(t *testing.T) {
			if _, err := exec.LookPath(shell[0]); err != nil {
				t.Skipf("%s is not installed", shell[0])
			}
			test(t, shell)
		})
	}
}

// runScript runs a script as RunLayer would, and returns what it wrote.
func runScript(t *testing.T, shell []string, dir, script string, env ...string) (stdout, stderr string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(shell[0], append(shell[1:], file)...)
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s\nscript:\n%s", err, log.String(), script)
	}
	return out.String(), log.String()
}

// scripts returns the whole scripts of build actions.
func scripts(t *testing.T, args ...string) []string {
	t.Helper()
	layers, err := parse(t, args...).Layers(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, l := range layers {
		list = append(list, l.Script)
	}
	return list
}

// nasty are words that shells stumble over.
var nasty = []string{
	"", " ", "a b", "'", "''", `"`, `\`, `\\`, `\'`, "$", "$x", "${x}", "$(exit 9)", "`exit 9`", "*", "?", "[a-z]", "~", "~root",
	"!", "!!", "#", "#!", "a#b", ";", "&", "|", "<", ">", "(", ")", "{", "}", "{}", "{a,b}", "=", "a=b", "-", "--", "-n", "%", "%s", `\n`, `a\c`,
	"\n", "a\nb", "a\n", "\n\n", "\t", "\r", "\r\n", "\x01", "\x7f", "\x01\x01", "\x81", "\x82", "\x83", "\x84", "\x85", "\x86", "\x87", "\x88",
	"\xff", "\xc3", "ü", "日本語", "\u202e", "\u2028", "PLASH", "PLASH1", "EOF", "é'\"$\\\n\xfe",
}

// randomWord returns a word made of nasty ones and of any bytes but NUL.
func randomWord(r *rand.Rand) string {
	var b strings.Builder
	for range r.IntN(6) {
		if r.IntN(2) == 0 {
			b.WriteString(nasty[r.IntN(len(nasty))])
		} else {
			b.WriteByte(byte(1 + r.IntN(255)))
		}
	}
	return b.String()
}

func randomWords(n int) []string {
	r := rand.New(rand.NewPCG(1, 2))
	words := append([]string{}, nasty...)
	for range n {
		words = append(words, randomWord(r))
	}
	return words
}

func TestQuote(t *testing.T) {
	for word, want := range map[string]string{
		"":         "''",
		"a-B_1":    "a-B_1",
		"nginx=1/": "nginx=1/",
		"a b":      "'a b'",
		"it's":     `'it'\''s'`,
		"~":        "'~'",
		"ü":        "'ü'",
		"\xff":     "'\xff'",
	} {
		if got := Quote(word); got != want {
			t.Errorf("%q: got %s, want %s", word, got, want)
		}
	}
}

// Every word that an action puts into a script comes out of the shell as it was.
func TestWordsReachPrograms(t *testing.T) {
	words := randomWords(3000)
	args := []string{"--defpm", "show", `printf '%s\0' {}`}
	for _, w := range words {
		args = append(args, "--show="+w)
	}
	eachShell(t, func(t *testing.T, shell []string) {
		out, _ := runScript(t, shell, t.TempDir(), scripts(t, args...)[0])
		compareWords(t, strings.Split(strings.TrimSuffix(out, "\x00"), "\x00"), words)
	})
}

func TestImportEnvValues(t *testing.T) {
	words := randomWords(500)
	var args []string
	for i, w := range words {
		name := fmt.Sprintf("PLASH_TEST_%d", i)
		t.Setenv(name, w)
		args = append(args, fmt.Sprintf("%s:V%d", name, i))
	}
	var show strings.Builder
	show.WriteString("{ set +x; } 2>/dev/null\nprintf '%s\\0'")
	for i := range words {
		fmt.Fprintf(&show, ` "$V%d"`, i)
	}
	script := scripts(t, append(append([]string{"--import-env"}, args...), "--run", show.String())...)[0]
	eachShell(t, func(t *testing.T, shell []string) {
		out, log := runScript(t, shell, t.TempDir(), script)
		compareWords(t, strings.Split(strings.TrimSuffix(out, "\x00"), "\x00"), words)
		if log != "" {
			t.Errorf("values are traced: %q", log)
		}
	})
}

func TestTraceGoesOnAfterImportEnv(t *testing.T) {
	t.Setenv("PLASH_TEST_SECRET", "secret")
	script := scripts(t, "--import-env", "PLASH_TEST_SECRET", "--run", "true")[0]
	eachShell(t, func(t *testing.T, shell []string) {
		if _, log := runScript(t, shell, t.TempDir(), script); log != "--> true\n" {
			t.Errorf("log %q", log)
		}
	})
}

func compareWords(t *testing.T, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("got %d words, want %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("word %d: got %q, want %q", i, got[i], want[i])
		}
	}
}

func TestWriteFile(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	big := make([]string, 5000)
	for i := range big {
		big[i] = randomWord(r) + strings.Repeat("x", i%300)
	}
	eachShell(t, func(t *testing.T, shell []string) {
		dir := t.TempDir()
		want := map[string]string{}
		args := []string{}
		write := func(name string, lines ...string) {
			args = append(append(args, "--write-file="+name), escape(lines)...)
			want[name] = strings.Join(append(lines, ""), "\n")
		}
		write("empty")
		write("one", "hello")
		write("again", "old", "content")
		write("again", "new")
		write("a b/'c'/$d/-e", "deep")
		write("-dash", "x")
		write("delimiters", "PLASH", "PLASH1", "a\nPLASH2\nb", "PLASH")
		write("large", big...)
		write("lost", "P\xc3\xa9", "PLASH\xff", "PLASH")
		write("kept", "xP\xc3\xa9", "PLASH", "QLASH\xff")
		for chunk := range slices.Chunk(randomWords(300), 10) {
			write(fmt.Sprintf("words%d", len(want)), chunk...)
		}
		_, log := runScript(t, shell, dir, escaped(scripts(t, args...)[0]))
		if len(log) > 40*len(want) {
			t.Errorf("the log has %d bytes for %d files", len(log), len(want))
		}
		for name, content := range want {
			got, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Error(err)
			} else if string(got) != content {
				t.Errorf("%q: got %.200q, want %.200q", name, got, content)
			}
		}
	})
}

// escape hides a leading "-" of arguments from the parser; escaped brings it back.
// The mark is as good as any other text to the rest of the package.
func escape(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		if strings.HasPrefix(w, "-") {
			w = dashMark + w
		}
		out[i] = w
	}
	return out
}

func escaped(script string) string { return strings.ReplaceAll(script, dashMark, "") }

const dashMark = "@dash@"

func TestWriteScriptIsExecutable(t *testing.T) {
	eachShell(t, func(t *testing.T, shell []string) {
		dir := t.TempDir()
		runScript(t, shell, dir, scripts(t, "--write-script", "bin/hello", "#!/bin/sh", `echo "hello $1"`)[0])
		out, err := exec.Command(filepath.Join(dir, "bin/hello"), "you").Output()
		if err != nil || string(out) != "hello you\n" {
			t.Errorf("got %q, %v", out, err)
		}
	})
}

// The log of the README's session, and that housekeeping stays out of it.
func TestLog(t *testing.T) {
	eachShell(t, func(t *testing.T, shell []string) {
		dir := t.TempDir()
		script := scripts(t, "--run", "touch "+dir+"/file", "--defpm", "pm", silently("echo hidden >hidden"), "pm {}", "--run", "pm() { :; }", "--pm", "a")[0]
		_, log := runScript(t, shell, dir, strings.ReplaceAll(script, "pm a", "true a"))
		if want := "--> touch " + dir + "/file\n--> true a\n"; log != want {
			t.Errorf("got %q, want %q", log, want)
		}
		if _, err := os.Stat(dir + "/hidden"); err != nil {
			t.Error(err)
		}
	})
}
