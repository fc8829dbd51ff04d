package overlay

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/overlay/treetest"
)

// members lists the names in a tar, with the types of what is no file or directory.
func members(tb testing.TB, b []byte) []string {
	tb.Helper()
	var names []string
	r := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return names
		}
		must(tb, err)
		name := h.Name
		switch h.Typeflag {
		case tar.TypeReg, tar.TypeDir:
		case tar.TypeLink, tar.TypeSymlink:
			name += " " + string(h.Typeflag) + " " + h.Linkname
		default:
			name += " " + string(h.Typeflag)
		}
		names = append(names, name)
	}
}

func wantMembers(tb testing.TB, b []byte, want ...string) {
	tb.Helper()
	if got := members(tb, b); !slices.Equal(got, want) {
		tb.Errorf("members are\n%q, not\n%q", got, want)
	}
}

func TestPackUpper(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	mkdir := func(name string) { must(t, os.MkdirAll(at(name), 0o755)) }
	file := func(name, content string) { must(t, os.WriteFile(at(name), []byte(content), 0o644)) }
	xattr := func(name, attr, value string) { must(t, unix.Lsetxattr(at(name), attr, []byte(value), 0)) }

	mkdir("opaque/sub")
	file("opaque/!", "sorts before the mark")
	xattr("opaque", "trusted.overlay.opaque", "y")
	mkdir("user-opaque")
	xattr("user-opaque", "user.overlay.opaque", "y")
	mkdir("xwhiteouts")
	xattr("xwhiteouts", "trusted.overlay.opaque", "x")
	file("xwhiteouts/gone", "")
	xattr("xwhiteouts/gone", "trusted.overlay.whiteout", "y")
	file("xwhiteouts/gone2", "")
	xattr("xwhiteouts/gone2", "user.overlay.whiteout", "y")
	file("xwhiteouts/stays", "not empty")
	xattr("xwhiteouts/stays", "user.overlay.whiteout", "y")
	xattr("xwhiteouts/stays", "trusted.overlay.origin", "host dependent")
	must(t, unix.Mknod(at("deleted"), unix.S_IFCHR, 0))
	must(t, os.Link(at("deleted"), at("deleted too"))) // overlayfs shares the inode of whiteouts
	must(t, unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	l, err := net.Listen("unix", at("socket"))
	must(t, err)
	defer l.Close()
	file("a", "x")
	must(t, os.Link(at("a"), at("b")))
	must(t, os.Link(at("a"), at("opaque/link")))
	must(t, os.Symlink("a", at("sym")))
	must(t, os.Link(at("sym"), at("sym2")))
	must(t, os.Mkdir(at("a!"), 0o755))
	long := strings.Repeat("n", 255)
	must(t, unix.Mknod(at(long), unix.S_IFCHR, 0))

	b := packBytes(t, dir, PackOptions{Upper: true})
	wantMembers(t, b, "./", "a", "a!/", "b 1 a", ".wh.deleted", ".wh.deleted too", ".wh."+long, "null 3",
		"opaque/", "opaque/.wh..wh..opq", "opaque/!", "opaque/link 1 a", "opaque/sub/",
		"sym 2 a", "sym2 1 sym", "user-opaque/", "user-opaque/.wh..wh..opq",
		"xwhiteouts/", "xwhiteouts/.wh.gone", "xwhiteouts/.wh.gone2", "xwhiteouts/stays")
	if bytes.Contains(b, []byte("overlay.")) {
		t.Error("the layer holds overlayfs' attributes")
	}
	s := newStore(t)
	ingest(t, s, func(w io.Writer) error { _, err := w.Write(b); return err })
}

func TestPackRefuses(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		name  string
		make  func(path string) error
		plain bool
		want  string
	}{
		{"redirect", func(p string) error {
			return errors.Join(os.Mkdir(p, 0o755), unix.Setxattr(p, "trusted.overlay.redirect", []byte("x"), 0))
		}, false, "trusted.overlay.redirect"},
		{"metacopy", func(p string) error {
			return errors.Join(os.WriteFile(p, nil, 0o644), unix.Setxattr(p, "user.overlay.metacopy", nil, 0))
		}, false, "user.overlay.metacopy"},
		{".wh.name", func(p string) error { return os.WriteFile(p, nil, 0o644) }, false, ".wh."},
		{"whiteout", func(p string) error { return unix.Mknod(p, unix.S_IFCHR, 0) }, true, "0:0"},
	} {
		dir := t.TempDir()
		must(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
		must(t, c.make(filepath.Join(dir, "sub", c.name)))
		f, err := os.Open(dir)
		must(t, err)
		err = Pack(context.Background(), io.Discard, f, PackOptions{Upper: !c.plain})
		must(t, f.Close())
		if !errors.Is(err, ErrCannotPack) || !strings.Contains(err.Error(), c.want) ||
			!strings.Contains(err.Error(), "/sub/"+c.name) {
			t.Errorf("%s: error is %v", c.name, err)
		}
	}
}

// TestPackSame packs the same tree on two filesystems, made in another order.
func TestPackSame(t *testing.T) {
	needRoot(t)
	a, c := t.TempDir(), t.TempDir()
	must(t, unix.Mount("tmpfs", c, "tmpfs", 0, ""))
	defer func() { must(t, unix.Unmount(c, 0)) }()
	treetest.Make(t, c, 5, treetest.Options{})
	b := filepath.Join(t.TempDir(), "other")
	must(t, os.Mkdir(b, 0o755))
	for _, dir := range []string{a, b} {
		treetest.Make(t, dir, 5, treetest.Options{})
	}
	want := packBytes(t, a, PackOptions{})
	for _, dir := range []string{a, b, c} {
		if !bytes.Equal(want, packBytes(t, dir, PackOptions{})) {
			t.Errorf("%s gives another layer than %s", dir, a)
		}
	}
}

func TestPackSparse(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	f, err := os.Create(path)
	must(t, err)
	must(t, f.Truncate(worthHoles+1<<20+5))
	for _, off := range []int64{0, 4096, 3*4096 + 100, 1 << 20} {
		_, err := f.WriteAt([]byte("data"), off)
		must(t, err)
	}
	// Zeros that are allocated are a hole of a sparse file as well.
	_, err = f.WriteAt(make([]byte, 64<<10), 256<<10)
	must(t, errors.Join(err, f.Close()))
	sparse := packBytes(t, dir, PackOptions{})
	if len(sparse) > 32<<10 {
		t.Errorf("layer of a sparse file has %d bytes", len(sparse))
	}
	r := tar.NewReader(bytes.NewReader(sparse))
	for {
		h, err := r.Next()
		must(t, err)
		if h.Name == "f" {
			break
		}
	}
	got, err := io.ReadAll(r)
	must(t, err)
	want, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(want, got) {
		t.Error("sparse file reads back with another content")
	}
	must(t, os.WriteFile(path, want, 0o644))
	if n := len(packBytes(t, dir, PackOptions{})); n < worthHoles {
		t.Errorf("layer of a file without holes has %d bytes", n)
	}
	// Docker would not save it.
	must(t, os.Truncate(path, 0))
	must(t, os.Truncate(path, worthHoles-1))
	if n := len(packBytes(t, dir, PackOptions{})); n < worthHoles-1 {
		t.Errorf("layer of a file with small holes has %d bytes", n)
	}
}

// TestPackChanging has a file change between being opened and being read to its end.
func TestPackChanging(t *testing.T) {
	for name, change := range map[string]func(f *os.File) error{
		"shrinks": func(f *os.File) error { return f.Truncate(3 << 20) },
		"grows":   func(f *os.File) error { return f.Truncate(5 << 20) },
		"written": func(f *os.File) error {
			_, err := f.WriteAt([]byte("x"), 0)
			return err
		},
	} {
		dir := t.TempDir()
		f, err := os.Create(filepath.Join(dir, "big"))
		must(t, err)
		_, err = f.Write(bytes.Repeat([]byte("b"), 4<<20))
		must(t, err)
		d, err := os.Open(dir)
		must(t, err)
		done := false
		err = Pack(context.Background(), writerFunc(func(p []byte) (int, error) {
			if !done {
				done = true
				return len(p), change(f)
			}
			return len(p), nil
		}), d, PackOptions{})
		if !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), "/big") {
			t.Errorf("%s: error is %v", name, err)
		}
		must(t, errors.Join(d.Close(), f.Close()))
	}
}

func TestPackCancelled(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "big"), make([]byte, 8<<20), 0o644))
	d, err := os.Open(dir)
	must(t, err)
	defer d.Close()
	ctx, cancel := context.WithCancel(context.Background())
	n := 0
	err = Pack(ctx, writerFunc(func(p []byte) (int, error) {
		n += len(p)
		cancel()
		return len(p), nil
	}), d, PackOptions{})
	if !errors.Is(err, context.Canceled) || n > 3<<20 {
		t.Errorf("error is %v after %d bytes", err, n)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestPackDeep packs and unpacks a tree deeper than a path can be long.
func TestPackDeep(t *testing.T) {
	dir := t.TempDir()
	fd, err := unix.Open(dir, openDirFlags, 0)
	must(t, err)
	name := strings.Repeat("d", 200)
	for range 30 {
		must(t, unix.Mkdirat(fd, name, 0o755))
		must(t, unix.Mkdirat(fd, "z", 0o755)) // comes after
		next, err := unix.Openat(fd, name, openDirFlags, 0)
		must(t, err)
		must(t, unix.Close(fd))
		fd = next
	}
	must(t, unix.Close(fd))
	if got := len(members(t, packBytes(t, dir, PackOptions{}))); got != 61 {
		t.Errorf("%d members", got)
	}
	// A depth at which directories do not stay open.
	dir = t.TempDir()
	deep := dir
	for range 3 * maxHeldDirs {
		must(t, os.WriteFile(filepath.Join(deep, "z"), nil, 0o644))
		deep = filepath.Join(deep, "d")
		must(t, os.Mkdir(deep, 0o755))
	}
	if got := len(members(t, packBytes(t, dir, PackOptions{}))); got != 1+6*maxHeldDirs {
		t.Errorf("%d members", got)
	}
}
