package container

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ihucos/plash/cas"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// newStore makes an empty store, in a directory whose name is no help to anyone
// who splits paths or prints them without quotes.
func newStore(t testing.TB) *Store {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "a store: of\n\"things\"")
	if err := cas.Init(dir); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, dir)
	t.Cleanup(func() { checkSound(t, s) })
	return s
}

func openStore(t testing.TB, dir string) *Store {
	t.Helper()
	cs, err := cas.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(cs)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// checkSound fails the test if the store is not what its invariants promise.
func checkSound(t testing.TB, s *Store) {
	t.Helper()
	var inTree []ID
	err := s.walk(func(p place) error {
		id, _ := parseID(p.base())
		inTree = append(inTree, id)
		if at, err := s.locate(id); err != nil || at != p {
			t.Errorf("container %d lies at %.40q, ids/ says %.40q (%v)", id, p, at, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	slices.Sort(inTree)
	records, err := s.List()
	if err != nil {
		t.Error(err)
	}
	var listed []ID
	for _, r := range records {
		listed = append(listed, r.ID)
		if _, err := os.Stat(s.cas.BlobPath(r.Layer)); err != nil {
			t.Errorf("container %d: its blob: %v", r.ID, err)
		}
	}
	if !slices.Equal(inTree, listed) {
		t.Errorf("in the tree are %v, listed are %v", inTree, listed)
	}
	for _, d := range []string{"scratch", locksDir} {
		if left := names(t, s.path(d)); len(left) > 0 {
			t.Errorf("left in %s: %q", d, left)
		}
	}
}

func names(t testing.TB, dir string) []string {
	t.Helper()
	names, err := readNames(dir)
	if err != nil {
		t.Error(err)
	}
	return names
}

// stage ingests a layer of one file that holds content.
func stage(t testing.TB, s *Store, content string) *cas.Staged {
	t.Helper()
	st, err := tryStage(t.Context(), s, content)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

func tryStage(ctx context.Context, s *Store, content string) (*cas.Staged, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	h := &tar.Header{Name: "file", Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(1, 0)}
	if err := errors.Join(w.WriteHeader(h), write(w, content), w.Close()); err != nil {
		return nil, err
	}
	return s.cas.Ingest(ctx, &b, cas.IngestOptions{})
}

func write(w *tar.Writer, content string) error {
	_, err := w.Write([]byte(content))
	return err
}

// create makes a container and fails the test where that fails.
func create(t testing.TB, s *Store, parent ID, content string, keys ...string) Record {
	t.Helper()
	r, err := tryCreate(t.Context(), s, parent, content, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func tryCreate(ctx context.Context, s *Store, parent ID, content string, keys ...string) (Record, error) {
	st, err := tryStage(ctx, s, content)
	if err != nil {
		return Record{}, err
	}
	r, err := s.Create(ctx, parent, st, CreateOptions{Origin: Origin{Kind: "build", From: content}, Keys: keys})
	return r, errors.Join(err, st.Close())
}

func TestCreateAndGet(t *testing.T) {
	s := newStore(t)
	config := json.RawMessage(`{"os":"linux","config":{"Env":["A=<b>&c"]}}`)
	before := time.Now().UTC().Add(-time.Second)
	layer := stage(t, s, "one")
	one, err := s.Create(t.Context(), 0, layer, CreateOptions{Origin: Origin{"import", "alpine"}, Config: config})
	if err != nil {
		t.Fatal(err)
	}
	two := create(t, s, one.ID, "two")
	if one.ID != 1 || two.ID != 2 {
		t.Fatalf("ids %d, %d, want 1, 2", one.ID, two.ID)
	}
	if one.Parent != 0 || one.Depth != 1 || one.Layer != layer.Digest() || one.Size != layer.Size() || one.Created.Before(before) {
		t.Errorf("wrong record: %+v", one)
	}
	if two.Parent != 1 || two.Depth != 2 || two.Chain != cas.ChainID([]digest.Digest{one.Layer, two.Layer}) {
		t.Errorf("wrong record: %+v", two)
	}
	for _, want := range []Record{one, two} {
		got, err := s.Get(want.ID)
		if err != nil {
			t.Fatal(err)
		}
		var a, b any
		if want.Config != nil {
			if err := errors.Join(json.Unmarshal(got.Config, &a), json.Unmarshal(want.Config, &b)); err != nil {
				t.Error(err)
			}
		}
		if fmt.Sprint(a) != fmt.Sprint(b) {
			t.Errorf("config %s, want %s", got.Config, want.Config)
		}
		got.Config, want.Config = nil, nil
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	if one.Origin.Packed() || !two.Origin.Packed() {
		t.Error("Packed is the wrong way round")
	}
	dir, err := s.Path(2)
	if want := filepath.Join(s.cas.Dir(), "containers/0/1/2"); err != nil || dir != want {
		t.Errorf("Path: %q, %v, want %q", dir, err, want)
	}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		t.Errorf("path of a container: %v", err)
	}
	if list, err := s.List(); err != nil || len(list) != 2 || list[0].ID != 1 || list[1].ID != 2 {
		t.Errorf("List: %v, %v", list, err)
	}
}

func TestEmptyRoot(t *testing.T) {
	s := newStore(t)
	r, err := s.Get(0)
	if err != nil || r.ID != 0 || r.Layer != "" || r.Depth != 0 {
		t.Errorf("Get(0): %+v, %v", r, err)
	}
	if chain, err := s.Chain(0); err != nil || len(chain) != 0 {
		t.Errorf("Chain(0): %v, %v", chain, err)
	}
	if dir, err := s.Path(0); err != nil || dir != filepath.Join(s.cas.Dir(), "containers/0") {
		t.Errorf("Path(0): %q, %v", dir, err)
	}
	if err := s.Remove(t.Context(), 0); !errors.Is(err, ErrEmptyRoot) {
		t.Errorf("Remove(0): %v", err)
	}
	if err := s.Touch(0); err != nil {
		t.Errorf("Touch(0): %v", err)
	}
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Errorf("List: %v, %v", list, err)
	}
	if err := s.SetName("nothing", 0); err != nil {
		t.Error(err)
	}
	if id, err := s.Resolve("@nothing"); err != nil || id != 0 {
		t.Errorf("Resolve: %d, %v", id, err)
	}
}

func TestNotFound(t *testing.T) {
	s := newStore(t)
	create(t, s, 0, "one")
	for _, id := range []ID{2, -1, 1 << 62} {
		_, get := s.Get(id)
		_, chain := s.Chain(id)
		_, path := s.Path(id)
		_, used := s.LastUsed(id)
		_, make := s.Create(t.Context(), id, stage(t, s, "x"), CreateOptions{})
		for i, err := range []error{get, chain, path, used, make, s.Touch(id), s.Remove(t.Context(), id), s.SetKey("k", id), s.SetName("n", id)} {
			if !errors.Is(err, ErrNotFound) {
				t.Errorf("id %d, call %d: %v", id, i, err)
			}
		}
	}
	if err := s.Remove(t.Context(), 1, 2); !errors.Is(err, ErrNotFound) {
		t.Errorf("Remove(1, 2): %v", err)
	}
	if _, err := s.Get(1); err != nil {
		t.Errorf("a removal that failed has removed something: %v", err)
	}
	if _, err := s.Collect(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestBadConfig(t *testing.T) {
	s := newStore(t)
	if _, err := s.Create(t.Context(), 0, stage(t, s, "x"), CreateOptions{Config: json.RawMessage("{")}); err == nil {
		t.Error("a config that is no JSON was taken")
	}
}

func TestLongChain(t *testing.T) {
	s := newStore(t)
	const depth = 1500 // its path is longer than PATH_MAX
	layer := stage(t, s, "layer")
	if err := layer.Publish(); err != nil {
		t.Fatal(err)
	}
	records := makeChain(t, s, layer, depth)
	top := records[depth-1].ID
	dir, err := s.Path(top)
	if err != nil || len(dir) <= unix.PathMax || !strings.HasSuffix(dir, "/1499/1500") {
		t.Fatalf("path of %d bytes, %v", len(dir), err)
	}
	for _, d := range []int{1, 2, stretch - 1, stretch, stretch + 1, 1000, depth} {
		chain, err := s.Chain(ID(d))
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(chain) != fmt.Sprint(records[:d]) {
			t.Fatalf("chain of %d layers is wrong", d)
		}
	}
	if r, err := s.Get(top); err != nil || fmt.Sprint(r) != fmt.Sprint(records[depth-1]) {
		t.Errorf("Get: %+v, %v", r, err)
	}
	if err := s.Touch(top); err != nil {
		t.Error(err)
	}
	if id, err := s.Resolve("1500"); err != nil || id != top {
		t.Errorf("Resolve: %d, %v", id, err)
	}
	if list, err := s.List(); err != nil || len(list) != depth {
		t.Errorf("List: %d containers, %v", len(list), err)
	}
	// One more by the front door, then away with the upper part and the rest.
	if r := create(t, s, top, "top"); r.Depth != depth+1 {
		t.Errorf("depth %d", r.Depth)
	}
	if err := s.Remove(t.Context(), 1400); err != nil {
		t.Fatal(err)
	}
	if list, err := s.List(); err != nil || len(list) != 1399 {
		t.Errorf("List: %d containers, %v", len(list), err)
	}
	if err := s.Remove(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if left := append(names(t, s.path(idsDir)), names(t, s.path("blobs/sha256"))...); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// makeChain makes a chain of n containers of one published layer where they
// shall lie, without the syncs that make Create slow.
func makeChain(t testing.TB, s *Store, layer *cas.Staged, n int) []Record {
	t.Helper()
	var records []Record
	var below Record
	at := place("0")
	dir, err := openDir(unix.AT_FDCWD, s.path(treeDir, "0"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		r := Record{
			ID: ID(i + 1), Parent: ID(i), Layer: layer.Digest(), Chain: cas.NextChainID(below.Chain, layer.Digest()),
			Depth: i + 1, Size: layer.Size(), Created: time.Unix(int64(i), 0).UTC(), Origin: Origin{"build", "touch /file"},
		}
		at = place(at.file(r.ID.String()))
		w := &batch{}
		w.write(s.idFile(r.ID), []byte(at+"\n"))
		if err := s.writeRecord(w, r, fmt.Sprintf("/proc/self/fd/%d/%d", dir.Fd(), r.ID)); err != nil {
			t.Fatal(err)
		}
		w.close()
		inner, err := openDir(int(dir.Fd()), r.ID.String())
		if err = errors.Join(err, w.err, dir.Close()); err != nil {
			t.Fatal(err)
		}
		records, below, dir = append(records, r), r, inner
	}
	if err := dir.Close(); err != nil {
		t.Fatal(err)
	}
	return records
}

// The chain files are a shortcut: without them a chain is read one by one.
func TestChainWithoutChainFiles(t *testing.T) {
	s := newStore(t)
	layer := stage(t, s, "layer")
	if err := layer.Publish(); err != nil {
		t.Fatal(err)
	}
	records := makeChain(t, s, layer, 2*stretch+1)
	dir, err := s.Path(stretch)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, chainFile)
	for _, damage := range []func() error{
		func() error { return os.WriteFile(file, []byte(`{"version":1,"records":[]}`), 0o644) },
		func() error { return os.WriteFile(file, []byte(`{"ver`), 0o644) },
		func() error { return os.Remove(file) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if chain, err := s.Chain(2*stretch + 1); err != nil || fmt.Sprint(chain) != fmt.Sprint(records) {
			t.Errorf("chain is wrong: %v", err)
		}
	}
}

func TestDamagedRecords(t *testing.T) {
	s := newStore(t)
	r := create(t, s, 0, "one")
	good, err := os.ReadFile(s.path("containers/0/1/record.json"))
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) string {
		if !strings.Contains(string(good), old) {
			t.Fatalf("no %s in %s", old, good)
		}
		return strings.Replace(string(good), old, new, 1)
	}
	for what, content := range map[string]string{
		"empty":   "",
		"cut":     string(good[:len(good)/2]),
		"id":      replace(`"id":1`, `"id":7`),
		"parent":  replace(`"parent":0`, `"parent":7`),
		"depth":   replace(`"depth":1`, `"depth":2`),
		"version": replace(`"version":1`, `"version":0`),
		"newer":   replace(`"version":1`, `"version":2`),
		"digest":  replace(string(r.Layer), "sha256:../../etc/passwd"),
		"list":    "[]",
	} {
		if err := os.WriteFile(s.path("containers/0/1/record.json"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := s.Get(1)
		if errors.Is(err, ErrDamaged) == (what == "newer") || err == nil || !strings.Contains(err.Error(), "container 1") {
			t.Errorf("%s: Get: %v", what, err)
		}
		_, err = s.Collect(t.Context())
		if err == nil {
			t.Errorf("%s: blobs were collected without knowing which are needed", what)
		}
		if _, err := os.Stat(s.cas.BlobPath(r.Layer)); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	unknown := replace(`"version":1`, `"version":1,"colour":{"a":[1]}`)
	if err := os.WriteFile(s.path("containers/0/1/record.json"), []byte(unknown), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(1); err != nil || fmt.Sprint(got) != fmt.Sprint(r) {
		t.Errorf("unknown fields: %+v, %v", got, err)
	}
	for _, bad := range []string{"0/2\n", "1\n", "0/1/../1\n", "/0/1\n", "0//1\n", "0/01\n", "0/0/1\n"} {
		if err := os.WriteFile(s.idFile(1), []byte(bad), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(1); !errors.Is(err, ErrDamaged) {
			t.Errorf("ids/1 is %q: %v", bad, err)
		}
	}
	for _, torn := range []string{"", "0/1", "0/"} {
		if err := os.WriteFile(s.idFile(1), []byte(torn), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(1); !errors.Is(err, ErrNotFound) {
			t.Errorf("ids/1 is %q: %v", torn, err)
		}
	}
	if err := os.WriteFile(s.idFile(1), []byte("0/1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestTouch(t *testing.T) {
	s := newStore(t)
	create(t, s, 0, "one")
	file := s.path("containers/0/1/record.json")
	for _, c := range []struct {
		ago     time.Duration
		touched bool
	}{{touchEvery / 2, false}, {2 * touchEvery, true}} {
		then := time.Now().Add(-c.ago).Truncate(time.Second)
		if err := os.Chtimes(file, then, then); err != nil {
			t.Fatal(err)
		}
		if err := s.Touch(1); err != nil {
			t.Fatal(err)
		}
		used, err := s.LastUsed(1)
		if err != nil || used.Equal(then) == c.touched {
			t.Errorf("used %v ago: now %v, %v", c.ago, used, err)
		}
	}
}

func TestNoDescriptorIsHeld(t *testing.T) {
	s := newStore(t)
	before := names(t, "/proc/self/fd")
	for i := range 3 {
		create(t, s, ID(i), fmt.Sprint(i), "key")
	}
	if _, err := s.Chain(3); err != nil {
		t.Error(err)
	}
	if err := s.Remove(t.Context(), 2); err != nil {
		t.Error(err)
	}
	if _, _, err := s.Lookup("key"); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(9); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if after := names(t, "/proc/self/fd"); len(after) > len(before) {
		t.Errorf("descriptors before %v, after %v", before, after)
	}
}
