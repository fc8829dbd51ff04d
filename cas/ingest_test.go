package cas

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ihucos/plash/cas/erofs"
	"github.com/ihucos/plash/cas/tarstream"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/ulikunitz/xz"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newStore(t testing.TB) *Store {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "a store, with: odd\nletters ü")
	must(t, Init(dir))
	s, err := Open(dir)
	must(t, err)
	return s
}

// member is an entry of a test archive: a directory if the name ends in a slash, a
// link if link is set, else a file with the body.
type member struct{ name, body, link string }

func archive(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := &tar.Header{Name: m.name, Mode: 0o755, Size: int64(len(m.body)), Typeflag: tar.TypeReg}
		switch {
		case strings.HasSuffix(m.name, "/"):
			h.Typeflag = tar.TypeDir
		case m.link != "" && m.body == "hard":
			h.Typeflag, h.Linkname, h.Size, m.body = tar.TypeLink, m.link, 0, ""
		case m.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, m.link
		}
		must(t, w.WriteHeader(h))
		_, err := io.WriteString(w, m.body)
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

func ingest(t testing.TB, s *Store, b []byte) digest.Digest {
	t.Helper()
	st, err := s.Ingest(context.Background(), bytes.NewReader(b), IngestOptions{})
	must(t, err)
	must(t, st.Publish())
	must(t, st.Close())
	return st.Digest()
}

// files lists all files of the store with their sizes.
func files(t testing.TB, s *Store) string {
	t.Helper()
	var out []string
	must(t, filepath.WalkDir(s.Dir(), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != "lock" {
			fi, err := d.Info()
			must(t, err)
			out = append(out, fmt.Sprintf("%s %d", path, fi.Size()))
		}
		return err
	}))
	return strings.Join(out, "\n")
}

// tree lists a merged index with the content of small files.
func tree(t testing.TB, v *View) []string {
	t.Helper()
	var out []string
	var walk func(path string, n erofs.NID)
	walk = func(path string, n erofs.NID) {
		in, err := v.Inode(n)
		must(t, err)
		if in.IsRegular() {
			b := make([]byte, in.Size)
			if n, err := v.ReadAt(&in, b, 0); n != len(b) || (err != nil && err != io.EOF) {
				t.Fatalf("read %s: %d, %v", path, n, err)
			}
			out = append(out, path+"="+string(b))
			return
		}
		out = append(out, path)
		if in.IsDir() {
			must(t, v.ReadDir(&in, func(e erofs.Dirent) bool {
				walk(path+"/"+string(e.Name), e.NID)
				return true
			}))
		}
	}
	walk("", v.Root())
	return out
}

func viewTree(t testing.TB, s *Store, layers ...digest.Digest) []string {
	t.Helper()
	v, err := s.View(context.Background(), layers)
	must(t, err)
	defer func() { must(t, v.Close()) }()
	return tree(t, v)
}

func TestCompressionDoesNotMatter(t *testing.T) {
	plain := archive(t, member{name: "a/"}, member{name: "a/b", body: strings.Repeat("content\n", 1e5)})
	want := digest.FromBytes(plain)
	var gz, multi, zst, x bytes.Buffer
	zw := gzip.NewWriter(&gz)
	_, err := zw.Write(plain)
	must(t, err)
	must(t, zw.Close())
	for _, half := range [][]byte{plain[:1000], plain[1000:]} {
		zw.Reset(&multi)
		_, err := zw.Write(half)
		must(t, err)
		must(t, zw.Close())
	}
	sw, err := zstd.NewWriter(&zst)
	must(t, err)
	_, err = sw.Write(plain)
	must(t, err)
	must(t, sw.Close())
	xw, err := xz.NewWriter(&x)
	must(t, err)
	_, err = xw.Write(plain)
	must(t, err)
	must(t, xw.Close())
	bz, err := pipe("bzip2", plain)
	must(t, err)

	s := newStore(t)
	for name, b := range map[string][]byte{
		"plain": plain, "gzip": gz.Bytes(), "gzip of two members": multi.Bytes(),
		"zstd": zst.Bytes(), "xz": x.Bytes(), "bzip2": bz,
	} {
		if got := ingest(t, s, b); got != want {
			t.Errorf("%s: digest %s, want %s", name, got, want)
		}
		if name == "plain" {
			continue
		}
		before := files(t, s)
		for _, cut := range []int{len(b) / 2, len(b) - 1} {
			st, err := s.Ingest(context.Background(), bytes.NewReader(b[:cut]), IngestOptions{})
			if err == nil {
				t.Errorf("%s cut to %d of %d bytes: digest %s and no error", name, cut, len(b), st.Digest())
			} else if !strings.Contains(err.Error(), "decompress "+name[:2]) {
				t.Errorf("%s cut to %d of %d bytes: %v", name, cut, len(b), err)
			}
		}
		if after := files(t, s); after != before {
			t.Errorf("%s: the store changed: %s", name, after)
		}
	}
}

func pipe(program string, in []byte) ([]byte, error) {
	cmd := exec.Command(program)
	cmd.Stdin = bytes.NewReader(in)
	return cmd.Output()
}

// TestBadLayers gives what must be refused; the store is as before.
func TestBadLayers(t *testing.T) {
	good := archive(t, member{name: "a", body: "x"})
	s := newStore(t)
	for name, tc := range map[string]struct {
		in     []byte
		expect digest.Digest
		want   error
		text   string
	}{
		"empty":            {in: nil, want: nil, text: "empty"},
		"no tar":           {in: bytes.Repeat([]byte("text "), 1000), want: tarstream.ErrHeader, text: "offset 0"},
		"cut":              {in: good[:700], want: tarstream.ErrTruncated, text: `"a" at offset 0`},
		"out of the root":  {in: archive(t, member{name: "ok"}, member{name: "x/../../y"}), want: erofs.ErrPath, text: `"x/../../y" at offset 512`},
		"link to nothing":  {in: archive(t, member{name: "l", body: "hard", link: "nothing"}), want: erofs.ErrLink, text: `"l" at offset 0`},
		"wrong digest":     {in: good, expect: digest.FromString("other"), want: ErrDigest, text: "expected sha256:"},
		"file as a parent": {in: archive(t, member{name: "a", body: "x"}, member{name: "a/b", body: "y"}), want: erofs.ErrPath, text: "not a directory"},
		"cut between two":  {in: archive(t, member{name: "a", body: "x"}, member{name: "b"})[:1024], want: tarstream.ErrTruncated, text: "no end marker"},
		"no end":           {in: append(bytes.Clone(good), make([]byte, maxTrailer+1<<20)...), text: "behind the end"},
		"zip":              {in: []byte("PK\x03\x04 and so on"), want: ErrCompression, text: "zip"},
		"whiteout of root": {in: archive(t, member{name: ".wh.."}), want: erofs.ErrPath},
	} {
		before := files(t, s)
		_, err := s.Ingest(context.Background(), bytes.NewReader(tc.in), IngestOptions{Expect: tc.expect})
		if err == nil || (tc.want != nil && !errors.Is(err, tc.want)) || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: %v", name, err)
		}
		if after := files(t, s); after != before {
			t.Errorf("%s: the store changed: %s", name, after)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Ingest(ctx, bytes.NewReader(good), IngestOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

func TestOddNames(t *testing.T) {
	s := newStore(t)
	d := ingest(t, s, archive(t,
		member{name: "./"},
		member{name: "/abs", body: "1"},
		member{name: "./a//b/./c", body: "2"},
		member{name: "a/b/../d", body: "3"},
		member{name: "dup", body: "old"},
		member{name: "dup", body: "new"},
		member{name: "dir/x", body: "gone"},
		member{name: "dir", body: "a file now"},
		member{name: "file", body: "gone"},
		member{name: "file/"},
		member{name: "file/x", body: "4"},
		member{name: "hard", body: "hard", link: "./a/b/c"},
		member{name: "\xff\xfe", body: "5"},
	))
	want := []string{
		"", "/a", "/a/b", "/a/b/c=2", "/a/d=3", "/abs=1", "/dir=a file now", "/dup=new",
		"/file", "/file/x=4", "/hard=2", "/\xff\xfe=5",
	}
	if got := viewTree(t, s, d); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestCutCompressed says at which entry a compressed stream was cut off.
func TestCutCompressed(t *testing.T) {
	s := newStore(t)
	noise := make([]byte, 3<<20)
	_, err := rand.Read(noise)
	must(t, err)
	var gz bytes.Buffer
	zw := gzip.NewWriter(&gz)
	_, err = zw.Write(archive(t, member{name: "first", body: "x"}, member{name: "second", body: string(noise)}))
	must(t, err)
	must(t, zw.Close())
	_, err = s.Ingest(context.Background(), bytes.NewReader(gz.Bytes()[:gz.Len()/2]), IngestOptions{})
	if want := `tar entry "second" at offset 1024: read: decompress gzip: it is truncated`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestRace(t *testing.T) {
	s := newStore(t)
	b := archive(t, member{name: "f", body: strings.Repeat("x", 3<<20)})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { ingest(t, s, b) })
	}
	wg.Wait()
	entries, err := os.ReadDir(filepath.Dir(s.BlobPath(digest.FromBytes(b))))
	must(t, err)
	if len(entries) != 1 {
		t.Errorf("%d blobs", len(entries))
	}
	if left := scratchEntries(t, s); len(left) > 0 {
		t.Errorf("left in scratch: %q", left)
	}
}

// TestKnownContent imports a file whose content the store has: nothing is written,
// also when the blob goes away before it is published.
func TestKnownContent(t *testing.T) {
	s := newStore(t)
	b := archive(t, member{name: "f", body: "x"})
	path := filepath.Join(t.TempDir(), "f.tar")
	must(t, os.WriteFile(path, b, 0o644))
	d := ingest(t, s, b)
	stage := func() *Staged {
		f, err := os.Open(path)
		must(t, err)
		defer f.Close()
		st, err := s.Ingest(context.Background(), f, IngestOptions{})
		must(t, err)
		if st.unnamed || st.Digest() != d || st.Size() != int64(len(b)) {
			t.Errorf("%+v", st)
		}
		return st
	}
	before := files(t, s)
	st := stage()
	must(t, st.Publish())
	must(t, st.Close())
	if after := files(t, s); after != before {
		t.Errorf("the store changed: %s", after)
	}

	st = stage()
	_, err := s.Collect(nil, nil)
	must(t, err)
	must(t, st.Publish())
	must(t, st.Close())
	if got := viewTree(t, s, d); !slices.Equal(got, []string{"", "/f=x"}) {
		t.Errorf("after the blob was collected and published again: %q", got)
	}

	// A damaged blob of the right size is not taken for the content.
	must(t, os.Chmod(s.BlobPath(d), 0o644))
	other := archive(t, member{name: "g", body: "x"})
	must(t, os.WriteFile(path, other, 0o644))
	if got := ingest(t, s, other); got != digest.FromBytes(other) {
		t.Errorf("digest %s", got)
	}
	// One that is short is put right, though another has the size that it should have.
	must(t, os.Truncate(s.BlobPath(d), 100))
	ingest(t, s, b)
	if got, err := os.ReadFile(s.BlobPath(d)); err != nil || !bytes.Equal(got, b) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestIngestAllow(t *testing.T) {
	s := newStore(t)
	content := archive(t, member{"file", strings.Repeat("x", 3<<20), ""})
	refused := errors.New("too much")
	left := len(content)
	allow := func(n int) error {
		if left -= n; left < 0 {
			return refused
		}
		return nil
	}
	st, err := s.Ingest(t.Context(), bytes.NewReader(content), IngestOptions{Allow: allow})
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	left = len(content) - 1
	if _, err := s.Ingest(t.Context(), bytes.NewReader(content), IngestOptions{Allow: allow}); !errors.Is(err, refused) {
		t.Errorf("one byte more than allowed: %v", err)
	}
}

func TestStageBlob(t *testing.T) {
	s := newStore(t)
	first, err := s.Ingest(t.Context(), bytes.NewReader(archive(t, member{"file", "x", ""})), IngestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := s.StageBlob(first.Digest()); !errors.Is(err, ErrNotExist) {
		t.Errorf("before it was published: %v", err)
	}
	if err := first.Publish(); err != nil {
		t.Fatal(err)
	}
	again, err := s.StageBlob(first.Digest())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.Digest() != first.Digest() || again.Size() != first.Size() {
		t.Errorf("%s of %d bytes, want %s of %d", again.Digest(), again.Size(), first.Digest(), first.Size())
	}
	// It may be collected in the meantime.
	if err := os.Remove(s.BlobPath(first.Digest())); err != nil {
		t.Fatal(err)
	}
	if err := again.Publish(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.BlobPath(first.Digest())); err != nil {
		t.Error(err)
	}
}

// TestShortBlob: a layer that ends behind the last byte of its last file, as umoci insert writes
// it. The kernel cannot read the block that is not whole.
func TestShortBlob(t *testing.T) {
	for _, size := range []int{6, 512 + 6, 3 * 512} {
		s := newStore(t)
		body := strings.Repeat("x", size)
		content := archive(t, member{"a", "first", ""}, member{"file", body, ""})
		content = content[:1024+512+size]
		if _, err := s.Ingest(t.Context(), bytes.NewReader(content), IngestOptions{}); !errors.Is(err, tarstream.ErrTruncated) {
			t.Errorf("without a digest: %v", err)
		}
		st, err := s.Ingest(t.Context(), bytes.NewReader(content), IngestOptions{Expect: digest.FromBytes(content)})
		must(t, err)
		must(t, st.Publish())
		d := st.Digest()
		must(t, st.Close())
		first := viewTree(t, s, d)
		must(t, os.Remove(s.indexPath(d)))
		if again := viewTree(t, s, d); !slices.Equal(again, first) {
			t.Errorf("index built again:\n%s\nand:\n%s", strings.Join(again, "\n"), strings.Join(first, "\n"))
		}
		v, err := s.View(t.Context(), []digest.Digest{d})
		must(t, err)
		root, err := v.Inode(v.Root())
		must(t, err)
		file, err := v.Lookup(&root, "file")
		must(t, err)
		in, err := v.Inode(file.NID)
		must(t, err)
		must(t, v.Extents(&in, func(e erofs.Extent) bool {
			if e.Device == 1 && e.Phys+(e.Len+511)/512*512 > int64(len(content)) {
				t.Errorf("%d bytes: extent %+v ends behind the blob of %d", size, e, len(content))
			}
			return true
		}))
		must(t, v.Close())
	}
}
