package cas

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/ihucos/plash/cas/erofs"
	"github.com/opencontainers/go-digest"
)

func TestCheck(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	base := ingest(t, s, archive(t, member{name: "a", body: "1"}, member{name: "d/b", body: "2"}))
	top := ingest(t, s, archive(t, member{name: ".wh.a"}, member{name: "d/c", body: "3"}))
	layers := []digest.Digest{base, top}
	viewTree(t, s, layers...)
	blobs, err := s.Blobs()
	must(t, err)
	indexed, chains, err := s.Indexes()
	must(t, err)
	if len(blobs) != 2 || len(indexed) != 2 || len(chains) != 1 || !indexed[top] || !chains[ChainID(layers)] {
		t.Errorf("blobs %v, indexes %v, %v", blobs, indexed, chains)
	}
	for _, c := range []struct {
		name, path string
		check      func() error
		rebuild    func() error
		want       error
	}{
		{"blob", s.BlobPath(top), func() error { return s.CheckBlob(ctx, top, func(int64) {}) }, nil, ErrDigest},
		{"index", s.indexPath(top), func() error { return s.CheckIndex(ctx, top) }, func() error { return s.RebuildIndex(ctx, top) }, erofs.ErrCorrupt},
		{"chain", s.chainPath(ChainID(layers)), func() error { return s.CheckMerged(ctx, layers) }, func() error { return s.RebuildMerged(ctx, layers) }, erofs.ErrCorrupt},
	} {
		must(t, c.check())
		good, err := os.ReadFile(c.path)
		must(t, err)
		must(t, os.Chmod(c.path, 0o644))
		other := bytes.Clone(good)
		other[len(other)/2] ^= 1
		for _, bad := range [][]byte{nil, good[:len(good)-1], append(bytes.Clone(good), 0), other} {
			must(t, os.WriteFile(c.path, bad, 0o644))
			if err := c.check(); !errors.Is(err, c.want) {
				t.Errorf("%s of %d bytes: %v, want %v", c.name, len(bad), err, c.want)
			}
			if c.rebuild == nil {
				must(t, os.WriteFile(c.path, good, 0o644))
				continue
			}
			must(t, c.rebuild())
			must(t, c.check())
			if again, err := os.ReadFile(c.path); err != nil || !bytes.Equal(again, good) {
				t.Errorf("%s: built again, it differs: %v", c.name, err)
			}
		}
	}
	read := int64(0)
	must(t, s.CheckBlob(ctx, base, func(n int64) { read += n }))
	if read != blobs[base] {
		t.Errorf("%d bytes read, want %d", read, blobs[base])
	}
	must(t, os.Remove(s.BlobPath(base)))
	if err := s.CheckBlob(ctx, base, func(int64) {}); !errors.Is(err, ErrNotExist) {
		t.Errorf("no blob: %v", err)
	}
	must(t, os.Remove(s.indexPath(top)))
	must(t, s.CheckIndex(ctx, top)) // it is built when it is wanted
}
