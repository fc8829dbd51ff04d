package importexport

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/cas/tarstream"
	"github.com/ihucos/plash/container"
	"github.com/ihucos/plash/importexport/output"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// oddTree makes a directory with one of everything.
func oddTree(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("devices and owners need root")
	}
	root := filepath.Join(t.TempDir(), "root")
	script := `set -e
mkdir -p "$1/dir/sub" "$1/empty" "$1/z"; cd "$1"
printf hello > dir/file; ln dir/file z/hardlink; ln dir/file dir/again
printf 'x' > 'name with
newline'; printf y > "$(printf 'bad\377utf8')"
ln -s ../dir/file dir/sub/link; ln -s "$(printf 'a%.0s' $(seq 200))" longlink
mkfifo fifo; mknod char c 5 1; mknod block b 259 70000
chown 1234:70000 dir/file; chmod 4755 dir/file; chmod 1777 empty
truncate -s 10M sparse; printf middle | dd of=sparse bs=1 seek=5000000 conv=notrunc 2>/dev/null
truncate -s 1M hole; : > nothing
long=$(printf 'n%.0s' $(seq 250)); mkdir "$long"; mkdir "$long/$long"; printf deep > "$long/$long/file"
find . -exec touch -h -d '2001-02-03 04:05:06.123456789' {} +
touch -d '1960-01-01 00:00:00.5' nothing
`
	if out, err := exec.Command("sh", "-c", script, "sh", root).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, value := range map[string]string{"user.text": "value", "trusted.bin": "\x00\xff\n=", "security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"} {
		if err := unix.Setxattr(filepath.Join(root, "dir/file"), name, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// run runs a program and returns what it prints.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

var tarAll = []string{"--xattrs", "--xattrs-include=*", "--numeric-owner"}

// listing is what tar says of an archive.
func listing(t *testing.T, file string) string {
	t.Helper()
	return run(t, "tar", append([]string{"--full-time", "-tvf", file}, tarAll...)...)
}

func export(t *testing.T, st *container.Store, id container.ID) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := ExportTar(t.Context(), st, id, &b, ExportOptions{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestExportRoundTrip: a tree made by other hands goes through the store and
// comes out the same, and the export of the export is the same bytes.
func TestExportRoundTrip(t *testing.T) {
	root, dir, st := oddTree(t), t.TempDir(), newStore(t)
	in := filepath.Join(dir, "in.tar")
	run(t, "tar", append(tarAll, "--format=pax", "--sparse", "-C", root, "-cf", in, ".")...)
	id, err := ImportTarFile(t.Context(), st, in, Options{})
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out.tar")
	if err := output.WriteFile(out, func(w io.Writer) error { return ExportTar(t.Context(), st, id, w, ExportOptions{}) }); err != nil {
		t.Fatal(err)
	}
	back := filepath.Join(dir, "back")
	if err := os.Mkdir(back, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "tar", append(tarAll, "--same-owner", "-p", "-C", back, "-xf", out)...)
	if got, want := dump(t, back), dump(t, root); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	first := export(t, st, id)
	again, err := ImportTar(t.Context(), st, bytes.NewReader(first), "again", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if second := export(t, st, again); !bytes.Equal(first, second) {
		t.Errorf("the export of an export differs:\n%s", listing(t, out))
	}
	lines := strings.Split(listing(t, out), "\n")
	if !strings.HasSuffix(lines[0], " ./") {
		t.Errorf("first entry %q", lines[0])
	}
	if info, err := os.Stat(out); err != nil || info.Size() > 2<<20 {
		t.Errorf("size %v, %v: sparse files are not sparse", info.Size(), err)
	}
}

// dump is all that find, getfattr and sha256sum can tell of a tree.
func dump(t *testing.T, dir string) string {
	t.Helper()
	script := `cd "$1"
find . -printf '%P %y %m %U %G %n %T@ %l %s\n' | grep -v ' d ' | sort
find . -type d -printf '%P %y %m %U %G %T@\n' | sort
find . -type f -exec sha256sum {} + | sort
find . \( -type c -o -type b \) -exec stat -c '%n %t %T' {} + | sort`
	out := run(t, "sh", "-c", script, "sh", dir)
	for _, name := range []string{"user.text", "trusted.bin", "security.capability"} {
		value := make([]byte, 64)
		n, err := unix.Getxattr(filepath.Join(dir, "z/hardlink"), name, value)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out += name + "=" + string(value[:n]) + "\n"
	}
	return out
}

// TestExportLayers: what upper layers change and delete shows, their marks do not.
func TestExportLayers(t *testing.T) {
	st := newStore(t)
	var below bytes.Buffer
	writeTar(t, &below, "./", "./a", "./b", "./dir/", "./dir/x", "./opaque/", "./opaque/hidden")
	base, err := ImportTar(t.Context(), st, &below, "base", Options{})
	if err != nil {
		t.Fatal(err)
	}
	var above bytes.Buffer
	writeTar(t, &above, "./", "./.wh.a", "./dir/", "./dir/y", "./opaque/", "./opaque/.wh..wh..opq", "./opaque/new")
	staged, err := st.CAS().Ingest(t.Context(), &above, cas.IngestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer staged.Close()
	r, err := st.Create(t.Context(), base, staged, container.CreateOptions{Origin: container.Origin{Kind: "build"}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "out.tar")
	if err := os.WriteFile(file, export(t, st, r.ID), 0o644); err != nil {
		t.Fatal(err)
	}
	got := run(t, "tar", "-tf", file)
	if want := "./\n./b\n./dir/\n./dir/x\n./dir/y\n./opaque/\n./opaque/new\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func writeTar(t *testing.T, w io.Writer, names ...string) {
	t.Helper()
	tw := tarstream.NewWriter(w)
	for _, name := range names {
		e := tarstream.Entry{Name: name, Type: tarstream.TypeReg, Mode: 0o644}
		if strings.HasSuffix(name, "/") {
			e.Type, e.Mode = tarstream.TypeDir, 0o755
		}
		if err := tw.WriteHeader(&e); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestExportEmptyRoot(t *testing.T) {
	st := newStore(t)
	file := filepath.Join(t.TempDir(), "out.tar")
	if err := os.WriteFile(file, export(t, st, 0), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := run(t, "tar", "-tf", file); got != "./\n" {
		t.Errorf("%q", got)
	}
}

func TestExportErrors(t *testing.T) {
	st := newStore(t)
	if err := ExportTar(t.Context(), st, 7, io.Discard, ExportOptions{}); !errors.Is(err, container.ErrNotFound) {
		t.Errorf("missing container: %v", err)
	}
	id, err := ImportTar(t.Context(), st, bytes.NewReader(incompressible(t, 2<<20)), "x", Options{})
	if err != nil {
		t.Fatal(err)
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	if err := ExportTar(t.Context(), st, id, full, ExportOptions{}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("full disk: %v", err)
	}
	// A blob that has become shorter is no reason to write a short file.
	r, err := st.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := shorten(st.CAS(), r.Layer); err != nil {
		t.Fatal(err)
	}
	if err := ExportTar(t.Context(), st, id, io.Discard, ExportOptions{}); err == nil {
		t.Error("a shortened blob was exported")
	}
}

func shorten(cs *cas.Store, d digest.Digest) error { return os.Truncate(cs.BlobPath(d), 4096) }
