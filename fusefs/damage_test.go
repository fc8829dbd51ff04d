package fusefs

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ihucos/plash/cas/erofs"
	"github.com/ihucos/plash/overlay/treetest"
)

// logged mounts with a log, which is what the server has written when read is called.
func logged(t *testing.T) (o Options, read func() string) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return Options{Log: f}, func() string {
		b, err := os.ReadFile(f.Name())
		must(t, err)
		return string(b)
	}
}

// TestShortBlob cuts a blob off, before it is mounted and after.
func TestShortBlob(t *testing.T) {
	needFUSE(t)
	s := newStore(t)
	layer := ingest(t, s, archive(t, tar.Header{Name: "first", Size: 10_000}, tar.Header{Name: "second", Size: 1 << 20}))
	check := func(dir string) {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, "first"))
		if err != nil || len(b) != 10_000 {
			t.Errorf("what is whole: %d bytes, %v", len(b), err)
		}
		for range 3 {
			b, err := os.ReadFile(filepath.Join(dir, "second"))
			if !errors.Is(err, unix.EIO) || bytes.IndexByte(b, 0) >= 0 {
				t.Errorf("what is cut: %d bytes, %v", len(b), err)
			}
		}
	}
	o, log := logged(t)
	dir := mounted(t, s, o, layer)
	must(t, os.Truncate(s.BlobPath(layer), 600_000))
	check(dir)
	if got := log(); strings.Count(got, "\n") != 1 || !strings.Contains(got, layer.String()) {
		t.Errorf("log: %q", got)
	}
	o, log = logged(t)
	check(mounted(t, s, o, layer))
	if got := log(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "expected 2072 blocks") {
		t.Errorf("log: %q", got)
	}
}

// TestDamagedIndex damages an index after it was verified: whatever is asked, the
// answer is an error or right, and the server stays.
func TestDamagedIndex(t *testing.T) {
	needFUSE(t)
	src := t.TempDir()
	treetest.Make(t, src, 3, treetest.Options{Entries: 100})
	s := newStore(t)
	layer := packed(t, s, src)
	ix, err := s.Index(context.Background(), layer)
	must(t, err)
	path := ix.Path()
	must(t, ix.Close())
	whole, err := os.ReadFile(path)
	must(t, err)
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	r := rand.New(rand.NewPCG(5, 5))
	rounds := 15
	if testing.Short() {
		rounds = 4
	}
	for range rounds {
		b := bytes.Clone(whole)
		for range 200 {
			b[1536+r.IntN(len(b)-1536)] = byte(r.Uint32())
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		must(t, err)
		_, err = f.Write(b)
		must(t, errors.Join(err, f.Close()))
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{st.Atim, st.Mtim}, 0))
		o, log := logged(t)
		dir := mounted(t, s, o, layer)
		seen := 0
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if seen++; err != nil || seen > 5000 {
				return fs.SkipDir
			}
			if d.Type().IsRegular() {
				if f, err := os.Open(path); err == nil {
					_, _ = io.CopyN(io.Discard, f, 1<<20)
					f.Close()
				}
			}
			_, _ = unix.Llistxattr(path, make([]byte, 1<<16))
			return nil
		})
		must(t, Check(dir))
		if got := log(); strings.Contains(got, "mistake") || strings.Count(got, "\n") > maxLogLines {
			t.Errorf("log: %.2000s", got)
		}
		must(t, Unmount(dir))
	}
}

// buffer is an image in memory.
type buffer struct{ b []byte }

func (w *buffer) WriteAt(p []byte, off int64) (int, error) {
	if end := int(off) + len(p); end > len(w.b) {
		w.b = append(w.b, make([]byte, end-len(w.b))...)
	}
	return copy(w.b[off:], p), nil
}

// fuzzTree is an image with some of everything.
func fuzzTree(tb testing.TB) []byte {
	tree := erofs.NewTree()
	dev, err := tree.AddDevice(digest.FromString("x").Encoded(), 1<<20)
	must(tb, err)
	put := func(path string, a erofs.Attr, c erofs.Content) {
		must(tb, tree.Put(path, a, []erofs.Xattr{{Name: "user.a", Value: []byte("b")}, {Name: "security.capability", Value: make([]byte, 20)}}, c))
	}
	put("d/file", erofs.Attr{Mode: unix.S_IFREG, Size: 5000}, erofs.Content{Extents: []erofs.Extent{{Len: 5000, Device: dev, Phys: 512}}})
	put("sparse", erofs.Attr{Mode: unix.S_IFREG, Size: 1 << 16}, erofs.Content{Extents: []erofs.Extent{{Off: 4096, Len: 4096, Device: dev, Phys: 512}, {Off: 32768, Len: 512, Device: dev}}})
	put("link", erofs.Attr{Mode: unix.S_IFLNK | 0o777}, erofs.Content{Target: strings.Repeat("t/", 400)})
	put("null", erofs.Attr{Mode: unix.S_IFCHR, Rdev: unix.Mkdev(1, 3)}, erofs.Content{})
	for _, c := range "abcdefghijklmnopqrstuvwxyz" {
		put("many/"+strings.Repeat(string(c), 60), erofs.Attr{Mode: unix.S_IFIFO}, erofs.Content{})
	}
	var w buffer
	_, err = tree.WriteTo(&w)
	must(tb, err)
	return w.b
}

// FuzzFilesystem asks everything of images that are damaged, with the checksum of the
// superblock made right again.
func FuzzFilesystem(f *testing.F) {
	f.Add(fuzzTree(f), uint64(40), int64(0))
	f.Add(fuzzTree(f), uint64(1), int64(-1))
	blob, err := os.Create(filepath.Join(f.TempDir(), "blob"))
	must(f, err)
	f.Cleanup(func() { blob.Close() })
	must(f, blob.Truncate(100_000))
	f.Fuzz(func(t *testing.T, b []byte, node uint64, off int64) {
		if len(b) < 1536 || len(b) > 1<<20 {
			return
		}
		b = bytes.Clone(b)
		binary.LittleEndian.PutUint32(b[1024+36:], uint32(len(b)/erofs.BlockSize))
		binary.LittleEndian.PutUint32(b[1024+56:], 0)
		binary.LittleEndian.PutUint32(b[1024+56:], crc32.Checksum(b[1024:1536], crc32.MakeTable(crc32.Castagnoli)))
		im, err := erofs.OpenVerified(b)
		if err != nil {
			return
		}
		fs := &filesystem{RawFileSystem: fuse.NewDefaultRawFileSystem(), image: im, damage: damageLog{out: io.Discard}}
		for range len(im.Devices()) + 1 {
			fs.devices = append(fs.devices, device{file: blob, fd: int(blob.Fd()), size: 100_000})
		}
		askAll(t, fs, fuse.FUSE_ROOT_ID, off, 60)
		askAll(t, fs, node, off, 10)
	})
}

// askAll asks everything of a node and some of those below it.
func askAll(t *testing.T, fs *filesystem, node uint64, off int64, limit int) {
	nodes := []uint64{node}
	buf := make([]byte, 8192)
	for ; len(nodes) > 0 && limit > 0; limit-- {
		node, nodes = nodes[0], nodes[1:]
		h := &fuse.InHeader{NodeId: node}
		var attr fuse.AttrOut
		fs.GetAttr(nil, &fuse.GetAttrIn{InHeader: *h}, &attr)
		_, _ = fs.Readlink(nil, h)
		var statfs fuse.StatfsOut
		fs.StatFs(nil, h, &statfs)
		if n, st := fs.ListXAttr(nil, h, buf); st.Ok() && int(n) > len(buf) {
			t.Fatalf("a list of %d bytes", n)
		}
		if n, st := fs.GetXAttr(nil, h, "user.a", buf); st.Ok() && int(n) > len(buf) {
			t.Fatalf("a value of %d bytes", n)
		}
		for _, off := range []uint64{0, 4000, uint64(off)} {
			res, st := fs.Read(nil, &fuse.ReadIn{InHeader: *h, Offset: off}, buf)
			if want := min(int64(len(buf)), int64(attr.Size)-int64(off)); st.Ok() && int64(res.Size()) != max(want, 0) {
				t.Fatalf("read of %d at %d of %d: %d bytes", len(buf), off, attr.Size, res.Size())
			}
			for _, whence := range []uint32{3, 4} {
				var out fuse.LseekOut
				if st := fs.Lseek(nil, &fuse.LseekIn{InHeader: *h, Offset: off, Whence: whence}, &out); st.Ok() && (out.Offset < off || out.Offset > attr.Size) {
					t.Fatalf("seek %d from %d of %d: %d", whence, off, attr.Size, out.Offset)
				}
			}
			list := fuse.NewDirEntryList(buf, off)
			if !fs.ReadDirPlus(nil, &fuse.ReadIn{InHeader: *h, Offset: off}, list).Ok() {
				continue
			}
			entries, outs, err := fuse.ParseDirLookupEntries(list.Bytes())
			must(t, err)
			for i, e := range entries {
				var out fuse.EntryOut
				if fs.Lookup(nil, h, e.Name, &out).Ok() && out.NodeId != 0 && len(nodes) < 100 {
					nodes = append(nodes, outs[i].NodeId)
				}
			}
		}
	}
}
