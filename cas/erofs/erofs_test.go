package erofs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// buf is an io.WriterAt in memory.
type buf struct{ b []byte }

func (w *buf) WriteAt(p []byte, off int64) (int, error) {
	if end := int(off) + len(p); end > len(w.b) {
		w.b = append(w.b, make([]byte, end-len(w.b))...)
	}
	return copy(w.b[off:], p), nil
}

func image(t *testing.T, tree *Tree) *Image {
	t.Helper()
	var w buf
	n, err := tree.WriteTo(&w)
	must(t, err)
	if n != int64(len(w.b)) {
		t.Fatalf("WriteTo says %d bytes, wrote %d", n, len(w.b))
	}
	im, err := Open(w.b)
	must(t, err)
	return im
}

func file(size int64) Attr { return Attr{Mode: unix.S_IFREG | 0o644, Size: size, MtimeSec: 1} }
func dir() Attr            { return Attr{Mode: unix.S_IFDIR | 0o755, MtimeSec: 1} }

func putLink(t testing.TB, tree *Tree, path, target string) {
	t.Helper()
	must(t, tree.Put(path, Attr{Mode: unix.S_IFLNK | 0o777}, nil, Content{Target: target}))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// list walks an image into lines: path, type, and what tells entries apart.
func list(t *testing.T, im *Image) string {
	t.Helper()
	var out strings.Builder
	var walk func(path string, n NID)
	walk = func(path string, n NID) {
		in, err := im.Inode(n)
		must(t, err)
		fmt.Fprintf(&out, "%s %o %d:%d", path, in.Mode, in.UID, in.GID)
		xs, err := im.Xattrs(&in)
		must(t, err)
		for _, x := range xs {
			fmt.Fprintf(&out, " %s=%q", x.Name, x.Value)
		}
		switch {
		case in.IsSymlink():
			target, err := im.Readlink(&in)
			must(t, err)
			fmt.Fprintf(&out, " -> %s", target)
		case in.IsRegular():
			fmt.Fprintf(&out, " %d links %d", in.Size, in.Nlink)
			must(t, im.Extents(&in, func(e Extent) bool {
				fmt.Fprintf(&out, " [%d+%d %d@%d]", e.Off, e.Len, e.Device, e.Phys)
				return true
			}))
		}
		out.WriteByte('\n')
		if in.IsDir() {
			must(t, im.ReadDir(&in, func(e Dirent) bool {
				walk(path+"/"+string(e.Name), e.NID)
				return true
			}))
		}
	}
	walk("", im.Root())
	return out.String()
}

func expect(t *testing.T, im *Image, want string) {
	t.Helper()
	if got := list(t, im); got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
}

func TestTree(t *testing.T) {
	tree := NewTree()
	dev, err := tree.AddDevice("blob", 1<<20)
	must(t, err)
	at := func(size, phys int64) Content {
		return Content{Extents: []Extent{{Len: size, Device: dev, Phys: phys}}}
	}
	must(t, tree.Put("./", dir(), nil, Content{}))
	must(t, tree.Put("a//b/./c", file(10), []Xattr{{"user.z", []byte("1")}, {"user.a", nil}, {"trusted.overlay.opaque", []byte("y")}}, at(10, 512)))
	must(t, tree.Link("a/hard", "a/b/../b/c"))
	must(t, tree.Put("gone", file(3), nil, at(3, 1024)))
	must(t, tree.Put("gone", dir(), nil, Content{}))
	must(t, tree.Put("gone/x", file(0), nil, Content{}))
	must(t, tree.Put("gone", file(3), nil, at(3, 1536)))
	putLink(t, tree, "link", "a")
	must(t, tree.Put("link/through", file(0), nil, Content{}))
	must(t, tree.Whiteout("a/deleted"))
	must(t, tree.Opaque("op"))
	im := image(t, tree)
	expect(t, im, ` 40755 0:0
/a 40755 0:0
/a/b 40755 0:0
/a/b/c 100644 0:0 user.a="" user.z="1" 10 links 2 [0+10 1@512]
/a/deleted 20000 0:0
/a/hard 100644 0:0 user.a="" user.z="1" 10 links 2 [0+10 1@512]
/a/through 100644 0:0 0 links 1
/gone 100644 0:0 3 links 1 [0+3 1@1536]
/link 120777 0:0 -> a
/op 40755 0:0 trusted.overlay.opaque="y"
`)
	if !im.HasWhiteouts() || im.ImpliedRoot() {
		t.Errorf("whiteouts %v, implied root %v", im.HasWhiteouts(), im.ImpliedRoot())
	}

	for i, bad := range []struct {
		err, want error
	}{
		{tree.Put("a/../../x", file(0), nil, Content{}), ErrPath},
		{tree.Put(strings.Repeat("n", 256), file(0), nil, Content{}), ErrPath},
		{tree.Put(strings.Repeat("n/", 2100), file(0), nil, Content{}), ErrPath},
		{tree.Put("gone/under", file(0), nil, Content{}), ErrPath},
		{tree.Put("/", file(0), nil, Content{}), ErrPath},
		{tree.Link("l", "nothing"), ErrLink},
		{tree.Link("l", "a"), ErrLink},
		{tree.Link("l", "a/deleted"), ErrLink},
		{tree.Whiteout("."), ErrPath},
		{tree.Put("big", file(-1), nil, Content{}), ErrLimit},
		{tree.Put("x", file(0), []Xattr{{"user.x", make([]byte, 1<<16)}}, Content{}), ErrLimit},
		{tree.Put("x", file(10), nil, at(11, 0)), ErrLimit},
	} {
		if !errors.Is(bad.err, bad.want) {
			t.Errorf("case %d: got error %v, want %v", i, bad.err, bad.want)
		}
	}
	putLink(t, tree, "loop1", "loop2")
	putLink(t, tree, "loop2", "loop1")
	if err := tree.Put("loop1/x", file(0), nil, Content{}); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a loop of links: %v", err)
	}
}

func TestApply(t *testing.T) {
	put := func(tree *Tree, path string, phys int64) {
		t.Helper()
		must(t, tree.Put(path, file(5), nil, Content{Extents: []Extent{{Len: 5, Device: 1, Phys: phys}}}))
	}
	base := NewTree()
	_, err := base.AddDevice("base", 1<<20)
	must(t, err)
	tmp := dir()
	tmp.Mode = unix.S_IFDIR | 0o1777
	must(t, base.Put("tmp", tmp, nil, Content{}))
	put(base, "keep", 0)
	put(base, "etc/a", 512)
	put(base, "etc/b", 1024)
	must(t, base.Link("etc/b2", "etc/b"))
	put(base, "op/old", 1536)
	put(base, "usr/lib/x", 2048)
	putLink(t, base, "lib", "usr/lib")
	put(base, "dir/file", 2560)

	top := NewTree()
	_, err = top.AddDevice("top", 1<<20)
	must(t, err)
	put(top, "tmp/new", 0)
	must(t, top.Whiteout("etc/a"))
	must(t, top.Whiteout("etc/nothing"))
	put(top, "etc/b", 512)
	must(t, top.Opaque("op"))
	put(top, "op/new", 1024)
	put(top, "lib/y", 1536)
	put(top, "dir", 2048)

	merged := NewTree()
	must(t, merged.Apply(image(t, base)))
	must(t, merged.Apply(image(t, top)))
	im := image(t, merged)
	expect(t, im, ` 40755 0:0
/dir 100644 0:0 5 links 1 [0+5 1@2048]
/etc 40755 0:0
/etc/b 100644 0:0 5 links 1 [0+5 1@512]
/etc/b2 100644 0:0 5 links 1 [0+5 2@1024]
/keep 100644 0:0 5 links 1 [0+5 2@0]
/lib 120777 0:0 -> usr/lib
/op 40755 0:0
/op/new 100644 0:0 5 links 1 [0+5 1@1024]
/tmp 41777 0:0
/tmp/new 100644 0:0 5 links 1 [0+5 1@0]
/usr 40755 0:0
/usr/lib 40755 0:0
/usr/lib/x 100644 0:0 5 links 1 [0+5 2@2048]
/usr/lib/y 100644 0:0 5 links 1 [0+5 1@1536]
`)
	if im.HasWhiteouts() || !im.ImpliedRoot() {
		t.Errorf("whiteouts %v, implied root %v", im.HasWhiteouts(), im.ImpliedRoot())
	}
	// In the order of the files, without those that no file is in.
	if d := im.Devices(); len(d) != 2 || d[0].Tag != "top" || d[1].Tag != "base" {
		t.Errorf("devices %v", d)
	}
	for _, path := range []string{"keep", "etc", "usr"} {
		must(t, merged.Put(path, file(0), nil, Content{}))
	}
	if d := image(t, merged).Devices(); len(d) != 1 || d[0].Tag != "top" {
		t.Errorf("devices %v", d)
	}
}

func TestSparse(t *testing.T) {
	blob := bytes.Repeat([]byte("0123456789abcdef"), 1<<12)
	read := func(_ int, p []byte, off int64) error {
		_, err := io.ReadFull(io.NewSectionReader(bytes.NewReader(blob), off, int64(len(p))), p)
		return err
	}
	content := func(im *Image, size int64, ext []Extent) []byte {
		b := make([]byte, size)
		for _, e := range ext {
			src := blob
			if e.Device == 0 && im != nil {
				src = im.b
			}
			copy(b[e.Off:e.Off+e.Len], src[e.Phys:])
		}
		return b
	}
	for _, tc := range []struct {
		size    int64
		ext     []Extent
		aligned bool
	}{
		{1 << 20, nil, true},
		{1<<20 + 7, []Extent{{4096, 4096, 1, 512}, {1 << 20, 7, 1, 8192}}, true},
		{8192, []Extent{{0, 4096, 1, 512}}, true},
		{5000, []Extent{{0, 5000, 1, 512}}, true},
		{5000, []Extent{{0, 5000, 1, 100}}, false},
		{1 << 16, []Extent{{3, 5, 1, 512}, {10, 2, 1, 517}, {511, 2, 1, 519}, {5000, 700, 1, 521}}, false},
		{3 << 20, []Extent{{1, 60000, 1, 512}, {2 << 20, 100, 1, 3}}, false},
	} {
		tree := NewTree()
		tree.ReadDevice = read
		_, err := tree.AddDevice("blob", int64(len(blob)))
		must(t, err)
		must(t, tree.Put("f", file(tc.size), nil, Content{Extents: tc.ext}))
		im := image(t, tree)
		again := NewTree()
		must(t, again.Apply(im))
		for _, im := range []*Image{im, image(t, again)} {
			root, _ := im.Inode(im.Root())
			e, err := im.Lookup(&root, "f")
			must(t, err)
			in, err := im.Inode(e.NID)
			must(t, err)
			var got []Extent
			must(t, im.Extents(&in, func(e Extent) bool { got = append(got, e); return true }))
			if !bytes.Equal(content(im, tc.size, got), content(nil, tc.size, tc.ext)) {
				t.Errorf("size %d, extents %v: content differs: %v", tc.size, tc.ext, got)
			}
			if tc.aligned != slices.Equal(got, tc.ext) {
				t.Errorf("size %d, extents %v: got %v", tc.size, tc.ext, got)
			}
		}
	}
	tree := NewTree()
	_, err := tree.AddDevice("blob", 1<<20)
	must(t, err)
	must(t, tree.Put("f", file(1<<40), nil, Content{Extents: []Extent{{512, 512, 1, 0}}}))
	if _, err := tree.WriteTo(&buf{}); !errors.Is(err, ErrLimit) {
		t.Errorf("a tebibyte in pieces of 512 bytes: %v", err)
	}
}

// TestNames fills directories with names of all lengths, so that blocks are full, tails fit
// and do not fit, and "." and ".." are not the first in order.
func TestNames(t *testing.T) {
	for _, n := range []int{0, 1, 17, 18, 19, 300, 5000} {
		tree := NewTree()
		var names []string
		for i := range n {
			name := fmt.Sprintf("%c%04d%s", "!-.0a~"[i%6], i, strings.Repeat("\xff", i%251))
			names = append(names, name)
			must(t, tree.Put("d/"+name, file(0), nil, Content{}))
		}
		must(t, tree.Put("d", dir(), nil, Content{}))
		slices.Sort(names)
		im := image(t, tree)
		root, _ := im.Inode(im.Root())
		e, err := im.Lookup(&root, "d")
		must(t, err)
		d, err := im.Inode(e.NID)
		must(t, err)
		var got []string
		must(t, im.ReadDir(&d, func(e Dirent) bool { got = append(got, string(e.Name)); return true }))
		if !slices.Equal(got, names) {
			t.Errorf("%d names: got %q", n, got)
		}
		for _, name := range append(names, ".", "..") {
			if _, err := im.Lookup(&d, name); err != nil {
				t.Errorf("lookup %q: %v", name, err)
			}
		}
		for _, name := range []string{"", "\x00", "nothing", "\xff\xff\xff"} {
			if _, err := im.Lookup(&d, name); err != ErrNotExist {
				t.Errorf("lookup %q: %v", name, err)
			}
		}
	}
}

// TestDamage changes every byte of a small image: it is always noticed.
func TestDamage(t *testing.T) {
	im := image(t, seedTree(t))
	for i := superOffset; i < len(im.b); i++ {
		b := bytes.Clone(im.b)
		b[i] ^= 0x41
		if _, err := Open(b); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
	for i := 0; i < len(im.b); i += 100 {
		if _, err := Open(im.b[:i]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
}

func seedTree(t testing.TB) *Tree {
	tree := NewTree()
	dev, err := tree.AddDevice("blob", 1<<20)
	must(t, err)
	must(t, tree.Put("d/file", file(5000), []Xattr{{"user.a", []byte("b")}, {"security.capability", make([]byte, 20)}},
		Content{Extents: []Extent{{Len: 5000, Device: dev, Phys: 512}}}))
	must(t, tree.Put("sparse", file(1<<16), nil, Content{Extents: []Extent{{4096, 4096, dev, 512}}}))
	must(t, tree.Link("d/link", "d/file"))
	putLink(t, tree, "long", strings.Repeat("t/", 600))
	must(t, tree.Put("null", Attr{Mode: unix.S_IFCHR | 0o666, Rdev: unix.Mkdev(1, 3)}, nil, Content{}))
	must(t, tree.Put("fifo", Attr{Mode: unix.S_IFIFO | 0o666}, nil, Content{}))
	must(t, tree.Whiteout("gone"))
	must(t, tree.Opaque("d"))
	for i := range 40 {
		must(t, tree.Put(fmt.Sprintf("many/%03d", i), file(0), nil, Content{}))
	}
	return tree
}

// FuzzImage reads damaged images, with the checksums made right again so that the
// damage is not noticed at once: errors are fine, panics and endless work are not.
func FuzzImage(f *testing.F) {
	var w buf
	_, err := seedTree(f).WriteTo(&w)
	must(f, err)
	f.Add(w.b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < checksummedBody || len(b) > 1<<20 {
			return
		}
		b = bytes.Clone(b)
		s := b[superOffset : superOffset+BlockSize]
		le.PutUint32(s[36:], uint32(len(b)/BlockSize))
		le.PutUint32(s[48:], crcOf(b[checksummedBody:]))
		le.PutUint32(s[superSumOffset:], superChecksum(s))
		im, err := Open(b)
		if err != nil {
			return
		}
		must(t, checkPieces(im))
		tree := NewTree()
		tree.ReadDevice = func(int, []byte, int64) error { return io.ErrUnexpectedEOF }
		if err := tree.Apply(im); err == nil {
			_, _ = tree.WriteTo(&buf{})
		}
	})
}

// TestMount has the kernel read an image.
func TestMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	tmp := t.TempDir()
	blob := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	must(t, os.WriteFile(filepath.Join(tmp, "blob"), blob, 0o644))
	f, err := os.Create(filepath.Join(tmp, "index"))
	must(t, err)
	defer f.Close()
	_, err = seedTree(t).WriteTo(f)
	must(t, err)
	fsfd, err := unix.Fsopen("erofs", unix.FSOPEN_CLOEXEC)
	must(t, err)
	defer unix.Close(fsfd)
	must(t, unix.FsconfigSetString(fsfd, "source", filepath.Join(tmp, "index")))
	must(t, unix.FsconfigSetString(fsfd, "device", filepath.Join(tmp, "blob")))
	if err := unix.FsconfigCreate(fsfd); errors.Is(err, unix.ENOTBLK) || errors.Is(err, unix.ENODEV) {
		t.Skipf("this kernel does not mount EROFS from files: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	mfd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY)
	must(t, err)
	defer unix.Close(mfd)
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", mfd))
	must(t, err)
	defer root.Close()
	got, err := root.ReadFile("d/file")
	must(t, err)
	if !bytes.Equal(got, blob[512:5512]) {
		t.Error("content of d/file differs")
	}
	sparse, err := root.ReadFile("sparse")
	must(t, err)
	want := make([]byte, 1<<16)
	copy(want[4096:8192], blob[512:])
	if !bytes.Equal(sparse, want) {
		t.Error("content of sparse differs")
	}
	target, err := root.Readlink("long")
	must(t, err)
	if target != strings.Repeat("t/", 600) {
		t.Errorf("long link: %q", target)
	}
	fi, err := root.Stat("null")
	must(t, err)
	if fmt.Sprint(fi.Mode()) != "Dcrw-rw-rw-" {
		t.Errorf("null: %v", fi.Mode())
	}
}

// TestMayHaveXattrs looks at what an image says of its attributes.
func TestMayHaveXattrs(t *testing.T) {
	for _, tc := range []struct {
		xattrs     []Xattr
		some, acls bool
	}{
		{nil, false, false},
		{[]Xattr{{"user.a", []byte("b")}}, true, false},
		{[]Xattr{{"user.a", []byte("b")}, {"system.posix_acl_default", []byte("b")}}, true, true},
	} {
		tree := NewTree()
		must(t, tree.Put("f", file(0), nil, Content{}))
		must(t, tree.Put("d", dir(), tc.xattrs, Content{}))
		merged := NewTree()
		must(t, merged.Apply(image(t, tree)))
		for _, tree := range []*Tree{tree, merged} {
			if some, acls := image(t, tree).MayHaveXattrs(); some != tc.some || acls != tc.acls {
				t.Errorf("%v: %v, %v", tc.xattrs, some, acls)
			}
		}
	}
}

// TestDeep goes deeper with each path than a path can, by symbolic links: what the tree takes can be put on another
// one.
func TestDeep(t *testing.T) {
	tree := NewTree()
	step := strings.Repeat("d/", maxPath/2-8)
	at, links := "", 0
	put := func(name string) error { return tree.Put(at+name, file(0), nil, Content{}) }
	var err error
	for ; err == nil && links < 8; links++ {
		if err = put(step + "f"); err == nil {
			link := fmt.Sprintf("l%d", links)
			putLink(t, tree, link, "/"+at+strings.TrimSuffix(step, "/"))
			at = link + "/"
		}
	}
	if !errors.Is(err, ErrPath) {
		t.Fatalf("after %d links: %v", links, err)
	}
	// As deep as it goes.
	for err = nil; err == nil; at += "e/" {
		err = put("e/f")
	}
	if !errors.Is(err, ErrPath) {
		t.Fatal(err)
	}
	if err := NewTree().Apply(image(t, tree)); err != nil {
		t.Error(err)
	}
}

// TestManyImplied has long paths imply directories without end: what they take in memory stays within bounds of
// what says so.
func TestManyImplied(t *testing.T) {
	tree, names := NewTree(), strings.Repeat("d/", maxPath/2-8)
	var err error
	for i := 0; err == nil && i < 200; i++ {
		err = tree.Put(fmt.Sprintf("%d/%sf", i, names), file(0), nil, Content{})
	}
	if !errors.Is(err, ErrLimit) {
		t.Fatalf("%d directories: %v", tree.Len(), err)
	}
	// A deep directory for each file is nothing strange.
	tree = NewTree()
	for i := range freeImplied / 8 {
		must(t, tree.Put(fmt.Sprintf("%d/a/b/c/d/e/f/g/h/i/file", i), file(0), nil, Content{}))
	}
}
