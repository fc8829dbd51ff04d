package cas

import (
	"context"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestViewOver(t *testing.T) {
	s := newStore(t)
	ctx := context.Background()
	base := ingest(t, s, archive(t, member{name: "etc/"}, member{name: "etc/hosts", body: "1"}))
	top := ingest(t, s, archive(t, member{name: "etc/new", body: "2"}, member{name: ".wh.gone"}))
	places := []Place{{"etc/resolv.conf", false}, {"etc/hosts", true}, {"home/joe", true}, {"proc", true}}
	for _, c := range []struct {
		layers []digest.Digest
		want   []string
	}{
		{nil, []string{"", "/etc", "/etc/hosts", "/etc/resolv.conf=", "/home", "/home/joe", "/proc"}},
		{[]digest.Digest{base, top}, []string{
			"", "/etc", "/etc/hosts=1", "/etc/new=2", "/etc/resolv.conf=", "/home", "/home/joe", "/proc",
		}},
	} {
		v, err := s.ViewOver(ctx, places, c.layers)
		must(t, err)
		if got := tree(t, v); !slices.Equal(got, c.want) {
			t.Errorf("%d layers: %q, want %q", len(c.layers), got, c.want)
		}
		root, err := v.Inode(v.Root())
		must(t, err)
		home, err := v.Lookup(&root, "home")
		must(t, err)
		in, err := v.Inode(home.NID)
		must(t, err)
		if in.Mode&0o7777 != 0o755 || in.UID != 0 {
			t.Errorf("a place above another: mode %#o, owner %d", in.Mode, in.UID)
		}
		must(t, v.Close())
	}
	if _, err := s.ViewOver(ctx, []Place{{"../x", true}}, nil); err == nil {
		t.Error("a place outside of the root")
	}
}
