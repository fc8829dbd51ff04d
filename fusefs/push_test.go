package fusefs

import (
	"archive/tar"
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestPush: of what looks like a program the kernel has all, soon after it has read the
// beginning, and it is right; of another file it has what it asked for.
func TestPush(t *testing.T) {
	needFUSE(t)
	force.awaited = true
	defer func() { force.awaited = false }()
	s := newStore(t)
	random := make([]byte, maxPushed+1)
	rand.NewChaCha8([32]byte{1}).Read(random)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	want := map[string][]byte{}
	for name, size := range map[string]int{"small": 20_000, "library": 1_999_999, "large": maxPushed + 1, "other": 1_999_999} {
		want[name] = bytes.Clone(random[:size])
		if name != "other" {
			copy(want[name], "\x7fELF")
		}
		must(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(size)}))
		_, err := w.Write(want[name])
		must(t, err)
	}
	must(t, w.Close())
	layer := ingest(t, s, &b)
	dir := mounted(t, s, Options{}, layer)
	files := map[string]*os.File{}
	for name := range want {
		f, err := os.Open(filepath.Join(dir, name))
		must(t, err)
		defer f.Close()
		_, err = f.ReadAt(make([]byte, 64), 0)
		must(t, err)
		files[name] = f
	}
	for _, name := range []string{"small", "library", "large", "other"} {
		end, pushed := int64(len(want[name])-1), name == "small" || name == "library"
		for range 100 {
			if !pushed || cached(t, files[name], end) {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if got := cached(t, files[name], end); got != pushed {
			t.Errorf("%s: the kernel has its end: %v", name, got)
		}
		got, err := os.ReadFile(files[name].Name())
		if err != nil || !bytes.Equal(got, want[name]) {
			t.Errorf("%s: %d bytes that are not those of the file, %v", name, len(got), err)
		}
	}
}

// cached tells whether the kernel has the page at an offset of a file.
func cached(t *testing.T, f *os.File, off int64) bool {
	t.Helper()
	page := int64(os.Getpagesize())
	mem, err := unix.Mmap(int(f.Fd()), off/page*page, 1, unix.PROT_READ, unix.MAP_SHARED)
	must(t, err)
	var in [1]byte
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mem[0])), uintptr(page), uintptr(unsafe.Pointer(&in[0])))
	must(t, unix.Munmap(mem))
	if errno != 0 {
		t.Fatal(errno)
	}
	return in[0]&1 != 0
}

// TestPushShort cuts a library off: what is missing is an error.
func TestPushShort(t *testing.T) {
	needFUSE(t)
	force.awaited = true
	defer func() { force.awaited = false }()
	s := newStore(t)
	content := append([]byte("\x7fELF"), bytes.Repeat([]byte{1}, 1<<20)...)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	must(t, w.WriteHeader(&tar.Header{Name: "library", Mode: 0o755, Size: int64(len(content))}))
	_, err := w.Write(content)
	must(t, err)
	must(t, w.Close())
	layer := ingest(t, s, &b)
	dir := mounted(t, s, Options{}, layer)
	must(t, os.Truncate(s.BlobPath(layer), 300_100))
	f, err := os.Open(filepath.Join(dir, "library"))
	must(t, err)
	defer f.Close()
	_, err = f.ReadAt(make([]byte, 64), 0)
	must(t, err)
	time.Sleep(100 * time.Millisecond)
	got, err := os.ReadFile(f.Name())
	if !errors.Is(err, unix.EIO) || bytes.IndexByte(got, 0) >= 0 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
