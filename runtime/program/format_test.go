package program

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestExecutable(t *testing.T) {
	dir := t.TempDir()
	file := func(text string) string {
		path := filepath.Join(dir, "p")
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	path := filepath.Join(dir, "p")
	argv := []string{"p", "a"}
	for text, want := range map[string][]string{
		"#!/bin/sh\n":           argv,
		"#! /bin/sh -e\nexit":   argv,
		"#!/nosuch\n":           nil,
		"#!":                    argv, // the kernel says what that is
		"echo x\n":              {"/bin/sh", path, "a"},
		"":                      {"/bin/sh", path, "a"},
		"\xca\xfe\xba\xbe\x00x": argv, // of another kind
		"\x7fELF":               argv,
	} {
		got, err := Program{file(text), argv}.executable()
		if !slices.Equal(got, want) || (err != nil) != (want == nil) {
			t.Errorf("%q: %q, %v, expected %q", text, got, err, want)
		}
	}
	for _, name := range []string{"/proc/self/exe", "/bin/sh"} {
		if got, err := (Program{name, argv}).executable(); err != nil || !slices.Equal(got, argv) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	b, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	loader := dynamicLoader(bytes.NewReader(b), b)
	if loader == "" {
		t.Skip("/bin/sh is static here")
	}
	if _, err := os.Stat(loader); err != nil {
		t.Errorf("the loader of /bin/sh: %v", err)
	}
	broken := strings.Replace(string(b), loader, "/nosuch"+loader[len("/nosuch"):], 1)
	if got, err := (Program{file(broken), argv}).executable(); err == nil {
		t.Errorf("without its loader: %q", got)
	}
}

func FuzzDynamicLoader(f *testing.F) {
	header := make([]byte, 64+56+16)
	copy(header, "\x7fELF\x02\x01")
	header[32], header[56] = 64, 1 // e_phoff, e_phnum
	header[64] = 3                 // PT_INTERP
	header[64+8], header[64+32] = 64+56, 16
	copy(header[64+56:], "/lib/ld.so")
	f.Add(header)
	f.Add(header[:100])
	f.Add([]byte("\x7fELF\x02\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		loader := dynamicLoader(bytes.NewReader(b), b[:min(len(b), 4096)])
		if len(loader) > unix.PathMax || strings.Contains(loader, "\x00") || !bytes.Contains(b, []byte(loader)) {
			t.Errorf("loader %q", loader)
		}
	})
}

func TestDynamicLoaderSeed(t *testing.T) {
	b := make([]byte, 64+56+16)
	copy(b, "\x7fELF\x02\x01")
	b[32], b[56], b[64], b[72], b[96] = 64, 1, 3, 120, 16
	copy(b[120:], "/lib/ld.so")
	if loader := dynamicLoader(bytes.NewReader(b), b); loader != "/lib/ld.so" {
		t.Errorf("loader %q", loader)
	}
}
