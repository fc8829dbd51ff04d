package tarstream

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// treeFile is one file of the tree that archives of other programs are made of.
type treeFile struct {
	name  string
	make  func(path string) error
	mode  uint32
	uid   int
	mtime unix.Timespec
	xattr map[string]string
	need  trait // what an archive must be able to hold for it
}

// trait is what not every format has.
type trait int

const (
	longNames trait = 1 << iota
	sparseFiles
	devices
	bigNumbers
	oldTimes // before 1970
	xattrs
	acls
	nanoseconds
	oddXattrs // with '=' and '%' in the name
	badUTF8
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

var (
	aclAccessValue = "\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x06\x00\xd2\x04\x00\x00" + "\x04\x00\x04\x00\xff\xff\xff\xff" +
		"\x08\x00\x04\x00\xd3\x04\x00\x00" + "\x10\x00\x06\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff"
	aclDefaultValue = "\x02\x00\x00\x00" + "\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x07\x00\xd2\x04\x00\x00" + "\x04\x00\x05\x00\xff\xff\xff\xff" +
		"\x10\x00\x07\x00\xff\xff\xff\xff" + "\x20\x00\x05\x00\xff\xff\xff\xff"
	capValue = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
)

var treeFiles = []treeFile{
	{name: "empty"},
	{name: "small", make: text("hello\n"), mode: 0o4711, uid: 1234},
	{name: "big", make: text(strings.Repeat("0123456789abcdef", 10000))},
	{name: "sub/block", make: text(strings.Repeat("x", 512))},
	{name: "sub/h\u00e4rd", make: link("../small"), mode: 0o4711, uid: 1234},
	{name: "newline\nand\\backslash and space", make: text("x")},
	{name: "symlink", make: symlink("small")},
	{name: "fifo", make: func(p string) error { return unix.Mkfifo(p, 0o600) }, need: devices},
	{name: "null", make: node(unix.S_IFCHR, 1, 3), need: devices},
	{name: "disk", make: node(unix.S_IFBLK, 259, 70000), need: devices},
	{name: "sticky", make: func(p string) error { return os.Mkdir(p, 0o755) }, mode: 0o1777},
	{name: "uid", uid: 3000000, need: bigNumbers},
	{name: "1969", mtime: unix.Timespec{Sec: -86400}, need: oldTimes},
	{name: strings.Repeat("n", 101), make: text("long"), need: longNames},
	{name: strings.Repeat("dir/", 40) + strings.Repeat("n", 200), make: text("longer"), need: longNames},
	{name: "longlink", make: symlink(strings.Repeat("t/", 150)), need: longNames},
	{name: "not\xff\xfeutf8", make: text("x"), need: badUTF8},
	{name: strings.Repeat("\xfe", 120), make: text("x"), need: badUTF8 | longNames},
	{name: "sparse1", make: holes(mib, 64<<10)},
	{name: "sparse2", make: holes(mib+100, 0, 4096, 512<<10, mib)},
	{name: "sparse3", make: manyHoles()},
	{name: "hole", make: holes(mib)},
	{name: "huge", make: holes(9*gib+5, 0, 5*gib, 9*gib), need: sparseFiles | bigNumbers},
	{name: strings.Repeat("s", 120), make: holes(mib, 128<<10), need: longNames},
	{name: "nsec", mtime: unix.Timespec{Sec: 1600000000, Nsec: 120000000}, need: nanoseconds},
	{name: "-1.5", mtime: unix.Timespec{Sec: -2, Nsec: 500000000}, need: nanoseconds | oldTimes},
	{name: "xattrs", xattr: map[string]string{"user.empty": "", "user.bin": "a\nb\x00=c", "trusted.t": "T"}, need: xattrs},
	{name: "oddxattr", xattr: map[string]string{"user.a=b%c": "x"}, need: oddXattrs},
	{name: "cap", mode: 0o755, xattr: map[string]string{"security.capability": capValue}, need: xattrs},
	{name: "acl", mode: 0o664, xattr: map[string]string{xattrACLAccess: aclAccessValue}, need: acls},
	{
		name: "acldir", make: func(p string) error { return os.Mkdir(p, 0o755) },
		xattr: map[string]string{xattrACLDefault: aclDefaultValue}, mode: 0o755, need: acls,
	},
}

func text(s string) func(string) error {
	return func(p string) error { return os.WriteFile(p, []byte(s), 0o644) }
}

func link(target string) func(string) error {
	return func(p string) error { return os.Link(filepath.Join(filepath.Dir(p), target), p) }
}

func symlink(target string) func(string) error {
	return func(p string) error { return os.Symlink(target, p) }
}

func node(mode uint32, major, minor uint32) func(string) error {
	return func(p string) error { return unix.Mknod(p, mode|0o640, int(unix.Mkdev(major, minor))) }
}

// holes makes a file of a size with blocks of data at offsets.
func holes(size int64, offs ...int64) func(string) error {
	return func(p string) error {
		f, err := os.Create(p)
		if err != nil {
			return err
		}
		defer f.Close()
		for i, off := range offs {
			b := bytes.Repeat([]byte{byte('A' + i%26)}, int(min(4096, size-off)))
			if _, err := f.WriteAt(b, off); err != nil {
				return err
			}
		}
		return f.Truncate(size)
	}
}

func manyHoles() func(string) error {
	var offs []int64
	for i := range int64(70) {
		offs = append(offs, i*3*4096)
	}
	return holes(70*3*4096, offs...)
}

// makeTree makes the files whose needs the traits cover.
func makeTree(t *testing.T, traits trait) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("makes device nodes and trusted attributes: needs root")
	}
	dir := t.TempDir()
	for _, f := range treeFiles {
		if f.need&^traits != 0 {
			continue
		}
		if err := f.create(filepath.Join(dir, f.name)); err != nil {
			t.Fatal(err)
		}
	}
	// Directories last: making files in them changed their time.
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return setTime(p, unix.Timespec{})
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func (f *treeFile) create(p string) error {
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return err
	}
	create := f.make
	if create == nil {
		create = text("")
	}
	if err := create(p); err != nil {
		return err
	}
	if err := os.Lchown(p, f.uid, f.uid); err != nil {
		return err
	}
	if f.mode != 0 {
		if err := unix.Chmod(p, f.mode); err != nil {
			return err
		}
	}
	for name, value := range f.xattr {
		if err := unix.Lsetxattr(p, name, []byte(value), 0); err != nil {
			return fmt.Errorf("%s: %s: %w", p, name, err)
		}
	}
	return setTime(p, f.mtime)
}

func setTime(p string, ts unix.Timespec) error {
	if ts == (unix.Timespec{}) {
		ts.Sec = 1500000000
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// readTree returns the entries of a directory tree as an archive should hold
// them, sorted by name.
func readTree(t *testing.T, dir string) []Entry {
	t.Helper()
	var all []Entry
	first := map[uint64]string{} // name of an inode's first link
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		e, err := statEntry(p, &st)
		if err != nil {
			return err
		}
		if e.Name = strings.TrimPrefix(strings.TrimPrefix(p, dir), "/"); e.Name == "" {
			return nil
		}
		if target, ok := first[st.Ino]; ok && st.Nlink > 1 && e.Type != TypeDir {
			e = Entry{Name: e.Name, Type: TypeLink, Linkname: target}
		} else {
			first[st.Ino] = e.Name
		}
		if e.Type == TypeDir {
			e.Name += "/"
		}
		all = append(all, e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func statEntry(p string, st *unix.Stat_t) (e Entry, err error) {
	types := map[uint32]byte{
		unix.S_IFREG: TypeReg, unix.S_IFLNK: TypeSymlink, unix.S_IFCHR: TypeChar, unix.S_IFBLK: TypeBlock,
		unix.S_IFDIR: TypeDir, unix.S_IFIFO: TypeFifo,
	}
	e = Entry{
		Type: types[st.Mode&unix.S_IFMT], Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid,
		MtimeSec: st.Mtim.Sec, MtimeNsec: uint32(st.Mtim.Nsec),
	}
	switch e.Type {
	case TypeReg:
		e.Size = st.Size
		if st.Blocks*512 < st.Size {
			e.Sparse, err = findSegments(p, st.Size)
		}
	case TypeSymlink:
		e.Linkname, err = os.Readlink(p)
	case TypeChar, TypeBlock:
		e.Devmajor, e.Devminor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	}
	if err != nil {
		return e, err
	}
	list := make([]byte, 4096)
	n, err := unix.Llistxattr(p, list)
	if err != nil {
		return e, err
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 4096)
		n, err := unix.Lgetxattr(p, name, value)
		if err != nil {
			return e, err
		}
		e.Xattrs = append(e.Xattrs, Xattr{name, value[:n]})
	}
	e.Xattrs = sortXattrs(e.Xattrs)
	return e, nil
}

func findSegments(p string, size int64) ([]Segment, error) {
	f, err := os.Open(p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	segments := []Segment{}
	for end := int64(0); end < size; {
		start, err := f.Seek(end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return nil, err
		}
		if end, err = f.Seek(start, unix.SEEK_HOLE); err != nil {
			return nil, err
		}
		segments = append(segments, Segment{start, end - start})
	}
	return segments, nil
}

// openData returns a file's data as a sparse archive holds it.
func openData(f *os.File, e *Entry) io.Reader {
	if e.Sparse == nil {
		return f
	}
	var parts []io.Reader
	for _, s := range e.Sparse {
		parts = append(parts, io.NewSectionReader(f, s.Off, s.Len))
	}
	return io.MultiReader(parts...)
}

// hashBlocks hashes content that r has at the segments, holes and zeros left
// out, so that it does not matter which zeros are holes.
func hashBlocks(r io.Reader, e *Entry) (string, error) {
	segments := e.Sparse
	if segments == nil {
		segments = []Segment{{0, e.Size}}
	}
	h := sha256.New()
	sum := func(off int64, block []byte) {
		if len(bytes.Trim(block, "\x00")) > 0 {
			fmt.Fprintf(h, "%d %d\n", off, len(block))
			h.Write(block)
		}
	}
	buf := make([]byte, blockSize)
	for _, s := range segments {
		for off := s.Off; off < s.Off+s.Len; {
			n := min(blockSize-off%blockSize, s.Off+s.Len-off)
			if _, err := io.ReadFull(r, buf[:n]); err != nil {
				return "", fmt.Errorf("%s at %d: %w", e.Name, off, err)
			}
			sum(off, buf[:n])
			off += n
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8]), nil
}

// state is what must be equal of two trees: a description by cleaned name.
type state map[string]string

func (s state) add(e *Entry, data io.Reader, ignore trait) error {
	c := *e
	name := path.Clean("/" + c.Name)[1:]
	if name == "" {
		return nil
	}
	c.Name = name
	if ignore&nanoseconds != 0 {
		c.MtimeNsec = 0
	}
	if ignore&xattrs != 0 {
		c.Xattrs = nil
	}
	line := describe(&c)
	if c.Type == TypeLink {
		line = "link to " + path.Clean("/" + c.Linkname)[1:]
	}
	if c.Type == TypeReg {
		hash, err := hashBlocks(data, e)
		if err != nil {
			return err
		}
		line += " " + hash
	}
	s[name] = line
	return nil
}

func treeState(t *testing.T, dir string, ignore trait) state {
	t.Helper()
	s := state{}
	for _, e := range readTree(t, dir) {
		var f *os.File
		if e.Type == TypeReg {
			var err error
			if f, err = os.Open(filepath.Join(dir, e.Name)); err != nil {
				t.Fatal(err)
			}
		}
		err := s.add(&e, openData(f, &e), ignore)
		if err := errors.Join(err, f.Close()); err != nil && f != nil {
			t.Fatal(err)
		}
	}
	return s
}

func archiveState(t *testing.T, b []byte, ignore trait) state {
	t.Helper()
	all, err := readAll(b)
	if err != nil {
		t.Fatal(err)
	}
	s := state{}
	for _, e := range all {
		if err := s.add(&e, bytes.NewReader(b[e.DataOff:e.DataOff+e.DataLen]), ignore); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func compareStates(t *testing.T, got, want state) {
	t.Helper()
	names := maps.Clone(got)
	maps.Copy(names, want)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if got[name] != want[name] {
			t.Errorf("%.60q\n have %s\n want %s", name, got[name], want[name])
		}
	}
}
