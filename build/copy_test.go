package build

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/runtime"
)

// copyInto runs the script of a --copy on a directory, as if that were the image, and returns
// what is in there then.
func copyInto(t *testing.T, shell []string, image string, args ...string) ([]string, error) {
	t.Helper()
	layers, err := parse(t, append([]string{"--copy"}, args...)...).Layers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir, scratch, err := takeInputs(t.Context(), newStore(t).CAS(), layers[0].inputs)
	if err != nil {
		t.Fatal(err)
	}
	defer scratch.Remove()
	cmd := exec.Command(shell[0], append(shell[1:], "-c", strings.ReplaceAll(layers[0].Script, runtime.InputPath, dir))...)
	cmd.Dir = image
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	tree, err := readTree(t.Context(), image, nil)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range tree.entries[1:] {
		value := e.value
		if e.kind == 'f' {
			b, err := os.ReadFile(filepath.Join(image, e.name))
			if err != nil {
				t.Fatal(err)
			}
			value = string(b)
		}
		list = append(list, strings.TrimSpace(fmt.Sprintf("%c %o %s %s", e.kind, e.mode, e.name, value)))
	}
	return list, nil
}

func TestCopy(t *testing.T) {
	host := t.TempDir()
	t.Chdir(host)
	for _, err := range []error{
		os.MkdirAll("dir/sub", 0o755), os.Mkdir("dir/lib", 0o711), os.Chmod("dir", 0o750),
		os.WriteFile("dir/.hidden", []byte("h"), 0o600),
		os.WriteFile("dir/sub/it's $a \"b\" \\ ü\n*", []byte("w"), 0o644),
		os.WriteFile("dir/lib/x", []byte("x"), 0o644), unix.Chmod("dir/lib/x", 0o4755),
		os.Symlink("/nowhere", "dir/link"), unix.Mkfifo("dir/fifo", 0o644),
		os.WriteFile("-f", []byte("f"), 0o755), os.Symlink("-f", "to-f"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	tree := func(at string) []string {
		return []string{
			"f 600 " + at + ".hidden h", "p 644 " + at + "fifo", "d 711 " + at + "lib", "f 4755 " + at + "lib/x x",
			"l 777 " + at + "link /nowhere", "d 755 " + at + "sub", "f 644 " + at + "sub/it's $a \"b\" \\ ü\n* w",
		}
	}
	for _, tt := range []struct {
		name  string
		image []string // directories, link=target, or files
		args  []string
		want  []string
	}{
		{"a directory", nil, []string{"dir", "app"}, append([]string{"d 750 app"}, tree("app/")...)},
		{"a directory below others", nil, []string{"dir/", "a b/c/"}, append([]string{"d 755 a b", "d 750 a b/c"}, tree("a b/c/")...)},
		{"its content to the root", nil, []string{"dir/.", "."}, tree("")},
		{
			"into one that is there",
			[]string{"app/", "app/sub/", "app/old", "app/link"},
			[]string{"dir", "app"},
			slices.DeleteFunc(
				append([]string{"d 700 app", "f 600 app/old old", "d 700 app/sub"}, tree("app/")...),
				func(s string) bool { return s == "d 755 app/sub" },
			),
		},
		{
			"where a directory is a link",
			[]string{"usr/", "usr/lib/", "lib=usr/lib"},
			[]string{"dir", "."},
			slices.DeleteFunc(append(tree(""), "l 777 lib usr/lib", "d 700 usr", "d 700 usr/lib", "f 4755 usr/lib/x x"),
				func(s string) bool { return strings.HasPrefix(s, "d 711 lib") || strings.HasPrefix(s, "f 4755 lib/") }),
		},
		{"a file to a name", nil, []string{"./-f", "x/-g"}, []string{"d 755 x", "f 755 x/-g f"}},
		{"a file into a directory", nil, []string{"./-f", "x/"}, []string{"d 755 x", "f 755 x/-f f"}},
		{"a file into a directory that is there", []string{"x/"}, []string{"./-f", "x"}, []string{"d 700 x", "f 755 x/-f f"}},
		{"a link that is named itself", nil, []string{"to-f", "x/"}, []string{"d 755 x", "f 755 x/to-f f"}},
		{"over a link", []string{"old", "x=old"}, []string{"./-f", "x"}, []string{"f 600 old old", "f 755 x f"}},
		{
			"several", nil,
			[]string{"./-f", "dir/sub", "to-f", "x"},
			[]string{"d 755 x", "f 755 x/-f f", "d 755 x/sub", "f 644 x/sub/it's $a \"b\" \\ ü\n* w", "f 755 x/to-f f"},
		},
	} {
		eachShell(t, func(t *testing.T, shell []string) {
			image := t.TempDir()
			for _, name := range tt.image {
				var err error
				link, target, isLink := strings.Cut(name, "=")
				switch path := filepath.Join(image, link); {
				case isLink:
					err = os.Symlink(target, path)
				case strings.HasSuffix(name, "/"):
					err = os.Mkdir(path, 0o700)
				default:
					err = os.WriteFile(path, []byte("old"), 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			got, err := copyInto(t, shell, image, tt.args...)
			slices.Sort(got)
			slices.Sort(tt.want)
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("%s: %v\ngot  %q\nwant %q", tt.name, err, got, tt.want)
			}
		})
	}
	image := t.TempDir()
	if err := os.MkdirAll(filepath.Join(image, "x/-f"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := copyInto(t, []string{"sh"}, image, "./-f", "x/"); err == nil || !strings.Contains(err.Error(), "copy: ./x/-f is a directory") {
		t.Errorf("over a directory: %v", err)
	}
}

func TestCopyErrors(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := unix.Mknod("socket", unix.S_IFSOCK|0o644, 0); err != nil {
		t.Fatal(err)
	}
	inDir(t, "bad/"+ignoreFile, "a\n[\n")
	for path, want := range map[string]string{
		"none": "--copy none: lstat none: no such file or directory",
		"bad":  "--copy bad: bad/.plashignore:2: [: syntax error in pattern",
	} {
		if _, err := parse(t, "--copy", path, "/x").Layers(t.Context()); err == nil || err.Error() != want {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := unix.Mknod("socket", unix.S_IFSOCK|0o644, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := parse(t, "--copy", ".", "/x").Layers(t.Context()); err == nil || !strings.Contains(err.Error(), "socket is a socket, which is not copied") {
		t.Errorf("%v", err)
	}
	if _, err := Parse([]string{"--copy", "", "/x"}, nil); err == nil || err.Error() != "--copy: the path is empty" {
		t.Errorf("%v", err)
	}
}

// A file that changes after it was looked at is not copied as something else.
func TestCopyChanges(t *testing.T) {
	inDir(t, "dir/file", "one")
	layers, err := parse(t, "--copy", "dir", "/x").Layers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	inDirFile(t, "dir/file", "two")
	_, _, err = takeInputs(t.Context(), newStore(t).CAS(), layers[0].inputs)
	if err == nil || !strings.HasSuffix(err.Error(), "dir: it changed while it was read") {
		t.Errorf("%v", err)
	}
}

func inDirFile(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Content decides whether a layer is found again, names and times of the host do not.
func TestCopyKeys(t *testing.T) {
	inDir(t, "a/file", "one", "b/file", "one", "f", "one", "g", "one", "c/file", "two")
	if err := os.Chtimes("b/file", time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	b := newBench(t)
	one, _ := b.build(t, "--copy", "a", "/x")
	for _, tt := range []struct {
		args []string
		same bool
	}{
		{[]string{"b", "/x"}, true},
		{[]string{"b/.", "/x"}, true},
		{[]string{"c", "/x"}, false},
		{[]string{"b", "/y"}, false},
		{[]string{"a", "f", "/x"}, false},
	} {
		if id, _ := b.build(t, append([]string{"--copy"}, tt.args...)...); (id == one) != tt.same {
			t.Errorf("%q: container %d after %d", tt.args, id, one)
		}
	}
	if err := os.Chmod("b/file", 0o755); err != nil {
		t.Fatal(err)
	}
	if id, _ := b.build(t, "--copy", "b", "/x"); id == one {
		t.Error("the mode of a file does not count")
	}

	// The name of a file counts where it is the name in the image.
	file, _ := b.build(t, "--copy", "f", "/x")
	if id, _ := b.build(t, "--copy", "g", "/x"); id != file {
		t.Errorf("another name: container %d after %d", id, file)
	}
	b.inputHook = func(dir string) { inDirFile(t, filepath.Join(dir, namedMark), "") }
	into, _ := b.build(t, "--copy", "f", "/dir")
	if id, _ := b.build(t, "--copy", "g", "/dir"); id == into {
		t.Error("another name in a directory is the same container")
	}
	if id, _ := b.build(t, "--copy", "f", "/dir"); id != into {
		t.Error("the same name in a directory is another container")
	}
	id, _ := b.build(t, "--copy", "f", "/dir/")
	if other, _ := b.build(t, "--copy", "g", "/dir/"); id == other {
		t.Error("another name in a directory is the same container")
	}
	left, err := os.ReadDir(filepath.Join(b.Containers.CAS().Dir(), "scratch"))
	if err != nil && !errors.Is(err, os.ErrNotExist) || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestIgnore(t *testing.T) {
	const list = "# comment\n\n*.o\n!keep.o\n/build\nlogs/\ndoc/*.txt\n**/cache/**\na/**/z\n\\#x\ntrail \r\n!\n"
	l, err := parseIgnore("f", list)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"a.o": true, "sub/a.o": true, "keep.o": false, "sub/keep.o": false, "a.c": false,
		"build": true, "sub/build": false, "logs/": true, "sub/logs/": true, "logs": false,
		"doc/a.txt": true, "doc/sub/a.txt": false, "sub/doc/a.txt": false,
		"cache/": false, "cache/x": true, "sub/cache/x/y": true,
		"a/z": true, "a/b/c/z": true, "b/a/z": false, "#x": true, "comment": false, "trail": true,
		".plashignore": true, "sub/.plashignore": false,
	} {
		name, dir := strings.CutSuffix(name, "/")
		if got := l.excludes(name, dir); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	inDir(t, "t/.plashignore", "sub\n!sub/in\n*.o\n", "t/sub/in", "", "t/a.o", "", "t/b", "")
	ignore, err := readIgnore("t")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := readTree(t.Context(), "t", ignore)
	if err != nil || len(tree.entries) != 2 || tree.entries[1].name != "b" {
		t.Errorf("%v, %v", tree, err)
	}
	if l, err := readIgnore("t/b"); l != nil || err != nil {
		t.Errorf("a file has a list: %v, %v", l, err)
	}
}

func FuzzIgnore(f *testing.F) {
	f.Add("*.o\n!keep.o\n/build/\n", "a/b.o")
	f.Add("**/x/**\n[a-c]?\n\\*\n", "x/y")
	f.Add("/\n!\n**\n", "")
	f.Fuzz(func(t *testing.T, list, name string) {
		if l, err := parseIgnore("f", list); err == nil {
			l.excludes(name, true)
			if !l.excludes(ignoreFile, false) && !strings.Contains(list, "!") {
				t.Errorf("%q: the list itself is copied", list)
			}
		}
	})
}
