package erofs

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestDataSize: files count once, and without their holes.
func TestDataSize(t *testing.T) {
	tree := NewTree()
	device, err := tree.AddDevice("blob", 1<<30)
	must(t, err)
	put := func(path string, a Attr, extents ...Extent) {
		t.Helper()
		for i := range extents {
			extents[i].Device = device
		}
		must(t, tree.Put(path, a, nil, Content{Extents: extents}))
	}
	expect := func(want int64) {
		t.Helper()
		if size, err := image(t, tree).DataSize(t.Context()); size != want || err != nil {
			t.Errorf("%d bytes, want %d; %v", size, want, err)
		}
	}
	expect(0)
	put("a/b/small", file(5), Extent{Len: 5, Phys: 512})
	put("empty", file(0))
	put("pipe", Attr{Mode: unix.S_IFIFO | 0o644})
	put("hole", file(1<<40))
	putLink(t, tree, "link", "a/b/small")
	expect(5)
	put("a/sparse", file(1<<20+100), Extent{Off: 8192, Len: 4096, Phys: 4096}, Extent{Off: 1 << 20, Len: 100, Phys: 16384})
	expect(5 + 4096 + 100)
	must(t, tree.Link("z", "a/b/small"))
	must(t, tree.Link("a/again", "a/sparse"))
	expect(5 + 4096 + 100)
}
