package output

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "out")
	hello := func(w io.Writer) error { _, err := io.WriteString(w, "hello"); return err }
	fail := errors.New("no more")
	if err := WriteFile(name, func(w io.Writer) error { return errors.Join(hello(w), fail) }); !errors.Is(err, fail) {
		t.Errorf("error %v", err)
	}
	checkDir(t, dir)
	if err := WriteFile(name, hello); err != nil {
		t.Fatal(err)
	}
	checkDir(t, dir, "out")
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("out", link); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(link, func(io.Writer) error { return fail }); !errors.Is(err, fail) {
		t.Errorf("error %v", err)
	}
	if b, err := os.ReadFile(name); err != nil || string(b) != "hello" {
		t.Errorf("after a failure: %q, %v", b, err)
	}
	if err := WriteFile(link, func(w io.Writer) error { return errors.Join(hello(w), hello(w)) }); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	info, err2 := os.Stat(name)
	if err := errors.Join(err, err2); err != nil || string(b) != "hellohello" || info.Mode().Perm() != 0o600 {
		t.Errorf("through a link: %q, %v, %v", b, info.Mode(), err)
	}
	checkDir(t, dir, "link", "out")
	if err := WriteFile("/dev/null", hello); err != nil {
		t.Errorf("/dev/null: %v", err)
	}
	if info, err := os.Stat("/dev/null"); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("/dev/null has become %v, %v", info.Mode(), err)
	}
	if err := WriteFile(dir, hello); !errors.Is(err, unix.EISDIR) {
		t.Errorf("directory: %v", err)
	}
	if err := WriteFile(filepath.Join(dir, "none/out"), hello); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
}

func checkDir(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if strings.Join(names, " ") != strings.Join(want, " ") {
		t.Errorf("directory holds %q, want %q", names, want)
	}
}
