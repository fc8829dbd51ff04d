package output

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCopy: the bytes are the same whether the kernel copies them (to a file) or not (to a
// pipe), and an end that comes too early is an error.
func TestCopy(t *testing.T) {
	dir := t.TempDir()
	content := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	name := filepath.Join(dir, "src")
	if err := os.WriteFile(name, content, 0o644); err != nil {
		t.Fatal(err)
	}
	src, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	const off = 4097
	n := int64(len(content)) - off

	var counted int64
	count := func(n int64) { counted += n }
	out := filepath.Join(dir, "out")
	err = WriteFile(out, func(w io.Writer) error {
		return errors.Join(Copy(t.Context(), w, src, off, n, count), Copy(t.Context(), w, src, 0, 10, count))
	})
	if err != nil {
		t.Fatal(err)
	}
	if counted != n+10 {
		t.Errorf("%d bytes counted, want %d", counted, n+10)
	}
	want := append(bytes.Clone(content[off:]), content[:10]...)
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, want) {
		t.Errorf("file: %d bytes, want %d; %v", len(got), len(want), err)
	}

	var b bytes.Buffer
	if err := Copy(t.Context(), NewWriter(&b, "buffer"), src, off, n, count); err != nil || !bytes.Equal(b.Bytes(), content[off:]) {
		t.Errorf("buffer: %d bytes, want %d; %v", b.Len(), n, err)
	}
	if err := Copy(t.Context(), io.Discard, src, off, n+1, count); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("too short: %v", err)
	}
	err = WriteFile(out, func(w io.Writer) error { return Copy(t.Context(), w, src, off, n+1, count) })
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("too short: %v", err)
	}
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the old file did not stay: %d bytes, %v", len(got), err)
	}
}

func TestWriteImage(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "src")
	if err := os.WriteFile(name, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	src, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	out := filepath.Join(dir, "out")
	err = WriteImage(out, func(im *Image) error {
		_, err := im.WriteAt([]byte("end"), 9)
		return errors.Join(err, im.Copy(t.Context(), 1, src, 1, 6, func(int64) {}), im.Truncate(14))
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(out); err != nil || string(got) != "\x00ontent\x00\x00end\x00\x00" {
		t.Errorf("%q, %v", got, err)
	}
	var we *WriteError
	if err := WriteImage("/dev/null", nil); !errors.As(err, &we) || !errors.Is(err, errNotRegular) {
		t.Errorf("device: %v", err)
	}
	if err := WriteImage(dir, nil); !errors.Is(err, unix.EISDIR) {
		t.Errorf("directory: %v", err)
	}
	checkDir(t, dir, "out", "src")
}
