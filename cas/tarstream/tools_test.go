package tarstream

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The tests here compare with other programs: GNU tar, Python's tarfile and, where
// it is installed, libarchive's bsdtar.

func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
}

func output(t *testing.T, dir string, stdin []byte, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "TZ=UTC")
	cmd.Stdin = strings.NewReader(string(stdin))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, &stderr)
	}
	return out
}

const (
	traitsUstar = devices
	traitsGNU   = traitsUstar | longNames | bigNumbers | oldTimes | badUTF8
	traitsPAX   = traitsGNU | nanoseconds
	traitsAll   = traitsPAX | xattrs | oddXattrs | acls | sparseFiles
)

func TestReadGNUTar(t *testing.T) {
	need(t, "tar")
	for _, c := range []struct {
		args   string
		traits trait
	}{
		{"--format=v7", 0},
		{"--format=ustar", traitsUstar},
		{"--format=oldgnu", traitsGNU},
		{"--format=gnu", traitsGNU},
		{"--format=posix", traitsPAX},
		{"--format=oldgnu --sparse", traitsGNU | sparseFiles},
		{"--format=gnu --sparse", traitsGNU | sparseFiles},
		{"--format=gnu --sparse --hole-detection=raw", traitsGNU},
		{"--format=posix --sparse --sparse-version=0.0", traitsPAX | sparseFiles},
		{"--format=posix --sparse --sparse-version=0.1", traitsPAX | sparseFiles},
		{"--format=posix --sparse --sparse-version=1.0", traitsPAX | sparseFiles},
		{"--format=posix --xattrs --acls --sparse", traitsAll},
		{"--format=posix --acls --numeric-owner", traitsPAX | acls},
		{"--format=gnu --incremental", traitsGNU},
		{"--format=gnu --label=volume", traitsGNU},
		{"--format=posix --label=volume", traitsPAX},
	} {
		t.Run(c.args, func(t *testing.T) {
			dir := makeTree(t, c.traits)
			args := append([]string{"-c", "--sort=name"}, strings.Fields(c.args)...)
			b := output(t, dir, nil, "tar", append(args, ".")...)
			ignore := trait(0)
			if c.traits&xattrs == 0 && c.traits&acls == 0 {
				ignore = xattrs
			}
			compareStates(t, archiveState(t, b, ignore), treeState(t, dir, ignore))
		})
	}
}

func TestReadBsdtar(t *testing.T) {
	need(t, "bsdtar")
	for _, c := range []struct {
		format string
		traits trait
	}{
		{"v7tar", 0},
		{"ustar", traitsUstar},
		{"gnutar", traitsGNU &^ oldTimes},
		// It warns about names that are not UTF-8, and writes -1.5 as -2.5.
		{"pax", traitsAll &^ (badUTF8 | oldTimes)},
	} {
		t.Run(c.format, func(t *testing.T) {
			dir := makeTree(t, c.traits)
			b := output(t, dir, nil, "bsdtar", "-c", "--format="+c.format, "--xattrs", "--acls", "-f", "-", ".")
			compareStates(t, archiveState(t, b, 0), treeState(t, dir, 0))
		})
	}
}

const pythonPack = `
import sys, tarfile
t = tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=getattr(tarfile, sys.argv[1]))
t.add(".")
t.close()
`

func TestReadPython(t *testing.T) {
	need(t, "python3")
	for format, traits := range map[string]trait{"USTAR_FORMAT": traitsUstar, "GNU_FORMAT": traitsGNU, "PAX_FORMAT": traitsPAX} {
		t.Run(format, func(t *testing.T) {
			dir := makeTree(t, traits)
			b := output(t, dir, nil, "python3", "-c", pythonPack, format)
			// It writes floating point times, which have not nine digits.
			compareStates(t, archiveState(t, b, 0), treeState(t, dir, 0))
		})
	}
}

// packTree writes a tree with the Writer.
func packTree(t *testing.T, dir string) []byte {
	t.Helper()
	var buf strings.Builder
	w := NewWriter(&buf)
	for _, e := range readTree(t, dir) {
		if err := w.WriteHeader(&e); err != nil {
			t.Fatal(err)
		}
		if e.Type != TypeReg {
			continue
		}
		f, err := os.Open(filepath.Join(dir, e.Name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.ReadFrom(openData(f, &e)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return []byte(buf.String())
}

func TestWriteTree(t *testing.T) {
	for _, c := range []struct {
		tool   string
		traits trait
	}{
		{"tar -x -p --same-owner --numeric-owner --xattrs --xattrs-include=* --warning=no-timestamp", traitsAll &^ badUTF8},
		// It does not know hdrcharset, says so, and does what it asks for.
		{"tar -x -p --same-owner --numeric-owner --warning=no-unknown-keyword", traitsPAX &^ oldTimes},
		// It does not take ACLs from extended attributes, nor decode their names,
		// and is a second off in times like -1.5.
		{"bsdtar -x -p --same-owner --numeric-owner --xattrs -f -", traitsAll &^ (acls | oldTimes | oddXattrs)},
	} {
		t.Run(c.tool, func(t *testing.T) {
			args := strings.Fields(c.tool)
			need(t, args[0])
			dir := makeTree(t, c.traits)
			b := packTree(t, dir)
			want := treeState(t, dir, 0)
			compareStates(t, archiveState(t, b, 0), want)
			out := t.TempDir()
			output(t, out, b, args[0], args[1:]...)
			compareStates(t, treeState(t, out, 0), want)
		})
	}
}

// pythonList prints a line for each entry, with the content of small files.
const pythonList = `
import os, sys, tarfile
t = tarfile.open(fileobj=sys.stdin.buffer, mode="r|")
out = sys.stdout.buffer
for m in t:
    out.write(os.fsencode(m.name) + b"\0" + os.fsencode(m.linkname) + b"\0")
    out.write(b"%s %o %d %d %d %d %d\0" % (m.type, m.mode, m.uid, m.gid, m.size if m.isreg() else 0, m.devmajor, m.devminor))
    out.write(b"%.6f\0" % float(m.mtime))
    for k in sorted(m.pax_headers):
        if k.startswith("SCHILY.xattr."):
            out.write(os.fsencode(k[13:]) + b"=" + os.fsencode(m.pax_headers[k]))
    out.write(b"\0")
    if m.isreg() and m.size < 1 << 21:
        out.write(t.extractfile(m).read())
    out.write(b"\0\n")
`

func TestWritePython(t *testing.T) {
	need(t, "python3")
	dir := makeTree(t, traitsAll&^(oddXattrs|acls))
	b := packTree(t, dir)
	all, err := readAll(b)
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for _, e := range all {
		flag := e.Type
		if e.Type == TypeDir {
			e.Name = strings.TrimRight(e.Name, "/")
		}
		fmt.Fprintf(&want, "%s\x00%s\x00%c %o %d %d %d %d %d\x00", e.Name, e.Linkname, flag, e.Mode, e.UID, e.GID, e.Size, e.Devmajor, e.Devminor)
		fmt.Fprintf(&want, "%.6f\x00", float64(e.MtimeSec)+float64(e.MtimeNsec)/1e9)
		for _, x := range e.Xattrs {
			fmt.Fprintf(&want, "%s=%s", x.Name, x.Value)
		}
		want.WriteByte(0)
		if e.Size < 1<<21 {
			want.Write(content(b, &e))
		}
		want.WriteString("\x00\n")
	}
	got := strings.Split(string(output(t, dir, b, "python3", "-c", pythonList)), "\x00\n")
	for i, line := range strings.Split(want.String(), "\x00\n") {
		if i >= len(got) || got[i] != line {
			t.Fatalf("line %d\n have %.300q\n want %.300q", i, got[min(i, len(got)-1)], line)
		}
	}
}
