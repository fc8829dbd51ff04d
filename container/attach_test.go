package container

import (
	"bytes"
	"errors"
	"io/fs"
	"testing"
)

func TestAttached(t *testing.T) {
	s := newStore(t)
	content := []byte("{\n  \"not\": \"<changed>\"\n}")
	r, err := s.Create(t.Context(), 0, stage(t, s, "a"), CreateOptions{Attached: map[string][]byte{"image-config.json": content}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Attached(r.ID, "image-config.json"); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%q, %v", got, err)
	}
	for name, want := range map[string]error{"manifest.json": fs.ErrNotExist, RecordFile: nil, "../next-id": nil, "1": nil, "": nil} {
		if _, err := s.Attached(r.ID, name); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := s.Attached(r.ID+1, "manifest.json"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	// A container above, and one that is removed, do not mind.
	if _, err := s.Create(t.Context(), r.ID, stage(t, s, "b"), CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), r.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Attached(r.ID, "image-config.json"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	for _, name := range []string{"7", chainFile, "a/b", ".x", "A"} {
		if _, err := s.Create(t.Context(), 0, stage(t, s, "c"), CreateOptions{Attached: map[string][]byte{name: nil}}); err == nil {
			t.Errorf("%q was attached", name)
		}
	}
}
