package cas

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ihucos/plash/cas/erofs"
	"github.com/ihucos/plash/cas/tarstream"
	"github.com/opencontainers/go-digest"
)

func TestIndexIsRebuilt(t *testing.T) {
	s := newStore(t)
	ctx := context.Background()
	base := ingest(t, s, archive(t, member{name: "a", body: "1"}, member{name: "d/b", body: "2"}))
	top := ingest(t, s, archive(t, member{name: ".wh.a"}, member{name: "d/c", body: "3"}))
	want := []string{"", "/d", "/d/b=2", "/d/c=3"}
	layers := []digest.Digest{base, top}
	if got := viewTree(t, s, layers...); !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	for _, path := range []string{s.indexPath(base), s.indexPath(top), s.chainPath(ChainID(layers))} {
		good, err := os.ReadFile(path)
		must(t, err)
		for name, damage := range map[string]func(){
			"lost":    func() { must(t, os.Remove(path)) },
			"empty":   func() { must(t, os.WriteFile(path, nil, 0o644)) },
			"cut":     func() { must(t, os.WriteFile(path, good[:len(good)-512], 0o644)) },
			"changed": func() { must(t, os.WriteFile(path, append(bytes.Clone(good[:len(good)-1]), 7), 0o644)) },
			"zeros":   func() { must(t, os.WriteFile(path, make([]byte, len(good)), 0o644)) },
		} {
			must(t, os.Chmod(path, 0o644))
			damage()
			for _, l := range layers {
				ix, err := s.Index(ctx, l)
				must(t, err)
				must(t, ix.Close())
			}
			if got := viewTree(t, s, layers...); !slices.Equal(got, want) {
				t.Errorf("%s %s: got %q, want %q", name, path, got, want)
			}
			if again, err := os.ReadFile(path); err != nil || !bytes.Equal(again, good) {
				t.Errorf("%s %s: built again, it differs: %v", name, path, err)
			}
		}
	}
	must(t, os.RemoveAll(s.path("index")))
	if got := viewTree(t, s, layers...); !slices.Equal(got, want) {
		t.Errorf("without any index: got %q, want %q", got, want)
	}
	must(t, os.RemoveAll(s.path("index")))
	if _, err := s.Collect(map[digest.Digest]bool{base: true, top: true}, nil); err != nil {
		t.Error(err)
	}
	if _, err := s.Index(ctx, digest.FromString("nothing")); !errors.Is(err, ErrNotExist) {
		t.Errorf("no such blob: %v", err)
	}
}

// TestManyLayers merges a long chain, against a model, with and without the merged
// indexes of its parts.
func TestManyLayers(t *testing.T) {
	s := newStore(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	model := map[string]string{}
	var layers []digest.Digest
	for i := range 300 {
		name := fmt.Sprintf("f%d", rnd.IntN(20))
		m := member{name: name, body: fmt.Sprint(i)}
		if rnd.IntN(3) == 0 {
			m = member{name: ".wh." + name}
			delete(model, name)
		} else {
			model[name] = m.body
		}
		layers = append(layers, ingest(t, s, archive(t, m)))
		if i%37 != 0 && i < 298 {
			continue
		}
		want := []string{""}
		for name, body := range model {
			want = append(want, "/"+name+"="+body)
		}
		slices.Sort(want)
		got := viewTree(t, s, layers...)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("%d layers: got %q, want %q", i+1, got, want)
		}
		if !s.HasMerged(layers) {
			t.Errorf("%d layers: the merged index was not kept", i+1)
		}
		// It does not matter which part of the stack it was made from.
		if err := s.CheckMerged(t.Context(), layers); err != nil {
			t.Errorf("%d layers: %v", i+1, err)
		}
	}
	keep := map[digest.Digest]bool{ChainID(layers): true}
	_, err := s.Collect(map[digest.Digest]bool{}, keep)
	must(t, err)
	if !s.HasMerged(layers) || s.HasMerged(layers[:38]) {
		t.Errorf("collection took the wrong indexes")
	}
	entries, err := os.ReadDir(s.path("blobs/sha256"))
	must(t, err)
	if len(entries) != 0 {
		t.Errorf("%d blobs left", len(entries))
	}
}

func TestContainerZero(t *testing.T) {
	s := newStore(t)
	if got := viewTree(t, s); !slices.Equal(got, []string{""}) {
		t.Errorf("no layers: %q", got)
	}
	if ChainID(nil) != "" {
		t.Error("the ChainID of nothing")
	}
	// The example of the OCI image specification's definition, computed by hand.
	a, b := digest.FromString("a"), digest.FromString("b")
	if got, want := ChainID([]digest.Digest{a, b}), digest.FromString(string(a)+" "+string(b)); got != want {
		t.Errorf("ChainID %s, want %s", got, want)
	}
}

// TestSparseContent reads files with holes, one of them not aligned to
// blocks, back at random offsets.
func TestSparseContent(t *testing.T) {
	s := newStore(t)
	data := bytes.Repeat([]byte("0123456789abcdefg"), 1000)
	var b bytes.Buffer
	w := tarstream.NewWriter(&b)
	content := map[string][]byte{}
	put := func(name string, size int64, segs ...tarstream.Segment) {
		must(t, w.WriteHeader(&tarstream.Entry{Name: name, Type: tarstream.TypeReg, Mode: 0o644, Size: size, Sparse: segs}))
		want := make([]byte, size)
		at := int64(0)
		for _, seg := range segs {
			copy(want[seg.Off:seg.Off+seg.Len], data[at:])
			_, err := w.Write(data[at : at+seg.Len])
			must(t, err)
			at += seg.Len
		}
		content[name] = want
	}
	put("aligned", 1<<20+5, tarstream.Segment{Off: 4096, Len: 8192}, tarstream.Segment{Off: 1 << 20, Len: 5})
	put("odd", 100000, tarstream.Segment{Off: 1, Len: 3}, tarstream.Segment{Off: 4095, Len: 2}, tarstream.Segment{Off: 9999, Len: 5000})
	must(t, w.Close())
	d := ingest(t, s, b.Bytes())
	v, err := s.View(context.Background(), []digest.Digest{d})
	must(t, err)
	defer v.Close()
	root, err := v.Inode(v.Root())
	must(t, err)
	rnd := rand.New(rand.NewPCG(1, 2))
	for name, want := range content {
		e, err := v.Lookup(&root, name)
		must(t, err)
		in, err := v.Inode(e.NID)
		must(t, err)
		for range 200 {
			off := rnd.IntN(len(want))
			p := make([]byte, rnd.IntN(20000))
			n, err := v.ReadAt(&in, p, int64(off))
			if n != min(len(p), len(want)-off) || (n < len(p) && err != io.EOF) || !bytes.Equal(p[:n], want[off:off+n]) {
				t.Fatalf("%s: read %d bytes at %d: %d, %v", name, len(p), off, n, err)
			}
		}
		if _, err := v.ReadAt(&in, make([]byte, 1), int64(len(want))); err != io.EOF {
			t.Errorf("%s: read at the end: %v", name, err)
		}
	}
}

// TestFsck has fsck.erofs check an index, if there is one that knows blocks of 512
// bytes; the project's scripts install it.
func TestFsck(t *testing.T) {
	fsck, err := filepath.Abs("../scripts/fsck-erofs")
	must(t, err)
	if _, err := os.Stat(fsck); err != nil {
		t.Skipf("no fsck.erofs: %v", err)
	}
	s := newStore(t)
	var members []member
	for i := range 2000 {
		members = append(members, member{name: fmt.Sprintf("d%d/%s%d", i%7, strings.Repeat("n", i%200), i), body: strings.Repeat("b", i)})
	}
	members = append(members, member{name: "l", link: "x"}, member{name: "h", body: "hard", link: "d1/n1"},
		member{name: "long", link: strings.Repeat("x/", 700)})
	d := ingest(t, s, archive(t, members...))
	// The tool does not take a path with a comma.
	tmp := t.TempDir()
	index, blob := filepath.Join(tmp, "index"), filepath.Join(tmp, "blob")
	must(t, os.Link(s.BlobPath(d), blob))
	must(t, os.Link(s.indexPath(d), index))
	if out, err := exec.Command(fsck, "--extract", "--device="+blob, index).CombinedOutput(); err != nil {
		t.Fatalf("fsck.erofs: %v\n%s", err, out)
	}
}

// TestHugeFile indexes a file of more than 8 GiB.
func TestHugeFile(t *testing.T) {
	s := newStore(t)
	var b bytes.Buffer
	w := tarstream.NewWriter(&b)
	size := int64(9) << 30
	must(t, w.WriteHeader(&tarstream.Entry{
		Name: "huge", Type: tarstream.TypeReg, Size: size,
		Sparse: []tarstream.Segment{{Off: size - 4096, Len: 4096}},
	}))
	_, err := w.Write(bytes.Repeat([]byte("x"), 4096))
	must(t, err)
	must(t, w.Close())
	v, err := s.View(context.Background(), []digest.Digest{ingest(t, s, b.Bytes())})
	must(t, err)
	defer v.Close()
	root, err := v.Inode(v.Root())
	must(t, err)
	e, err := v.Lookup(&root, "huge")
	must(t, err)
	in, err := v.Inode(e.NID)
	must(t, err)
	var got []erofs.Extent
	must(t, v.Extents(&in, func(e erofs.Extent) bool { got = append(got, e); return true }))
	if in.Size != size || len(got) != 1 || got[0].Off != size-4096 || got[0].Len != 4096 {
		t.Errorf("size %d, extents %v", in.Size, got)
	}
}
