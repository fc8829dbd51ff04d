package build

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/ihucos/plash/cas"
	"github.com/ihucos/plash/container"
)

// shared is what the caches of several stores have together.
type shared struct {
	mu     sync.Mutex
	layers map[string][]byte
}

// memoryCache is one store's way to it.
type memoryCache struct {
	*shared
	st *container.Store
}

func (c memoryCache) Fetch(ctx context.Context, key string) *cas.Staged {
	c.mu.Lock()
	layer, ok := c.layers[key]
	c.mu.Unlock()
	if !ok {
		return nil
	}
	staged, err := c.st.CAS().Ingest(ctx, bytes.NewReader(layer), cas.IngestOptions{})
	if err != nil {
		return nil
	}
	return staged
}

func (c memoryCache) Offer(_ context.Context, key string, layer container.Record) {
	f, err := c.st.CAS().OpenBlob(layer.Layer)
	if err != nil {
		return
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.layers[key] = b
}

func TestSharedCache(t *testing.T) {
	all := &shared{layers: map[string][]byte{}}
	bench := func() *bench {
		b := newBench(t)
		b.Cache = memoryCache{all, b.Containers}
		return b
	}
	actions := []string{"--run", "one", "--layer", "--entrypoint", "/bin/x", "--layer", "--run", "two"}
	first := bench()
	id, ran := first.build(t, actions...)
	if len(ran) != 3 || len(all.layers) != 3 {
		t.Fatalf("ran %q, shared %d", ran, len(all.layers))
	}
	want, err := first.Containers.Get(id)
	if err != nil {
		t.Fatal(err)
	}

	second := bench()
	id, ran = second.build(t, actions...)
	got, err := second.Containers.Get(id)
	if err != nil || len(ran) != 0 || got.Chain != want.Chain || string(got.Config) != string(want.Config) || got.Origin != want.Origin {
		t.Errorf("ran %q: %+v, want %+v, %v", ran, got, want, err)
	}
	if again, _ := second.build(t, actions...); again != id {
		t.Error("another container the second time")
	}
	if _, ran = second.build(t, "--run", "one", "--layer", "--run", "three"); !slices.Equal(ran, []string{"three\n"}) {
		t.Errorf("ran %q", ran)
	}
	if _, ran = first.build(t, "--run", "one", "--layer", "--run", "three"); len(ran) != 0 {
		t.Errorf("ran %q", ran)
	}

	third := bench()
	third.NoCache = true
	if _, ran = third.build(t, actions...); len(ran) != 3 {
		t.Errorf("without cache: ran %q", ran)
	}
	before := len(all.layers)
	if _, ran = bench().build(t, "--run", "date", "--bust-cache"); len(ran) != 1 || len(all.layers) != before {
		t.Errorf("a layer never to be found again: ran %q, %d shared", ran, len(all.layers)-before)
	}

	// What was built before there was a cache is offered when it is used.
	all.layers = map[string][]byte{}
	first.build(t, actions...)
	if _, ran = bench().build(t, actions...); len(ran) != 0 {
		t.Errorf("ran %q", ran)
	}
}

// TestSharedCacheNames shares layers that depend on the names of files, and such that do not.
func TestSharedCacheNames(t *testing.T) {
	all := &shared{layers: map[string][]byte{}}
	inDir(t, "x", "content")
	for i, runs := range []int{1, 0} {
		b := newBench(t)
		b.Cache = memoryCache{all, b.Containers}
		if _, ran := b.build(t, "--copy", "x", "/srv/"); len(ran) != runs {
			t.Errorf("store %d ran %q", i, fmt.Sprint(ran))
		}
	}
}
