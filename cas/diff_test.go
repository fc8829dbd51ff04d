package cas

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestDiff(t *testing.T) {
	s := newStore(t)
	long := strings.Repeat("long ", 1<<18) // more than is compared at once
	base := ingest(t, s, archive(t,
		member{name: "a/"}, member{name: "a/kept", body: "kept"}, member{name: "a/gone", body: "gone"},
		member{name: "a.txt", body: "before"}, member{name: "dir/"}, member{name: "dir/x/"}, member{name: "dir/x/y", body: "y"},
		member{name: "kind", body: "a file"}, member{name: "link", link: "a"}, member{name: "long", body: long}))
	layer := ingest(t, s, archive(t,
		member{name: "a/.wh.gone"}, member{name: "a/new/"}, member{name: "a/new/in", body: "in"},
		member{name: "a.txt", body: "behind"}, member{name: ".wh.dir"},
		member{name: "kind/"}, member{name: "kind/in", body: "in"}, member{name: "link", link: "b"},
		member{name: "long", body: long})) // another copy of the same
	tests := []struct {
		name     string
		from, to []digest.Digest
		want     string
	}{
		{"nothing", nil, nil, ""},
		{"same", []digest.Digest{base}, []digest.Digest{base}, ""},
		{
			"layer",
			[]digest.Digest{base},
			[]digest.Digest{base, layer},
			"D /a/gone, A /a/new, A /a/new/in, C /a.txt, D /dir, D /dir/x, D /dir/x/y, C /kind, A /kind/in, C /link",
		},
		{
			"back",
			[]digest.Digest{base, layer},
			[]digest.Digest{base},
			"A /a/gone, D /a/new, D /a/new/in, C /a.txt, A /dir, A /dir/x, A /dir/x/y, C /kind, D /kind/in, C /link",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			must(t, s.Diff(t.Context(), test.from, test.to, func(c Change) error {
				got = append(got, string(c.Kind)+" "+c.Path)
				return nil
			}))
			if text := strings.Join(got, ", "); text != test.want {
				t.Errorf("got  %s\nwant %s", text, test.want)
			}
		})
	}
}

func TestDiffEnds(t *testing.T) {
	s := newStore(t)
	layer := ingest(t, s, archive(t, member{name: "a", body: "a"}, member{name: "b", body: "b"}))
	layers := []digest.Digest{layer}

	stop := errors.New("stop")
	var seen []Change
	err := s.Diff(t.Context(), nil, layers, func(c Change) error {
		seen = append(seen, c)
		return stop
	})
	if !errors.Is(err, stop) || !reflect.DeepEqual(seen, []Change{{Added, "/a"}}) {
		t.Errorf("error %v after %v", err, seen)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Diff(ctx, nil, layers, func(Change) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}

	missing := []digest.Digest{digest.FromString("nothing")}
	if err := s.Diff(t.Context(), layers, missing, func(Change) error { return nil }); !errors.Is(err, ErrNotExist) {
		t.Errorf("error %v", err)
	}
}
