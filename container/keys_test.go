package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var oddNames = []string{
	"plain", "with space", "a/b/../c", "/", ".", "..", "new\nline", "\x00", "\xff\xfe", "-m", "@", "1",
	strings.Repeat("long/", 60), strings.Repeat("x", 100_000), "ünïcode",
}

func TestNames(t *testing.T) {
	s := newStore(t)
	create(t, s, 0, "one")
	create(t, s, 0, "two")
	for i, n := range oddNames {
		if id, ok, err := s.Name(n); ok || err != nil {
			t.Errorf("%.40q before it is set: %d, %v", n, id, err)
		}
		if err := errors.Join(s.SetName(n, 2), s.SetName(n, ID(1+i%2)), s.SetKey(n, ID(2-i%2))); err != nil {
			t.Fatalf("%.40q: %v", n, err)
		}
	}
	for i, n := range oddNames {
		if id, ok, err := s.Name(n); !ok || err != nil || id != ID(1+i%2) {
			t.Errorf("name %.40q: %d, %v, %v", n, id, ok, err)
		}
		if id, ok, err := s.Lookup(n); !ok || err != nil || id != ID(2-i%2) {
			t.Errorf("key %.40q: %d, %v, %v", n, id, ok, err)
		}
		if id, err := s.Resolve("@" + n); err != nil || id != ID(1+i%2) {
			t.Errorf("@%.40q: %d, %v", n, id, err)
		}
	}
	list, err := s.Names()
	if err != nil || len(list) != len(oddNames) {
		t.Fatalf("Names: %d of %d, %v", len(list), len(oddNames), err)
	}
	for i := range list[1:] {
		if list[i].Name >= list[i+1].Name {
			t.Errorf("not sorted: %.40q, %.40q", list[i].Name, list[i+1].Name)
		}
	}
	if err := errors.Join(s.DeleteName("plain"), s.DeleteName("plain")); err != nil {
		t.Error(err)
	}
	if _, ok, err := s.Name("plain"); ok || err != nil {
		t.Errorf("a deleted name: %v, %v", ok, err)
	}
	if _, ok, err := s.Lookup("plain"); !ok || err != nil {
		t.Errorf("deleting a name took away the cache key of that name: %v", err)
	}
	// Container 2 goes, and with it what leads to it; the rest stays.
	if err := s.Remove(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	for i, n := range oddNames[1:] {
		if _, ok, err := s.Name(n); ok != (i%2 == 1) || err != nil {
			t.Errorf("name %.40q after the removal: %v, %v", n, ok, err)
		}
		if _, ok, err := s.Lookup(n); ok != (i%2 == 0) || err != nil {
			t.Errorf("key %.40q after the removal: %v, %v", n, ok, err)
		}
	}
	for _, kind := range []string{namesDir, cacheDir} {
		err := s.eachKey(kind, func(_ string, k keyFile) error {
			if k.id != 1 {
				t.Errorf("%s: %.40q still there", kind, k.key)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestTornKeys(t *testing.T) {
	s := newStore(t)
	create(t, s, 0, "one", "key")
	file := s.path(keyPath(cacheDir, "key"))
	for _, torn := range []string{"", "1", "1\n", "1\nke", "\x00\x00\x00\x00\x00", "-1\nkey", "0x1\nkey", "1\nother key"} {
		if err := os.WriteFile(file, []byte(torn), 0o644); err != nil {
			t.Fatal(err)
		}
		if id, ok, err := s.Lookup("key"); ok || err != nil {
			t.Errorf("%q is taken for container %d, %v", torn, id, err)
		}
	}
	if err := s.SetKey("key", 1); err != nil {
		t.Fatal(err)
	}
	if id, ok, err := s.Lookup("key"); !ok || err != nil || id != 1 {
		t.Errorf("set again: %d, %v, %v", id, ok, err)
	}
}

func TestResolve(t *testing.T) {
	s := newStore(t)
	create(t, s, 0, "one")
	if err := s.SetName("name", 1); err != nil {
		t.Fatal(err)
	}
	for arg, want := range map[string]ID{"0": 0, "00": 0, "1": 1, "01": 1, "@name": 1} {
		if id, err := s.Resolve(arg); err != nil || id != want {
			t.Errorf("%q: %d, %v", arg, id, err)
		}
	}
	for arg, want := range map[string]error{
		"2": ErrNotFound, "@other": ErrNotFound, "99999999999999999999999": ErrNotFound,
		"": ErrBadID, "@": ErrBadID, "-1": ErrBadID, "+1": ErrBadID, "1.0": ErrBadID, " 1": ErrBadID, "one": ErrBadID, "0x1": ErrBadID,
	} {
		if id, err := s.Resolve(arg); !errors.Is(err, want) {
			t.Errorf("%q: %d, %v", arg, id, err)
		}
	}
}

// One at a time has a key, of goroutines as of processes: each opens the file anew.
func TestLockKey(t *testing.T) {
	s := newStore(t)
	var inside, total atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 25 {
				unlock, err := s.LockKey(t.Context(), "a/key")
				if err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d have the lock", n)
				}
				total.Add(1)
				inside.Add(-1)
				unlock()
				unlock() // twice does no harm
			}
		})
	}
	wg.Wait()
	if total.Load() != 8*25 {
		t.Errorf("%d had the lock", total.Load())
	}
}

func TestLockKeyOthersAndContext(t *testing.T) {
	s := newStore(t)
	unlock, err := s.LockKey(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	other, err := s.LockKey(t.Context(), "two")
	if err != nil {
		t.Fatal(err)
	}
	other()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.LockKey(ctx, "one"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a lock that is taken: %v", err)
	}
}

// Odd things in the directories are no keys and no containers, and do not stop anyone.
func TestForeignFiles(t *testing.T) {
	s := newStore(t)
	create(t, s, 0, "one", "key")
	for _, f := range []string{"ids/x", "ids/-1", "ids/007", "names/README", "cache/.hidden", "containers/notes", "containers/0/1/x"} {
		if err := os.WriteFile(s.path(f), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(s.path(treeDir), "0", "lost+found"), 0o755); err != nil {
		t.Fatal(err)
	}
	if list, err := s.List(); err != nil || len(list) != 1 {
		t.Errorf("List: %v, %v", list, err)
	}
	if names, err := s.Names(); err != nil || len(names) != 0 {
		t.Errorf("Names: %v, %v", names, err)
	}
	if _, err := s.Collect(t.Context()); err != nil {
		t.Error(err)
	}
	if got := names(t, s.path(idsDir)); fmt.Sprint(got) != "[1]" {
		t.Errorf("ids after the sweep: %v", got)
	}
	if err := s.Remove(t.Context(), 1); err != nil {
		t.Error(err)
	}
}
