package program

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// foreignProgram has the header of a program for a machine that nothing here is.
func foreignProgram(t *testing.T, dir string) string {
	t.Helper()
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	head := exe[:4096:4096]
	binary.NativeEndian.PutUint16(head[18:], 2) // EM_SPARC
	path := filepath.Join(dir, "foreign")
	if err := os.WriteFile(path, head, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestForeign(t *testing.T) {
	dir := t.TempDir()
	elf := foreignProgram(t, dir)
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#! "+elf+" -x\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{elf, script} {
		err := Program{path, []string{"name"}}.Exec(nil)
		var exit *ExitError
		if !errors.As(err, &exit) || exit.Code != CodeCannotExecute || !errors.Is(err, unix.ENOEXEC) {
			t.Fatalf("%s: %v", path, err)
		}
		want := "name: cannot be executed: " + elf + " is a program for machine 2, and this machine is " + goruntime.GOARCH
		if !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, expected %s", path, err, want)
		}
		if _, again := (Program{path, []string{"name"}}).CommandLine(); again == nil || again.Error() != err.Error() {
			t.Errorf("%s: for others: %v, expected %v", path, again, err)
		}
	}
	if err := foreign("/proc/self/exe", beginning("/proc/self/exe")); err != nil {
		t.Errorf("this program: %v", err)
	}
}

func TestMachineOf(t *testing.T) {
	for head, want := range map[string]string{
		"\x7fELF\x02\x01": "",
		"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00": "arm64",
		"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x15\x00": "ppc64le",
		"\x7fELF\x02\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x16": "s390x",
		"\x7fELF\x02\x03\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x16": "",
		"#!/bin/sh": "",
	} {
		if got := machineOf([]byte(head)); got != want {
			t.Errorf("%q: %q, expected %q", head, got, want)
		}
	}
}
