package handover

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// takeName has the test's program take files, instead of running tests.
const takeName = "plash-test-take"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == takeName {
		if err := take(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// take receives two files through the first that it was given, and copies the one to the other. It
// tells which of the descriptors that it got would be inherited.
func take(args []string) error {
	files := Taken(args, "taken")
	if len(files) != 2 || files[0] == nil || files[1] != nil {
		return fmt.Errorf("taken: %v", files)
	}
	if err := Receive(files[0], 2); err != nil {
		return err
	}
	if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
		return err
	}
	flags, err := unix.FcntlInt(files[0].Fd(), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		return fmt.Errorf("flags %#x: %w", flags, err)
	}
	_, err = files[0].WriteString("done")
	return err
}

// TestHandover hands a socket to a process that is started, and two files through that.
func TestHandover(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "in"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(filepath.Join(dir, "in"))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	ours, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, takeName)
	var said strings.Builder
	cmd.Stderr = &said
	if err := Start(cmd, theirs, nil); err != nil {
		t.Fatal(err)
	}
	flags, err := unix.FcntlInt(theirs.Fd(), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("still inherited: flags %#x, %v", flags, err)
	}
	theirs.Close()
	if err := Send(ours, []*os.File{in, out}); err != nil {
		t.Error(err)
	}
	answer, err := io.ReadAll(ours)
	if waitErr := cmd.Wait(); err != nil || waitErr != nil || string(answer) != "done" {
		t.Errorf("%q, %v, %v: %s", answer, err, waitErr, said.String())
	}
	if text, err := os.ReadFile(out.Name()); string(text) != "text" {
		t.Errorf("copied %q, %v", text, err)
	}
}

// TestReceiveNothing: who sends something else, or nothing, is not obeyed.
func TestReceiveNothing(t *testing.T) {
	for _, what := range []string{"", "x"} {
		ours, theirs, err := Pair()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ours.WriteString(what); err != nil {
			t.Fatal(err)
		}
		ours.Close()
		if err := Receive(theirs, 1); err == nil {
			t.Errorf("%q: files", what)
		}
		theirs.Close()
	}
}

func TestTaken(t *testing.T) {
	for _, f := range Taken([]string{"-1", "", "x", "-2"}, "none") {
		if f != nil {
			t.Errorf("taken %v", f.Fd())
		}
	}
}
