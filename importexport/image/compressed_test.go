package image

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ihucos/plash/cas"
	"github.com/opencontainers/go-digest"
)

func newCAS(t *testing.T) *cas.Store {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	if err := cas.Init(dir); err != nil {
		t.Fatal(err)
	}
	cs, err := cas.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return cs
}

func TestCompressed(t *testing.T) {
	cs := newCAS(t)
	layer, other := digest.FromString("layer"), digest.FromString("other")
	if got := Compressed(cs, layer); got != nil {
		t.Errorf("of a layer never seen: %v", got)
	}
	form := func(s string) CompressedForm {
		return CompressedForm{MediaType: "application/x", Digest: digest.FromString(s), Size: 7, From: "host/" + s}
	}
	remember := func(d digest.Digest, s string) {
		t.Helper()
		if err := RememberCompressed(cs, d, form(s)); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []string{"a", "b", "a", "a"} {
		remember(layer, s)
	}
	remember(other, "c")
	if got, want := Compressed(cs, layer), []CompressedForm{form("a"), form("b")}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for i := range 2 * maxForms {
		remember(layer, string(rune('A'+i)))
	}
	if got := Compressed(cs, layer); len(got) != maxForms || got[0] != form(string(rune('A'+2*maxForms-1))) {
		t.Errorf("%d forms, the first %v", len(got), got[0])
	}

	if _, err := CollectCompressed(cs, map[digest.Digest]bool{other: true}, nil); err != nil {
		t.Fatal(err)
	}
	if got := Compressed(cs, layer); got != nil {
		t.Errorf("of a collected layer: %v", got)
	}
	if got := Compressed(cs, other); len(got) != 1 {
		t.Errorf("of a kept layer: %v", got)
	}
	// A power cut tears it: it is as if it had never been there.
	if err := os.WriteFile(filepath.Join(cs.Dir(), compressedFile(other)), []byte(`[{"mediaTy`), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := Compressed(cs, other); got != nil {
		t.Errorf("of a torn file: %v", got)
	}
	remember(other, "d")
	if got := Compressed(cs, other); len(got) != 1 {
		t.Errorf("after a torn file: %v", got)
	}
	for _, bad := range []digest.Digest{"", "sha256:x", "md5:00", digest.Digest("sha512:" + strings.Repeat("0", 128))} {
		if err := RememberCompressed(cs, bad, form("x")); err == nil {
			t.Errorf("%q was taken", bad)
		}
		if got := Compressed(cs, bad); got != nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}
