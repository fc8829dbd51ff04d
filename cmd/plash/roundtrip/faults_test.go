package roundtrip

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/ihucos/plash/importexport/imageserver"
	"github.com/ihucos/plash/importexport/registry/registrytest"
)

// A faulty is what a registry does, and what becomes of it.
type faulty struct {
	name   string
	faults registrytest.Faults
	says   string // the error, a regular expression; "": it works all the same
}

// TestFaultyRegistry pulls from a registry that does not do what it should, and pushes to it: what
// comes of it is the image, or an error that says why, and nothing of an image.
func TestFaultyRegistry(t *testing.T) {
	needs(t)
	root, err := imageserver.BusyboxRoot()
	if err != nil {
		t.Skip(err)
	}
	builder := newMachine(t)
	base := filepath.Join(builder.dir, "busybox.tar")
	if err := os.WriteFile(base, root, 0o644); err != nil {
		t.Fatal(err)
	}
	id := builder.must(t, "plash-build", "--image", builder.must(t, "plash-import-tar", base),
		"--run", "head -c 17000000 /dev/urandom >/large", "--layer", "--run", "head -c 3000000 /dev/urandom >/small")
	want := builder.layers(t, id)
	// pulls has a new machine pull an image, and wants it to be this one.
	pulls := func(t *testing.T, m *machine, ref string) {
		t.Helper()
		got := m.must(t, "plash-import-docker", "docker://"+ref)
		if layers := m.layers(t, got); !slices.Equal(layers, want) {
			t.Errorf("layers %v, want %v", layers, want)
		}
		m.must(t, "plash-run", got, "test", "-s", "/small")
	}

	for _, f := range []faulty{
		{"cut every 5 MB", registrytest.Faults{CutEvery: 5_000_000}, ""},
		{"busy and failing now and then", registrytest.Faults{BusyEvery: 3, FailEvery: 4}, ""},
		{"all of that", registrytest.Faults{CutEvery: 5_000_000, BusyEvery: 5, FailEvery: 7}, ""},
		{"manifest cut", registrytest.Faults{CutManifests: 2}, ""},
		{"wrong bytes", registrytest.Faults{Spoil: true}, `expected sha256:\w+, found sha256:\w+`},
		{"wrong layers", registrytest.Faults{SpoilOver: 100_000}, `layer \d of 3, .*expected sha256:\w+, found sha256:\w+`},
		{"another manifest", registrytest.Faults{WrongManifestDigest: true}, `expected sha256:\w+, found sha256:\w+`},
		{"no layers", registrytest.Faults{LoseLayers: true}, `layer \d of 3, .*no such image.*404`},
		{"dead", registrytest.Faults{Dead: 503}, `answers 503 Service Unavailable`},
	} {
		t.Run("pull/"+f.name, func(t *testing.T) {
			t.Parallel()
			r := registrytest.New(t)
			ref := r.Host + "/some/image:1"
			builder.must(t, "plash-push", id, ref)
			m := newMachine(t)
			r.Faults = f.faults
			_, err := m.run("plash-import-docker", "docker://"+ref)
			r.Faults = registrytest.Faults{}
			f.wants(t, err)
			if left := m.must(t, "plash-list", "--quiet"); err != nil && left != "" {
				t.Errorf("there are containers: %q", left)
			}
			pulls(t, m, ref) // nothing is in the way
		})
	}
	for _, f := range []faulty{
		{"cut in the middle", registrytest.Faults{CutUploads: 3}, ""},
		{"cut and forgotten", registrytest.Faults{CutUploads: 2, Forget: true}, ""},
		{"commits lost", registrytest.Faults{LoseCommits: 2}, ""},
		{"busy and failing now and then", registrytest.Faults{BusyEvery: 5, FailEvery: 7}, ""},
		{"other bytes", registrytest.Faults{Mangle: true}, `expected sha256:\w+, found sha256:\w+`},
		{"for reading only", registrytest.Faults{ReadOnly: true}, `answers 405 Method Not Allowed`},
	} {
		t.Run("push/"+f.name, func(t *testing.T) {
			t.Parallel()
			r := registrytest.New(t)
			ref := r.Host + "/some/image:1"
			r.Faults = f.faults
			_, err := builder.run("plash-push", id, ref)
			r.Faults = registrytest.Faults{}
			f.wants(t, err)
			if err != nil {
				if tags := r.Tags("some/image"); len(tags) != 0 {
					t.Errorf("there is %q", tags)
				}
				builder.must(t, "plash-push", id, ref)
			}
			pulls(t, newMachine(t), ref)
		})
	}
}

// wants holds the error against what is wanted.
func (f faulty) wants(t *testing.T, err error) {
	t.Helper()
	switch {
	case f.says == "" && err != nil:
		t.Errorf("%v", err)
	case f.says != "" && err == nil:
		t.Errorf("no error")
	case f.says != "" && !regexp.MustCompile(f.says).MatchString(err.Error()):
		t.Errorf("%v: does not match %s", err, f.says)
	}
}
