package treetest

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func (s *Suite) randomTree(tb testing.TB, seed uint64) {
	tb.Helper()
	dir := s.path("random %d", seed)
	must(tb, os.Mkdir(dir, 0o755))
	Make(tb, dir, seed, Options{Entries: 200})
	singleSpecials(tb, dir)
	layer := dir + ".tar"
	WriteTar(tb, layer, dir, nil)
	s.add(tb, fmt.Sprint("random tree ", seed), dir, nil, layer)
}

// chain changes a tree again and again, and makes a layer of each change.
func (s *Suite) chain(tb testing.TB, n int) {
	tb.Helper()
	dir := s.path("chain 0")
	must(tb, os.Mkdir(dir, 0o755))
	Make(tb, dir, 3, Options{Entries: 150})
	singleSpecials(tb, dir)
	layers := []string{dir + ".tar"}
	WriteTar(tb, layers[0], dir, nil)
	for i := range n {
		next := s.path("chain %d", i+1)
		if out, err := exec.Command("cp", "-a", dir, next).CombinedOutput(); err != nil {
			tb.Fatalf("make layers: %v: %s", err, out)
		}
		Change(tb, next, uint64(i), 20)
		singleSpecials(tb, next)
		layer := next + ".tar"
		writeDiff(tb, layer, dir, next)
		layers = append(layers, layer)
		if i == 0 || i == 4 || i == n-1 {
			s.add(tb, fmt.Sprint("chain of ", len(layers)), next, nil, append([]string(nil), layers...)...)
		}
		must(tb, os.RemoveAll(dir))
		dir = next
	}
}

// singleSpecials leaves FIFOs and devices one name each: GNU tar does not know hard
// links of them.
func singleSpecials(tb testing.TB, dir string) {
	tb.Helper()
	seen := map[uint64]bool{}
	for _, p := range paths(tb, dir) {
		var st unix.Stat_t
		must(tb, unix.Lstat(p, &st))
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFIFO, unix.S_IFCHR, unix.S_IFBLK:
			if seen[st.Ino] {
				must(tb, os.Remove(p))
			}
			seen[st.Ino] = true
		}
	}
}

// entry is a member of a layer that is written by hand.
type entry struct {
	name, content string // of a link its target
	typ           byte   // 0: regular file, or a directory if the name ends in a slash
	mode          int64
	uid           int
}

func (s *Suite) layer(tb testing.TB, name string, entries ...entry) string {
	tb.Helper()
	file := s.path("%s.tar", name)
	f, err := os.Create(file)
	must(tb, err)
	w := tar.NewWriter(f)
	for _, e := range entries {
		h := tar.Header{Name: e.name, Mode: e.mode, Typeflag: e.typ, Uid: e.uid, ModTime: mtime}
		switch {
		case e.typ == tar.TypeSymlink, e.typ == tar.TypeLink:
			h.Linkname = e.content
		case e.typ == 0 && strings.HasSuffix(e.name, "/"):
			h.Typeflag = tar.TypeDir
		case e.typ == 0:
			h.Typeflag, h.Size = tar.TypeReg, int64(len(e.content))
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		must(tb, w.WriteHeader(&h))
		if h.Size > 0 {
			_, err = io.WriteString(w, e.content)
			must(tb, err)
		}
	}
	must(tb, w.Close())
	must(tb, f.Close())
	return file
}

// stack adds what layers make up, as GNU tar has it.
func (s *Suite) stack(tb testing.TB, name string, check func(t *testing.T, root string), layers ...string) {
	tb.Helper()
	dir := s.path("%s", name)
	must(tb, os.Mkdir(dir, 0o755))
	for _, layer := range layers {
		Apply(tb, dir, layer)
	}
	s.add(tb, name, dir, check, layers...)
}

func (s *Suite) whiteouts(tb testing.TB) {
	tb.Helper()
	base := s.layer(tb, "whiteouts 1",
		entry{name: "./", mode: 0o751},
		entry{name: "gone", content: "x"}, entry{name: "stays", content: "stays"},
		entry{name: "dir/", uid: 5}, entry{name: "dir/gone", content: "x"}, entry{name: "dir/stays", content: "y"},
		entry{name: "dir/sub/"}, entry{name: "dir/sub/file", content: "z"},
		entry{name: "opaque/"}, entry{name: "opaque/old", content: "old"}, entry{name: "opaque/both", content: "old"},
		entry{name: "opaque/dir/"}, entry{name: "opaque/dir/old"},
		entry{name: "to file/"}, entry{name: "to file/x"},
		entry{name: "to dir", content: "x"},
		entry{name: "to link/"}, entry{name: "to link/x"},
		entry{name: "link", typ: tar.TypeSymlink, content: "dir"},
		entry{name: "again/"}, entry{name: "again/x", content: "x"})
	change := s.layer(tb, "whiteouts 2",
		entry{name: "./", mode: 0o755},
		entry{name: ".wh.gone"}, entry{name: ".wh.never there"},
		entry{name: "dir/", uid: 6}, entry{name: "dir/.wh.gone"}, entry{name: "dir/.wh.sub"},
		entry{name: "opaque/"}, entry{name: "opaque/both", content: "new"}, entry{name: "opaque/" + opaque},
		entry{name: "opaque/dir/"}, entry{name: "opaque/dir/new"},
		entry{name: "to file", content: "a file"},
		entry{name: "to dir/"}, entry{name: "to dir/x", content: "x"},
		entry{name: "to link", typ: tar.TypeSymlink, content: "stays"},
		entry{name: ".wh.link"},
		entry{name: ".wh.again"})
	last := s.layer(tb, "whiteouts 3",
		entry{name: "./", mode: 0o755},
		entry{name: "again/"}, entry{name: "again/y", content: "y"},
		entry{name: "gone/"}, entry{name: "gone/x", content: "x"},
		entry{name: "link/"}, entry{name: "link/x", content: "x"},
		entry{name: "to dir", content: "a file once more"})
	s.stack(tb, "whiteouts", nil, base, change)
	s.stack(tb, "whiteouts and back", nil, base, change, last)
	everything := s.layer(tb, "whiteouts 4", entry{name: "./", mode: 0o700}, entry{name: opaque}, entry{name: "new", content: "new"})
	s.stack(tb, "all deleted", nil, base, change, last, everything)
}

// implied are layers that do not list the directories above their entries.
func (s *Suite) implied(tb testing.TB) {
	tb.Helper()
	base := s.layer(tb, "implied 1",
		entry{name: "./", mode: 0o711},
		entry{name: "usr/", mode: 0o700, uid: 7}, entry{name: "usr/lib/", mode: 0o750, uid: 8},
		entry{name: "lib", typ: tar.TypeSymlink, content: "usr/lib"},
		entry{name: "usr/lib/old", content: "old"})
	change := s.layer(tb, "implied 2", entry{name: "usr/lib/new", content: "new"}, entry{name: "lib/by link", content: "x"},
		entry{name: "usr/.wh.none"})
	check := func(t *testing.T, root string) {
		for name, mode := range map[string]uint32{".": 0o711, "usr": 0o700, "usr/lib": 0o750} {
			if got := lstat(t, root, name).Mode & 0o7777; got != mode {
				t.Errorf("mode of %s is %o, want %o", name, got, mode)
			}
		}
		if b, err := os.ReadFile(filepath.Join(root, "usr/lib/by link")); err != nil || string(b) != "x" {
			t.Errorf("what was packed below a symbolic link: %q, %v", b, err)
		}
	}
	// tar changes the time of directories that it puts something into.
	dir := s.path("implied")
	must(tb, os.Mkdir(dir, 0o755))
	Apply(tb, dir, base)
	for name, content := range map[string]string{"new": "new", "by link": "x"} {
		p := filepath.Join(dir, "usr/lib", name)
		must(tb, os.WriteFile(p, []byte(content), 0o755))
		must(tb, os.Chmod(p, 0o755))
		must(tb, os.Chtimes(p, mtime, mtime))
	}
	must(tb, os.Chtimes(filepath.Join(dir, "usr/lib"), mtime, mtime))
	s.add(tb, "implied directories", dir, check, base, change)
}

// hardLinks spread over layers.
func (s *Suite) hardLinks(tb testing.TB) {
	tb.Helper()
	link := func(name, to string) entry { return entry{name: name, typ: tar.TypeLink, content: to} }
	base := s.layer(tb, "links 1",
		entry{name: "./"}, entry{name: "a", content: "content"}, link("b", "a"), entry{name: "dir/"}, link("dir/c", "a"),
		entry{name: "fifo", typ: tar.TypeFifo}, link("fifo2", "fifo"),
		entry{name: "sym", typ: tar.TypeSymlink, content: "a"}, link("sym2", "sym"))
	gone := s.layer(tb, "links 2", entry{name: "./"}, entry{name: ".wh.a"})
	again := s.layer(tb, "links 3", entry{name: "./"}, entry{name: "a", content: "other"}, link("d", "a"), entry{name: "dir/"}, link("dir/c", "d"))
	counts := func(want map[string]uint64) func(t *testing.T, root string) {
		return func(t *testing.T, root string) {
			inos := map[uint64]string{}
			for name, n := range want {
				st := lstat(t, root, name)
				if uint64(st.Nlink) != n {
					t.Errorf("%s has %d links, want %d", name, st.Nlink, n)
				}
				inos[st.Ino] = name
			}
		}
	}
	s.stack(tb, "hard links", counts(map[string]uint64{"a": 3, "b": 3, "dir/c": 3, "fifo": 2, "fifo2": 2, "sym": 2, "sym2": 2}), base)
	s.stack(tb, "hard links, one deleted", counts(map[string]uint64{"b": 2, "dir/c": 2}), base, gone)
	s.stack(tb, "hard links, some replaced", counts(map[string]uint64{"a": 3, "d": 3, "dir/c": 3, "b": 1}), base, gone, again)
}

// attributes are those that random trees may lack.
func (s *Suite) attributes(tb testing.TB) {
	tb.Helper()
	dir := s.path("attributes")
	must(tb, os.Mkdir(dir, 0o755))
	g := newGenerator(tb, 1, Options{})
	for name, typ := range map[string]uint32{"char": unix.S_IFCHR, "block": unix.S_IFBLK, "fifo": unix.S_IFIFO, "file": unix.S_IFREG} {
		p := filepath.Join(dir, name)
		must(tb, unix.Mknod(p, typ|0o640, int(unix.Mkdev(259, 70000))))
		must(tb, unix.Lsetxattr(p, "trusted.plash", []byte("\x00binary\xff"), 0))
		must(tb, os.Lchown(p, 1<<32-2, 70000))
		must(tb, unix.Chmod(p, 0o6751))
		g.time(p)
	}
	file := filepath.Join(dir, "file")
	must(tb, unix.Setxattr(file, "security.capability", []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0))
	must(tb, unix.Setxattr(file, "user."+strings.Repeat("n", 240), []byte(strings.Repeat("v", 2000)), 0))
	secret := filepath.Join(dir, "secret")
	must(tb, os.WriteFile(secret, []byte("for user 1000"), 0o600))
	must(tb, unix.Setxattr(secret, "system.posix_acl_access", aclFor(1000), 0))
	must(tb, os.WriteFile(filepath.Join(dir, "root's"), []byte("for root"), 0o600))
	must(tb, os.Mkdir(filepath.Join(dir, "inherits"), 0o755))
	must(tb, unix.Setxattr(filepath.Join(dir, "inherits"), "system.posix_acl_default", aclFor(1000), 0))
	WriteTar(tb, dir+".tar", dir, nil)
	s.add(tb, "attributes", dir, func(t *testing.T, root string) {
		for uid, want := range map[int]map[string]error{
			1000: {"secret": nil, "root's": unix.EACCES},
			1001: {"secret": unix.EACCES, "root's": unix.EACCES},
			0:    {"secret": nil, "root's": nil},
		} {
			for name, err := range want {
				if got := openAs(t, uid, root, name); got != err {
					t.Errorf("user %d opens %s: %v, want %v", uid, name, got, err)
				}
			}
		}
	}, dir+".tar")
}

// farOffsets is a file with data beyond what 32 bits can say, which dumping would read
// for long.
func (s *Suite) farOffsets(tb testing.TB) {
	tb.Helper()
	dir := s.path("far")
	must(tb, os.Mkdir(dir, 0o755))
	f, err := os.Create(filepath.Join(dir, "file"))
	must(tb, err)
	const size = 5<<40 + 32<<20
	for _, p := range farPieces {
		_, err := f.WriteAt(make([]byte, p[1]-p[0]), p[0])
		must(tb, err)
	}
	for _, off := range farData {
		_, err := f.WriteAt([]byte(fmt.Sprint("data at ", off)), off)
		must(tb, err)
	}
	must(tb, f.Truncate(size))
	must(tb, f.Close())
	WriteTar(tb, dir+".tar", dir, nil)
	must(tb, os.Remove(filepath.Join(dir, "file")))
	s.cases = append(s.cases, suiteCase{name: "64-bit offsets", layers: []string{dir + ".tar"}, check: checkFar(size), undumped: true})
}

func (s *Suite) bigDirectory(tb testing.TB) {
	tb.Helper()
	n := 10_000
	if testing.Short() {
		n = 3000
	}
	dir := s.path("big")
	must(tb, os.MkdirAll(filepath.Join(dir, "dir"), 0o755))
	for i := range n {
		must(tb, os.WriteFile(filepath.Join(dir, "dir", fmt.Sprintf("entry number %d", i)), nil, 0o644))
	}
	WriteTar(tb, dir+".tar", dir, nil)
	s.add(tb, "big directory", dir, nil, dir+".tar")
}

// manyLayers has stacks of up to a thousand layers. Some are there several times, as
// writing so many blobs takes long.
func (s *Suite) manyLayers(tb testing.TB) {
	tb.Helper()
	const distinct = 50
	var layers []string
	for i := range 1000 {
		if i >= distinct {
			layers = append(layers, layers[i%distinct])
		} else {
			name := fmt.Sprint("many ", i)
			layers = append(layers, s.layer(tb, name, entry{name: "./", mode: 0o755},
				entry{name: fmt.Sprint(i), content: name}, entry{name: "last", content: name}, entry{name: fmt.Sprintf(".wh.%d", (i+distinct-10)%distinct)}))
		}
		switch n := i + 1; n {
		case 1, 2, 9, 40, 1000:
			s.stack(tb, fmt.Sprint("layers: ", n), nil, append([]string(nil), layers[max(0, n-2*distinct):]...)...)
			s.cases[len(s.cases)-1].layers = append([]string(nil), layers...)
		}
	}
}
